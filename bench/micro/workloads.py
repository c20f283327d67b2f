"""The task and loop workloads, for pytest-benchmark and for the paired runner alike.

A workload is a function that takes a Context and returns `run(count)`, which performs `count`
operations on the context's loop. What an operation is stands in the title.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench import arms

WORKLOADS = {}


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    make: object
    count: int  # operations in a run of some milliseconds; a multiple of `group`
    group: int = 1
    pinned: bool = True  # False: has threads of its own
    quick: bool = False
    reports_lateness: bool = False  # run(count) returns seconds of lateness, one per timer
    # Always `count` operations. Where threads contend for the interpreter's lock a short run that
    # waited for it once, 5 ms, looks like a slow one: the number is not to be chosen by its time.
    fixed: bool = False


def workload(name, title, *, count, **more):
    def register(make):
        assert name not in WORKLOADS
        WORKLOADS[name] = Workload(name, title, make, count, **more)
        return make

    return register


class Context:
    """One arm's loop, and what has to be undone after the measurement."""

    def __init__(self, arm):
        self.arm = arm
        self.loop = arms.new_event_loop(arm)
        self.undo = []

    def close(self):
        for function in reversed(self.undo):
            function()
        self.loop.close()

    def run_main(self, main):
        """run(count) for a coroutine function main(count)."""
        loop = self.loop
        return lambda count: loop.run_until_complete(main(count))

    def run_callbacks(self, start):
        """run(count) for start(count), after which some callback calls loop.stop()."""
        loop = self.loop

        def run(count):
            loop.call_soon(start, count)
            loop.run_forever()

        return run


async def noop():
    pass


def nothing(*args):
    pass


# ---- tasks ----


@workload("task.sleep0_1", "await sleep(0), one task", count=5000, quick=True)
def sleep0_1(context):
    async def main(count):
        for _ in range(count):
            await asyncio.sleep(0)

    return context.run_main(main)


