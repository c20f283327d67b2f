"""Loops that are dropped open, and what is left of those that were closed: nothing."""

import asyncio
import functools
import gc
import warnings
import weakref

import pytest
from conftest import descriptors, eventually, make_loop
from helpers import Served, run_turns


class Owner:
    """Owns the handle of its own callback: a cycle once the callback has run."""

    def __init__(self, schedule):
        self.ran = 0
        self.handle = schedule(self.run)

    def run(self):
        self.ran += 1


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
class TestHandles:
    """Handles of a running loop: the collector need not know of them before they have run."""

    async def owners(self, method):
        loop = asyncio.get_running_loop()
        return [Owner(getattr(loop, method)) for _ in range(3)]

    def test_a_collection_while_they_wait(self, loop, method):
        async def main():
            owners = await self.owners(method)
            gone = [weakref.ref(owner) for owner in owners]
            gc.collect()
            assert [owner.ran for owner in owners] == [0, 0, 0]
            await asyncio.sleep(0)
            assert [owner.ran for owner in owners] == [1, 1, 1]
            assert all(gc.is_tracked(owner.handle) for owner in owners)
            del owners
            gc.collect()
            assert [reference() for reference in gone] == [None] * 3

        loop.run_until_complete(main())

    def test_dropped_while_they_wait(self, loop, method):
        async def main():
            gone = [weakref.ref(owner) for owner in await self.owners(method)]
            gc.collect()  # the loop holds them
            assert all(reference().ran == 0 for reference in gone)
            await asyncio.sleep(0)
            gc.collect()
            assert [reference() for reference in gone] == [None] * 3

        loop.run_until_complete(main())

    def test_cancelled_while_they_wait(self, loop, method):
        async def main():
            owners = await self.owners(method)
            gone = [weakref.ref(owner) for owner in owners]
            for owner in owners:
                owner.handle.cancel()
            await asyncio.sleep(0)
            assert [owner.ran for owner in owners] == [0, 0, 0]
            del owner, owners
            gc.collect()
            assert [reference() for reference in gone] == [None] * 3

        loop.run_until_complete(main())

    def test_taken_out_of_the_queue(self, loop, method):
        async def main():
            owners = await self.owners(method)
            taken = [loop._ready.popleft() for _ in owners]
            assert all(gc.is_tracked(handle) for handle in taken)
            assert taken == [owner.handle for owner in owners]
            gone = [weakref.ref(owner) for owner in owners]
            del owners, taken
            gc.collect()
            assert [reference() for reference in gone] == [None] * 3

        loop.run_until_complete(main())


class TestGarbage:
    def collect(self, loop):
        """Drops the last reference to an open loop; the messages of its ResourceWarnings."""
        text = repr(loop)
        gone = weakref.ref(loop)
        messages = []
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # Not record=True: a recorded warning keeps its source, the loop.
            warnings.showwarning = lambda message, *args, **kwargs: messages.append(str(message))
            del loop
            gc.collect()
            gc.collect()
        assert gone() is None, "the loop was not collected"
        assert f"unclosed event loop {text}" in messages
        return messages

    def test_idle(self, kind):
        loop = make_loop(kind)
        box = [loop]
        del loop
        self.collect(box.pop())

    def test_after_a_run(self, kind):
        loop = make_loop(kind)
        run_turns(loop)
        box = [loop]
        del loop
        self.collect(box.pop())

    def test_with_callbacks_and_timers(self, kind):
        def make():
            loop = make_loop(kind)
            for _ in range(10):
                loop.call_soon(lambda: loop)
                loop.call_later(1000, lambda: loop)
            run_turns(loop)
            loop.call_soon(lambda: loop)
            return loop

        self.collect(make())

    def test_with_callbacks_that_outlast_the_run(self, kind):
        def make():
            loop = make_loop(kind)
            loop.kept = []

            def again():
                loop.kept.append(loop.call_soon(lambda: loop.kept))
                loop.stop()

            loop.call_soon(again)
            loop.run_forever()  # leaves the second callback behind
            assert all(gc.is_tracked(handle) for handle in loop.kept)
            return loop

        self.collect(make())

    def test_with_readers(self, kind, pair):
        left, right = pair

        def make():
            loop = make_loop(kind)
            loop.add_reader(left, lambda: loop)
            loop.add_writer(right, lambda: loop)
            run_turns(loop)
            return loop

        self.collect(make())

    def test_with_a_pending_task(self, kind, asyncio_log):
        def make():
            loop = make_loop(kind)

            async def wait():
                await loop.create_future()

            loop.kept = loop.create_task(wait())
            run_turns(loop)
            return loop

        self.collect(make())
        gc.collect()
        for message in asyncio_log.messages():
            assert message.startswith("Task was destroyed but it is pending!")

    def test_with_a_pending_sleep(self, kind, asyncio_log):
        def make():
            loop = make_loop(kind)
            loop.kept = loop.create_task(asyncio.sleep(1000))
            run_turns(loop)
            return loop

        self.collect(make())
        gc.collect()
        for message in asyncio_log.messages():
            assert message.startswith("Task was destroyed but it is pending!")

    def test_with_an_executor(self, kind):
        def make():
            loop = make_loop(kind)
            loop.run_until_complete(loop.run_in_executor(None, int))
            return loop

        self.collect(make())

    @pytest.mark.only("gyre")  # asyncio leaves the transports' sockets to their own collection
    def test_with_connections(self, kind, asyncio_log):
        def make():
            loop = make_loop(kind)
            loop.served = Served(loop)
            return loop

        before = descriptors()
        self.collect(make())
        assert eventually(lambda: descriptors() == before)
        for message in asyncio_log.messages():
            assert message.startswith("Task was destroyed but it is pending!")

    def test_a_loop_that_refers_to_itself(self, kind):
        def make():
            loop = make_loop(kind)
            loop.me = loop
            loop.set_exception_handler(lambda *args: loop)
            loop.set_task_factory(lambda *args, **kwargs: loop)
            return loop

        self.collect(make())

    def test_a_closed_loop_is_collected_silently(self, kind):
        loop = make_loop(kind)
        loop.call_soon(functools.partial(id, loop))
        run_turns(loop)
        loop.close()
        gone = weakref.ref(loop)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del loop
            gc.collect()
        assert gone() is None

    def test_a_hundred_loops_leak_nothing(self, kind):
        """Descriptors, and what Python can count."""

        def once():
            loop = make_loop(kind)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        once()
        gc.collect()
        before, objects = descriptors(), len(gc.get_objects())
        for _ in range(100):
            once()
        gc.collect()
        assert descriptors() == before
        assert len(gc.get_objects()) - objects < 50

    def test_memory_of_a_long_run(self, loop):
        """Callbacks, timers, futures and tasks give back what they took."""

        async def child():
            await asyncio.sleep(0)

        async def main():
            for _ in range(200):
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                await future
                loop.call_later(1000, print).cancel()
                await asyncio.create_task(child())
                await asyncio.sleep(0)

        loop.run_until_complete(main())
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(3):
            loop.run_until_complete(main())
        gc.collect()
        assert len(gc.get_objects()) - before < 50
