"""gyre.Task against asyncio.Task, on both loops: steps, cancellation, errors, attributes."""

import asyncio
import contextvars
import gc
import io
import sys
import types as pytypes
import weakref

import gyre
import pytest
from task_types import ASYNCIO, GYRE, both, turn, turns

pytestmark = both

var = contextvars.ContextVar("var", default="default")


async def give(value):
    await turn()
    return value


async def fail(exc):
    await turn()
    raise exc


async def forever(loop):
    await loop.create_future()


# ---- results ---------------------------------------------------------------------------------


def test_life(loop, types):
    task = types.Task(give(1), loop=loop, name="mine")
    assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
    assert not task.done() and task.get_loop() is loop and task.get_name() == "mine"
    assert asyncio.iscoroutine(task.get_coro())
    with pytest.raises(asyncio.InvalidStateError):
        task.result()
    assert loop.run_until_complete(task) == 1
    assert task.done() and not task.cancelled() and task.exception() is None
    assert task._state == "FINISHED" and task.cancel() is False
    for method in (task.set_result, task.set_exception):
        with pytest.raises(RuntimeError, match="Task does not support"):
            method(None)


def test_done_callbacks(loop, types):
    seen = []

    async def gives():
        return "result"

    task = types.Task(gives(), loop=loop)
    kept, removed = seen.append, lambda task: seen.append("removed")
    task.add_done_callback(kept)
    task.add_done_callback(removed)
    task.add_done_callback(removed)
    assert task.remove_done_callback(removed) == 2
    assert task.remove_done_callback(removed) == 0
    assert loop.run_until_complete(task) == "result"
    loop.run_until_complete(turn())
    assert seen == [task]
    task.add_done_callback(kept)
    loop.run_until_complete(turn())
    assert seen == [task, task]


def test_exception(loop, types):
    async def main():
        task = types.Task(fail(KeyError("k")), loop=loop)
        with pytest.raises(KeyError):
            await task
        assert task.exception().args == ("k",) and not task.cancelled()
        return task

    task = loop.run_until_complete(main())
    with pytest.raises(KeyError):
        task.result()


