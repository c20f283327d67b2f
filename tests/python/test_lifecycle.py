"""Bad days in one process: threads, what is dropped or closed in the middle, what raises.

The rule, here and in test_garbage, test_fork, test_exit and test_refused: a clear exception or
asyncio's behaviour, never a crash, a hang or a leak.
"""

import asyncio
import contextlib
import functools
import gc
import socket
import sys
import threading
import time
import warnings

import pytest
from conftest import descriptors, eventually
from helpers import Served, echo, in_thread, run_turns


class TestThreads:
    def test_run_here_then_there(self, loop):
        async def main():
            await asyncio.sleep(0.001)
            return threading.get_ident()

        first = loop.run_until_complete(main())
        second = in_thread(lambda: loop.run_until_complete(main()))
        third = loop.run_until_complete(main())
        assert first == third != second

    def test_made_there_run_here_closed_elsewhere(self, kind, new_loop):
        loop = in_thread(new_loop)
        loop.run_until_complete(asyncio.sleep(0.001))
        in_thread(loop.close)
        assert loop.is_closed()

    def test_the_thread_that_made_it_is_gone(self, kind, new_loop):
        loop = in_thread(lambda: (lambda made: (run_turns(made), made)[1])(new_loop()))
        loop.call_later(0.002, loop.stop)
        loop.run_forever()

    def test_connections_move_with_the_loop(self, loop):
        served = Served(loop)
        for number in range(5):
            question = b"question %d" % number
            in_thread(functools.partial(loop.run_until_complete, served.ask(question)))
            loop.run_until_complete(served.ask(question[::-1]))
        in_thread(lambda: loop.run_until_complete(served.stop()))

    def test_data_that_comes_between_the_runs(self, loop):
        served = Served(loop)
        sock = served.writer.get_extra_info("socket")
        assert sock.getpeername()
        client = socket.create_connection(served.server.sockets[0].getsockname())
        with client:
            client.sendall(b"sent while the loop stands still")
            time.sleep(0.002)

            def answer():
                async def main():
                    data = await loop.run_in_executor(None, client.recv, 100)
                    assert data == b"sent while the loop stands still"

                loop.run_until_complete(main())

            in_thread(answer)
        loop.run_until_complete(served.stop())

    def test_readers_and_timers_move_with_the_loop(self, loop, pair):
        left, right = pair
        seen = []
        loop.add_reader(left, lambda: (seen.append(left.recv(10)), loop.stop()))
        loop.call_later(0.001, seen.append, "timer")
        run_turns(loop)
        right.send(b"one")
        in_thread(loop.run_forever)
        right.send(b"two")
        loop.run_forever()
        run_turns(loop)
        while "timer" not in seen:
            in_thread(lambda: run_turns(loop))
        assert [item for item in seen if item != "timer"] == [b"one", b"two"]
        assert in_thread(lambda: loop.remove_reader(left)) is True

    def test_closed_in_another_thread_with_everything_open(self, new_loop, pair):
        left, _ = pair
        loop = new_loop()
        loop.add_reader(left, print)
        loop.call_later(1000, print)
        loop.call_soon(print)
        loop.run_until_complete(asyncio.sleep(0.001))
        in_thread(loop.close)

    def test_close_while_it_runs_elsewhere(self, loop):
        started = threading.Event()
        thread = threading.Thread(target=loop.run_forever)
        loop.call_soon(started.set)
        thread.start()
        started.wait()
        with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
            loop.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def test_run_while_it_runs_elsewhere(self, loop, pair):
        left, right = pair
        served = Served(loop)
        loop.add_reader(left, lambda: left.recv(10))
        started = threading.Event()
        loop.call_soon(started.set)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        started.wait()
        with pytest.raises(RuntimeError, match="^This event loop is already running$"):
            loop.run_forever()
        if sys.version_info[:3] != (3, 13, 0):  # whose first error makes it forget that it runs
            with pytest.raises(RuntimeError, match="^This event loop is already running$"):
                loop.run_until_complete(loop.create_future())
            right.send(b"x")
            asyncio.run_coroutine_threadsafe(served.ask(b"still alive"), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.remove_reader(left)
        loop.run_until_complete(served.stop())

    def test_a_run_in_each_of_many_threads(self, loop):
        total = 0

        async def main():
            nonlocal total
            await asyncio.sleep(0)
            total += 1

        for _ in range(30):
            in_thread(lambda: loop.run_until_complete(main()))
        assert total == 30

    def test_two_threads_begin_at_once(self, loop):
        """Whoever comes second gets RuntimeError; both never run together."""
        outcomes = []
        barrier = threading.Barrier(2)

        def work():
            barrier.wait()
            try:
                loop.run_until_complete(asyncio.sleep(0.01))
                outcomes.append("ran")
            except RuntimeError as exc:
                outcomes.append(str(exc))

        threads = [threading.Thread(target=work) for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert outcomes.count("ran") >= 1
        assert set(outcomes) <= {
            "ran",
            "This event loop is already running",
            "Event loop stopped before Future completed.",
        }


class TestDroppedInTheMiddle:
    def test_a_task_that_waits_in_sock_recv(self, loop, pair, asyncio_log):
        left, right = pair
        task = loop.create_task(loop.sock_recv(left, 100))
        run_turns(loop, 2)
        del task
        gc.collect()
        right.send(b"x")
        run_turns(loop, 5)
        # Alive (asyncio's selector holds it) or gone with a complaint: both are asyncio's ways.
        for message in asyncio_log.messages():
            assert message.startswith("Task was destroyed but it is pending!")

    def test_a_cancelled_sock_recv_loses_nothing(self, loop, pair):
        left, right = pair

        async def main():
            task = asyncio.create_task(loop.sock_recv(left, 100))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            right.send(b"for the next one")
            assert await loop.sock_recv(left, 100) == b"for the next one"

        loop.run_until_complete(main())

    def test_the_socket_of_a_pending_sock_recv_is_closed(self, loop, asyncio_log):
        """The user closes the socket under the operation: an error or nothing, no crash."""
        left, right = socket.socketpair()
        left.setblocking(False)

        async def main():
            task = asyncio.create_task(loop.sock_recv(left, 100))
            await asyncio.sleep(0)
            left.close()
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError, ValueError):
                async with asyncio.timeout(0.02):
                    await task

        loop.run_until_complete(main())
        right.close()

    def test_a_future_whose_last_reference_is_in_the_queue(self, loop):
        seen = []

        def start():
            future = loop.create_future()
            future.add_done_callback(lambda future: seen.append(future.result()))
            future.set_result(1)

        loop.call_soon(start)
        run_turns(loop, 3)
        assert seen == [1]

    def test_streams_dropped_while_reading(self, loop):
        """The transport lives on its own until the peer ends it or the loop is closed."""

        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"x")
                await reader.read(1)
                transport = writer.transport
                del reader, writer
                gc.collect()
                transport.abort()
                del transport
            gc.collect()
            server.close()
            for _ in range(100):
                if len(asyncio.all_tasks()) == 1:
                    break
                await asyncio.sleep(0.001)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop.run_until_complete(main())

    def test_a_server_dropped(self, loop):
        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            del server
            gc.collect()
            # asyncio's loop keeps it: it goes on serving.
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            writer.close()
            await writer.wait_closed()
            for _ in range(100):
                if len(asyncio.all_tasks()) == 1:
                    break
                await asyncio.sleep(0.001)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop.run_until_complete(main())
            loop.close()
            gc.collect()


