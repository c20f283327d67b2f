"""gyre.Future and gyre.Task leave nothing of asyncio's types to run on the dead base part.

The base struct of a gyre future stays as it was allocated: pending.  A member that CPython adds to
its types and gyre inherits would read that.  So each member must be overridden, or be listed here
with the reason why it is safe.
"""

import asyncio

import gyre
import pytest

PAIRS = [(gyre.Future, asyncio.Future), (gyre.Task, asyncio.Task)]

SAFE = {
    "__module__",  # says gyre
    "__doc__",
    "__dict__",
    "__weakref__",
    # Getters and lists of the base part that asyncio's own functions write, for both alike.
    "_asyncio_awaited_by",
}


@pytest.mark.parametrize(("ours", "base"), PAIRS, ids=["Future", "Task"])
def test_every_member_of_the_base_is_overridden(ours, base):
    inherited = {
        name for parent in base.__mro__[:-1] for name in vars(parent) if name not in vars(ours)
    }
    assert inherited <= SAFE


@pytest.mark.parametrize(("ours", "base"), PAIRS, ids=["Future", "Task"])
def test_no_member_is_added(ours, base):
    """A drop-in has no public surface of its own."""
    added = {name for name in vars(ours) if not hasattr(base, name)}
    assert added <= {"__slotnames__"}  # copyreg's cache, once something was pickled


def test_real_subclasses():
    assert issubclass(gyre.Future, asyncio.Future)
    assert issubclass(gyre.Task, asyncio.Task)
    assert issubclass(gyre.Task, asyncio.Future)
    assert gyre.Task.__module__ == gyre.Future.__module__ == "gyre"


@pytest.mark.parametrize("name", ["_loop", "_callbacks", "_result", "_exception", "_state"])
def test_getters_read_the_state_that_counts(name):
    loop = asyncio.new_event_loop()
    try:
        ours, theirs = gyre.Future(loop=loop), asyncio.Future(loop=loop)
        for future in (ours, theirs):
            future.set_result("value")
        assert getattr(ours, name) == getattr(theirs, name)
    finally:
        loop.close()


@pytest.mark.only("gyre")
def test_methods_belong_to_the_very_type(loop):
    """The interpreter calls a method directly only if its descriptor names the object's type."""

    def is_own(type_, name):
        return getattr(type_, name).__objclass__ is type_

    core = gyre._gyre.LoopCore
    for name in ("call_soon", "call_later", "create_future", "create_task", "add_reader", "time"):
        assert is_own(gyre.Loop, name) and is_own(core, name)
    for handle in (loop.call_soon(int), loop.call_later(1, int), loop.call_soon_threadsafe(int)):
        kind = type(handle)
        assert all(is_own(kind, name) for name in ("cancel", "cancelled", "get_context"))
        handle.cancel()

    class Mine(gyre.Loop):
        def call_soon(self, callback, *args, context=None):
            seen.append(callback)
            return super().call_soon(callback, *args, context=context)

    class Plain(gyre.Loop):
        pass

    seen = []
    for kind in (Mine, Plain):
        mine = kind()
        future = mine.create_future()
        future.add_done_callback(print)
        future.remove_done_callback(print)
        future.add_done_callback(lambda future: future.get_loop().stop())
        future.set_result(None)
        mine.run_forever()
        mine.close()
        assert bool(seen) is (kind is Mine)
        seen.clear()
