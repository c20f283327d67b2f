"""The floor of the micro benchmarks does what it promises, and no more."""

import asyncio
import contextvars
import gc
import sys
import weakref
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import arms, build  # noqa: E402
from bench.micro import floor, paired, workloads  # noqa: E402

# Where it steps no tasks it says why, which is the reason of the skip.
no_tasks = floor.reason({"workload": floor.TASKS[0]})
has_tasks = pytest.mark.skipif(no_tasks is not None, reason=no_tasks or "")


@pytest.fixture(params=["floor", "floor@future=whole"])
def bare(request):
    try:
        loop = arms.new_event_loop(arms.parse_arm(request.param))
    except build.MissingError as error:  # what does not compile is a failure
        pytest.skip(str(error))
    yield loop
    loop.close()


@pytest.mark.parametrize("name", floor.CALLBACKS + floor.TASKS)
def test_each_of_its_workloads_runs(bare, name):
    if reason := floor.reason({"workload": name}):
        pytest.skip(reason)  # tasks, of a Python whose books it does not keep
    workload = workloads.WORKLOADS[name]
    floors = ["floor", "floor@future=whole"]
    samples, errors = paired.repetition(workload, [*floors, "asyncio"], 0, 1)
    assert errors == {} and all(samples[each]["rate"] > 0 for each in floors)


def test_other_workloads_are_not_for_it():
    for name in ("task.gather_100", "loop.timer_fire"):
        assert floor.reason({"workload": name})


def test_callbacks_run_in_order_each_in_its_context(bare):
    seen = []
    variable = contextvars.ContextVar("variable", default=0)

    def start():
        assert asyncio.get_running_loop() is bare
        for i in range(1000):
            variable.set(i)
            bare.call_soon(change, i)
        bare.call_soon(end, "a", "b", "c")

    def change(i):
        seen.append((i, variable.get()))
        variable.set(-1)

    def end(*args):
        seen.append(args)
        bare.stop()

    for _ in range(3):
        seen.clear()
        bare.call_soon(start)
        bare.run_forever()
        assert seen == [*((i, i) for i in range(1000)), ("a", "b", "c")]
        assert variable.get() == 0
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_a_handle_can_be_cancelled_before_and_while_it_runs(bare):
    seen, handles = [], []
    bare.call_soon(seen.append, 1).cancel()
    handles.append(bare.call_soon(lambda: handles[0].cancel() or seen.append(2)))
    handles.append(bare.call_soon(seen.append, 3))
    bare.call_soon(lambda: handles[2].cancel())
    handles.append(bare.call_soon(seen.append, 4))
    bare.call_soon(bare.stop)
    before = sys.getrefcount(seen)
    bare.run_forever()
    handles.clear()
    assert seen == [2, 3]
    assert sys.getrefcount(seen) < before


def test_what_is_raised_ends_the_run(bare):
    bare.call_soon(lambda: 1 / 0)
    bare.call_soon(pytest.fail, "it goes on")
    with pytest.raises(ZeroDivisionError):
        bare.run_forever()
    with pytest.raises(RuntimeError, match="nothing is ready"):
        bare.run_forever()
    for call in (lambda: bare.call_soon(), lambda: bare.call_soon(print, context=None)):
        with pytest.raises(NotImplementedError, match="has call_soon"):
            call()


@has_tasks
def test_tasks_are_current_and_wait_for_futures(bare):
    variable = contextvars.ContextVar("variable")
    seen = []

    async def waiter(future, i):
        variable.set(i)
        before = asyncio.current_task()
        seen.append((i, await future))
        assert asyncio.current_task() is before and variable.get() == i
        await asyncio.sleep(0)
        assert asyncio.current_task() is before and variable.get() == i
        return i

    async def main():
        futures = [bare.create_future() for _ in range(3)]
        tasks = [bare.create_task(waiter(future, i)) for i, future in enumerate(futures)]
        await asyncio.sleep(0)
        bare.call_soon(lambda: seen.append(asyncio.current_task()))
        await asyncio.sleep(0)
        for future in reversed(futures):
            assert not future.done()
            future.set_result("x")
            assert future.done()
        assert [await task for task in tasks] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="is done"):
            futures[0].set_result(1)
        return "end"

    for _ in range(3):
        seen.clear()
        assert bare.run_until_complete(main()) == "end"
        assert seen == [None, (2, "x"), (1, "x"), (0, "x")]
        assert asyncio.current_task(bare) is None


def test_a_whole_future_is_as_asyncio_has_them(bare):
    future = bare.create_future()
    is_whole = type(future).__name__ == "WholeFuture"
    assert gc.is_tracked(future) == gc.is_tracked(future.__await__()) == is_whole
    assert (future.__await__() is future) != is_whole
    if not is_whole:
        with pytest.raises(AttributeError):
            future.attribute = 1
        return
    assert vars(future) == {}
    future.attribute = future
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None
    assert vars(bare.create_future()) == {}


@has_tasks
def test_the_iterator_of_a_whole_future(bare):
    async def main():
        future = bare.create_future()
        iterator = future.__await__()
        assert next(iterator) is future
        future.set_result("x")
        for value in ("x", None):
            with pytest.raises(StopIteration) as caught:
                next(iterator)
            if type(future).__name__ == "WholeFuture":
                assert caught.value.value == value

    bare.run_until_complete(main())


@has_tasks
def test_a_task_that_raises_or_waits_wrongly_ends_the_run(bare):
    async def fails():
        await asyncio.sleep(0)
        raise KeyError("task")

    with pytest.raises(KeyError, match="task"):
        bare.run_until_complete(fails())
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(NotImplementedError, match="waits for its own"):
            bare.run_until_complete(waits(other.create_future()))
    finally:
        other.close()
    with pytest.raises(NotImplementedError, match="steps coroutines"):
        bare.create_task(None)


async def waits(future):
    await future
