"""Free lists: the memory of an object that has died is used again, and nothing of it shows."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest
from conftest import make_loop
from helpers import run_turns

# What is kept, and how to make one that dies when it is dropped.
MAKERS = {
    "handles": lambda loop: loop.call_soon(int, "7", 8),
    "timer_handles": lambda loop: loop.call_later(60, int, "7", 8),
}


@pytest.fixture(params=sorted(MAKERS))
def name(request):
    return request.param


@pytest.fixture
def make(name, loop):
    return lambda: MAKERS[name](loop)


@pytest.fixture
def freelists(name):
    """freelists(limit) sets the limit of all lists and returns how many lie in this one."""
    gyre_c = pytest.importorskip("gyre._gyre")

    def freelists(limit=None):
        return gyre_c._freelists(limit)[name]

    before = freelists()
    freelists(4)
    yield freelists
    # The default is not readable: 256, or none where AddressSanitizer or threads forbid it.
    freelists(256 if before or not sanitized() else 0)


def sanitized():
    with open("/proc/self/maps") as maps:
        return "libasan" in maps.read()


def drop(loop, *things):
    """Cancels what is cancelled to die, and lets the loop forget it."""
    for thing in things:
        if hasattr(thing, "cancel"):
            thing.cancel()
    run_turns(loop)


@pytest.mark.only("gyre")
class TestFreelists:
    def test_memory_is_used_again(self, loop, make, freelists):
        first = make()
        address = id(first)
        drop(loop, first)
        del first
        kept = freelists()
        assert kept >= 1
        second = make()
        assert id(second) == address
        assert freelists() == kept - 1
        drop(loop, second)

    def test_nothing_of_the_first_object_shows(self, loop, make, freelists):
        variable = contextvars.ContextVar("variable")
        first = make()
        attributes = {n: getattr(first, n) for n in ("_callback", "_args", "_cancelled")}
        drop(loop, first)
        del first
        token = variable.set(1)
        second = make()
        variable.reset(token)
        assert {n: getattr(second, n) for n in attributes} == attributes
        assert second._source_traceback is None
        assert not second.cancelled()
        assert second._context[variable] == 1
        drop(loop, second)

    def test_weak_references_die_with_the_object(self, loop, make, freelists):
        died = []
        first = make()
        reference = weakref.ref(first, lambda _: died.append(1))
        drop(loop, first)
        del first
        assert reference() is None and died == [1]
        second = make()
        assert reference() is None and weakref.getweakrefcount(second) == 0
        drop(loop, second)
        del second
        assert died == [1]

    def test_the_collector_sees_each_object_once(self, loop, make, freelists):
        first = make()
        kind = type(first)
        drop(loop, first)
        del first
        before = sum(type(o) is kind for o in gc.get_objects())
        second = make()
        assert gc.is_tracked(second)
        assert sum(type(o) is kind for o in gc.get_objects()) == before + 1
        drop(loop, second)
        del second
        assert sum(type(o) is kind for o in gc.get_objects()) == before

    def test_references_of_the_type(self, loop, make, freelists):
        thing = make()
        kind = type(thing)
        drop(loop, thing)
        del thing
        before = sys.getrefcount(kind)
        for _ in range(10):
            things = [make() for _ in range(10)]
            drop(loop, *things)
            del things
        assert sys.getrefcount(kind) == before

    def test_the_list_is_bounded(self, loop, make, freelists):
        for count in (0, 3, 4, 20):
            freelists(0)
            freelists(4)
            things = [make() for _ in range(count)]
            drop(loop, *things)
            del things
            assert freelists() <= 4
        assert freelists(2) <= 2
        assert freelists(0) == 0
        things = [make() for _ in range(5)]
        drop(loop, *things)
        del things
        assert freelists() == 0

    def test_cycles_are_collected(self, loop, make, freelists):
        """An object that the collector has cleared: its loop is gone before it is."""

        class Marker:
            pass

        def cycle():
            marker = Marker()
            handle = loop.call_soon(marker.__init__)
            marker.handle = handle
            handle.cancel()  # keeps its context
            marker.handle = [loop.call_later(1e6, Marker), handle]
            marker.handle[0].cancel()
            return weakref.ref(marker)

        references = [cycle() for _ in range(10)]
        run_turns(loop)
        gc.collect()
        assert [reference() for reference in references] == [None] * 10

    def test_a_cycle_through_the_loop(self, name, freelists):
        loop = make_loop("gyre")  # the fixture would keep it
        died = weakref.ref(loop)
        thing = MAKERS[name](loop)
        holder = [thing]
        holder.append(holder)
        loop.close()
        del loop, thing, holder
        gc.collect()
        assert died() is None
        freelists(0)


class Runs:
    """A callable object: what it does besides being called is the test's."""

    def __init__(self, action):
        self.action = action

    def __call__(self, *args):
        self.action()


