"""Handle and TimerHandle: every method, every repr, comparison, private names that others read.

The expected texts come from asyncio's own Handle built beside ours with the same callback.
"""

import asyncio
import contextvars
import functools
import gc
import pickle
import sys
import weakref

import pytest
from helpers import run_turns


def function(*args):
    pass


class Callable:
    def method(self, *args):
        pass

    def __call__(self, *args):
        pass

    def __repr__(self):
        return "<a callable>"


class BadRepr:
    def __repr__(self):
        raise ZeroDivisionError("bad repr")


# What call_soon_threadsafe() returns from 3.14 on.
THREADSAFE_HANDLE = getattr(asyncio.events, "_ThreadSafeHandle", None)

CALLBACKS = {
    "function": (function, ()),
    "arguments": (function, (1, "two", None)),
    "lambda": (lambda *args: None, (1,)),
    "partial": (functools.partial(function, 1, key=2), (3,)),
    "nested partial": (functools.partial(functools.partial(function, 1), 2), ()),
    "partialmethod": (functools.partial(Callable().method, 1), ()),
    "method": (Callable().method, ()),
    "object": (Callable(), (1,)),
    "builtin": (print, ("text",)),
    "builtin method": ([].append, (1,)),
    "type": (int, ()),
    "long argument": (function, ("x" * 1000, list(range(1000)))),
    "decorated": (functools.wraps(function)(lambda *args: None), ()),
}


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def schedule(request, loop):
    """Schedules a callback that will not run during the test, by each of the methods."""
    first = {"call_later": [3600.0], "call_at": [1e9]}.get(request.param, [])

    def make(callback, *args, **kwargs):
        return getattr(loop, request.param)(*first, callback, *args, **kwargs)

    make.timed = bool(first)
    make.loop = loop
    yield make
    loop._ready.clear()


def twin(handle, callback, args, loop):
    """asyncio's own handle with the same callback (and time)."""
    if isinstance(handle, asyncio.TimerHandle):
        return asyncio.TimerHandle(handle.when(), callback, args, loop)
    if THREADSAFE_HANDLE is not None and isinstance(handle, THREADSAFE_HANDLE):
        return THREADSAFE_HANDLE(callback, args, loop)
    return asyncio.Handle(callback, args, loop)


@pytest.mark.parametrize("method", ("call_soon", "call_soon_threadsafe"))
def test_the_class_that_each_method_gives(loop, method):
    handle = getattr(loop, method)(function)
    threadsafe = method == "call_soon_threadsafe" and THREADSAFE_HANDLE is not None
    assert handle.__class__ is (THREADSAFE_HANDLE if threadsafe else asyncio.Handle)
    loop._ready.clear()


class TestRepr:
    @pytest.mark.parametrize("name", CALLBACKS)
    def test_scheduled(self, schedule, name):
        callback, args = CALLBACKS[name]
        handle = schedule(callback, *args)
        expected = repr(twin(handle, callback, args, schedule.loop))
        assert repr(handle) == expected
        assert str(handle) == expected
        assert f"{handle}" == expected
        handle.cancel()

    @pytest.mark.parametrize("name", CALLBACKS)
    def test_cancelled(self, schedule, name):
        callback, args = CALLBACKS[name]
        handle = schedule(callback, *args)
        other = twin(handle, callback, args, schedule.loop)
        handle.cancel()
        other.cancel()
        assert repr(handle) == repr(other)
        assert "cancelled" in repr(handle) and "function" not in repr(handle)

    @pytest.mark.parametrize("name", CALLBACKS)
    def test_debug(self, schedule, name):
        schedule.loop.set_debug(True)
        callback, args = CALLBACKS[name]
        line = sys._getframe().f_lineno + 1
        handle = schedule(callback, *args)
        other = repr(twin(handle, callback, args, schedule.loop))
        file, called = handle._source_traceback[-1][:2]
        assert file == __file__
        shown = repr(handle)
        where = f" created at {file}:{called}>"
        assert shown.endswith(where)
        assert shown.removesuffix(where) == other[: other.rindex(" created at ")]
        assert line  # the call goes through the fixture's own frame
        handle.cancel()

    def test_debug_cancelled_keeps_the_callback(self, schedule):
        schedule.loop.set_debug(True)
        handle = schedule(function, 1)
        other = twin(handle, function, (1,), schedule.loop)
        handle.cancel()
        other.cancel()
        assert handle._repr is not None
        cut = lambda text: text[: text.rindex(" created at ")]  # noqa: E731
        assert cut(repr(handle)) == cut(repr(other))
        assert repr(handle) == handle._repr
        assert "function(1)" in repr(handle)

    def test_after_it_ran(self, loop):
        handle = loop.call_soon(function, 1)
        expected = repr(twin(handle, function, (1,), loop))
        run_turns(loop)
        assert repr(handle) == expected

    def test_a_timer_after_it_ran(self, loop):
        handle = loop.call_later(0, function, 1)
        expected = repr(twin(handle, function, (1,), loop))
        run_turns(loop, 3)
        assert repr(handle) == expected

    @pytest.mark.parametrize("when", [0, 1, 1.5, 1e300, 10**15, float("inf"), -2.25])
    def test_when_as_it_was_given(self, loop, when):
        handle = loop.call_at(when, function)
        assert repr(handle) == repr(asyncio.TimerHandle(when, function, (), loop))
        assert handle.when() == when and type(handle.when()) is type(when)
        handle.cancel()

    def test_an_argument_with_a_bad_repr(self, schedule):
        argument = BadRepr()
        handle = schedule(function, argument)
        other = twin(handle, function, (argument,), schedule.loop)
        assert repr(handle) == repr(other)
        handle.cancel()

    def test_a_recursive_argument(self, schedule):
        argument = []
        handle = schedule(function, argument)
        argument.append(argument)
        assert repr(handle) == repr(twin(handle, function, (argument,), schedule.loop))
        handle.cancel()


