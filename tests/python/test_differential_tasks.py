"""Random programs of tasks, futures, timers, locks and groups: gyre does what asyncio does.

hypothesis makes a program; it runs on asyncio's loop and on gyre's, and both must give the same
trace: every event in the same order and in the same turn.  The clock is a count of turns, so that
timers are part of what can be compared.  What asyncio does not promise is left out: no two timers
are due at the same time, and sets of futures are sorted before they are noted.

The examples are the same in every run; `--hypothesis-profile=deep` makes more of them, at random,
and hypothesis prints what it found.
"""

import asyncio
import gc
import sys

import pytest
from conftest import make_loop
from hypothesis import given
from hypothesis import strategies as st

FUTURES = 4
TURNS = 60  # what is not over then is cancelled

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


class Planned(Exception):
    """What a program raises on purpose."""


# ---- programs ----------------------------------------------------------------------------------

numbers = st.integers(0, FUTURES - 1)
several = st.lists(numbers, min_size=1, max_size=3)
ticks = st.integers(0, 6)

SIMPLE = st.one_of(
    st.tuples(st.just("turn")),
    st.tuples(st.just("turn")),
    st.tuples(st.just("sleep"), ticks),
    st.tuples(st.just("wait"), numbers),
    st.tuples(st.just("wait"), numbers),
    st.tuples(st.just("set"), numbers),
    st.tuples(st.just("set"), numbers),
    st.tuples(st.just("fail"), numbers),
    st.tuples(st.just("cancel_future"), numbers),
    st.tuples(st.just("renew"), numbers),
    st.tuples(st.just("callback"), numbers),
    st.tuples(st.just("take_callback"), numbers),
    st.tuples(st.just("cancel"), st.integers(0, 7)),
    st.tuples(st.just("cancel"), st.integers(0, 7)),
    st.tuples(st.just("uncancel")),
    st.tuples(st.just("join"), st.integers(0, 4)),
    st.tuples(st.just("soon"), st.booleans()),
    st.tuples(st.just("later"), ticks, st.booleans()),
    st.tuples(st.just("threadsafe")),
    st.tuples(st.just("wait_for"), numbers, ticks),
    st.tuples(st.just("shield"), numbers),
    st.tuples(st.just("gather"), several, st.booleans()),
    st.tuples(st.just("wait_any"), several, st.integers(0, 2), st.none() | ticks),
    st.tuples(st.just("as_completed"), several),
    st.tuples(st.just("event"), st.booleans()),
    st.tuples(st.just("put"), st.booleans()),
    st.tuples(st.just("get"), st.booleans()),
    st.tuples(st.just("barrier")),
    st.tuples(st.just("generate"), ticks),
    st.tuples(st.just("bad_yield")),
    st.tuples(st.just("raise")),
    st.tuples(st.just("return")),
)

PROGRAM = st.recursive(
    st.lists(SIMPLE, max_size=5),
    lambda body: st.lists(
        st.one_of(
            SIMPLE,
            st.tuples(st.just("spawn"), body),
            st.tuples(st.just("spawn"), body),
            st.tuples(st.just("group"), st.lists(body, max_size=3)),
            st.tuples(st.just("timeout"), st.none() | ticks, body),
            st.tuples(st.just("lock"), body),
            st.tuples(st.just("semaphore"), body),
            st.tuples(st.just("condition"), body),
            st.tuples(st.just("catch"), body),
            st.tuples(st.just("finally"), body, body),
        ),
        max_size=5,
    ),
    max_leaves=12,
)

# ---- what they mean ----------------------------------------------------------------------------


def told(exc):
    """An exception as it may be compared."""
    if isinstance(exc, BaseExceptionGroup):
        return (type(exc).__name__, *sorted(map(repr, map(told, exc.exceptions))))
    if isinstance(exc, RuntimeError):  # the text names types and addresses
        return ("RuntimeError",)
    return (type(exc).__name__, *map(str, exc.args))


class BadYield:
    def __await__(self):
        yield 17


class InOrder(dict):
    """A set that goes in the order of its making: a group cancels its tasks in that of their
    addresses, which no two runs have in common."""

    def add(self, task):
        self[task] = None

    def discard(self, task):
        self.pop(task, None)