def handles_of_all_kinds(loop, reported):
    """Within a run: callbacks whose handles end each in another way."""
    held = []
    loop.call_soon(Runs(lambda: None))
    loop.call_soon(Runs(lambda: None), 1, "2", [3])
    loop.call_soon(Runs(lambda: None), *range(10))
    loop.call_soon(Runs(lambda: None), context=contextvars.copy_context())
    loop.call_soon(Runs(lambda: 1 / 0), "raises")
    loop.call_soon(Runs(lambda: None), "cancelled").cancel()
    held.append(loop.call_soon(Runs(lambda: held.pop().cancel()), "cancelled", "while it runs"))

    def look_at_it():
        handle = held.pop()
        assert weakref.ref(handle)() is handle
        if hasattr(type(handle), "_repr"):
            handle._repr = "a name"
            handle._source_traceback = ["a line"]
        reported.append("looked")

    loop.call_soon(lambda: held.append(loop.call_soon(Runs(look_at_it))))


@pytest.mark.parametrize("limit", [1, 256])
def test_nothing_of_a_handle_shows_in_the_next_one_of_a_run(loop, kind, limit):
    if kind == "gyre":
        gyre_c = pytest.importorskip("gyre._gyre")
        if not sanitized():
            gyre_c._freelists(limit)
    reported, seen = [], []

    def report(_, context):
        reported.append(context["exception"])
        if not isinstance(context["exception"], ZeroDivisionError):
            loop.stop()

    loop.set_exception_handler(report)
    variable = contextvars.ContextVar("variable")

    def look(left):
        before = seen.append
        variable.set(left)
        new = [loop.call_soon(before, (left, i)) for i in range(12)]
        for i, handle in enumerate(new):
            assert handle._args == ((left, i),) and handle._callback is before
            assert handle._context[variable] == left
            assert handle._source_traceback is None and not handle.cancelled()
            assert weakref.getweakrefcount(handle) == 0
            assert repr(handle).startswith("<Handle list.append")
            assert not any(isinstance(o, (Runs, list)) for o in gc.get_referents(handle))
        del new, handle
        handles_of_all_kinds(loop, reported)
        if left:
            loop.call_soon(loop.call_soon, loop.call_soon, look, left - 1)
        else:
            loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)

    loop.call_soon(look, 20)
    loop.run_forever()
    if kind == "gyre" and not sanitized():
        gyre_c._freelists(256)
    assert [e for e in reported if isinstance(e, AssertionError)] == []
    assert seen == [(left, i) for left in range(20, -1, -1) for i in range(12)]
    assert [type(r) for r in reported if r != "looked"] == [ZeroDivisionError] * 21
    assert reported.count("looked") == 21


