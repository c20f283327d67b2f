"""Debug mode: thread checks, source tracebacks, the slow callback log, argument checks."""

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from helpers import run_turns


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


def test_get_and_set(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False
    loop.set_debug(1)
    assert loop.get_debug()
    loop.set_debug([])
    assert not loop.get_debug()


@pytest.mark.parametrize(
    "environment, flags, expected",
    [
        ({}, [], False),
        ({"PYTHONASYNCIODEBUG": "1"}, [], True),
        ({"PYTHONASYNCIODEBUG": ""}, [], False),
        ({"PYTHONASYNCIODEBUG": "1"}, ["-E"], False),
        ({}, ["-X", "dev"], True),
    ],
)
def test_the_initial_state(kind, environment, flags, expected):
    code = {
        "asyncio": "import asyncio; loop = asyncio.new_event_loop()",
        "gyre": "import gyre; loop = gyre.new_event_loop()",
    }[kind]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"} | environment
    done = subprocess.run(
        [sys.executable, *flags, "-c", f"{code}; print(loop.get_debug()); loop.close()"],
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout.strip(), done.stderr) == (str(expected), "")


class TestThreadCheck:
    MESSAGE = "^Non-thread-safe operation invoked on an event loop other than the current one$"

    def call_elsewhere(self, loop, call):
        """call() in a thread while the loop runs; what it raised."""
        outcome = []

        def work():
            try:
                call()
            except BaseException as exc:
                outcome.append(exc)
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=work)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        return outcome

    @pytest.mark.parametrize(
        "method, args",
        [("call_soon", ()), ("call_later", (1000,)), ("call_at", (1e9,))],
    )
    def test_raises_in_another_thread(self, debug_loop, method, args):
        call = getattr(debug_loop, method)
        (exc,) = self.call_elsewhere(debug_loop, lambda: call(*args, print))
        assert type(exc) is RuntimeError
        with pytest.raises(RuntimeError, match=self.MESSAGE):
            raise exc

    def test_create_task_in_another_thread(self, debug_loop, asyncio_log):
        async def main():
            pass

        coro = main()
        try:
            (exc,) = self.call_elsewhere(debug_loop, lambda: debug_loop.create_task(coro))
        finally:
            coro.close()
        with pytest.raises(RuntimeError, match=self.MESSAGE):
            raise exc
        # The half-made task complains of its own end.
        del exc
        gc.collect()
        for message in asyncio_log.messages():
            assert message.startswith("Task was destroyed but it is pending!")

    def test_set_result_in_another_thread(self, debug_loop):
        future = debug_loop.create_future()
        future.add_done_callback(print)
        (exc,) = self.call_elsewhere(debug_loop, lambda: future.set_result(1))
        with pytest.raises(RuntimeError, match=self.MESSAGE):
            raise exc

    def test_threadsafe_is_allowed(self, debug_loop):
        call = lambda: debug_loop.call_soon_threadsafe(int)  # noqa: E731
        assert self.call_elsewhere(debug_loop, call) == []

    def test_not_without_debug(self, loop):
        assert self.call_elsewhere(loop, lambda: loop.call_soon(int)) == []

    def test_stopped_loops_take_calls_from_anywhere(self, debug_loop):
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(debug_loop.call_soon(int)))
        thread.start()
        thread.join()
        assert len(outcome) == 1
        run_turns(debug_loop)


class TestArgumentCheck:
    @staticmethod
    def methods(loop):
        return {
            "call_soon": loop.call_soon,
            "call_soon_threadsafe": loop.call_soon_threadsafe,
            "call_at": lambda callback: loop.call_at(1e9, callback),
            "call_later": lambda callback: loop.call_later(1e9, callback),
            "run_in_executor": lambda callback: loop.run_in_executor(None, callback),
        }

    NAMES = ["call_soon", "call_soon_threadsafe", "call_at", "call_later", "run_in_executor"]

    @pytest.mark.parametrize("name", NAMES)
    def test_coroutine_functions(self, debug_loop, name):
        async def main():
            pass

        shown = "call_at" if name == "call_later" else name
        with pytest.raises(TypeError, match=rf"^coroutines cannot be used with {shown}\(\)$"):
            self.methods(debug_loop)[name](main)

    @pytest.mark.parametrize("name", NAMES)
    def test_coroutines(self, debug_loop, name):
        async def main():
            pass

        coro = main()
        with contextlib.closing(coro):
            shown = "call_at" if name == "call_later" else name
            with pytest.raises(TypeError, match=rf"^coroutines cannot be used with {shown}\(\)$"):
                self.methods(debug_loop)[name](coro)

    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_not_callable(self, debug_loop, name):
        shown = "call_at" if name == "call_later" else name
        expected = rf"^a callable object was expected by {shown}\(\), got 'text'$"
        with pytest.raises(TypeError, match=expected):
            self.methods(debug_loop)[name]("text")

    def test_without_debug_the_error_comes_when_it_runs(self, loop, asyncio_log):
        loop.call_soon("text")
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is TypeError

    @pytest.mark.parametrize("debug", [False, True])
    def test_none_as_a_callback(self, loop, asyncio_log, debug):
        loop.set_debug(debug)
        try:
            loop.call_soon(None)
        except TypeError:
            assert debug
        run_turns(loop)
        assert len(asyncio_log.take()) == (0 if debug else 1)