class World:
    def __init__(self, loop):
        self.loop = loop
        self.now = 0
        self.timers = 0
        self.trace = []
        self.tasks = []
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.old = []
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(2)
        self.condition = asyncio.Condition()
        self.signal = asyncio.Event()
        self.queue = asyncio.Queue(2)
        self.barrier = asyncio.Barrier(2)
        loop.time = lambda: float(self.now)
        loop.set_exception_handler(self.on_exception)

    def delay(self, ticks):
        """Due in this many turns, and never at the time of another timer."""
        self.timers += 1
        return None if ticks is None else ticks + self.timers * 1e-6

    def on_exception(self, loop, context):
        message = context["message"].partition(" in ")[0]
        if "exception" in context:  # pending tasks, too, are destroyed: whenever that is
            self.note("handler", message, told(context["exception"]))

    def note(self, *event):
        self.trace.append((self.now, *event))

    def spawn(self, body):
        name = f"t{len(self.tasks)}"
        self.tasks.append(None)
        place = len(self.tasks) - 1
        task = self.loop.create_task(self.run(name, body), name=name)
        self.tasks[place] = task
        task.add_done_callback(lambda task: self.note("done", task.get_name(), self.state(task)))
        return task

    def state(self, future):
        if not future.done():
            return "pending"
        if future.cancelled():
            return "cancelled"
        exc = future.exception()
        return ("result", future.result()) if exc is None else told(exc)

    async def run(self, name, body):
        self.note("begin", name)
        try:
            await self.each(name, body)
        except BaseException as exc:
            self.note("end", name, told(exc))
            raise
        self.note("end", name)
        return name

    async def each(self, name, body):
        for op, *args in body:
            try:
                result = await getattr(self, "op_" + op)(name, *args)
            except BaseException as exc:
                me = asyncio.current_task()
                self.note(name, op, told(exc), me.cancelling())
                raise
            self.note(name, op, result)

    # each op is a coroutine function: what it returns is noted

    async def op_turn(self, name):
        await asyncio.sleep(0)

    async def op_sleep(self, name, delay):
        return await asyncio.sleep(self.delay(delay), "slept")

    async def op_wait(self, name, number):
        return await self.futures[number]

    async def op_set(self, name, number):
        if not self.futures[number].done():
            self.futures[number].set_result(number)

    async def op_fail(self, name, number):
        if not self.futures[number].done():
            self.futures[number].set_exception(Planned(number))
            self.futures[number].exception()

    async def op_cancel_future(self, name, number):
        return self.futures[number].cancel(f"by {name}")

    async def op_renew(self, name, number):
        self.old.append(self.futures[number])
        self.futures[number] = self.loop.create_future()

    def called(self, future):
        self.note("callback", self.futures.index(future) if future in self.futures else "old")

    async def op_callback(self, name, number):
        self.futures[number].add_done_callback(self.called)

    async def op_take_callback(self, name, number):
        return self.futures[number].remove_done_callback(self.called)

    async def op_cancel(self, name, number):
        if number < len(self.tasks) and self.tasks[number] is not None:
            return self.tasks[number].cancel(f"by {name}")

    async def op_uncancel(self, name):
        return asyncio.current_task().uncancel()

    async def op_join(self, name, number):
        # Only earlier ones: tasks that wait for each other cannot be cancelled, on no loop.
        if number < int(name[1:].partition(".")[0]) and self.tasks[number] is not None:
            return await self.tasks[number]

    async def op_soon(self, name, cancelled):
        handle = self.loop.call_soon(self.note, "soon", name)
        if cancelled:
            handle.cancel()

    async def op_later(self, name, delay, cancelled):
        handle = self.loop.call_later(self.delay(delay), self.note, "later", name)
        if cancelled:
            self.loop.call_later(self.delay(delay / 2), handle.cancel)

    async def op_threadsafe(self, name):
        self.loop.call_soon_threadsafe(self.note, "threadsafe", name)

    async def op_wait_for(self, name, number, delay):
        return await asyncio.wait_for(self.futures[number], self.delay(delay))

    async def op_shield(self, name, number):
        return await asyncio.shield(self.futures[number])

    async def op_gather(self, name, several, return_exceptions):
        waits = [self.futures[number] for number in several]
        found = await asyncio.gather(*waits, return_exceptions=return_exceptions)
        return [told(x) if isinstance(x, BaseException) else x for x in found]

    async def op_wait_any(self, name, several, when, timeout):
        waits = {self.futures[number] for number in several}
        when = ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")[when]
        done, pending = await asyncio.wait(waits, timeout=self.delay(timeout), return_when=when)
        return sorted(self.futures.index(f) for f in done if f in self.futures), len(pending)

    async def op_as_completed(self, name, several):
        found = []
        for future in asyncio.as_completed([self.futures[n] for n in sorted(set(several))]):
            try:
                found.append(await future)
            except Planned as exc:
                found.append(told(exc))
        return sorted(map(str, found))

    async def op_event(self, name, wait):
        if wait:
            return await self.signal.wait()
        self.signal.set()
        self.signal.clear()

    async def op_put(self, name, wait):
        if wait:
            await self.queue.put(name)
        elif not self.queue.full():
            self.queue.put_nowait(name)

    async def op_get(self, name, wait):
        return await self.queue.get() if wait else self.queue.qsize()

    async def op_barrier(self, name):
        return await self.barrier.wait()

    async def op_generate(self, name, count):
        async def generator():
            try:
                for number in range(count):
                    await asyncio.sleep(0)
                    yield number
            finally:
                self.note("generator", name)
                await asyncio.sleep(0)

        async for number in generator():
            if number == 2:
                break

    async def op_bad_yield(self, name):
        await BadYield()

    async def op_raise(self, name):
        raise Planned(name)

    async def op_return(self, name):
        return asyncio.current_task() in self.tasks, len(asyncio.all_tasks())

    async def op_spawn(self, name, body):
        self.spawn(body)

    async def op_group(self, name, bodies):
        async with asyncio.TaskGroup() as group:
            group._tasks = InOrder()
            for number, body in enumerate(bodies):
                child = f"{name}.{number}"
                group.create_task(self.run(child, body), name=child)

    async def op_timeout(self, name, delay, body):
        async with asyncio.timeout(self.delay(delay)) as timeout:
            await self.each(name, body)
        return timeout.expired()

    async def op_lock(self, name, body):
        async with self.lock:
            await self.each(name, body)

    async def op_semaphore(self, name, body):
        async with self.semaphore:
            await self.each(name, body)

    async def op_condition(self, name, body):
        async with self.condition:
            self.condition.notify()
            await self.each(name, body)
            await self.condition.wait()

    async def op_catch(self, name, body):
        try:
            await self.each(name, body)
        except (Planned, asyncio.CancelledError, TimeoutError) as exc:
            return told(exc)

    async def op_finally(self, name, body, last):
        try:
            await self.each(name, body)
        finally:
            await self.each(name, last)


