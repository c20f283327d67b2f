"""Signals: handlers, Ctrl-C wherever the loop is, the wakeup descriptor, other threads."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from helpers import run_turns

# SIGALRM belongs to the timeout of the tests.
SIGNAL = signal.SIGUSR1


@pytest.fixture(autouse=True)
def dispositions():
    """Handlers and the wakeup descriptor are as before."""
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD]
    before = [signal.getsignal(sig) for sig in signals]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    yield
    now = signal.set_wakeup_fd(wakeup)
    left = [signal.getsignal(sig) for sig in signals[1:]]
    for sig, handler in zip(signals, before):
        signal.signal(sig, handler)
    assert now == wakeup, "the wakeup descriptor was not put back"
    assert left == before[1:], "a signal handler was left behind"


def kill(sig=SIGNAL):
    os.kill(os.getpid(), sig)


class Later:
    """Sends a signal to the process from another thread once the loop sleeps."""

    def __init__(self, loop, sig, delay=0.01):
        running = threading.Event()
        self.thread = threading.Thread(target=self.work, args=(running, sig, delay))
        self.thread.start()
        loop.call_soon(running.set)

    def work(self, running, sig, delay):
        running.wait()
        time.sleep(delay)
        kill(sig)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.thread.join()


class TestHandlers:
    def test_a_signal_runs_the_callback_in_the_loop(self, loop):
        seen = []

        def callback(*args):
            seen.append((args, asyncio.get_running_loop(), threading.current_thread()))
            loop.stop()

        loop.add_signal_handler(SIGNAL, callback, 1, "two")
        loop.call_soon(kill)
        loop.run_forever()
        assert seen == [((1, "two"), loop, threading.main_thread())]
        assert loop.remove_signal_handler(SIGNAL) is True

    def test_while_the_loop_sleeps(self, loop):
        loop.add_signal_handler(SIGNAL, loop.stop)
        with Later(loop, SIGNAL):
            loop.run_forever()
        loop.remove_signal_handler(SIGNAL)

    def test_from_another_process(self, loop):
        loop.add_signal_handler(SIGNAL, loop.stop)
        loop.call_soon(
            lambda: children.append(
                subprocess.Popen(["/bin/sh", "-c", f"kill -{int(SIGNAL)} {os.getpid()}"])
            )
        )
        children = []
        loop.run_forever()
        children[0].wait()
        loop.remove_signal_handler(SIGNAL)

    def test_a_signal_while_the_loop_is_stopped_comes_at_the_next_run(self, loop):
        seen = []
        loop.add_signal_handler(SIGNAL, seen.append, 1)
        kill()
        run_turns(loop, 5)
        assert seen == [1]
        kill()
        assert seen == [1]
        run_turns(loop, 5)
        assert seen == [1, 1]
        loop.remove_signal_handler(SIGNAL)

    def test_several_signals(self, loop):
        seen = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "usr1")
        loop.add_signal_handler(signal.SIGUSR2, seen.append, "usr2")
        loop.add_signal_handler(signal.SIGTERM, seen.append, "term")
        for sig in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR1):
            loop.call_soon(kill, sig)
        run_turns(loop, 5)
        assert sorted(seen) == ["term", "usr1", "usr2"]
        for sig in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR1):
            assert loop.remove_signal_handler(sig)

    def test_many_in_a_row(self, loop):
        seen = []

        def callback():
            seen.append(1)
            if len(seen) == 200:
                loop.stop()
            else:
                kill()

        loop.add_signal_handler(SIGNAL, callback)
        loop.call_soon(kill)
        loop.run_forever()
        assert len(seen) == 200
        loop.remove_signal_handler(SIGNAL)

    def test_replaced(self, loop):
        seen = []
        loop.add_signal_handler(SIGNAL, seen.append, "old")
        loop.add_signal_handler(SIGNAL, seen.append, "new")
        loop.call_soon(kill)
        run_turns(loop, 5)
        assert seen == ["new"]
        loop.remove_signal_handler(SIGNAL)

    @pytest.mark.parametrize("change", ["replaced", "removed"])
    @pytest.mark.parametrize("when", ["at once", "next"])
    def test_changed_when_the_signal_has_come(self, loop, change, when):
        """Who handles a signal is looked up when the callbacks that were scheduled have run."""
        seen = []

        def alter():
            if change == "replaced":
                loop.add_signal_handler(SIGNAL, seen.append, "new")
            else:
                assert loop.remove_signal_handler(SIGNAL)

        def callback():
            kill()
            alter() if when == "at once" else loop.call_soon(alter)

        loop.add_signal_handler(SIGNAL, seen.append, "old")
        loop.call_soon(callback)
        run_turns(loop, 5)
        assert seen == (["new"] if change == "replaced" else [])
        loop.remove_signal_handler(SIGNAL)

    @pytest.mark.parametrize("running", [True, False])
    def test_in_the_turn_after_the_next(self, loop, running):
        seen = []

        def more(turn):
            seen.append(turn)
            if turn < 4:
                loop.call_soon(more, turn + 1)

        def callback():
            kill()
            kill(signal.SIGUSR2)
            loop.call_soon(more, 1)

        loop.add_signal_handler(SIGNAL, seen.append, "one")
        loop.add_signal_handler(signal.SIGUSR2, seen.append, "two")
        if running:
            loop.call_soon(callback)
        else:
            callback()
        run_turns(loop, 6)
        assert seen == [1, 2, "one", "two", 3, 4]
        loop.remove_signal_handler(SIGNAL)
        loop.remove_signal_handler(signal.SIGUSR2)

    def test_a_loop_of_another_thread(self, new_loop):
        """Handlers may be added by the main thread, which need not be the one that runs it."""
        loop = new_loop()
        seen = []
        started = threading.Event()

        def callback():
            seen.append(threading.current_thread())
            loop.stop()

        loop.add_signal_handler(SIGNAL, callback)
        thread = threading.Thread(target=loop.run_forever)
        loop.call_soon(started.set)
        thread.start()
        started.wait()
        kill()
        thread.join()
        assert seen == [thread]
        loop.remove_signal_handler(SIGNAL)

    def test_added_to_a_loop_that_another_thread_has_just_begun_to_run(self, new_loop):
        """It has waited for nothing yet, and the wakeup descriptor is none of its business."""
        loop = new_loop()
        started, added = threading.Event(), threading.Event()

        def first():
            started.set()
            assert added.wait(10)
            loop.stop()

        loop.call_soon(first)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        assert started.wait(10)
        loop.add_signal_handler(SIGNAL, print)
        added.set()
        thread.join()
        loop.remove_signal_handler(SIGNAL)
        loop.close()
        assert signal.set_wakeup_fd(-1) == -1

    def test_python_handler_set_afterwards(self, loop):
        """Both are called: that of signal.signal(), and the loop's by the wakeup descriptor."""
        calls = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, calls.append, "loop")
            before = signal.getsignal(signal.SIGUSR1)
            signal.signal(signal.SIGUSR1, lambda *args: calls.append("python"))
            await asyncio.sleep(0.001)
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(5):
                while len(calls) < 2:
                    await asyncio.sleep(0.001)
            signal.signal(signal.SIGUSR1, before)
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(5):
                while len(calls) < 3:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.002)
            assert loop.remove_signal_handler(signal.SIGUSR1)

        loop.run_until_complete(main())
        assert calls == ["python", "loop", "loop"]

    @pytest.mark.parametrize("added", ["before the run", "in the run"])
    def test_python_handler_set_in_the_first_turn(self, loop, added):
        """The loop has not waited for anything yet."""
        calls = []

        def add():
            loop.add_signal_handler(signal.SIGUSR1, calls.append, "loop")

        async def main():
            if added == "in the run":
                add()
            signal.signal(signal.SIGUSR1, lambda *args: calls.append("python"))
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(5):
                while len(calls) < 2:
                    await asyncio.sleep(0.001)
            assert loop.remove_signal_handler(signal.SIGUSR1)

        if added == "before the run":
            add()
        loop.run_until_complete(main())
        assert calls == ["python", "loop"]

    def test_removed(self, loop):
        loop.add_signal_handler(SIGNAL, print)
        assert signal.getsignal(SIGNAL) is not signal.SIG_DFL
        assert loop.remove_signal_handler(SIGNAL) is True
        assert signal.getsignal(SIGNAL) is signal.SIG_DFL
        assert loop.remove_signal_handler(SIGNAL) is False

    def test_removing_sigint_restores_the_default_handler(self, loop):
        loop.add_signal_handler(signal.SIGINT, print)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        loop.remove_signal_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_close_removes_the_handlers(self, new_loop):
        loop = new_loop()
        loop.add_signal_handler(SIGNAL, print)
        loop.add_signal_handler(signal.SIGINT, print)
        loop.close()
        assert signal.getsignal(SIGNAL) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_close_after_a_run_removes_the_handlers(self, new_loop):
        loop = new_loop()
        loop.add_signal_handler(SIGNAL, print)
        run_turns(loop)
        loop.close()
        assert signal.getsignal(SIGNAL) is signal.SIG_DFL

    def test_removed_from_the_callback(self, loop):
        def callback():
            assert loop.remove_signal_handler(SIGNAL)
            loop.stop()

        loop.add_signal_handler(SIGNAL, callback)
        loop.call_soon(kill)
        loop.run_forever()

    def test_an_exception_in_the_callback(self, loop, asyncio_log):
        loop.add_signal_handler(SIGNAL, lambda: 1 / 0)
        loop.call_soon(kill)
        run_turns(loop, 5)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is ZeroDivisionError
        loop.remove_signal_handler(SIGNAL)

    def test_added_and_removed_while_running(self, loop):
        seen = []

        async def main():
            event = asyncio.Event()
            loop.add_signal_handler(SIGNAL, event.set)
            kill()
            await asyncio.wait_for(event.wait(), 10)
            seen.append(1)
            assert loop.remove_signal_handler(SIGNAL)

        loop.run_until_complete(main())
        assert seen == [1]

    def test_sigint_as_an_ordinary_signal(self, loop):
        loop.add_signal_handler(signal.SIGINT, loop.stop)
        with Later(loop, signal.SIGINT):
            loop.run_forever()
        loop.remove_signal_handler(signal.SIGINT)

    def test_a_child_inherits_nothing_odd(self, loop):
        loop.add_signal_handler(SIGNAL, print)
        code = "import signal; print(signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "True"
        loop.remove_signal_handler(SIGNAL)

    def test_system_calls_are_restarted(self, loop):
        """The dummy handler does not interrupt blocking calls of other threads or libraries."""
        loop.add_signal_handler(SIGNAL, print)
        left, right = socket.socketpair()
        with left, right:
            timer = threading.Timer(0.01, kill)
            timer2 = threading.Timer(0.03, right.send, (b"x",))
            timer.start(), timer2.start()
            assert os.read(left.fileno(), 1) == b"x"
            timer.join(), timer2.join()
        loop.remove_signal_handler(SIGNAL)