class TestCloseWithEverythingPending:
    def test_everything(self, new_loop, kind, asyncio_log):
        before = descriptors()
        loop = new_loop()
        served = Served(loop)
        left, right = socket.socketpair()
        left.setblocking(False)
        third, fourth = socket.socketpair()
        loop.add_reader(third, print)
        loop.add_writer(fourth, int)
        loop.call_later(1000, print)
        tasks = [
            loop.create_task(asyncio.sleep(1000)),
            loop.create_task(loop.sock_recv(left, 10)),
            loop.create_task(served.reader.read(100)),
        ]
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        loop.call_soon(print)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop.close()
            assert loop.is_closed()
            left.close(), right.close(), third.close(), fourth.close()
            del tasks, served
            gc.collect()
            if kind == "gyre":  # asyncio leaves the transports' sockets to the loop's collection
                assert eventually(lambda: descriptors() == before), (descriptors(), before)
        del loop
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        for message in asyncio_log.messages():
            assert "Task was destroyed but it is pending!" in message

    def test_transports_after_the_close(self, new_loop, asyncio_log):
        """Methods of what outlives its loop raise or do nothing; they do not crash."""

        def use_everything():
            loop = new_loop()
            served = Served(loop)
            loop.close()
            transport = served.writer.transport
            for call in (
                lambda: transport.write(b"x"),
                lambda: transport.pause_reading(),
                lambda: transport.resume_reading(),
                lambda: transport.get_extra_info("socket"),
                lambda: transport.get_write_buffer_size(),
                lambda: transport.is_closing(),
                lambda: transport.write_eof(),
                lambda: repr(transport),
                lambda: served.server.close(),
                lambda: transport.abort(),
                lambda: transport.close(),
            ):
                with contextlib.suppress(Exception):
                    call()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            use_everything()
            gc.collect()
        asyncio_log.take()

    def test_close_inside_a_callback_is_refused_and_harmless(self, loop):
        for _ in range(3):
            with_error = loop.create_future()

            def callback(with_error=with_error):
                try:
                    loop.close()
                except RuntimeError as exc:
                    with_error.set_result(str(exc))

            loop.call_soon(callback)
            error = loop.run_until_complete(with_error)
            assert error == "Cannot close a running event loop"


