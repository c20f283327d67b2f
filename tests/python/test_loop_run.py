"""run_forever, run_until_complete, stop, close: states, nesting, exceptions that get out."""

import asyncio
import gc
import sys
import threading
import warnings

import pytest
from helpers import run_turns


class TestRunUntilComplete:
    def test_result(self, loop):
        async def main():
            return 42

        assert loop.run_until_complete(main()) == 42

    def test_exception(self, loop):
        async def main():
            raise LookupError("x")

        with pytest.raises(LookupError, match="x"):
            loop.run_until_complete(main())

    def test_in_rows(self, loop):
        async def main(number):
            await asyncio.sleep(0)
            return number

        for number in range(300):
            assert loop.run_until_complete(main(number)) == number

    def test_a_future(self, loop):
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, "late")
        assert loop.run_until_complete(future) == "late"

    def test_a_done_future(self, loop):
        future = loop.create_future()
        future.set_result(1)
        assert loop.run_until_complete(future) == 1

    def test_a_task(self, loop):
        async def main():
            return asyncio.current_task()

        task = loop.create_task(main())
        assert loop.run_until_complete(task) is task
        assert isinstance(task, asyncio.Task)

    def test_an_awaitable_object(self, loop):
        class Awaitable:
            def __await__(self):
                yield from asyncio.sleep(0).__await__()
                return 3

        assert loop.run_until_complete(Awaitable()) == 3

    def test_a_cancelled_task(self, loop):
        async def main():
            asyncio.current_task().cancel("why")
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(main())

    def test_no_awaitable(self, loop):
        with pytest.raises(TypeError):
            loop.run_until_complete(42)
        with pytest.raises(TypeError):
            loop.run_until_complete(lambda: None)
        with pytest.raises(TypeError):
            loop.run_until_complete(None)

    def test_a_future_of_another_loop(self, loop, new_loop):
        other = new_loop()
        with pytest.raises(ValueError, match="loop"):
            loop.run_until_complete(other.create_future())

    def test_stopped_before_the_end(self, loop):
        async def main():
            loop.stop()
            await loop.create_future()

        task = loop.create_task(main())
        with pytest.raises(RuntimeError, match="^Event loop stopped before Future completed.$"):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    def test_stopped_before_the_end_leaves_no_callback_behind(self, loop):
        future = loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError):
            loop.run_until_complete(future)
        future.set_result(1)
        # The future's completion must not stop this later run.
        seen = []
        loop.call_later(0.002, seen.append, 1)
        loop.call_later(0.003, loop.stop)
        loop.run_forever()
        assert seen == [1]

    def test_the_root_callback_is_asyncios_own(self, loop):
        # AnyIO finds the root task by the identity of this callback.
        async def main():
            return [callback for callback, _ in asyncio.current_task()._callbacks]

        found = loop.run_until_complete(main())
        assert asyncio.base_events._run_until_complete_cb in found


class TestStop:
    def test_stop_before_run_runs_one_turn(self, loop):
        seen = []
        loop.stop()
        loop.call_soon(seen.append, 1)
        loop.call_soon(lambda: loop.call_soon(seen.append, 2))
        loop.run_forever()
        assert seen == [1]

    def test_the_stop_is_used_up(self, loop):
        loop.stop()
        loop.run_forever()
        seen = []
        loop.call_later(0.001, lambda: (seen.append(1), loop.stop()))
        loop.run_forever()
        assert seen == [1]

    def test_stop_twice(self, loop):
        loop.call_soon(loop.stop)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()

    def test_stop_does_not_wait_for_io(self, loop):
        loop.call_later(1000, print)
        loop.stop()
        loop.run_forever()

    def test_stop_on_a_closed_loop(self, new_loop):
        loop = new_loop()
        loop.close()
        loop.stop()


