"""call_soon_threadsafe: from many threads, asleep or not, running or not."""

import asyncio
import concurrent.futures
import sys
import threading
import time

import pytest
from helpers import run_turns


def test_wakes_a_sleeping_loop(loop):
    asleep = threading.Event()

    def wake():
        asleep.wait()
        # The loop sleeps without a deadline, or is about to.
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=wake)
    thread.start()
    loop.call_soon(asleep.set)
    loop.run_forever()
    thread.join()


def test_every_gap_between_sleep_and_wake(loop):
    """A wakeup that is lost in the window before the loop sleeps hangs this test."""
    rounds = 2000
    went = threading.Semaphore(0)
    done = 0

    def hit():
        nonlocal done
        done += 1
        if done == rounds:
            loop.stop()
        went.release()

    def pusher():
        for number in range(rounds):
            loop.call_soon_threadsafe(hit)
            went.acquire()
            if number % 7 == 0:
                time.sleep(0)

    thread = threading.Thread(target=pusher)
    thread.start()
    loop.run_forever()
    thread.join()
    assert done == rounds


def test_many_threads_keep_their_order(loop):
    threads, each = 16, 500
    seen = []
    done = 0
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def hit(name, number):
        nonlocal done
        seen.append((name, number))
        done += 1
        if done == threads * each:
            loop.stop()

    def push(name):
        for number in range(each):
            loop.call_soon_threadsafe(hit, name, number)

    pushers = [threading.Thread(target=push, args=(name,)) for name in range(threads)]
    try:
        for thread in pushers:
            thread.start()
        loop.run_forever()
    finally:
        sys.setswitchinterval(old)
        for thread in pushers:
            thread.join()
    for name in range(threads):
        assert [number for who, number in seen if who == name] == list(range(each))


def test_before_the_run(loop):
    seen = []
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, 1))
    thread.start()
    thread.join()
    run_turns(loop)
    assert seen == [1]


def test_between_runs_no_wakeup_is_left_over(loop):
    run_turns(loop)
    for _ in range(100):
        loop.call_soon_threadsafe(int)
    run_turns(loop)
    # A stale wakeup may end one sleep early, never spin.
    loop.call_later(0.05, loop.stop)
    before = time.process_time()
    loop.run_forever()
    assert time.process_time() - before < 0.04


def test_from_the_loops_own_thread(loop):
    seen = []
    loop.call_soon_threadsafe(seen.append, 1)
    loop.call_soon(seen.append, 2)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert seen == [1, 2]


def test_the_handle_can_be_cancelled(loop):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()
    assert handle.cancelled()
    run_turns(loop)
    assert seen == []


def test_cancelled_from_another_thread(loop):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    thread = threading.Thread(target=handle.cancel)
    thread.start()
    thread.join()
    run_turns(loop)
    assert handle.cancelled() and seen == []


def test_exceptions_are_reported(loop, asyncio_log):
    loop.call_soon_threadsafe(lambda: 1 / 0)
    run_turns(loop)
    (record,) = asyncio_log.take()
    assert record.exc_info[0] is ZeroDivisionError


def test_closed(new_loop):
    loop = new_loop()
    loop.close()
    errors = []

    def push():
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=push)
    thread.start()
    thread.join()
    assert errors == ["Event loop is closed"]


def test_close_races_with_pushers(new_loop):
    """The loop may be closed at any moment: the pusher gets RuntimeError, nothing else."""
    for _ in range(20):
        loop = new_loop()
        outcomes = []
        started = threading.Event()

        def push(loop=loop, outcomes=outcomes, started=started):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    started.set()
            except RuntimeError as exc:
                outcomes.append(str(exc))

        threads = [threading.Thread(target=push) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        run_turns(loop, 3)
        loop.close()
        for thread in threads:
            thread.join()
        assert outcomes == ["Event loop is closed"] * 3


def test_run_coroutine_threadsafe(loop):
    async def work(value):
        await asyncio.sleep(0)
        if value is None:
            raise LookupError("nothing")
        return value

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        futures = [asyncio.run_coroutine_threadsafe(work(n), loop) for n in range(50)]
        assert [future.result(10) for future in futures] == list(range(50))
        with pytest.raises(LookupError, match="nothing"):
            asyncio.run_coroutine_threadsafe(work(None), loop).result(10)

        async def forever():
            await loop.create_future()

        hanging = asyncio.run_coroutine_threadsafe(forever(), loop)
        assert hanging.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            hanging.result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_two_loops_in_two_threads_talk(new_loop):
    loops = [new_loop(), new_loop()]
    count = 0

    def bounce(to):
        nonlocal count
        count += 1
        if count == 400:
            for loop in loops:
                loop.call_soon_threadsafe(loop.stop)
        else:
            loops[to].call_soon_threadsafe(bounce, 1 - to)

    loops[0].call_soon_threadsafe(bounce, 1)
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 400


def test_a_sleeping_loop_lets_other_threads_run(loop):
    """The wait is made without the GIL."""
    count = 0

    def work():
        nonlocal count
        for _ in range(100_000):
            count += 1
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    loop.call_soon(thread.start)
    loop.call_later(30, print)
    start = time.monotonic()
    loop.run_forever()
    thread.join()
    assert count == 100_000
    assert time.monotonic() - start < 10


def test_stop_from_another_thread_needs_a_wakeup(loop):
    """stop() alone only takes effect at the end of a turn; the documented way wakes the loop."""
    thread = threading.Thread(target=loop.run_forever)
    running = threading.Event()
    loop.call_soon(running.set)
    thread.start()
    running.wait()
    loop.stop()
    loop.call_soon_threadsafe(int)
    thread.join(10)
    assert not thread.is_alive()