async def play(world, bodies):
    for body in bodies:
        world.spawn(body)
    for _ in range(TURNS):
        world.now += 1
        await asyncio.sleep(0)
    world.note("over")
    for _attempt in range(10):  # a program may swallow a cancellation
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if not rest:
            break
        for task in sorted(rest, key=lambda task: task.get_name()):
            task.cancel("over")
        for _ in range(TURNS):
            world.now += 1
            await asyncio.sleep(0)
    world.note("left", len(rest))


def trace_of(kind, bodies, eager, debug):
    loop = make_loop(kind)
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    if eager:
        import gyre

        task_type = gyre.Task if kind == "gyre" else asyncio.Task
        loop.set_task_factory(asyncio.create_eager_task_factory(task_type))
    try:

        async def main():
            world = World(loop)
            await play(world, bodies)
            return world

        world = loop.run_until_complete(main())
        states = [world.state(task) for task in world.tasks]
        del loop.time
        loop.run_until_complete(loop.shutdown_asyncgens())
        return world.trace, states
    finally:
        loop.close()


PROGRAMS = st.lists(PROGRAM, min_size=1, max_size=4)


@given(PROGRAMS, st.booleans(), st.booleans())
def test_same_trace(bodies, eager, debug):
    eager = eager and sys.version_info >= (3, 12)
    expected = trace_of("asyncio", bodies, eager, debug)
    assert trace_of("gyre", bodies, eager, debug) == expected


def test_the_programs_do_something():
    """The trace of a program is not empty, and tells one program from another."""
    first, states = trace_of("gyre", [[("wait", 0), ("raise",)], [("sleep", 3), ("set", 0)]], 0, 0)
    assert states == [("Planned", "t0"), ("result", "t1")]
    assert [event[1:] for event in first if event[1] in ("begin", "end")] == [
        ("begin", "t0"),
        ("begin", "t1"),
        ("end", "t1"),
        ("end", "t0", ("Planned", "t0")),
    ]
    gc.collect()