class TestNesting:
    def test_run_forever_inside(self, loop):
        seen = []

        def nested():
            with pytest.raises(RuntimeError, match="^This event loop is already running$"):
                loop.run_forever()
            seen.append(1)
            loop.stop()

        loop.call_soon(nested)
        loop.run_forever()
        assert seen == [1]

    def test_run_until_complete_inside(self, loop):
        async def main():
            with pytest.raises(RuntimeError, match="^This event loop is already running$"):
                loop.run_until_complete(loop.create_future())
            return "alive"

        assert loop.run_until_complete(main()) == "alive"

    def test_another_loop_inside(self, loop, new_loop):
        other = new_loop()
        expected = "^Cannot run the event loop while another loop is running$"

        async def main():
            with pytest.raises(RuntimeError, match=expected):
                other.run_until_complete(other.create_future())
            with pytest.raises(RuntimeError, match=expected):
                other.run_forever()

        loop.run_until_complete(main())
        assert not other.is_running()

    def test_asyncio_run_inside(self, loop):
        async def inner():
            pass

        async def main():
            coro = inner()
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                asyncio.run(coro)
            coro.close()

        loop.run_until_complete(main())

    def test_the_running_loop(self, loop):
        async def main():
            assert asyncio.get_running_loop() is loop
            assert asyncio.get_event_loop() is loop
            assert loop.is_running()

        loop.run_until_complete(main())
        assert asyncio._get_running_loop() is None
        assert not loop.is_running()

    def test_thread_id(self, loop):
        seen = []
        assert loop._thread_id is None
        loop.call_soon(lambda: seen.append(loop._thread_id))
        run_turns(loop)
        assert seen == [threading.get_ident()]
        assert loop._thread_id is None

    def test_close_while_running(self, loop):
        def callback():
            with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
                loop.close()
            loop.stop()

        loop.call_soon(callback)
        loop.run_forever()
        assert not loop.is_closed()
        run_turns(loop)

    def test_run_in_a_second_thread_while_running(self, loop):
        errors = []

        calls = [loop.run_forever, lambda: loop.run_until_complete(future)]
        if sys.version_info[:3] == (3, 13, 0) and isinstance(loop, asyncio.SelectorEventLoop):
            del calls[1]  # the first error made this release forget that the loop runs

        def second():
            for call in calls:
                try:
                    call()
                except RuntimeError as exc:
                    errors.append(str(exc))
            loop.call_soon_threadsafe(loop.stop)

        future = loop.create_future()
        thread = threading.Thread(target=second)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        assert errors == ["This event loop is already running"] * len(calls)


class TestWayOut:
    """KeyboardInterrupt and SystemExit leave run_forever; everything else stays inside."""

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_a_callback(self, loop, exc_type):
        seen = []

        def callback():
            raise exc_type("out")

        loop.call_soon(callback)
        loop.call_soon(seen.append, 1)
        with pytest.raises(exc_type, match="out"):
            loop.run_forever()
        assert not loop.is_running() and seen == []
        assert asyncio._get_running_loop() is None
        # The rest of the turn is still there.
        run_turns(loop)
        assert seen == [1]

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_a_timer(self, loop, exc_type):
        def callback():
            raise exc_type

        loop.call_later(0, callback)
        with pytest.raises(exc_type):
            loop.run_forever()
        run_turns(loop)

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_the_main_task(self, loop, exc_type):
        async def main():
            await asyncio.sleep(0)
            raise exc_type

        with pytest.raises(exc_type):
            loop.run_until_complete(main())
        run_turns(loop)

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_another_task(self, loop, exc_type):
        async def other():
            raise exc_type

        async def main():
            await loop.create_future()

        task = loop.create_task(other())
        waiting = loop.create_task(main())
        with pytest.raises(exc_type):
            loop.run_until_complete(waiting)
        assert task.done() and type(task.exception()) is exc_type
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(waiting)

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_a_done_callback(self, loop, exc_type):
        def callback(future):
            raise exc_type

        future = loop.create_future()
        future.add_done_callback(callback)
        future.set_result(None)
        with pytest.raises(exc_type):
            loop.run_forever()

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_out_of_the_exception_handler(self, loop, exc_type):
        def handler(loop, context):
            raise exc_type

        loop.set_exception_handler(handler)
        loop.call_soon(lambda: 1 / 0)
        with pytest.raises(exc_type):
            loop.run_forever()
        run_turns(loop)

    @pytest.mark.parametrize(
        "exc_type", [Exception, BaseException, GeneratorExit, asyncio.CancelledError, StopIteration]
    )
    def test_the_others_stay_inside(self, loop, asyncio_log, exc_type):
        def callback():
            raise exc_type("in")

        loop.call_soon(callback)
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is exc_type

    def test_a_stop_before_the_exception_does_not_linger(self, loop):
        def callback():
            loop.stop()
            raise SystemExit

        loop.call_soon(callback)
        with pytest.raises(SystemExit):
            loop.run_forever()
        seen = []
        loop.call_later(0.001, lambda: (seen.append(1), loop.stop()))
        loop.run_forever()
        assert seen == [1]

    def test_the_traceback_leads_to_the_callback(self, loop):
        def the_culprit():
            raise SystemExit(3)

        loop.call_soon(the_culprit)
        with pytest.raises(SystemExit) as caught:
            loop.run_forever()
        assert caught.value.code == 3
        assert [entry.name for entry in caught.traceback][-1] == "the_culprit"


