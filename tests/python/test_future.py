"""gyre.Future against asyncio.Future, on both loops."""

import asyncio
import concurrent.futures
import contextvars
import copy
import gc
import pickle
import sys
import threading
import traceback
import types as pytypes
import weakref

import gyre
import pytest
from task_types import GYRE, both, turn

pytestmark = both


def test_life(loop, types):
    future = types.Future(loop=loop)
    assert isinstance(future, asyncio.Future) and asyncio.isfuture(future)
    assert (future._state, future.done(), future.cancelled()) == ("PENDING", False, False)
    assert future.get_loop() is loop and future._loop is loop
    for method in (future.result, future.exception):
        with pytest.raises(asyncio.InvalidStateError):
            method()
    future.set_result(1)
    assert (future._state, future.done(), future.cancelled()) == ("FINISHED", True, False)
    assert future.result() == 1 and future.exception() is None
    assert future.cancel() is False
    for setter, value in ((future.set_result, 2), (future.set_exception, ValueError())):
        with pytest.raises(asyncio.InvalidStateError, match="invalid state"):
            setter(value)
    assert loop.run_until_complete(future) == 1


def test_base_class_is_told_of_another_loop(loop, new_loop, types):
    """Callbacks go to the loop that get_loop() names, and the one before may be gone."""
    other = new_loop()
    future = types.Future(loop=other)
    if sys.version_info >= (3, 15):
        with pytest.raises(RuntimeError, match="already initialized"):
            asyncio.Future.__init__(future, loop=loop)
        assert future.get_loop() is other
        return
    asyncio.Future.__init__(future, loop=loop)
    other.close()
    del other
    gc.collect()
    assert future.get_loop() is loop
    seen = []
    future.add_done_callback(seen.append)
    future.set_result(None)
    loop.run_until_complete(turn())
    assert seen == [future]


def test_callbacks_run_in_order_and_later(loop, types):
    seen = []
    future = types.Future(loop=loop)
    for name in "abcdefgh":
        future.add_done_callback(lambda f, name=name: seen.append((name, f is future)))
    future.set_result(None)
    assert seen == []
    loop.run_until_complete(turn())
    assert seen == [(name, True) for name in "abcdefgh"]
    future.add_done_callback(lambda f: seen.append("late"))
    assert seen[-1] != "late"
    loop.run_until_complete(turn())
    assert seen[-1] == "late"


def test_callbacks_run_in_their_context(loop, types):
    var = contextvars.ContextVar("var", default="outside")
    seen = []
    future = types.Future(loop=loop)
    context = contextvars.copy_context()
    context.run(var.set, "explicit")
    future.add_done_callback(lambda f: seen.append(var.get()), context=context)
    token = var.set("implicit")
    future.add_done_callback(lambda f: seen.append(var.get()))
    var.reset(token)
    future.set_result(None)
    loop.run_until_complete(turn())
    assert seen == ["explicit", "implicit"]


def test_failing_callback_is_reported_and_the_rest_run(loop, types):
    seen, reports = [], []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    future = types.Future(loop=loop)
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(seen.append)
    future.set_result(None)
    loop.run_until_complete(turn())
    assert seen == [future]
    [report] = reports
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["message"].startswith("Exception in callback ")
    assert isinstance(report["handle"], asyncio.Handle)


def test_remove_done_callback(loop, types):
    def one(future):
        raise AssertionError

    def two(future):
        raise AssertionError

    future = types.Future(loop=loop)
    assert future._callbacks is None
    for callback in (one, two, one, two, one):
        future.add_done_callback(callback)
    assert [pair[0] for pair in future._callbacks] == [one, two, one, two, one]
    assert future.remove_done_callback(one) == 3
    assert [pair[0] for pair in future._callbacks] == [two, two]
    assert future.remove_done_callback(one) == 0
    assert future.remove_done_callback(two) == 2
    assert not future._callbacks
    future.set_result(None)
    loop.run_until_complete(turn())


def test_remove_done_callback_with_evil_eq(loop, types):
    """__eq__ may take away what is being looked at."""
    future = types.Future(loop=loop)

    class Evil:
        def __eq__(self, other):
            future.remove_done_callback(print)
            return True

    for _ in range(9):
        future.add_done_callback(print)
    future.remove_done_callback(Evil())
    assert not future._callbacks


def test_waiting_task_is_the_callback(loop, types):
    """What AnyIO and debuggers look for: the wake-up of a waiting task has the task as __self__."""
    future = types.Future(loop=loop)

    async def waiter():
        return await future

    task = types.Task(waiter(), loop=loop)
    loop.run_until_complete(turn())
    [(wakeup, context)] = future._callbacks
    assert callable(wakeup) and wakeup.__self__ is task
    assert isinstance(context, contextvars.Context)
    assert task._fut_waiter is future
    assert "task_wakeup()" in repr(future) and "wait_for=<Future pending" in repr(task)
    # It is the very callback: taken away the task sleeps on, called by hand it goes on.
    assert future.remove_done_callback(wakeup) == 1
    assert not future._callbacks
    future.set_result("woken")
    loop.run_until_complete(turn())
    assert not task.done()
    loop.call_soon(wakeup, future)
    assert loop.run_until_complete(task) == "woken"