class TestType:
    def test_isinstance(self, schedule):
        handle = schedule(function)
        assert isinstance(handle, asyncio.Handle)
        assert isinstance(handle, asyncio.events.Handle)
        assert isinstance(handle, asyncio.TimerHandle) is schedule.timed
        expected = asyncio.TimerHandle if schedule.timed else asyncio.Handle
        if sys.version_info < (3, 14):  # 3.14: a thread-safe kind of its own
            assert handle.__class__ is expected
        assert type(handle).__name__.endswith(expected.__name__)
        handle.cancel()

    def test_weak_references(self, schedule):
        handle = schedule(function)
        gone = weakref.ref(handle)
        assert gone() is handle
        handle.cancel()
        run_turns(schedule.loop)
        del handle
        schedule.loop.close()
        gc.collect()
        assert gone() is None

    def test_no_new_attributes(self, schedule):
        handle = schedule(function)
        with pytest.raises(AttributeError):
            handle.anything = 1
        handle.cancel()

    def test_not_made_by_hand(self, schedule):
        handle = schedule(function)
        with pytest.raises(TypeError):
            type(handle)()
        handle.cancel()

    def test_not_pickled(self, schedule):
        handle = schedule(function)
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pickle.dumps(handle)
        handle.cancel()


class TestFields:
    def test_callback_arguments_context_loop(self, schedule):
        context = contextvars.copy_context()
        args = (1, 2)
        handle = schedule(function, *args, context=context)
        assert handle._callback is function
        assert handle._args == args and type(handle._args) is tuple
        assert handle._context is context
        assert handle._loop is schedule.loop
        assert handle._cancelled is False
        assert handle._repr is None
        assert handle._source_traceback is None
        handle.cancel()
        assert handle._callback is None and handle._args is None
        assert handle._cancelled is True
        assert handle._context is context

    @pytest.mark.parametrize("count", range(7))
    def test_any_number_of_arguments(self, schedule, count):
        args = tuple(range(count))
        handle = schedule(function, *args)
        assert handle._args == args
        handle.cancel()

    def test_the_default_context(self, schedule):
        handle = schedule(function)
        assert isinstance(handle._context, contextvars.Context)
        handle.cancel()

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
    def test_get_context(self, schedule):
        context = contextvars.copy_context()
        handle = schedule(function, context=context)
        assert handle.get_context() is context
        handle.cancel()
        assert handle.get_context() is context

    def test_run_by_hand(self, schedule):
        seen = []
        handle = schedule(seen.append, 1)
        assert handle._run() is None
        assert seen == [1]
        handle.cancel()

    def test_run_by_hand_reports_errors(self, schedule, asyncio_log):
        handle = schedule(lambda: 1 / 0)
        handle._run()
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is ZeroDivisionError
        handle.cancel()

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_run_by_hand_lets_them_out(self, schedule, exc_type):
        def callback():
            raise exc_type

        handle = schedule(callback)
        with pytest.raises(exc_type):
            handle._run()
        handle.cancel()

    def test_scheduled(self, loop):
        handle = loop.call_later(0.001, loop.stop)
        assert handle._scheduled is True
        loop.run_forever()
        assert handle._scheduled is False
        handle = loop.call_later(10, function)
        handle.cancel()
        run_turns(loop)
        assert handle._scheduled is False

    def test_when(self, loop):
        handle = loop.call_at(12345.5, function)
        assert handle.when() == handle._when == 12345.5
        handle.cancel()
        assert handle.when() == 12345.5

    def test_call_later_adds_to_time(self, loop):
        before = loop.time()
        handle = loop.call_later(7, function)
        assert before + 7 <= handle.when() <= loop.time() + 7
        handle.cancel()

    def test_repr_info(self, schedule):
        handle = schedule(function)
        assert handle._repr_info()[0] == type(twin(handle, function, (), schedule.loop)).__name__
        handle.cancel()