class TestBadArguments:
    @pytest.mark.parametrize("method", ["add", "remove"])
    @pytest.mark.parametrize("sig", [-1, 0, 1000, signal.NSIG])
    def test_numbers_out_of_range(self, loop, method, sig):
        call = self.method(loop, method)
        with pytest.raises(ValueError, match=f"^invalid signal number {sig}$"):
            call(sig)

    @pytest.mark.parametrize("method", ["add", "remove"])
    @pytest.mark.parametrize("sig", ["SIGINT", 2.0, None])
    def test_wrong_types(self, loop, method, sig):
        call = self.method(loop, method)
        with pytest.raises(TypeError, match="^sig must be an int, not "):
            call(sig)

    @pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP])
    def test_those_that_cannot_be_caught(self, loop, sig):
        with pytest.raises(RuntimeError, match=f"^sig {sig} cannot be caught$"):
            loop.add_signal_handler(sig, print)
        assert loop.remove_signal_handler(sig) is False

    def method(self, loop, name):
        if name == "add":
            return lambda sig: loop.add_signal_handler(sig, print)
        return loop.remove_signal_handler

    def test_coroutines(self, loop):
        async def main():
            pass

        expected = r"^coroutines cannot be used with add_signal_handler\(\)$"
        with pytest.raises(TypeError, match=expected):
            loop.add_signal_handler(SIGNAL, main)
        coro = main()
        with contextlib.closing(coro), pytest.raises(TypeError, match=expected):
            loop.add_signal_handler(SIGNAL, coro)

    def test_closed(self, new_loop):
        loop = new_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            loop.add_signal_handler(SIGNAL, print)

    def test_not_in_the_main_thread(self, new_loop):
        errors = []

        def work():
            loop = new_loop()

            async def main():
                try:
                    loop.add_signal_handler(SIGNAL, print)
                except RuntimeError as exc:
                    errors.append(str(exc))

            loop.run_until_complete(main())
            loop.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        text = "set_wakeup_fd only works in main thread"  # before 3.13: of the main interpreter
        assert len(errors) == 1 and errors[0].startswith(text)
        assert signal.getsignal(SIGNAL) is signal.SIG_DFL


