"""Ways to put gyre's types under CPython's tests.  Called before the test module is imported."""


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