class TestClose:
    def test_close_stops_timers(self, new_loop):
        loop = new_loop()
        loop.call_later(0, print)
        loop.close()
        assert not loop.is_running() and loop.is_closed()

    def test_unclosed_warns(self, new_loop, kind):
        import conftest

        loop = conftest.make_loop(kind)
        text = repr(loop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del loop
            gc.collect()
        messages = [w for w in caught if issubclass(w.category, ResourceWarning)]
        assert f"unclosed event loop {text}" in [str(w.message) for w in messages]

    def test_runner_and_context(self, kind, new_loop):
        with asyncio.Runner(loop_factory=new_loop) as runner:

            async def main():
                return type(asyncio.get_running_loop())

            assert runner.run(main()) is type(runner.get_loop())
            loop = runner.get_loop()
        assert loop.is_closed()

    def test_set_event_loop(self, loop):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop(loop)
            try:
                assert asyncio.get_event_loop() is loop
            finally:
                asyncio.set_event_loop(None)

    def test_many_loops_at_once(self, new_loop):
        loops = [new_loop() for _ in range(20)]

        async def main(number):
            await asyncio.sleep(0)
            return number

        for number, loop in enumerate(loops):
            assert loop.run_until_complete(main(number)) == number
        for loop in loops:
            loop.close()

    def test_loops_in_many_threads(self, new_loop):
        results = []

        def work(number):
            loop = new_loop()

            async def main():
                await asyncio.sleep(0.001)
                return number

            results.append(loop.run_until_complete(main()))
            loop.close()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == list(range(10))

    def test_make_and_close_many(self, new_loop):
        from conftest import descriptors

        first = new_loop()
        run_turns(first)
        first.close()
        before = len(descriptors())
        for _ in range(100):
            loop = new_loop()
            run_turns(loop)
            loop.close()
        assert len(descriptors()) == before


class TestTaskFactory:
    def test_default(self, loop):
        assert loop.get_task_factory() is None

    def test_custom(self, loop):
        made = []

        def factory(loop, coro, **kwargs):
            task = asyncio.Task(coro, loop=loop, **kwargs)
            made.append(task)
            return task

        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory

        async def child():
            return asyncio.current_task()

        async def main():
            task = asyncio.create_task(child(), name="the child")
            assert await task is task
            assert task.get_name() == "the child"
            return task

        task = loop.run_until_complete(main())
        assert task in made and len(made) == 2
        loop.set_task_factory(None)
        assert loop.get_task_factory() is None

    def test_not_callable(self, loop):
        with pytest.raises(TypeError, match="^task factory must be a callable or None$"):
            loop.set_task_factory(42)

    def test_names_and_contexts(self, loop):
        import contextvars

        var = contextvars.ContextVar("var")
        context = contextvars.copy_context()
        context.run(var.set, 5)

        async def child():
            return var.get()

        async def main():
            task = loop.create_task(child(), name="n", context=context)
            assert task.get_name() == "n"
            return await task

        assert loop.run_until_complete(main()) == 5

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are 3.12's")
    def test_eager_factory(self, loop):
        loop.set_task_factory(asyncio.eager_task_factory)
        order = []

        async def child():
            order.append("child")

        async def main():
            task = asyncio.create_task(child())
            order.append("main")
            assert task.done()
            await task

        loop.run_until_complete(main())
        assert order == ["child", "main"]


class TestRegistry:
    def test_all_tasks_and_current_task(self, loop):
        async def child():
            await loop.create_future()

        async def main():
            me = asyncio.current_task()
            assert asyncio.current_task(loop) is me
            assert asyncio.all_tasks() == {me}
            tasks = {asyncio.create_task(child()) for _ in range(10)}
            assert asyncio.all_tasks() == tasks | {me}
            await asyncio.sleep(0)
            assert asyncio.all_tasks(loop) == tasks | {me}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert asyncio.all_tasks() == {me}
            return me

        task = loop.run_until_complete(main())
        assert asyncio.all_tasks(loop) == set()
        assert isinstance(task, asyncio.Task)
        assert asyncio.current_task(loop) is None

    def test_no_current_task_in_callbacks(self, loop):
        seen = []

        async def main():
            done = loop.create_future()

            def callback():
                seen.append(asyncio.current_task())
                done.set_result(None)

            loop.call_soon(callback)
            await done
            seen.append(asyncio.current_task())

        task = loop.create_task(main())
        loop.run_until_complete(task)
        assert seen == [None, task]

    def test_tasks_of_another_loop_are_not_listed(self, new_loop):
        first, second = new_loop(), new_loop()

        async def sleeper():
            await asyncio.Event().wait()

        task = first.create_task(sleeper())
        assert asyncio.all_tasks(first) == {task}
        assert asyncio.all_tasks(second) == set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            first.run_until_complete(task)

    def test_outside_of_a_run(self, loop):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.all_tasks()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.current_task()