class TestSourceTraceback:
    def here(self):
        return sys._getframe(1).f_lineno

    def test_handles_know_where_they_were_made(self, debug_loop):
        line = self.here() + 1
        handle = debug_loop.call_soon(int)
        assert handle._source_traceback[-1][:2] == (__file__, line)
        line = self.here() + 1
        handle = debug_loop.call_soon_threadsafe(int)
        assert handle._source_traceback[-1][:2] == (__file__, line)
        line = self.here() + 1
        handle = debug_loop.call_later(0, int)
        assert handle._source_traceback[-1][:2] == (__file__, line)
        line = self.here() + 1
        handle = debug_loop.call_at(0, int)
        assert handle._source_traceback[-1][:2] == (__file__, line)
        run_turns(debug_loop, 3)

    def test_not_without_debug(self, loop):
        assert loop.call_soon(int)._source_traceback is None
        assert loop.call_later(0, int)._source_traceback is None
        assert loop.create_future()._source_traceback is None

    def test_futures_and_tasks(self, debug_loop):
        line = self.here() + 1
        future = debug_loop.create_future()
        assert any(frame[:2] == (__file__, line) for frame in future._source_traceback)

        async def main():
            line = self.here() + 1
            task = asyncio.create_task(asyncio.sleep(0))
            assert any(frame[:2] == (__file__, line) for frame in task._source_traceback)
            await task

        debug_loop.run_until_complete(main())

    def test_a_future_repr_says_where(self, debug_loop):
        future = debug_loop.create_future()
        file, line = future._source_traceback[-1][:2]
        assert repr(future) == f"<Future pending created at {file}:{line}>"


