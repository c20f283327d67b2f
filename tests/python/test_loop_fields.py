"""No inherited method of asyncio's reads a field that gyre leaves dead.

BaseEventLoop.__init__ creates fields that its own _run_once keeps up to date.  gyre replaces
_run_once, so each such field must be one of gyre's own (a descriptor of the class), or be kept up
by Python code that gyre inherits.  Here the source of the running Python's asyncio is read, so that
a new release with a new field fails this test and not a program.
"""

import ast
import asyncio
import importlib
import inspect
import textwrap

import pytest

gyre = pytest.importorskip("gyre")

# Fields that only overridden methods write, and why a reader of them sees the truth all the same.
EXPLAINED = {
    "_internal_fds": "written by selector loops only, never by BaseEventLoop's own code",
}


def self_attributes(function, owner="self"):
    """({attributes read}, {attributes written}) on `self` in a function's source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    read, written = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == owner and node.attr.startswith("_"):
                if not node.attr.startswith("__"):
                    (read if isinstance(node.ctx, ast.Load) else written).add(node.attr)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            read.add(node.target.attr)
    return read, written


def inherited_functions():
    """BaseEventLoop's functions that gyre.Loop takes as they are."""
    for name, member in vars(asyncio.BaseEventLoop).items():
        if inspect.isfunction(member) and inspect.getattr_static(gyre.Loop, name) is member:
            yield name, member
    yield "run_forever", asyncio.BaseEventLoop.run_forever  # gyre's calls it


def borrowed_functions():
    """asyncio's functions of other classes that gyre.Loop uses (unix sockets, datagrams)."""
    for name in dir(gyre.Loop):
        member = inspect.getattr_static(gyre.Loop, name)
        if inspect.isfunction(member) and member.__module__.startswith("asyncio."):
            if member.__module__ != "asyncio.events":
                yield name, member


def test_something_is_inherited():
    names = {name for name, _ in inherited_functions()}
    assert {"run_forever", "run_until_complete", "create_server", "run_in_executor"} <= names
    assert "_run_once" not in names and "call_soon" not in names


def test_fields_of_the_base_class():
    kept_up = set(EXPLAINED)
    readers = {}
    for name, function in inherited_functions():
        read, written = self_attributes(function)
        if name != "__init__":
            kept_up |= written
            for attribute in read:
                readers.setdefault(attribute, []).append(name)
    dead = {
        attribute: names
        for attribute, names in readers.items()
        if not hasattr(gyre.Loop, attribute) and attribute not in kept_up
    }
    # Containers that __init__ makes and inherited code fills in place count as kept up.
    for attribute in ("_asyncgens",):
        dead.pop(attribute, None)
    assert dead == {}, "inherited methods read fields that nothing keeps up to date"


def test_borrowed_functions_find_what_they_use():
    loop = gyre.new_event_loop()
    try:
        missing = {}
        for name, function in borrowed_functions():
            read, _ = self_attributes(function)
            for attribute in read:
                if not hasattr(loop, attribute):
                    missing.setdefault(attribute, []).append(name)
        assert missing == {}
    finally:
        loop.close()


@pytest.mark.parametrize(
    "module",
    ["base_events", "base_subprocess", "events", "futures", "locks", "mixins", "queues", "runners"]
    + ["sslproto", "staggered", "streams", "subprocess", "taskgroups", "tasks", "timeouts"],
)
def test_private_names_that_the_rest_of_asyncio_reads(module):
    """`loop._something` and `self._loop._something` anywhere in asyncio exists on gyre's loop."""
    tree = ast.parse(inspect.getsource(importlib.import_module(f"asyncio.{module}")))
    loop = gyre.new_event_loop()
    try:
        missing = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            value = node.value
            named = isinstance(value, ast.Name) and value.id == "loop"
            owned = isinstance(value, ast.Attribute) and value.attr == "_loop"
            if (named or owned) and not node.attr.startswith("__"):
                if not hasattr(loop, node.attr):
                    missing.add(node.attr)
        assert missing <= {"_loop"}  # futures: `fut._loop`
    finally:
        loop.close()


def test_the_fields_that_both_halves_share():
    """What Python assigns C reads, and the reverse."""
    loop = gyre.new_event_loop()
    try:
        for name in ("_stopping", "_debug", "_closed", "_thread_id", "_task_factory"):
            assert inspect.isdatadescriptor(inspect.getattr_static(gyre.Loop, name)), name
            assert name not in vars(loop)
        loop._stopping = True
        loop.call_soon(print)
        loop._ready.clear()
        loop.run_forever()  # one turn
        assert loop._stopping is False
    finally:
        loop.close()


class TestViews:
    """loop._ready and loop._scheduled for those who look into a loop; asyncio's are containers."""

    def test_ready(self, loop):
        assert len(loop._ready) == 0 and not loop._ready
        handles = [loop.call_soon(int) for _ in range(5)]
        assert len(loop._ready) == 5 and loop._ready
        assert list(loop._ready) == handles
        assert loop._ready[0] is handles[0] and loop._ready[-1] is handles[-1]
        assert handles[2] in loop._ready
        assert loop._ready.popleft() is handles[0]
        loop._ready.append(handles[0])
        assert list(loop._ready) == handles[1:] + handles[:1]
        loop._ready.clear()
        assert len(loop._ready) == 0
        with pytest.raises(IndexError):
            loop._ready.popleft()
        with pytest.raises(IndexError):
            loop._ready[0]

    def test_a_handle_put_there_runs(self, loop):
        seen = []
        handle = asyncio.Handle(seen.append, (1,), loop)
        loop._ready.append(handle)
        cancelled = asyncio.Handle(seen.append, (2,), loop)
        loop._ready.append(cancelled)
        cancelled.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == [1]

    def test_ready_shows_tasks(self, loop):
        async def main():
            pass

        task = loop.create_task(main())
        (handle,) = loop._ready
        assert isinstance(handle, asyncio.Handle)
        assert handle._callback.__self__ is task
        loop.run_until_complete(task)

    def test_scheduled(self, loop):
        late = loop.call_later(2000, int)
        early = loop.call_later(1000, int)
        assert len(loop._scheduled) == 2
        assert loop._scheduled[0] is early
        assert set(loop._scheduled) == {early, late}
        loop._scheduled.clear()
        assert len(loop._scheduled) == 0
        early.cancel()
        late.cancel()

    def test_add_callback(self, loop):
        seen = []
        handle = asyncio.Handle(seen.append, (1,), loop)
        loop._add_callback(handle)
        gone = asyncio.Handle(seen.append, (2,), loop)
        gone.cancel()
        loop._add_callback(gone)
        loop._add_callback_signalsafe(asyncio.Handle(seen.append, (3,), loop))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == [1, 3]
