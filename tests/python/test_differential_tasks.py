"""Random programs of tasks, futures, timers, locks and groups: gyre does what asyncio does.

hypothesis makes a program; it runs on asyncio's loop and on gyre's, and both must give the same
trace: every event in the same order and in the same turn.  The clock is a count of turns, so that
timers are part of what can be compared.  What asyncio does not promise is left out: no two timers
are due at the same time, and sets of futures are sorted before they are noted.

The examples are the same in every run; `--hypothesis-profile=deep` makes more of them, at random,
and hypothesis prints what it found.
"""

import asyncio
import concurrent.futures
import contextvars
import difflib
import gc
import sys

import pytest
from conftest import make_loop
from differential_streams import made
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
delays = st.none() | ticks
WHEN = st.integers(0, 2)

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
    st.tuples(st.just("context"), ticks),
    st.tuples(st.just("look"), st.integers(0, 7)),
    st.tuples(st.just("peek"), numbers),
    st.tuples(st.just("fail_with"), numbers, st.sampled_from(["stop", "class", "none", "base"])),
    st.tuples(st.just("foreign")),
    st.tuples(st.just("itself")),
    st.tuples(st.just("python_future"), ticks, st.booleans()),
    st.tuples(st.just("wrapped"), ticks, st.sampled_from(["result", "error", "cancel"])),
    st.tuples(st.just("shield_task"), st.integers(0, 4)),
    st.tuples(st.just("reschedule"), st.none() | ticks),
    st.tuples(st.just("queue"), st.sampled_from(["join", "task_done", "shutdown", "hard"])),
    st.tuples(st.just("close_generator"), st.sampled_from(["aclose", "athrow", "leave"])),
)