class TestInterrupt:
    def test_while_the_loop_sleeps(self, loop):
        with Later(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert not loop.is_running()
        run_turns(loop)

    def test_while_the_loop_sleeps_with_timers(self, loop):
        loop.call_later(1000, print)
        with Later(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        run_turns(loop)

    def test_in_a_callback(self, loop):
        def callback():
            kill(signal.SIGINT)
            for _ in range(1000):
                pass

        loop.call_soon(callback)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        run_turns(loop)

    def test_while_the_loop_spins(self, loop):
        def again():
            loop.call_soon(again)

        again()
        with Later(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop._ready.clear()

    def test_while_c_code_spins(self, loop):
        """No bytecode at all runs between the turns of such a loop."""

        async def main():
            with Later(loop, signal.SIGINT):
                while True:
                    await asyncio.sleep(0)

        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())

    def test_a_loop_of_builtins_only(self, loop):
        """Callbacks in C, scheduled by C: Ctrl-C must get through all the same."""
        import itertools

        for _ in range(100):
            loop.call_soon(itertools.repeat(None, 10).__next__)

        def more():
            for _ in range(100):
                loop.call_soon(int)
            loop.call_soon(more)

        more()
        with Later(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop._ready.clear()

    def test_under_a_runner_the_main_task_is_cancelled(self, new_loop):
        cancelled = []

        async def main():
            with_thread = Later(asyncio.get_running_loop(), signal.SIGINT)
            try:
                with with_thread:
                    await asyncio.sleep(0)
                    await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

        runner = asyncio.Runner(loop_factory=new_loop)
        with runner, pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert cancelled == [1]

    def test_under_a_runner_a_task_that_catches_it(self, new_loop):
        async def main():
            with Later(asyncio.get_running_loop(), signal.SIGINT):
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    asyncio.current_task().uncancel()
            return "survived"

        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(main()) == "survived"

    def test_under_a_runner_in_a_busy_task(self, new_loop):
        async def main():
            kill(signal.SIGINT)
            for _ in range(1000):
                pass
            await asyncio.sleep(3600)

        with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(KeyboardInterrupt):
            runner.run(main())

    def test_a_handler_that_raises_something_else(self, loop):
        """signal.signal() handlers are the user's: what they raise comes out of the loop, or is
        reported as the callback's own exception, as asyncio does."""

        class Alarm(BaseException):
            pass

        def handler(signum, frame):
            raise Alarm

        signal.signal(SIGNAL, handler)
        try:
            with Later(loop, SIGNAL), pytest.raises(Alarm):
                loop.run_forever()
        finally:
            signal.signal(SIGNAL, signal.SIG_DFL)
        assert not loop.is_running()
        run_turns(loop)

    def test_a_python_handler_runs_while_the_loop_sleeps(self, loop):
        """A handler that only sets a flag: it must run at once, not at the next event."""
        seen = []

        def handler(signum, frame):
            seen.append(signum)
            loop.call_soon_threadsafe(loop.stop)

        signal.signal(SIGNAL, handler)
        try:
            with Later(loop, SIGNAL):
                loop.run_forever()
        finally:
            signal.signal(SIGNAL, signal.SIG_DFL)
        assert seen == [SIGNAL]

    def test_delivered_to_another_thread(self, loop):
        """The kernel may choose any thread; the loop's sleep must end all the same."""
        ready = threading.Event()
        end = threading.Event()

        def other():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            ready.set()
            end.wait(30)

        other_thread = threading.Thread(target=other)
        other_thread.start()
        ready.wait()

        def strike():
            time.sleep(0.01)
            signal.pthread_kill(other_thread.ident, signal.SIGINT)

        thread = threading.Thread(target=strike)
        loop.call_soon(thread.start)
        if isinstance(loop, asyncio.SelectorEventLoop):
            # asyncio sleeps on in this case unless it has a signal handler of its own.
            loop.call_later(0.05, int)
        try:
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
        finally:
            end.set()
            thread.join()
            other_thread.join()

    def test_interrupt_main(self, loop):
        import _thread

        loop.call_soon(_thread.interrupt_main)
        loop.call_later(5, loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()

    def test_a_loop_in_another_thread_is_not_disturbed(self, new_loop):
        loop = new_loop()
        started = threading.Event()
        thread = threading.Thread(target=loop.run_forever)
        loop.call_soon(started.set)
        thread.start()
        started.wait()
        with pytest.raises(KeyboardInterrupt):
            kill(signal.SIGINT)
            time.sleep(5)
        assert loop.is_running()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class TestWakeupDescriptor:
    def test_the_users_is_put_back(self, loop):
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            right.setblocking(False)
            before = signal.set_wakeup_fd(left.fileno())
            try:
                run_turns(loop, 5)
                # A run that really sleeps.
                loop.call_later(0.002, loop.stop)
                loop.run_forever()
                assert signal.set_wakeup_fd(left.fileno()) == left.fileno()
            finally:
                signal.set_wakeup_fd(before)

    def test_the_users_is_put_back_after_an_interrupt(self, loop):
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            before = signal.set_wakeup_fd(left.fileno())
            try:
                with Later(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
                    loop.run_forever()
                assert signal.set_wakeup_fd(left.fileno()) == left.fileno()
            finally:
                signal.set_wakeup_fd(before)

    def test_nothing_is_left_after_a_run(self, loop):
        for _ in range(3):
            loop.call_later(0.001, loop.stop)
            loop.run_forever()
            fd = signal.set_wakeup_fd(-1)
            assert fd == -1

    def test_nothing_is_left_after_the_last_handler(self, loop):
        loop.add_signal_handler(SIGNAL, print)
        run_turns(loop)
        loop.remove_signal_handler(SIGNAL)
        assert signal.set_wakeup_fd(-1) == -1

    def test_two_loops_in_turn(self, new_loop):
        seen = []
        for _ in range(2):
            loop = new_loop()
            loop.add_signal_handler(SIGNAL, seen.append, loop)
            loop.call_soon(kill)
            run_turns(loop, 5)
            loop.remove_signal_handler(SIGNAL)
        assert len(seen) == 2 and seen[0] is not seen[1]

    @pytest.mark.only("gyre")  # asyncio prints a complaint for each that does not fit
    def test_signals_still_arrive_when_thousands_come(self, loop, capfd):
        """The socket behind it may be full: nothing is printed, nothing hangs."""
        seen = []
        loop.add_signal_handler(SIGNAL, seen.append, 1)

        def flood():
            for _ in range(20_000):
                signal.raise_signal(SIGNAL)

        loop.call_soon(flood)
        run_turns(loop, 5)
        loop.call_soon(kill)
        deadline = loop.time() + 5
        count = len(seen)
        assert count > 0
        while len(seen) == count and loop.time() < deadline:
            run_turns(loop)
        assert len(seen) > count
        loop.remove_signal_handler(SIGNAL)
        assert capfd.readouterr() == ("", "")

    def test_a_burst(self, loop):
        seen = []
        loop.add_signal_handler(SIGNAL, seen.append, 1)

        def burst():
            for _ in range(200):
                signal.raise_signal(SIGNAL)

        loop.call_soon(burst)
        run_turns(loop, 5)
        assert len(seen) == 200
        loop.remove_signal_handler(SIGNAL)
