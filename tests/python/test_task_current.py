"""current_task() between steps: a turn that runs tasks in a row writes asyncio's books less often
than asyncio does, and nobody who looks can tell."""

import asyncio
import random
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import eventually
from helpers import run_turns
from task_types import ASYNCIO, both, turn

pytestmark = both


@pytest.fixture
def look(loop):
    """look(): what is the current task of the loop; in C from 3.12 on, a dict before 3.14."""
    return lambda: asyncio.current_task(loop)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("debug", [False, True])
def test_steps_callbacks_and_other_tasks_mixed(loop, types, look, seed, debug):
    loop.set_debug(debug)
    dice = random.Random(seed)
    wrong, counted = [], [0]

    def check(expected):
        counted[0] += 1
        if look() is not expected:
            wrong.append((look(), expected))

    async def worker():
        me = asyncio.current_task()
        for _ in range(dice.randrange(1, 20)):
            check(me)
            what = dice.randrange(6)
            if what == 0:
                loop.call_soon(check, None)
            elif what == 1:
                future = loop.create_future()
                future.add_done_callback(lambda _: check(None))
                loop.call_soon(future.set_result, None)
                await future
            elif what == 2:
                loop.call_later(0, check, None)
            elif what == 3:
                loop.call_soon_threadsafe(check, None)
            elif what == 4:
                dice.choice([types, ASYNCIO]).Task(last(), loop=loop)
            await turn()
        check(me)

    async def last():
        check(asyncio.current_task())

    async def main():
        kinds = [types, types, ASYNCIO]
        await asyncio.wait([dice.choice(kinds).Task(worker(), loop=loop) for _ in range(30)])

    loop.run_until_complete(types.Task(main(), loop=loop))
    run_turns(loop, 3)
    assert wrong == [] and counted[0] > 100
    assert look() is None


def test_events_are_nobodys(loop, types, look):
    """Readers, and protocols of a transport, right after steps of a task that goes on stepping."""
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(("made", look()))

        def data_received(self, data):
            seen.append(("data", look()))

        def eof_received(self):
            seen.append(("eof", look()))

        def connection_lost(self, exc):
            seen.append(("lost", look()))

    async def spin():
        while ("lost", None) not in seen and len(seen) < 50:
            await turn()

    async def main():
        near, far = socket.socketpair()
        idle, other = socket.socketpair()
        for sock in (near, far, idle, other):
            sock.setblocking(False)
        spinner = types.Task(spin(), loop=loop)
        loop.add_reader(idle, lambda: (seen.append(("reader", look())), loop.remove_reader(idle)))
        other.send(b"x")
        await loop.connect_accepted_socket(Protocol, near)
        far.send(b"x")
        while not {("reader", None), ("data", None)} <= set(seen):
            await turn()
        far.close()
        await spinner
        idle.close()
        other.close()

    loop.run_until_complete(types.Task(main(), loop=loop))
    assert [task for _, task in seen] == [None] * len(seen)
    assert [what for what, _ in seen if what != "reader"] == ["made", "data", "eof", "lost"]


def test_what_dies_with_a_task_dies_in_no_step(loop, types, look):
    """A result is dropped with its task, before the next task is stepped."""
    seen = []

    class Result:
        def __del__(self):
            seen.append(look())

    async def gives():
        return Result()

    async def main():
        for _ in range(5):
            types.Task(gives(), loop=loop)
        await turn()
        await turn()
        assert seen == [None] * 5

    loop.run_until_complete(types.Task(main(), loop=loop))


def test_a_failing_step_is_reported_outside_of_it(loop, types, look):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append((look(), context["exception"])))

    class Bad(types.Future):
        def add_done_callback(self, function, *, context=None):
            self.wake = function
            raise ZeroDivisionError

    async def main():
        future = Bad(loop=loop)

        async def waits():
            await future

        task = types.Task(waits(), loop=loop)
        await turn()
        await turn()
        future.set_result(None)
        loop.call_soon(future.wake, future)
        await task

    loop.run_until_complete(types.Task(main(), loop=loop))
    assert [(task, type(exc)) for task, exc in reports] == [(None, ZeroDivisionError)]


