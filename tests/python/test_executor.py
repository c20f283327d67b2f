"""run_in_executor, the default executor and its shutdown."""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import time

import pytest
from helpers import run_turns


def test_result_and_thread(loop):
    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("asyncio_")
        assert await loop.run_in_executor(None, pow, 2, 10) == 1024

    loop.run_until_complete(main())
    assert isinstance(loop._default_executor, concurrent.futures.ThreadPoolExecutor)


def test_exceptions(loop):
    async def main():
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)

    loop.run_until_complete(main())


def test_many_at_once(loop):
    async def main():
        calls = [loop.run_in_executor(None, pow, n, 2) for n in range(500)]
        return await asyncio.gather(*calls)

    assert loop.run_until_complete(main()) == [n * n for n in range(500)]


def test_the_loop_turns_meanwhile(loop):
    release = threading.Event()

    async def main():
        call = loop.run_in_executor(None, release.wait, 10)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not call.done()
        release.set()
        assert await call is True

    loop.run_until_complete(main())


def test_an_executor_of_ones_own(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:

        async def main():
            call = loop.run_in_executor(executor, lambda: threading.current_thread().name)
            assert (await call).startswith("mine")

        loop.run_until_complete(main())
    assert loop._default_executor is None


def test_set_default_executor(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="chosen")
    loop.set_default_executor(executor)

    async def main():
        call = loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert (await call).startswith("chosen")

    loop.run_until_complete(main())
    loop.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(int)


@pytest.mark.parametrize("bad", [None, 42, object()])
def test_set_default_executor_to_nonsense(loop, bad):
    with pytest.raises(TypeError, match="^executor must be ThreadPoolExecutor instance$"):
        loop.set_default_executor(bad)


def test_shutdown(loop):
    async def main():
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="^Executor shutdown has been called$"):
            loop.run_in_executor(None, int)

    loop.run_until_complete(main())
    assert not any(t.name.startswith("asyncio_") for t in threading.enumerate())


def test_shutdown_without_an_executor(loop):
    loop.run_until_complete(loop.shutdown_default_executor())


def test_shutdown_waits_for_the_work(loop):
    ended = []

    def work():
        time.sleep(0.01)
        ended.append(1)

    async def main():
        call = loop.run_in_executor(None, work)
        await loop.shutdown_default_executor()
        assert ended == [1]
        await call

    loop.run_until_complete(main())


# New in 3.12, where it first waited for the executor and then for the timeout.
@pytest.mark.skipif(sys.version_info < (3, 13), reason="works since 3.13")
def test_shutdown_with_a_timeout(loop):
    release = threading.Event()

    async def main():
        call = loop.run_in_executor(None, release.wait, 10)
        with pytest.warns(
            RuntimeWarning, match="did not finishing joining its threads within 0.01"
        ):
            await loop.shutdown_default_executor(0.01)
        release.set()
        assert await call is True

    try:
        loop.run_until_complete(main())
    finally:
        release.set()


def test_close_does_not_wait(new_loop):
    loop = new_loop()
    release = threading.Event()
    call = loop.run_in_executor(None, release.wait, 10)
    start = time.monotonic()
    loop.close()
    assert time.monotonic() - start < 5
    release.set()
    del call


def test_cancelled_before_it_ran(loop):
    release = threading.Event()
    ran = []
    with concurrent.futures.ThreadPoolExecutor(1) as executor:

        async def main():
            busy = loop.run_in_executor(executor, release.wait, 10)
            waiting = loop.run_in_executor(executor, ran.append, 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)  # the executor hears of it by a callback
            release.set()
            await busy

        loop.run_until_complete(main())
    assert ran == []


def test_to_thread_carries_the_context(loop):
    var = contextvars.ContextVar("var")

    async def main():
        var.set("carried")
        assert await asyncio.to_thread(var.get) == "carried"

    loop.run_until_complete(main())


def test_a_result_that_comes_after_close(new_loop, unraisable):
    """A thread that ends when its loop is gone harms nobody."""
    loop = new_loop()
    release = threading.Event()
    ended = threading.Event()

    def work():
        release.wait(10)
        ended.set()

    loop.run_in_executor(None, work)
    run_turns(loop)
    loop.close()
    release.set()
    assert ended.wait(10)


def test_from_a_process_pool(loop):
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:

        async def main():
            return await loop.run_in_executor(executor, pow, 3, 4)

        assert loop.run_until_complete(main()) == 81
    # The pool's resource tracker is a process that stays, with a descriptor: not the loop's.
    multiprocessing.resource_tracker._resource_tracker._stop()