@pytest.mark.parametrize("kind_of_exit", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop(loop, types, kind_of_exit):
    async def leave():
        await turn()
        raise kind_of_exit("now")

    task = types.Task(leave(), loop=loop)
    loop.call_later(60, loop.stop)
    with pytest.raises(kind_of_exit):
        loop.run_forever()
    assert task.done() and isinstance(task.exception(), kind_of_exit)
    assert loop.run_until_complete(give(2)) == 2


@pytest.mark.parametrize("awaited", [ASYNCIO, GYRE], ids=repr)
def test_awaits_across_types(loop, types, awaited):
    """Our Task on a Future or Task of asyncio's, and the reverse."""

    async def waits_for_future():
        future = awaited.Future(loop=loop)
        loop.call_soon(future.set_result, "future")
        return await future

    async def waits_for_task():
        return await awaited.Task(give("task"), loop=loop)

    async def waits_for_failure():
        try:
            await awaited.Task(fail(ValueError("failed")), loop=loop)
        except ValueError as exc:
            return str(exc)

    async def waits_and_is_cancelled():
        inner = awaited.Task(forever(loop), loop=loop)
        await turn()
        inner.cancel("message")
        try:
            await inner
        except asyncio.CancelledError as exc:
            return exc.args

    for coro, expected in (
        (waits_for_future(), "future"),
        (waits_for_task(), "task"),
        (waits_for_failure(), "failed"),
        (waits_and_is_cancelled(), ("message",)),
    ):
        assert loop.run_until_complete(types.Task(coro, loop=loop)) == expected


# ---- cancellation ----------------------------------------------------------------------------


def test_cancel_before_the_first_step(loop, types):
    ran = []

    async def never():
        ran.append(1)

    task = types.Task(never(), loop=loop)
    assert task.cancel("early") and task._must_cancel and not task.cancelled()
    with pytest.raises(asyncio.CancelledError) as caught:
        loop.run_until_complete(task)
    assert caught.value.args == ("early",) and task.cancelled() and ran == []


def test_cancel_reaches_the_innermost_future(loop, types):
    async def main():
        inner = types.Task(forever(loop), loop=loop)

        async def middle():
            await inner

        outer = types.Task(middle(), loop=loop)
        await turns(2)
        future = inner._fut_waiter
        assert outer._fut_waiter is inner
        assert outer.cancel("reason")
        assert future.cancelled() and future._cancel_message == "reason"
        assert (outer.cancelling(), inner.cancelling()) == (1, 1)
        with pytest.raises(asyncio.CancelledError) as caught:
            await outer
        assert caught.value.args == ("reason",) and inner.cancelled()

    loop.run_until_complete(main())


def test_cancel_when_the_awaited_is_done_already(loop, types):
    """The waiter's wake-up is queued: the cancellation is thrown by that very step."""

    async def main():
        future, steps = types.Future(loop=loop), []

        async def waiter():
            try:
                steps.append(await future)
            except asyncio.CancelledError:
                steps.append("cancelled")
                raise

        task = types.Task(waiter(), loop=loop)
        await turn()
        future.set_result("value")
        assert task.cancel() and task._must_cancel
        await asyncio.wait([task])
        assert steps == ["cancelled"] and task.cancelled()

    loop.run_until_complete(main())


def test_cancel_refused_and_uncancel(loop, types):
    async def stubborn():
        try:
            await forever(loop)
        except asyncio.CancelledError:
            pass
        return "finished"

    async def main():
        task = types.Task(stubborn(), loop=loop)
        await turn()
        assert task.cancelling() == 0 and task.uncancel() == 0
        task.cancel()
        task.cancel()
        assert task.cancelling() == 2
        assert (task.uncancel(), task.cancelling()) == (1, 1)
        assert await task == "finished"
        assert task.uncancel() == 0 and not task.cancelled()

    loop.run_until_complete(main())


def test_uncancel_takes_a_pending_request_back(loop, types):
    async def main():
        task = asyncio.current_task()
        task.cancel()
        assert task._must_cancel
        task.uncancel()
        assert task._must_cancel is (sys.version_info < (3, 13))
        if task._must_cancel:
            with pytest.raises(asyncio.CancelledError):
                await turn()
        else:
            await turn()

    loop.run_until_complete(types.Task(main(), loop=loop))


def test_cancel_in_the_last_step(loop, types):
    async def suicide():
        asyncio.current_task().cancel("last")
        return "lost"

    task = types.Task(suicide(), loop=loop)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert task.cancelled()


def test_cancel_while_starting_to_wait(loop, types):
    """cancel() during the step that then awaits: what it awaits is cancelled at once."""

    async def main():
        future = types.Future(loop=loop)

        async def waiter():
            asyncio.current_task().cancel("mine")
            await future

        task = types.Task(waiter(), loop=loop)
        await turn()
        assert future.cancelled() and not task._must_cancel
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


def test_original_cancelled_error_is_handed_out_once(loop, types):
    async def main():
        task = types.Task(forever(loop), loop=loop)
        await turn()
        task.cancel("m")
        await asyncio.wait([task])
        first = task._make_cancelled_error()
        assert first.__traceback__ is not None
        assert task._make_cancelled_error() is not first

    loop.run_until_complete(main())


def test_tasks_that_await_each_other_cannot_be_cancelled_for_ever(loop, types):
    if types is not GYRE:
        pytest.skip("asyncio's C type runs out of its stack")

    async def main():
        tasks = {}

        async def waits_for(name):
            await turn()
            await tasks[name]

        tasks["a"] = gyre.Task(waits_for("b"), loop=loop)
        tasks["b"] = gyre.Task(waits_for("c"), loop=loop)
        tasks["c"] = gyre.Task(waits_for("a"), loop=loop)
        await turns(3)
        with pytest.raises(RecursionError):
            tasks["a"].cancel()
        for task in tasks.values():
            task._fut_waiter.remove_done_callback(
                task._fut_waiter._callbacks[0][0]
            )  # break the ring
            task._log_destroy_pending = False

    loop.run_until_complete(main())
    gc.collect()


# ---- bad yields ------------------------------------------------------------------------------


class Yields:
    """Awaitable that yields one object."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield self.value


@pytest.mark.parametrize("what", ["object", "generator", "future", "itself", "other loop"])
def test_bad_yields(loop, new_loop, types, what):
    async def main():
        task = asyncio.current_task()
        value = {
            "object": 42,
            "generator": (x for x in ()),
            "future": types.Future(loop=loop),
            "itself": task,
            "other loop": None,
        }[what]
        if what == "other loop":
            value = types.Future(loop=new_loop())
            value._asyncio_future_blocking = True
        if what == "itself":
            task._asyncio_future_blocking = True
        try:
            await Yields(value)
        except RuntimeError as exc:
            return str(exc)

    message = loop.run_until_complete(types.Task(main(), loop=loop))
    assert {
        "object": "Task got bad yield: 42",
        "generator": "yield was used instead of yield from for generator in task ",
        "future": "yield was used instead of yield from in task ",
        "itself": "Task cannot await on itself: ",
        "other loop": "attached to a different loop",
    }[what] in message


def test_bare_yield_is_a_turn(loop, types):
    seen = []

    @pytypes.coroutine
    def bare():
        yield

    async def main():
        loop.call_soon(seen.append, 1)
        await bare()
        assert seen == [1]

    loop.run_until_complete(types.Task(main(), loop=loop))


def test_not_a_coroutine(loop, types):
    for wrong in (None, 42, give, types.Future(loop=loop)):
        with pytest.raises(TypeError, match="a coroutine was expected"):
            types.Task(wrong, loop=loop)
    gc.collect()


def test_coroutine_class(loop, types):
    """Anything with the methods of a coroutine is driven, not only `async def`."""
    from collections.abc import Coroutine

    class Countdown(Coroutine):
        count = 3

        def send(self, value):
            self.count -= 1
            if self.count == 0:
                raise StopIteration("counted")

        def throw(self, *args):
            raise NotImplementedError

        def close(self):
            pass

        def __await__(self):
            return self

    assert loop.run_until_complete(types.Task(Countdown(), loop=loop)) == "counted"


# ---- contexts, names, stacks, reprs ------------------------------------------------------------


def test_context_is_copied_or_given(loop, types):
    async def show():
        await turn()
        value = var.get()
        var.set("changed inside")
        return value

    token = var.set("at creation")
    copied = types.Task(show(), loop=loop)
    var.reset(token)
    context = contextvars.copy_context()
    given = types.Task(show(), loop=loop, context=context)
    assert loop.run_until_complete(copied) == "at creation"
    assert loop.run_until_complete(given) == "default"
    assert var.get() == "default" and context[var] == "changed inside"
    if sys.version_info >= (3, 12):
        assert given.get_context() is context


def test_names(loop, types):
    async def main():
        a, b = types.Task(give(1), loop=loop), types.Task(give(1), loop=loop)
        first, second = a.get_name(), b.get_name()
        assert first.startswith("Task-") and int(second[5:]) == int(first[5:]) + 1
        a.set_name(("any", "object"))
        assert a.get_name() == "('any', 'object')"
        assert types.Task(give(1), loop=loop, name=7).get_name() == "7"
        await turns(3)

    loop.run_until_complete(main())


def test_names_are_one_series_with_asyncio(loop, types):
    if sys.version_info < (3, 12):
        pytest.skip("asyncio's counter is hidden in 3.11")

    async def main():
        tasks = [pair.Task(give(1), loop=loop) for pair in (types, ASYNCIO, types, ASYNCIO)]
        numbers = [int(task.get_name().removeprefix("Task-")) for task in tasks]
        assert numbers == list(range(numbers[0], numbers[0] + 4))
        await asyncio.wait(tasks)

    loop.run_until_complete(main())


def test_stacks(loop, types):
    async def inner():
        await turns(2)
        raise ValueError("end")

    async def outer():
        await inner()

    async def main():
        task = types.Task(outer(), loop=loop)
        await turn()
        [frame] = task.get_stack()
        assert frame.f_code.co_name == "outer"
        text = io.StringIO()
        task.print_stack(file=text)
        assert "outer" in text.getvalue()
        await asyncio.wait([task])
        names = [frame.f_code.co_name for frame in task.get_stack()]
        assert names == ["outer", "inner"]
        assert len(task.get_stack(limit=1)) == 1
        task.exception()
        with pytest.raises(TypeError):
            task.get_stack(1)

    loop.run_until_complete(main())


def test_repr(loop, types):
    loop.set_debug(False)  # also under -X dev

    async def main():
        task = types.Task(forever(loop), loop=loop, name="T")
        assert repr(task).startswith("<Task pending name='T' coro=<forever() running at ")
        await turn()
        assert "wait_for=<Future pending cb=[Task.task_wakeup()]>" in repr(task)
        task.cancel()
        await asyncio.wait([task])
        assert repr(task).startswith("<Task cancelled name='T' coro=<forever() done, ")

    loop.run_until_complete(main())


def test_generic_alias_and_arguments(loop, types):
    assert isinstance(types.Task[int], pytypes.GenericAlias)
    coro = give(1)
    for call in (
        lambda: types.Task(),
        lambda: types.Task(coro, loop),
        lambda: types.Task(coro, loop=loop, nonsense=1),
    ):
        with pytest.raises(TypeError):
            call()
    coro.close()


# ---- eager start ------------------------------------------------------------------------------

eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")


@eager
def test_eager_task_that_finishes_at_once(loop, types):
    async def quick():
        assert asyncio.current_task().get_name() == "quick"
        var.set("inside")
        return 1

    async def main():
        before = asyncio.current_task()
        task = types.Task(quick(), loop=loop, name="quick", eager_start=True)
        assert task.done() and task.result() == 1
        if types is GYRE:  # asyncio 3.12.1 crashes
            assert task.get_coro() is None
        assert asyncio.current_task() is before and var.get() == "default"
        assert task not in asyncio.all_tasks()
        failed = types.Task(fail_at_once(), loop=loop, eager_start=True)
        assert isinstance(failed.exception(), ZeroDivisionError)

    async def fail_at_once():
        return 1 / 0

    loop.run_until_complete(types.Task(main(), loop=loop))


@eager
def test_eager_task_that_waits(loop, types):
    seen = []

    async def waits():
        seen.append("started")
        await turn()
        seen.append("done")

    async def main():
        task = types.Task(waits(), loop=loop, eager_start=True)
        assert seen == ["started"] and not task.done()
        assert task in asyncio.all_tasks()
        await task

    loop.run_until_complete(types.Task(main(), loop=loop))
    assert seen == ["started", "done"]


@eager
def test_eager_start_outside_a_running_loop_is_not_eager(loop, types):
    seen = []

    async def note():
        seen.append(1)

    task = types.Task(note(), loop=loop, eager_start=True)
    assert seen == []
    loop.run_until_complete(task)
    assert seen == [1]


# ---- the end ----------------------------------------------------------------------------------


def test_destroyed_pending_is_reported(loop, types):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def lost():
        await types.Future(loop=loop)

    task = types.Task(lost(), loop=loop)
    loop.run_until_complete(turn())
    del task
    gc.collect()
    [report] = reports
    assert report["message"] == "Task was destroyed but it is pending!"
    assert report["task"].get_coro().__name__ == "lost"
    reports.clear()
    task = types.Task(lost(), loop=loop)
    loop.run_until_complete(turn())
    task._log_destroy_pending = False
    del task, report
    gc.collect()
    assert reports == []


def test_unretrieved_exception_is_reported(loop, types):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    task = types.Task(fail(ValueError("lost")), loop=loop)
    loop.run_until_complete(turns(3))
    del task
    gc.collect()
    assert [report["message"] for report in reports] == ["Task exception was never retrieved"]


def test_subclass(loop, types):
    class Mine(types.Task):
        def __init__(self, coro, **kwargs):
            self.log = []
            super().__init__(coro, **kwargs)

        def cancel(self, msg=None):
            self.log.append("cancel")
            return super().cancel(msg)

        def result(self):
            self.log.append("result")
            return super().result()

    async def main():
        task = Mine(forever(loop), loop=loop)

        async def waits():
            await task

        outer = types.Task(waits(), loop=loop)
        await turns(2)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert task.log[0] == "cancel" and task.cancelled()

    loop.run_until_complete(main())


def test_subclass_that_skips_init(loop, types):
    class Lazy(types.Task):
        def __init__(self):
            pass

    task = Lazy()
    assert not task.done() and not task.cancelled()
    for method in (task.get_loop, task.result, task.__await__):
        with pytest.raises((RuntimeError, asyncio.InvalidStateError)):
            method()
    with pytest.raises((RuntimeError, AttributeError, AssertionError)):
        repr(task)
    del task
    gc.collect()


def test_weak_references_and_cycles(loop, types):
    async def main():
        task = types.Task(give(1), loop=loop)
        task.itself = task
        reference = weakref.ref(task)
        await task
        return reference

    reference = loop.run_until_complete(main())
    gc.collect()
    assert reference() is None


def test_step_and_wakeup_called_by_hand(loop, types):
    """A second step of a task that is done is an error of that callback, not a crash."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main():
        future = types.Future(loop=loop)

        async def waits():
            await future

        task = types.Task(waits(), loop=loop)
        await turn()
        [(wakeup, context)] = future._callbacks
        future.set_result(None)
        await task
        loop.call_soon(wakeup, future, context=context)
        await turn()

    loop.run_until_complete(main())
    [report] = reports
    assert isinstance(report["exception"], asyncio.InvalidStateError)