def test_the_collector_calls_call_soon_within_call_soon(loop):
    """The copy of the context is an object that the collector counts."""
    seen, made = [], []

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            made.append(len(made))
            loop.call_soon(seen.append, ("garbage", made[-1]))

    def spread(left):
        for i in range(20):
            Garbage()
            loop.call_soon(seen.append, (left, i))
        if left:
            loop.call_soon(spread, left - 1)
        else:
            loop.call_soon(loop.stop)

    threshold = gc.get_threshold()
    loop.call_soon(spread, 20)
    gc.set_threshold(1)
    try:
        loop.run_forever()
    finally:
        gc.set_threshold(*threshold)
    assert [e for e in seen if e[0] != "garbage"] == [
        (left, i) for left in range(20, -1, -1) for i in range(20)
    ]
    run_turns(loop, 2)
    gc.collect()
    run_turns(loop, 2)
    assert sorted(i for who, i in seen if who == "garbage") == list(range(21 * 20))


@pytest.mark.only("gyre")
def test_limits_have_to_be_numbers():
    import gyre._gyre

    with pytest.raises(TypeError):
        gyre._gyre._freelists("1")
    with pytest.raises(OverflowError):
        gyre._gyre._freelists(-1)
    assert all(isinstance(n, int) for n in gyre._gyre._freelists(None).values())


@pytest.mark.only("gyre")
def test_iterators_of_futures(loop):
    import gyre._gyre

    def kept():
        return gyre._gyre._freelists(None)["future_iters"]

    future = loop.create_future()
    first = future.__await__()
    address, used = id(first), next(first)
    assert used is future
    del first
    count = kept()
    second = future.__await__()
    if count:
        assert id(second) == address and kept() == count - 1
    assert gc.is_tracked(second)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(second)  # still marked by the first
    second.close()
    assert list(second) == []
    del second
    assert kept() == count
    iterators = [future.__await__() for _ in range(1000)]
    future.cancel()
    del iterators
    assert kept() <= 256


def test_many_callbacks_in_waves(loop):
    """More at once than a list keeps, then fewer, then more: each runs once, with its own."""
    seen = []
    for wave in (1000, 10, 600, 1):
        for i in range(wave):
            loop.call_soon(seen.append, (wave, i))
        run_turns(loop, 2)
    assert seen == [(wave, i) for wave in (1000, 10, 600, 1) for i in range(wave)]


def test_subclasses_of_future_and_task_are_apart(loop):
    class MyFuture(asyncio.Future):
        pass

    for _ in range(10):
        future = MyFuture(loop=loop)
        future.extra = 1
        future.cancel()
        del future
        assert not hasattr(MyFuture(loop=loop), "extra")