@workload("task.sleep0_100", "await sleep(0), 100 tasks", count=10000, group=100, quick=True)
def sleep0_100(context):
    async def worker(count):
        for _ in range(count):
            await asyncio.sleep(0)

    async def main(count):
        await asyncio.gather(*[worker(count // 100) for _ in range(100)])

    return context.run_main(main)


@workload("task.wakeup", "a future's result wakes a task", count=5000, quick=True)
def wakeup(context):
    loop = context.loop

    async def main(count):
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    return context.run_main(main)


@workload("task.handover", "two tasks hand over by futures", count=5000, group=2)
def handover(context):
    loop = context.loop

    async def main(count):
        waiting = [loop.create_future(), loop.create_future()]

        async def player(me):
            for _ in range(count // 2):
                await waiting[me]
                waiting[me] = loop.create_future()
                waiting[1 - me].set_result(None)

        players = [loop.create_task(player(0)), loop.create_task(player(1))]
        waiting[0].set_result(None)
        await asyncio.gather(*players)

    return context.run_main(main)


@workload("task.spawn_1", "create_task and await it", count=2000, quick=True)
def spawn_1(context):
    loop = context.loop

    async def main(count):
        for _ in range(count):
            await loop.create_task(noop())

    return context.run_main(main)


@workload("task.spawn_100", "create_task 100 times, then await each", count=2000, group=100)
def spawn_100(context):
    loop = context.loop

    async def main(count):
        for _ in range(count // 100):
            tasks = [loop.create_task(noop()) for _ in range(100)]
            for task in tasks:
                await task

    return context.run_main(main)


@workload("task.gather_100", "gather() of 100 coroutines", count=30)
def gather_100(context):
    async def main(count):
        for _ in range(count):
            await asyncio.gather(*[noop() for _ in range(100)])

    return context.run_main(main)


@workload("task.taskgroup_10", "a TaskGroup of 10 tasks", count=200)
def taskgroup_10(context):
    async def main(count):
        for _ in range(count):
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(noop())

    return context.run_main(main)


@workload("task.queue", "Queue ping-pong between two tasks, one round trip", count=1000)
def queue(context):
    async def main(count):
        there, back = asyncio.Queue(1), asyncio.Queue(1)

        async def answer():
            for _ in range(count):
                await back.put(await there.get())

        task = context.loop.create_task(answer())
        for _ in range(count):
            await there.put(None)
            await back.get()
        await task

    return context.run_main(main)


@workload("task.event", "an Event wakes a task", count=1000)
def event(context):
    async def main(count):
        ready, taken = asyncio.Event(), asyncio.Event()

        async def waiter():
            for _ in range(count):
                await ready.wait()
                ready.clear()
                taken.set()

        task = context.loop.create_task(waiter())
        for _ in range(count):
            ready.set()
            await taken.wait()
            taken.clear()
        await task

    return context.run_main(main)


def contended(context, make_primitive):
    async def main(count):
        primitive = make_primitive()

        async def worker():
            for _ in range(count // 10):
                async with primitive:
                    await asyncio.sleep(0)

        await asyncio.gather(*[worker() for _ in range(10)])

    return context.run_main(main)


@workload("task.lock", "a Lock that 10 tasks want, one acquisition", count=1000, group=10)
def lock(context):
    return contended(context, asyncio.Lock)


@workload("task.semaphore", "a Semaphore(3) that 10 tasks want", count=1000, group=10)
def semaphore(context):
    return contended(context, lambda: asyncio.Semaphore(3))


@workload("task.timeout", "timeout() entered and left", count=1000)
def timeout(context):
    async def main(count):
        for _ in range(count):
            async with asyncio.timeout(60):
                pass

    return context.run_main(main)


@workload("task.deep_10", "sleep(0) under 10 nested awaits", count=3000)
def deep_10(context):
    async def nested(depth):
        if depth:
            await nested(depth - 1)
        else:
            await asyncio.sleep(0)

    async def main(count):
        for _ in range(count):
            await nested(10)

    return context.run_main(main)


# ---- loop ----


# The calls are written out, without *args: those would be measured instead of the loop.


@workload("loop.call_soon_chain", "call_soon, one per turn", count=5000, quick=True)
def call_soon_chain(context):
    loop = context.loop

    def start(count):
        left = count

        def step():
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(step)
            else:
                loop.stop()

        step()

    return context.run_callbacks(start)


@workload("loop.call_soon_chain_args", "call_soon with two arguments, one per turn", count=5000)
def call_soon_chain_args(context):
    loop = context.loop

    def start(count):
        def step(left, other):
            if left:
                loop.call_soon(step, left - 1, other)
            else:
                loop.stop()

        step(count - 1, None)

    return context.run_callbacks(start)


def call_soon_fanout(context, spread):
    loop = context.loop

    def start(count):
        turns = count // 100

        def turn():
            nonlocal turns
            spread(loop)
            turns -= 1
            loop.call_soon(turn if turns else loop.stop)

        turn()

    return context.run_callbacks(start)


@workload("loop.call_soon_fanout", "call_soon, 100 per turn", count=10000, group=100, quick=True)
def call_soon_fanout_plain(context):
    def callback():
        pass

    def spread(loop):
        for _ in range(100):
            loop.call_soon(callback)

    return call_soon_fanout(context, spread)


@workload(
    "loop.call_soon_fanout_args",
    "call_soon with two arguments, 100 per turn",
    count=10000,
    group=100,
)
def call_soon_fanout_args(context):
    def callback(a, b):
        pass

    def spread(loop):
        for _ in range(100):
            loop.call_soon(callback, 1, 2)

    return call_soon_fanout(context, spread)


def threadsafe(context, threads):
    loop = context.loop

    def run(count):
        left = count

        def arrived():
            nonlocal left
            left -= 1
            if not left:
                loop.stop()

        def caller():
            for _ in range(count // threads):
                loop.call_soon_threadsafe(arrived)

        callers = [threading.Thread(target=caller) for _ in range(threads)]
        # From within the loop, so that no call comes before it runs.
        loop.call_soon(lambda: [thread.start() for thread in callers])
        loop.run_forever()
        for thread in callers:
            thread.join()

    return run


@workload(
    "loop.threadsafe_1",
    "call_soon_threadsafe from one thread",
    count=40_000,
    pinned=False,
    fixed=True,
    quick=True,
)
def threadsafe_1(context):
    return threadsafe(context, 1)


@workload(
    "loop.threadsafe_4",
    "call_soon_threadsafe from 4 threads",
    count=40_000,
    group=4,
    pinned=False,
    fixed=True,
)
def threadsafe_4(context):
    return threadsafe(context, 4)


def timer_cancel(context, live):
    loop = context.loop
    handles = [loop.call_later(3600 + i * 0.001, nothing) for i in range(live)]
    context.undo.append(lambda: [handle.cancel() for handle in handles])

    async def main(count):
        for _ in range(count // 100):
            for _ in range(100):
                loop.call_later(60, nothing).cancel()
            await asyncio.sleep(0)

    return context.run_main(main)


@workload(
    "loop.timer_cancel_10",
    "call_later and cancel, 10 live timers",
    count=2000,
    group=100,
    quick=True,
)
def timer_cancel_10(context):
    return timer_cancel(context, 10)


@workload("loop.timer_cancel_1k", "call_later and cancel, 1000 live timers", count=2000, group=100)
def timer_cancel_1k(context):
    return timer_cancel(context, 1000)


@workload(
    "loop.timer_cancel_100k", "call_later and cancel, 100,000 live timers", count=2000, group=100
)
def timer_cancel_100k(context):
    return timer_cancel(context, 100_000)


@workload("loop.timer_fire", "call_later that fires, all due within 1 ms", count=5000)
def timer_fire(context):
    loop = context.loop

    def start(count):
        left = count

        def fired():
            nonlocal left
            left -= 1
            if not left:
                loop.stop()

        for i in range(count):
            loop.call_later((i * 7919 % 1000) * 1e-6, fired)

    return context.run_callbacks(start)


@workload(
    "loop.timer_lateness",
    "how far single timers of 0.2 to 4 ms are off, mean",
    count=20,
    reports_lateness=True,
)
def timer_lateness(context):
    loop = context.loop

    # By time.monotonic: a loop's own clock may stand still between its turns.
    async def main(count):
        off = []
        for i in range(count):
            delay = 0.0002 + (i * 7919 % 1000) * 3.8e-6
            fired = loop.create_future()
            due = time.monotonic() + delay
            loop.call_later(delay, lambda: fired.set_result(time.monotonic()))  # noqa: B023
            off.append(abs(await fired - due))
        return off

    return context.run_main(main)


@workload("loop.executor", "run_in_executor round trip", count=300, pinned=False)
def executor(context):
    pool = ThreadPoolExecutor(1)
    context.undo.append(pool.shutdown)
    loop = context.loop

    async def main(count):
        for _ in range(count):
            await loop.run_in_executor(pool, nothing)

    return context.run_main(main)


@workload("loop.signal", "a signal to the own process, round trip", count=300)
def signal_round_trip(context):
    loop = context.loop

    async def main(count):
        caught = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, caught.set)
        for _ in range(count):
            os.kill(os.getpid(), signal.SIGUSR2)
            await caught.wait()
            caught.clear()
        loop.remove_signal_handler(signal.SIGUSR2)

    return context.run_main(main)


def socket_pair(context):
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
        context.undo.append(end.close)
    return pair


@workload("loop.reader_churn", "add_reader, one event, remove_reader", count=500)
def reader_churn(context):
    loop = context.loop
    mine, other = socket_pair(context)

    async def main(count):
        for _ in range(count):
            readable = loop.create_future()
            loop.add_reader(mine, readable.set_result, None)
            other.send(b"x")
            await readable
            loop.remove_reader(mine)
            mine.recv(1)

    return context.run_main(main)


@workload("loop.writer_churn", "add_writer, one event, remove_writer", count=500)
def writer_churn(context):
    loop = context.loop
    mine, _ = socket_pair(context)

    async def main(count):
        for _ in range(count):
            writable = loop.create_future()
            loop.add_writer(mine, writable.set_result, None)
            await writable
            loop.remove_writer(mine)

    return context.run_main(main)


@workload("loop.new_loop", "a loop made and closed", count=50)
def new_loop(context):
    def run(count):
        for _ in range(count):
            arms.new_event_loop(context.arm).close()

    return run


@workload("loop.run_empty", "asyncio.run() of an empty coroutine", count=30)
def run_empty(context):
    def run(count):
        for _ in range(count):
            arms.run(context.arm, noop())

    return run


@workload("loop.run_until_complete", "run_until_complete in a row on one loop", count=500)
def run_until_complete(context):
    loop = context.loop

    def run(count):
        for _ in range(count):
            loop.run_until_complete(noop())

    return run