def test_waiters_and_callbacks_mix_in_order(loop, types):
    future, seen = types.Future(loop=loop), []

    async def waiter(name):
        await future
        seen.append(name)

    async def main():
        tasks = [types.Task(waiter("a"), loop=loop)]
        await turn()
        future.add_done_callback(lambda f: seen.append("b"))
        tasks += [types.Task(waiter(name), loop=loop) for name in "cd"]
        await turn()
        assert len(future._callbacks) == 4
        future.add_done_callback(lambda f: seen.append("e"))
        future.set_result(None)
        await asyncio.wait(tasks)

    loop.run_until_complete(main())
    assert seen == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("value", [(1, 2), ValueError("as a value"), None, StopIteration(3)])
def test_any_object_is_a_result(loop, types, value):
    async def main():
        future = types.Future(loop=loop)
        loop.call_soon(future.set_result, value)
        return await future

    assert loop.run_until_complete(main()) is value


def test_exception_keeps_its_traceback(loop, types):
    def fail():
        raise ValueError("here")

    future = types.Future(loop=loop)
    try:
        fail()
    except ValueError as exc:
        future.set_exception(exc)
    lengths = set()
    for _ in range(3):
        try:
            future.result()
        except ValueError as exc:
            frames = traceback.extract_tb(exc.__traceback__)
            # asyncio's C type forgets the traceback with the first result(); its Python type and
            # gyre's start each raise from it.
            assert frames[-1].name == "fail" or (types is not GYRE and lengths)
            lengths.add(len(frames))
    assert len(lengths) == 1 or types is not GYRE


def test_set_exception_checks(loop, types):
    future = types.Future(loop=loop)
    with pytest.raises(TypeError, match="invalid exception object"):
        future.set_exception("text")
    future.set_exception(KeyError)
    assert isinstance(future.exception(), KeyError)


def test_cancel_message(loop, types):
    for args, shown in (((), ()), (("why",), ("why",)), ((None,), ())):
        future = types.Future(loop=loop)
        assert future.cancel(*args)
        assert future.cancelled() and future.done() and future._state == "CANCELLED"
        with pytest.raises(asyncio.CancelledError) as caught:
            future.result()
        assert caught.value.args == shown
        with pytest.raises(asyncio.CancelledError):
            future.exception()
    future = types.Future(loop=loop)
    future.cancel(msg="keyword")
    assert future._cancel_message == "keyword"
    future._cancel_message = "another"
    assert future._make_cancelled_error().args == ("another",)


def test_wrong_arguments(loop, types):
    future = types.Future(loop=loop)
    for call in (
        lambda: types.Future(loop),
        lambda: future.add_done_callback(),
        lambda: future.add_done_callback(print, nonsense=1),
        lambda: future.cancel(1, 2),
        lambda: future.cancel(nonsense=1),
        lambda: future.set_result(),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        future._log_traceback = True
    with pytest.raises(AttributeError):
        del future._asyncio_future_blocking


def test_iterator_protocol(loop, types):
    future = types.Future(loop=loop)
    iterator = future.__await__()
    assert iter(iterator) is iterator
    assert next(iterator) is future and future._asyncio_future_blocking is True
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)
    future.set_result("value")
    with pytest.raises(StopIteration) as stop:
        iterator.send(None)
    assert stop.value.value == "value"


def test_iterator_after_throw_and_close(loop, types):
    if types is not GYRE:
        pytest.skip("asyncio's own crashes here in some releases")
    iterator = iter(types.Future(loop=loop))
    next(iterator)
    with pytest.raises(KeyError):
        iterator.throw(KeyError("thrown"))
    with pytest.raises(StopIteration):
        next(iterator)
    iterator = iter(types.Future(loop=loop))
    iterator.close()
    with pytest.raises(StopIteration):
        next(iterator)
    for wrong in (None, int, "text"):
        with pytest.raises(TypeError):
            iter(types.Future(loop=loop)).throw(wrong)


def test_unretrieved_exception_is_reported_once(loop, types):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    for look in (False, True):
        future = types.Future(loop=loop)
        future.set_exception(ValueError("lost"))
        if look:
            future.exception()
        del future
        gc.collect()
    [report] = reports
    assert report["message"] == "Future exception was never retrieved"
    assert report["exception"].args == ("lost",)
    assert "future" in report


def test_subclass_that_skips_init(loop, types):
    class Lazy(types.Future):
        def __init__(self):
            pass

    future = Lazy()
    assert future.done() is False and future.cancelled() is False
    for method, args in (
        (future.get_loop, ()),
        (future.set_result, (1,)),
        (future.set_exception, (ValueError(),)),
        (future.add_done_callback, (print,)),
        (future.remove_done_callback, (print,)),
        (future.cancel, ()),
        (future.__await__, ()),
        (future.result, ()),
        (future.exception, ()),
    ):
        with pytest.raises((RuntimeError, asyncio.InvalidStateError)):
            method(*args)
    del future
    gc.collect()