class TestRaising:
    """User code that raises where nobody expects it."""

    class Bad:
        def __init__(self, where):
            self.where = where

        def __call__(self, *args):
            if self.where == "call":
                raise LookupError("call")

        def __repr__(self):
            if self.where == "repr":
                raise LookupError("repr")
            return "<bad>"

        def __eq__(self, other):
            if self.where == "eq":
                raise LookupError("eq")
            return self is other

        def __hash__(self):
            if self.where == "hash":
                raise LookupError("hash")
            return 1

        armed = True

        def __del__(self):
            if self.where == "del" and self.armed:
                raise LookupError("del")

        def __bool__(self):
            raise LookupError("bool")

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("where", ["call", "repr", "eq", "hash", "del"])
    def test_as_callbacks_and_arguments(self, loop, kind, asyncio_log, unraisable, where, debug):
        if (kind, where, debug) == ("asyncio", "repr", True):
            pytest.skip("the repr's exception leaves asyncio's run_forever")
        loop.set_debug(debug)
        loop.slow_callback_duration = 0 if debug else 0.1
        bad = type("Bad", (self.Bad,), {})
        loop.call_soon(bad(where))
        loop.call_soon(int.__add__, 1, bad(where))
        loop.call_soon(lambda *args: 1 / 0, bad(where))
        loop.call_later(0, bad(where))
        loop.call_soon_threadsafe(bad(where), bad(where))
        handle = loop.call_soon(bad(where), bad(where))
        with contextlib.suppress(LookupError):
            repr(handle)
        with contextlib.suppress(LookupError):
            handle.cancel()
        with contextlib.suppress(LookupError):
            handle == handle  # noqa: B015
        del handle
        run_turns(loop, 5)
        seen = []
        loop.call_soon(seen.append, 1)
        run_turns(loop)
        assert seen == [1]
        asyncio_log.take()
        gc.collect()
        unraisable.take()
        bad.armed = False  # the test's own log keeps some alive

    def test_done_callbacks_that_raise_on_compare(self, loop):
        future = loop.create_future()
        future.add_done_callback(self.Bad("eq"))
        with pytest.raises(LookupError):
            future.remove_done_callback(print)
        future.set_result(None)
        run_turns(loop)

    def test_an_exception_with_a_broken_str(self, loop, asyncio_log):
        class Broken(Exception):
            def __str__(self):
                raise LookupError

        def callback():
            raise Broken

        loop.call_soon(callback)
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is Broken

    def test_recursion(self, loop, asyncio_log):
        def callback():
            callback()

        loop.call_soon(callback)
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is RecursionError

    def test_memory_error(self, loop, asyncio_log):
        def callback():
            raise MemoryError

        loop.call_soon(callback)
        run_turns(loop)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is MemoryError

    def test_a_time_that_raises(self, kind, new_loop):
        class Loop(type(new_loop())):
            broken = False

            def time(self):
                if self.broken:
                    raise LookupError("no time")
                return super().time()

        loop = Loop()
        try:
            loop.call_later(0, int)
            loop.broken = True
            with pytest.raises(LookupError):
                loop.call_later(1, print)
            with pytest.raises(LookupError):
                loop.run_forever()
            loop.broken = False
            run_turns(loop)
        finally:
            loop.broken = False
            loop.close()

    def test_logging_that_raises(self, loop, monkeypatch, unraisable):
        from asyncio.log import logger

        def broken(*args, **kwargs):
            raise LookupError("the log is full")

        loop.call_soon(lambda: 1 / 0)
        seen = []
        loop.call_soon(seen.append, 1)
        with monkeypatch.context() as patch:
            patch.setattr(logger, "error", broken)
            with contextlib.suppress(LookupError):
                run_turns(loop)
        loop._ready.clear()
        loop.call_soon(seen.append, 2)
        run_turns(loop)
        assert 2 in seen
        # asyncio lets it out of run_forever, gyre reports it and goes on.
        assert all(type(exc) is LookupError for _, exc, _ in unraisable.take())