PROGRAM = st.recursive(
    st.lists(SIMPLE, max_size=5),
    lambda body: st.lists(
        st.one_of(
            SIMPLE,
            st.tuples(st.just("spawn"), body),
            st.tuples(st.just("spawn"), body),
            st.tuples(st.just("spawn_with"), body, st.sampled_from(["context", "eager", "lazy"])),
            st.tuples(st.just("gather_tasks"), st.lists(body, max_size=3), st.booleans()),
            st.tuples(st.just("wait_tasks"), st.lists(body, min_size=1, max_size=3), WHEN, delays),
            st.tuples(st.just("wait_for_body"), body, delays),
            st.tuples(st.just("threadsafe_body"), body),
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


WAITS = ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")
VARIABLE = contextvars.ContextVar("VARIABLE", default=0)


class World:
    def __init__(self, loop):
        self.loop = loop
        self.timeouts = {}
        self.kept = []
        self.context = contextvars.copy_context()
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
        self.trace.append(((self.now, VARIABLE.get()), *event))

    def spawn(self, body, **options):
        name = f"t{len(self.tasks)}"
        self.tasks.append(None)
        place = len(self.tasks) - 1
        task = self.loop.create_task(self.run(name, body), name=name, **options)
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

    def children(self, name, bodies):
        """A task for each; kept, as one that nobody asks for its exception tells it as garbage."""
        names = [f"{name}.{number}" for number in range(len(bodies))]
        both = zip(names, bodies, strict=True)
        tasks = [self.loop.create_task(self.run(*pair), name=pair[0]) for pair in both]
        self.kept += tasks
        return tasks

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
        delay = self.delay(timeout)
        done, pending = await asyncio.wait(waits, timeout=delay, return_when=WAITS[when])
        return sorted(self.futures.index(f) for f in done if f in self.futures), len(pending)

    async def op_as_completed(self, name, several):
        found = []
        for future in asyncio.as_completed([self.futures[n] for n in sorted(set(several))]):
            try:
                found.append(await future)
            except Planned as exc:
                found.append(told(exc))
            except asyncio.CancelledError:  # it keeps a set: which of several comes first
                raise asyncio.CancelledError("one of several") from None
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

    async def op_spawn_with(self, name, body, how):
        """In a context that several tasks share; at once or not, whatever the factory does."""
        if how == "context":
            self.spawn(body, context=self.context)
        elif sys.version_info >= (3, 14):
            self.spawn(body, eager_start=how == "eager")

    async def op_gather_tasks(self, name, bodies, return_exceptions):
        tasks = self.children(name, bodies)
        found = await asyncio.gather(*tasks, return_exceptions=return_exceptions)
        return [told(x) if isinstance(x, BaseException) else x for x in found]

    async def op_wait_tasks(self, name, bodies, when, timeout):
        tasks = self.children(name, bodies)
        delay = self.delay(timeout)
        done, pending = await asyncio.wait(tasks, timeout=delay, return_when=WAITS[when])
        for task in done:
            task.cancelled() or task.exception()
        return sorted(task.get_name() for task in done), len(pending)

    async def op_wait_for_body(self, name, body, delay):
        return await asyncio.wait_for(self.run(name + "'", body), self.delay(delay))

    async def op_threadsafe_body(self, name, body):
        """As another thread does it."""
        coro = self.run(name + '"', body)
        future = asyncio.run_coroutine_threadsafe(coro, self.loop)
        future.add_done_callback(lambda future: self.note("other thread", name))

    async def op_context(self, name, value):
        VARIABLE.set(value)

    async def op_look(self, name, number):
        """What can be asked of a task."""
        if number < len(self.tasks) and (task := self.tasks[number]) is not None:
            asked = task.done(), task.cancelled(), task.cancelling(), task.get_name()
            context = task.get_context().get(VARIABLE) if hasattr(task, "get_context") else 0
            codes = [frame.f_code for frame in task.get_stack()]  # of the current one, all below
            stack = [code.co_name for code in codes if code.co_filename == __file__]
            # An eager task that is done has none, and asyncio's of 3.12.1 crashes.
            coro = None if task.done() else task.get_coro().__name__
            return *asked, stack[-3:], coro, context

    async def op_peek(self, name, number):
        future = self.futures[number]
        try:
            return told(future.exception()) if future.done() else future.result()
        except (asyncio.InvalidStateError, asyncio.CancelledError) as exc:
            return told(exc)

    async def op_fail_with(self, name, number, what):
        future = self.futures[number]
        exc = {
            "stop": StopIteration("planned"),
            "class": Planned,
            "none": None,
            "base": GeneratorExit(),
        }
        try:
            future.set_exception(exc[what])
        except (asyncio.InvalidStateError, TypeError) as error:
            return type(error).__name__
        future.exception()

    async def op_foreign(self, name):
        """A future of another loop."""
        loop = make_loop("asyncio")
        try:
            await loop.create_future()
        finally:
            loop.close()

    async def op_itself(self, name):
        await asyncio.current_task()

    async def op_python_future(self, name, delay, gathered):
        """One of asyncio's class in Python."""
        future = asyncio.futures._PyFuture(loop=self.loop)
        self.loop.call_later(self.delay(delay), self.finish, future)
        return await (asyncio.gather(future) if gathered else future)

    def finish(self, future):
        if not future.done():
            future.set_result("python")

    async def op_wrapped(self, name, delay, how):
        """A future of concurrent.futures, which another thread may end."""
        future = concurrent.futures.Future()
        end = {
            "result": lambda: future.cancelled() or future.set_result("wrapped"),
            "error": lambda: future.cancelled() or future.set_exception(Planned("wrapped")),
            "cancel": future.cancel,
        }
        self.loop.call_later(self.delay(delay), end[how])
        return await asyncio.wrap_future(future)

    async def op_shield_task(self, name, number):
        if number < int(name[1:].partition(".")[0]) and self.tasks[number] is not None:
            return await asyncio.shield(self.tasks[number])

    async def op_queue(self, name, what):
        if what == "join":
            return await self.queue.join()
        if what == "task_done":
            try:
                self.queue.task_done()
            except ValueError:
                return "too many"
        elif sys.version_info >= (3, 13):
            self.queue.shutdown(immediate=what == "hard")

    async def op_close_generator(self, name, how):
        async def generator():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                self.note("generator", name)

        it = generator()
        await anext(it)
        if how == "aclose":
            await it.aclose()
        elif how == "athrow":
            await it.athrow(Planned("thrown"))
        else:  # the loop's hook closes it
            del it
            gc.collect()

    async def op_group(self, name, bodies):
        async with asyncio.TaskGroup() as group:
            group._tasks = InOrder()
            for number, body in enumerate(bodies):
                child = f"{name}.{number}"
                group.create_task(self.run(child, body), name=child)

    async def op_timeout(self, name, delay, body):
        async with asyncio.timeout(self.delay(delay)) as timeout:
            self.timeouts[name] = timeout
            await self.each(name, body)
        return timeout.expired()

    async def op_reschedule(self, name, delay):
        """The timeout that this task entered last, also one that it has left."""
        if timeout := self.timeouts.get(name):
            delay = self.delay(delay)
            timeout.reschedule(None if delay is None else self.now + delay)
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
        for task in sorted(rest, key=made):
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
        states = [world.state(task) for task in world.tasks + world.kept]
        del loop.time
        loop.run_until_complete(loop.shutdown_asyncgens())
        return world.trace, states
    finally:
        loop.close()


PROGRAMS = st.lists(PROGRAM, min_size=1, max_size=4)


@given(PROGRAMS, st.booleans(), st.booleans())
def test_same_trace(bodies, eager, debug):
    eager = eager and sys.version_info >= (3, 12)
    expected = [*map(repr, sum(trace_of("asyncio", bodies, eager, debug), []))]
    found = [*map(repr, sum(trace_of("gyre", bodies, eager, debug), []))]
    assert found == expected, "\n".join(["", *difflib.ndiff(expected, found)])


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
