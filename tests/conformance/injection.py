"""Ways to put gyre's types under CPython's tests.  Called before the test module is imported."""

import os


def types():
    """gyre.Task and gyre.Future as *the* C types of asyncio, on asyncio's own event loop.

    test_tasks and test_futures are parametrised by tasks._CTask and futures._CFuture; everything
    else gets its tasks and futures from BaseEventLoop, which looks tasks.Task and futures.Future up
    at each call.  (gather() and wait() keep the futures that asyncio built at its import.)
    """
    import asyncio
    import asyncio.futures
    import asyncio.tasks

    import gyre

    asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = gyre.Task
    asyncio.Future = asyncio.futures.Future = asyncio.futures._CFuture = gyre.Future


def loop_products():
    """What the loop makes is gyre's: create_task() and create_future(), on asyncio's own loop.

    asyncio.futures.Future stays asyncio's, for modules that ask isinstance(task, futures.Future).
    """
    import asyncio
    import asyncio.base_events
    import asyncio.tasks

    import gyre

    asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = gyre.Task
    asyncio.base_events.BaseEventLoop.create_future = lambda loop: gyre.Future(loop=loop)


def loop():
    """gyre.Loop wherever a test asks asyncio for a new loop, with its own tasks and futures.

    unittest.IsolatedAsyncioTestCase runs in debug mode, in which gyre takes its slow path; here it
    does not, so that the tests reach the fast one.
    """
    import asyncio
    import asyncio.tasks
    import unittest.async_case
    import warnings

    import gyre

    asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = gyre.Task

    class Runner(asyncio.Runner):
        def __init__(self, *, debug=None, loop_factory=None):
            super().__init__(debug=False, loop_factory=loop_factory)

    class Asyncio:
        """The module asyncio as async_case sees it."""

        def __getattr__(self, name):
            return Runner if name == "Runner" else getattr(asyncio, name)

    unittest.async_case.asyncio = Asyncio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(gyre.EventLoopPolicy())


# The stdlib loop takes gyre's place in a run that asks whether this machine can pass at all.
STDLIB = os.environ.get("GYRE_CONFORMANCE_LOOP") == "stdlib"


def loop_class(name):
    """The loop under test as a class that asyncio's own constructor calls fit, called `name`.

    asyncio's tests hand their loops a selector: gyre has none, and closes it.
    """
    from asyncio import unix_events

    import gyre

    if STDLIB:
        return type(name, (unix_events._UnixSelectorEventLoop,), {})

    class InjectedLoop(gyre.Loop):
        def __init__(self, selector=None):
            super().__init__()
            if selector is not None:
                selector.close()

    InjectedLoop.__name__ = InjectedLoop.__qualname__ = name
    return InjectedLoop


class Current:
    """What a module's name means now: tests replace names in asyncio's modules."""

    def __init__(self, module, name):
        self._where = module, name

    def __getattr__(self, attribute):
        return getattr(getattr(*self._where), attribute)


def unix_loop():
    """gyre.Loop by every name that asyncio has for the loop of a unix system.

    asyncio.Task and asyncio.Future stay: what a loop makes has to pass for them.
    """
    import asyncio
    from asyncio import unix_events

    # Its TestLoop is built on the selector-driven BaseEventLoop, on purpose: it is no loop to test.
    import test.test_asyncio.utils  # noqa: F401

    loop = loop_class("_UnixSelectorEventLoop")
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, loop)
    unix_events._UnixSelectorEventLoop = loop
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = loop

    import gyre._sendfile
    import gyre._signals

    gyre._sendfile.os = Current(unix_events, "os")
    gyre._signals.signal = Current(unix_events, "signal")
    gyre._signals.sys = Current(unix_events, "sys")


def base_loop():
    """As unix_loop(), and BaseEventLoop is gyre's too: for tests of what all loops do."""
    import asyncio
    from asyncio import base_events

    unix_loop()
    if not STDLIB:
        asyncio.BaseEventLoop = base_events.BaseEventLoop = loop_class("BaseEventLoop")