class TestReentrance:
    def test_run_once_in_a_callback(self, loop):
        """nest_asyncio and debuggers do this; gyre refuses, with one clear error."""
        outcomes = []

        def callback():
            loop.call_soon(outcomes.append, "nested")
            try:
                loop._run_once()
                outcomes.append("done")
            except RuntimeError as exc:
                outcomes.append(str(exc))
            loop.call_soon(loop.stop)

        loop.call_soon(callback)
        loop.run_forever()
        if isinstance(loop, asyncio.SelectorEventLoop):
            assert outcomes == ["nested", "done"]
        else:
            assert outcomes in (
                ["nested", "done"],
                ["This event loop is already running", "nested"],
            )

    def test_close_core_in_a_callback(self, loop):
        close_core = getattr(loop, "_close_core", None)
        if close_core is None:
            pytest.skip("gyre's own")

        def callback():
            with pytest.raises(RuntimeError):
                close_core()
            loop.stop()

        loop.call_soon(callback)
        loop.run_forever()

    def test_ready_cleared_in_a_callback(self, loop):
        seen = []
        loop.call_soon(loop._ready.clear)
        for number in range(5):
            loop.call_soon(seen.append, number)
        loop.call_later(0.005, loop.stop)
        with contextlib.suppress(IndexError):  # asyncio counts first and then misses them
            loop.run_forever()
        assert seen == []

    def test_popleft_in_a_callback(self, loop):
        seen = []
        loop.call_soon(lambda: loop._ready.popleft())
        for number in range(3):
            loop.call_soon(seen.append, number)
        loop.call_later(0.005, loop.stop)
        with contextlib.suppress(IndexError):
            loop.run_forever()
        assert seen in ([1, 2], [1, 2])

    def test_running_loop_changed_in_a_callback(self, loop):
        def callback():
            asyncio._set_running_loop(None)

        loop.call_soon(callback)
        run_turns(loop, 2)
        assert asyncio._get_running_loop() is None

    def test_gc_in_every_callback(self, loop):
        """Collections in the middle of everything."""
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:

            async def child(number):
                await asyncio.sleep(0)
                return [number] * 3

            async def main():
                for _ in range(5):
                    assert len(await asyncio.gather(*(child(n) for n in range(10)))) == 10
                    loop.call_later(0, int).cancel()
                    loop.call_soon(int, "7")

            loop.run_until_complete(main())
        finally:
            gc.set_threshold(*before)