def test_nobody_is_current_when_the_run_ends(loop, types, look):
    async def forever():
        while True:
            loop.stop()
            await turn()

    task = types.Task(forever(), loop=loop)
    for _ in range(3):
        loop.run_forever()
        assert look() is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_nobody_is_current_while_the_loop_waits(loop, types, look):
    seen = []

    def other_thread():
        seen.append(eventually(lambda: look() is None))
        loop.call_soon_threadsafe(done.set_result, None)

    async def main():
        threading.Thread(target=other_thread).start()
        await done
        assert look() is asyncio.current_task()

    done = loop.create_future()
    loop.run_until_complete(types.Task(main(), loop=loop))
    assert seen == [True]


def test_signal_handlers_between_steps(loop, types, look):
    """Python's handlers: in a step the current task is its own, elsewhere there is none."""
    wrong, seen = [], [0, 0]

    def handler(signum, frame):
        outside = frame.f_code.co_name in ("run_forever", "_run_once", "_run")
        seen[outside] += 1
        if outside and look() is not None:
            wrong.append((look(), frame))

    async def worker():
        while sender.poll() is None:
            for _ in range(100):
                await turn()

    # A pause after each signal, so that they come one by one, at any point of the steps.
    code = "import os, time\nfor _ in range(1000): os.kill(os.getppid(), 10); time.sleep(1e-5)"
    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        sender = subprocess.Popen([sys.executable, "-S", "-c", code])  # it has a GIL of its own
        loop.run_until_complete(types.Task(worker(), loop=loop))
    finally:
        sender.wait()
        signal.signal(signal.SIGUSR1, previous)
    assert sum(seen) > 0 and wrong == []


def test_a_clock_of_the_users_is_read_in_no_step(kind, types, new_loop):
    if kind == "gyre":
        from gyre import Loop
    else:
        Loop = asyncio.SelectorEventLoop
    seen = set()

    class Clock(Loop):
        def time(self):
            if self.is_running():
                seen.add(asyncio.current_task(self))
            return super().time()

    loop = Clock()

    async def main():
        for _ in range(10):
            await turn()

    loop.call_later(1000, print)
    loop.run_until_complete(types.Task(main(), loop=loop))
    loop.close()
    assert seen == {None}


@pytest.mark.parametrize("what", ["leave", "enter another", "swap"])
def test_books_that_a_step_falsified(loop, types, look, what):
    """asyncio tells when a step leaves that is not on the books, and goes on."""
    if what == "swap" and sys.version_info < (3, 12):
        pytest.skip("_swap_current_task() is there from 3.12 on")
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(str(context["exception"])))

    other = types.Task(turn(), loop=loop)
    loop.run_until_complete(other)

    async def bad():
        me = asyncio.current_task()
        if what == "leave":
            asyncio.tasks._leave_task(loop, me)
        elif what == "enter another":
            asyncio.tasks._leave_task(loop, me)
            asyncio.tasks._enter_task(loop, other)
        else:
            asyncio.tasks._swap_current_task(loop, other)
        loop.call_soon(mend)
        await turn()

    def mend():
        if look() is not None:
            asyncio.tasks._leave_task(loop, other)

    loop.run_until_complete(types.Task(bad(), loop=loop))
    assert len(reports) >= 1 and re.match("Leaving task|Invalid attempt to leave", reports[0])
    assert look() is None


def test_loops_in_threads_do_not_disturb_each_other(new_loop, types):
    wrong, barrier = [], threading.Barrier(3)

    def run():
        loop = new_loop()

        async def worker():
            me = asyncio.current_task()
            for _ in range(300):
                await turn()
                if asyncio.current_task() is not me:
                    wrong.append(me)

        async def main():
            await asyncio.wait([types.Task(worker(), loop=loop) for _ in range(5)])

        barrier.wait(20)
        loop.run_until_complete(types.Task(main(), loop=loop))
        if asyncio.current_task(loop) is not None:
            wrong.append(loop)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