class TestSlowCallbacks:
    @pytest.fixture
    def slow_loop(self, debug_loop):
        debug_loop.slow_callback_duration = 0.001
        return debug_loop

    @staticmethod
    def slow(*args):
        time.sleep(0.0015)

    def warnings_of(self, asyncio_log):
        return [m for m in asyncio_log.messages() if "Executing" in m and "slow" in m]

    def test_a_callback(self, slow_loop, asyncio_log):
        slow_loop.call_soon(self.slow, 1)
        run_turns(slow_loop)
        (message,) = self.warnings_of(asyncio_log)
        assert message.startswith("Executing <Handle TestSlowCallbacks.slow(1) at ")
        assert re.search(r" took \d+\.\d{3} seconds$", message)

    def test_a_timer(self, slow_loop, asyncio_log):
        slow_loop.call_later(0, self.slow)
        run_turns(slow_loop, 3)
        (message,) = self.warnings_of(asyncio_log)
        assert message.startswith("Executing <TimerHandle when=")

    def test_a_task_step(self, slow_loop, asyncio_log):
        async def slow_main():
            await asyncio.sleep(0)
            self.slow()

        slow_loop.run_until_complete(slow_main())
        messages = self.warnings_of(asyncio_log)
        assert any("<Task " in m and "slow_main" in m for m in messages)

    def test_the_callback_of_a_reader(self, slow_loop, asyncio_log):
        left, right = socket.socketpair()
        with left, right:
            right.send(b"x")

            def slow_reader():
                time.sleep(0.0015)
                slow_loop.remove_reader(left)
                slow_loop.stop()

            slow_loop.add_reader(left, slow_reader)
            slow_loop.run_forever()
        assert any("slow_reader" in m for m in self.warnings_of(asyncio_log))

    @pytest.mark.parametrize("slow_in", ["connection_made", "data_received", "connection_lost"])
    def test_a_protocol(self, slow_loop, asyncio_log, slow_in):
        class Slow(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                self.maybe("connection_made")

            def data_received(self, data):
                self.maybe("data_received")
                self.transport.close()

            def connection_lost(self, exc):
                self.maybe("connection_lost")
                slow_loop.call_soon(slow_loop.stop)

            def maybe(self, name):
                if name == slow_in:
                    time.sleep(0.0015)
                    # What was slow before this is not what the test looks for.
                    asyncio_log.take()

        left, right = socket.socketpair()
        with right:
            slow_loop.run_until_complete(slow_loop.create_connection(Slow, sock=left))
            right.send(b"x")
            slow_loop.run_forever()
        assert any(m.startswith("Executing ") for m in asyncio_log.messages())

    def test_cancelled_by_itself(self, slow_loop, asyncio_log):
        handles = []

        def slow():
            handles[0].cancel()
            time.sleep(0.0015)

        handles.append(slow_loop.call_soon(slow))
        run_turns(slow_loop)
        (message,) = self.warnings_of(asyncio_log)
        # The handle remembers what it was.
        assert "slow() at" in message

    def test_a_quick_callback_is_not_logged(self, debug_loop, asyncio_log):
        debug_loop.slow_callback_duration = 5
        debug_loop.call_soon(self.slow)
        run_turns(debug_loop)
        assert self.warnings_of(asyncio_log) == []

    def test_not_without_debug(self, loop, asyncio_log):
        loop.slow_callback_duration = 0
        loop.call_soon(self.slow)
        run_turns(loop)
        assert self.warnings_of(asyncio_log) == []

    def test_the_default_and_what_can_be_set(self, loop):
        assert loop.slow_callback_duration == 0.1
        loop.slow_callback_duration = 2
        assert loop.slow_callback_duration == 2
        loop.slow_callback_duration = 1e9
        loop.slow_callback_duration = 0
        loop.slow_callback_duration = float("inf")
        assert loop.slow_callback_duration == float("inf")

    def test_zero_logs_everything(self, debug_loop, asyncio_log):
        debug_loop.slow_callback_duration = 0
        debug_loop.call_soon(int)
        run_turns(debug_loop)
        assert any("Executing <Handle int()" in m for m in asyncio_log.messages())

    def test_slow_and_raising(self, slow_loop, asyncio_log):
        def slow():
            time.sleep(0.0015)
            raise LookupError

        slow_loop.call_soon(slow)
        run_turns(slow_loop)
        records = asyncio_log.take()
        assert [r.levelno for r in records] == [logging.ERROR, logging.WARNING]


class TestCoroutineOrigins:
    def test_on_while_running(self, debug_loop):
        depths = []
        before = sys.get_coroutine_origin_tracking_depth()
        debug_loop.call_soon(lambda: depths.append(sys.get_coroutine_origin_tracking_depth()))
        run_turns(debug_loop)
        assert depths == [asyncio.constants.DEBUG_STACK_DEPTH]
        assert sys.get_coroutine_origin_tracking_depth() == before

    def test_switched_while_running(self, loop):
        depths = []

        def look():
            depths.append(sys.get_coroutine_origin_tracking_depth())

        async def main():
            look()
            loop.set_debug(True)
            await asyncio.sleep(0)
            look()
            loop.set_debug(False)
            await asyncio.sleep(0)
            look()

        loop.run_until_complete(main())
        assert depths == [0, asyncio.constants.DEBUG_STACK_DEPTH, 0]
        assert sys.get_coroutine_origin_tracking_depth() == 0


def test_everything_still_works_in_debug_mode(debug_loop):
    async def child(number):
        await asyncio.sleep(0.0001 * number)
        return number

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(n)) for n in range(10)]
        assert [task.result() for task in tasks] == list(range(10))
        assert await asyncio.gather(*(child(n) for n in range(5))) == list(range(5))
        event = asyncio.Event()
        debug_loop.call_later(0.001, event.set)
        await asyncio.wait_for(event.wait(), 10)

    debug_loop.run_until_complete(main())


def test_debug_switched_between_scheduling_and_running(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_later(0, seen.append, 2)
    loop.set_debug(True)
    loop.call_soon(seen.append, 3)
    run_turns(loop, 3)
    loop.call_soon(seen.append, 4)
    loop.set_debug(False)
    run_turns(loop, 3)
    assert sorted(seen) == [1, 2, 3, 4]


def test_close_is_logged(new_loop, asyncio_log):
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    loop = new_loop()
    loop.set_debug(True)
    expected = f"Close {loop!r}"
    loop.close()
    assert expected in asyncio_log.messages(logging.DEBUG)