@pytest.mark.only("gyre")
@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="no such list: CPython keeps a Future's dict before the object",
)
class TestFutures:
    """What lies in the list is memory; nothing of the Future that was there shows in the next."""

    @pytest.fixture(autouse=True)
    def kept(self):
        gyre_c = pytest.importorskip("gyre._gyre")
        before = gyre_c._freelists(None)["handles"]
        gyre_c._freelists(0)
        gyre_c._freelists(4)
        yield lambda: gyre_c._freelists(None)["futures"]
        gyre_c._freelists(256 if before or not sanitized() else 0)

    def test_memory_is_used_again(self, loop, kept):
        address = id(loop.create_future())
        assert kept() == 1
        future = loop.create_future()
        assert id(future) == address and kept() == 0
        assert gc.is_tracked(future)
        assert repr(future) == "<Future pending>"

    def test_what_it_was_does_not_show(self, loop, kept):
        def ends():
            yield lambda future: future.set_result(object())
            yield lambda future: future.cancel("message")
            yield lambda future: (future.set_exception(OSError()), future.exception())
            yield lambda future: future.add_done_callback(print)
            yield lambda future: [future.add_done_callback(print) for _ in range(3)]

        for end in ends():
            future = loop.create_future()
            end(future)
            run_turns(loop)
            del future
            future = loop.create_future()
            assert not future.done() and not future.cancelled()
            assert future._callbacks is None and future._exception is None
            assert future._cancel_message is None and future._source_traceback is None
            assert future.get_loop() is loop and not future._asyncio_future_blocking
            future.set_result(7)
            assert loop.run_until_complete(future) == 7

    def test_each_exception_is_reported(self, loop, kept):
        """CPython remembers in an object's head that it was finalized."""
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        errors = [ValueError(i) for i in range(3)]
        for error in errors:
            loop.create_future().set_exception(error)
            loop.create_future().cancel()
        assert reports == errors

    def test_what_asyncio_wrote_is_not_kept(self, loop, kept):
        """asyncio's own methods, called unbound, write to the base part."""
        future = loop.create_future()
        asyncio.Future.set_result(future, 1)
        before = kept()
        del future
        assert kept() == before
        future = loop.create_future()
        assert not asyncio.Future.done(future)

    def test_attributes_and_weak_references_go(self, loop, kept):
        future = loop.create_future()
        future.attribute = marker = lambda: None
        died = []
        reference = weakref.ref(future, lambda _: died.append(1))
        gone = weakref.ref(marker)
        del future, marker
        assert reference() is None and died == [1] and gone() is None
        assert not hasattr(loop.create_future(), "attribute")

    @staticmethod
    def attributes(future):
        """Its dict, if it has one: `__dict__` is no attribute of asyncio's Future before 3.12."""
        return next((o for o in gc.get_referents(future) if type(o) is dict), None)

    def test_an_empty_dict_stays_with_the_memory(self, loop, kept):
        """3.11 finds the methods of an object faster whose dict is there and empty."""
        loop.create_future()
        first = loop.create_future()
        assert self.attributes(first) == {}
        address = id(self.attributes(first))
        del first
        second = loop.create_future()
        assert id(self.attributes(second)) == address
        assert self.attributes(loop.create_future()) is None  # its memory is new

    def test_no_two_futures_have_the_same_dict(self, loop, kept):
        loop.create_future()
        for _ in range(3):
            future = loop.create_future()
            attributes = self.attributes(future)
            del future
            other = loop.create_future()
            assert self.attributes(other) is not attributes
            if attributes is not None:
                attributes["held"] = 1
            assert not hasattr(other, "held")
            other.mine = 2
            del other.mine
            del other
            again = loop.create_future()
            assert self.attributes(again) in ({}, None)
            del again

    def test_dicts_go_with_the_list(self, loop, kept):
        gyre_c = pytest.importorskip("gyre._gyre")
        for limit in (0, 4, 2, 4):
            for _ in range(3):
                futures = [loop.create_future() for _ in range(6)]
                assert all(self.attributes(future) in ({}, None) for future in futures)
                del futures
            gyre_c._freelists(limit)
            assert kept() <= limit
        gyre_c._freelists(4)

    def test_subclasses_are_not_kept(self, loop, kept):
        import gyre

        class Mine(gyre.Future):
            pass

        before = kept()
        Mine(loop=loop)
        assert kept() == before

    def test_references_of_the_type_and_the_loop(self, loop, kept):
        import gyre

        before = sys.getrefcount(gyre.Future), sys.getrefcount(loop)
        for _ in range(10):
            futures = [loop.create_future() for _ in range(10)]
            del futures
        assert (sys.getrefcount(gyre.Future), sys.getrefcount(loop)) == before
        assert kept() == 4


@pytest.mark.only("gyre")  # asyncio's C Future recurses until the stack ends
@pytest.mark.parametrize("link", ["future", "handle", "mixed"])
def test_long_chains_end_without_recursion(loop, link):
    """One that dies lets go of the next: deeper than the C stack allows."""
    last = None
    for i in range(200_000):
        if link == "handle" or (link == "mixed" and i % 2):
            last = loop.call_soon(lambda last: None, last)
        else:
            future = loop.create_future()
            future.set_result(last)
            last = future
            del future
        if i % 1000 == 0:
            run_turns(loop)
    run_turns(loop)
    del last
