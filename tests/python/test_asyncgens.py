"""Asynchronous generators: hooks, finalizing, shutdown_asyncgens."""

import asyncio
import gc
import sys

import pytest
from helpers import run_turns


def make(closed):
    async def agen():
        try:
            for number in range(100):
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    return agen()


async def first_of(agen):
    return await agen.__anext__()


def test_the_hooks_are_set_while_running_only(loop):
    before = sys.get_asyncgen_hooks()
    seen = []
    loop.call_soon(lambda: seen.append(sys.get_asyncgen_hooks()))
    run_turns(loop)
    (hooks,) = seen
    assert hooks.firstiter == loop._asyncgen_firstiter_hook
    assert hooks.finalizer == loop._asyncgen_finalizer_hook
    assert sys.get_asyncgen_hooks() == before


def test_the_users_hooks_come_back(loop):
    firstiter = lambda agen: None  # noqa: E731
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter)
    try:
        run_turns(loop)
        assert sys.get_asyncgen_hooks().firstiter is firstiter

        def leave():
            raise SystemExit

        loop.call_soon(leave)
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert sys.get_asyncgen_hooks().firstiter is firstiter
    finally:
        sys.set_asyncgen_hooks(*before)


def test_shutdown_closes_what_is_open(loop):
    closed = []
    agens = [make(closed) for _ in range(5)]

    async def main():
        for agen in agens:
            assert await agen.__anext__() == 0
        assert len(loop._asyncgens) == 5

    loop.run_until_complete(main())
    assert closed == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == [1] * 5 and len(loop._asyncgens) == 0


def test_a_dropped_generator_is_closed_by_the_loop(loop):
    closed = []

    async def main():
        async for _ in make(closed):
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert closed == [1]

    loop.run_until_complete(main())


def test_dropped_while_the_loop_is_stopped(loop):
    closed = []
    agen = make(closed)
    loop.run_until_complete(first_of(agen))
    del agen
    gc.collect()
    assert closed == []
    run_turns(loop, 5)
    assert closed == [1]


def test_dropped_after_close_is_silent(new_loop):
    closed = []
    loop = new_loop()
    agen = make(closed)
    loop.run_until_complete(first_of(agen))
    loop.close()
    del agen
    gc.collect()
    assert closed == []


def test_errors_while_closing_are_reported(loop, asyncio_log):
    async def agen():
        try:
            yield 1
        finally:
            raise LookupError("while closing")

    async def main():
        it = agen()
        await it.__anext__()
        await loop.shutdown_asyncgens()

    loop.run_until_complete(main())
    (record,) = asyncio_log.take()
    assert record.getMessage().startswith(
        "an error occurred during closing of asynchronous generator"
    )
    assert record.exc_info[0] is LookupError


def test_started_after_the_shutdown(loop):
    async def main():
        await loop.shutdown_asyncgens()
        agen = make([])
        with pytest.warns(ResourceWarning, match="was scheduled after loop.shutdown_asyncgens"):
            await agen.__anext__()
        await agen.aclose()

    loop.run_until_complete(main())


def test_the_finalizer_of_another_thread(loop):
    """The last reference may go away anywhere."""
    import threading

    closed = []
    box = []

    async def main():
        box.append(make(closed))
        await box[0].__anext__()
        thread = threading.Thread(target=box.clear)
        thread.start()
        while not closed:
            await asyncio.sleep(0.001)
        thread.join()

    loop.run_until_complete(main())
    assert closed == [1]


def test_asyncio_run_style(new_loop):
    closed = []

    async def main():
        agen = make(closed)
        await agen.__anext__()
        loop = asyncio.get_running_loop()
        loop.kept = agen

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert closed == [1]