class TestComparison:
    @pytest.fixture
    def timers(self, loop):
        made = [loop.call_at(when, function) for when in (1e9, 2e9, 1e9)]
        yield made
        for handle in made:
            handle.cancel()

    def test_order(self, timers):
        early, late, same = timers
        assert early < late and late > early
        assert early <= late and late >= early
        assert not early < same and not early > same
        assert early <= same and early >= same
        assert not late < early and not late <= early and not early > late and not early >= late
        assert sorted([late, early])[0] is early

    def test_equality(self, loop, timers):
        early, late, same = timers
        assert early == same  # same time, callback, arguments and state
        assert early != late
        same.cancel()
        assert early != same
        other = loop.call_at(1e9, print)
        assert early != other
        other.cancel()
        assert early == early

    def test_hash_is_that_of_the_time(self, timers):
        early, late, same = timers
        assert hash(early) == hash(1e9) == hash(same)
        assert hash(late) == hash(2e9)
        assert {early: 1}[same] == 1

    def test_with_asyncios_own(self, loop, timers):
        early, late, _ = timers
        twin = asyncio.TimerHandle(1e9, function, (), loop)
        assert early == twin and twin == early
        assert late > twin and twin < late
        assert late >= twin and twin <= late

    @pytest.mark.parametrize("other", [1e9, None, "text", object()])
    def test_with_what_is_no_timer(self, timers, other):
        early = timers[0]
        assert early != other and not early == other
        with pytest.raises(TypeError):
            early < other  # noqa: B015
        with pytest.raises(TypeError):
            early >= other  # noqa: B015

    def test_plain_handles_compare_by_identity(self, loop):
        first, second = loop.call_soon(function), loop.call_soon(function)
        assert first == first and first != second
        assert len({first, second}) == 2
        with pytest.raises(TypeError):
            first < second  # noqa: B015
        first.cancel()
        second.cancel()

    def test_a_timer_is_not_a_plain_handle(self, loop, timers):
        handle = loop.call_soon(function)
        assert handle != timers[0]
        with pytest.raises(TypeError):
            timers[0] < handle  # noqa: B015
        handle.cancel()


class TestGarbage:
    def test_a_cycle_through_a_handle(self, loop):
        class Holder:
            pass

        holder = Holder()
        holder.soon = loop.call_soon(function, holder)
        holder.later = loop.call_later(0, function, holder)
        gone = weakref.ref(holder)
        run_turns(loop, 3)
        del holder
        gc.collect()
        assert gone() is None

    def test_a_cycle_that_still_waits_is_kept(self, loop):
        class Holder:
            def hit(self):
                seen.append(1)

        seen = []
        holder = Holder()
        holder.handle = loop.call_soon(holder.hit)
        del holder
        gc.collect()
        run_turns(loop)
        assert seen == [1]

    def test_handles_outlive_their_loop(self, new_loop):
        loop = new_loop()
        handles = [loop.call_soon(function), loop.call_later(5, function)]
        loop.close()
        for handle in handles:
            assert handle._loop is loop
            repr(handle)
            handle.cancel()
            repr(handle)
            assert handle.cancelled()

    def test_a_handle_cancelled_while_its_arguments_die(self, loop):
        """The destructor of an argument looks at the handle that is being cancelled."""

        class Arg:
            def __del__(self):
                states.append((handles[0].cancelled(), handles[0]._args, repr(handles[0])))
                handles[0].cancel()

        states, handles = [], []
        handles.append(loop.call_soon(function, Arg()))
        handles[0].cancel()
        run_turns(loop)
        assert len(states) == 1 and states[0][0] is True


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
def test_a_long_chain_of_arguments(new_loop, method):
    """The last reference to a handle whose argument is a handle, and so on: no recursion."""
    loop = new_loop()
    before = ("call_later", 1000) if method == "call_later" else ("call_soon",)
    handle = None
    for _ in range(200_000):
        handle = getattr(loop, before[0])(*before[1:], int, handle)
    alive = weakref.ref(handle)
    loop.close()
    del handle
    gc.collect()
    assert alive() is None


def test_a_cycle_through_repr_is_collected(loop):
    handle = loop.call_soon(function)
    handle._repr = [handle]
    alive = weakref.ref(handle)
    handle.cancel()
    run_turns(loop)
    del handle
    gc.collect()
    assert alive() is None