def test_subclass_with_attributes_and_overrides(loop, types):
    class Counting(types.Future):
        results = 0

        def result(self):
            self.results += 1
            return super().result()

    async def main():
        future = Counting(loop=loop)
        future.note = "kept"
        loop.call_soon(future.set_result, 5)
        value = await future
        assert future.note == "kept"
        return value, future.results

    value, results = loop.run_until_complete(main())
    assert value == 5
    assert results >= 1  # the waking task asks a subclass by its method


def test_weak_references_and_attributes(loop, types):
    future = types.Future(loop=loop)
    future.anything = 1
    assert future.anything == 1
    gone = []
    reference = weakref.ref(future, gone.append)
    assert reference() is future
    del future
    assert reference() is None and gone == [reference]


def test_cycles_are_collected(loop, types):
    def cycle():
        future = types.Future(loop=loop)
        future.myself = future
        other = types.Future(loop=loop)
        other.set_result(future)
        future.add_done_callback(lambda f: other)
        return weakref.ref(future), weakref.ref(other)

    references = cycle()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_generic_alias_copy_pickle(loop, types):
    assert isinstance(types.Future[int], pytypes.GenericAlias)
    future = types.Future(loop=loop)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(future)


def test_repr(loop, types):
    loop.set_debug(False)  # also under -X dev
    future = types.Future(loop=loop)
    assert repr(future) == "<Future pending>"
    future.add_done_callback(print)
    assert repr(future) == "<Future pending cb=[print()]>"
    future.set_result([1])
    assert repr(future) == "<Future finished result=[1]>"
    selfish = types.Future(loop=loop)
    selfish.set_result(selfish)
    assert "..." in repr(selfish)


def test_debug_remembers_where_it_was_made(loop, types):
    loop.set_debug(True)
    future = types.Future(loop=loop)
    assert future._source_traceback[-1].name == "test_debug_remembers_where_it_was_made"
    assert "created at" in repr(future)


def test_wrap_future_of_a_thread_pool(loop, types):
    source = concurrent.futures.Future()

    async def main():
        wrapped = asyncio.wrap_future(source)
        task = types.Task(asyncio.wait_for(wrapped, 10), loop=loop)
        await turn()
        thread = threading.Thread(target=source.set_result, args=("from a thread",))
        thread.start()
        result = await task
        thread.join()
        return result

    assert loop.run_until_complete(main()) == "from a thread"


def test_chained_into_a_concurrent_future(loop, types):
    future, target = types.Future(loop=loop), concurrent.futures.Future()
    asyncio.futures._chain_future(future, target)
    future.set_result(3)
    loop.run_until_complete(turn())
    assert target.result(timeout=0) == 3


def test_closed_loop(loop, types):
    future = types.Future(loop=loop)
    future.add_done_callback(print)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.set_result(None)


def test_result_set_from_inside_a_callback_of_another(loop, types):
    """set_result() never runs anything itself, however deep it is called."""
    order = []
    futures = [types.Future(loop=loop) for _ in range(100)]
    for this, following in zip(futures, futures[1:]):

        def pass_on(f, following=following):
            order.append(len(order))
            following.set_result(None)

        this.add_done_callback(pass_on)
    futures[0].set_result(None)
    assert order == []
    loop.run_until_complete(futures[-1])
    assert order == list(range(99))


def test_chain_of_results_is_freed_without_recursion(loop, types):
    """result -> future -> result ...: longer than any C stack."""
    loop.set_debug(False)  # also under -X dev
    head = types.Future(loop=loop)
    head.set_result(None)
    for _ in range(100_000):
        following = types.Future(loop=loop)
        following.set_result(head)
        head = following
    del head, following
    gc.collect()


def test_no_leaks(loop, types):
    loop.set_debug(False)  # also under -X dev
    if types is not GYRE:
        pytest.skip("asyncio's own")
    marker = object()
    context = contextvars.copy_context()

    def use(count):
        for index in range(count):
            future = gyre.Future(loop=loop)
            future.add_done_callback(use, context=context)
            if index % 4 == 0:
                future.add_done_callback(print, context=context)
                future.remove_done_callback(use)
                future.remove_done_callback(print)
                future.set_result(marker)
                assert future.result() is marker
            elif index % 4 == 1:
                future.remove_done_callback(use)
                future.cancel(marker)
            elif index % 4 == 2:
                iterator = iter(future)
                next(iterator)

    use(2000)
    before = [sys.getrefcount(x) for x in (marker, context, loop, gyre.Future, use)]
    blocks = sys.getallocatedblocks()
    use(20_000)
    gc.collect()
    assert [sys.getrefcount(x) for x in (marker, context, loop, gyre.Future, use)] == before
    assert sys.getallocatedblocks() - blocks < 200
