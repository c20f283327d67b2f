"""fork(): the child is told, the parent goes on, and what the child does is its own affair."""

import asyncio
import gc
import multiprocessing
import os
import socket
import sys
import warnings

import pytest
from conftest import make_loop
from helpers import Served, in_child, run_turns


class TestFork:
    @pytest.mark.only("gyre")  # asyncio's would share the parent's epoll descriptor
    def test_the_child_cannot_run_the_inherited_loop(self, loop, pair):
        left, right = pair
        loop.add_reader(left, loop.stop)
        loop.call_later(0.001, print, "never in the child")
        run_turns(loop)

        def child():
            for call in (
                loop.run_forever,
                loop._run_once,
            ):
                try:
                    call()
                except RuntimeError as exc:
                    assert "fork" in str(exc), exc
                else:
                    raise AssertionError("it ran")

        in_child(child)
        right.send(b"x")
        loop.run_forever()  # the parent goes on
        loop.remove_reader(left)

    def test_the_child_makes_a_loop_of_its_own(self, loop, kind):
        run_turns(loop)

        def child():
            mine = make_loop(kind)
            served = Served(mine)
            mine.run_until_complete(served.ask(b"in the child"))
            mine.run_until_complete(served.stop())
            mine.close()

        in_child(child)
        loop.run_until_complete(asyncio.sleep(0.001))

    def test_the_child_closes_and_drops_the_inherited_loop(self, new_loop, kind):
        """What the child does to its copy is not felt in the parent."""
        loop = new_loop()
        served = Served(loop)
        left, right = socket.socketpair()
        loop.add_reader(left, loop.stop)
        run_turns(loop)

        def child():
            nonlocal loop, served
            loop.close()
            del loop, served
            gc.collect()
            mine = make_loop(kind)
            run_turns(mine)
            mine.close()

        if kind == "gyre":  # asyncio's close() in the child takes the shared epoll entries along
            in_child(child)
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
        loop.run_until_complete(served.ask(b"the parent goes on"))
        loop.run_until_complete(served.stop())
        left.close(), right.close()

    def test_the_child_drops_it_unclosed(self, loop, kind):
        run_turns(loop)

        def child():
            import conftest

            copy = loop
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy.__del__()
                copy.close()
            other = conftest.make_loop(kind)
            run_turns(other)
            other.close()

        if kind == "gyre":
            in_child(child)
        run_turns(loop)

    def test_fork_in_a_callback(self, loop, kind):
        """In the middle of a run: the child is told as soon as its loop gets control."""
        results = []

        def callback():
            def child():
                assert asyncio._get_running_loop() is None or sys.version_info < (3, 12)
                asyncio._set_running_loop(None)
                mine = make_loop(kind)

                async def main():
                    await asyncio.sleep(0.001)
                    return "ran"

                assert mine.run_until_complete(main()) == "ran"
                mine.close()

            in_child(child)
            results.append("parent")
            loop.stop()

        loop.call_soon(callback)
        loop.run_forever()
        assert results == ["parent"]
        loop.run_until_complete(asyncio.sleep(0.001))

    @pytest.mark.only("gyre")
    def test_a_child_that_returns_into_the_loop(self, loop):
        """os.fork() in a callback, and the child simply goes on: its run ends with an error."""
        parent = os.getpid()
        read_fd, write_fd = os.pipe()
        pids = []

        def callback():
            pid = os.fork()
            if pid:
                pids.append(pid)

        def after():
            if os.getpid() != parent:
                os.write(write_fd, b"a callback ran in the child; ")
            loop.stop()

        loop.call_soon(callback)
        loop.call_soon(lambda: loop.call_soon(after))
        try:
            loop.run_forever()
        except RuntimeError as exc:
            if os.getpid() == parent:
                raise
            os.write(write_fd, str(exc).encode())
        finally:
            if os.getpid() != parent:
                os._exit(0)
        os.close(write_fd)
        with open(read_fd, "rb") as pipe:
            text = pipe.read().decode()
        os.waitpid(pids[0], 0)
        assert "fork" in text and "a callback ran" not in text

    @pytest.mark.only("gyre")
    def test_a_child_that_returns_from_a_task(self, loop):
        parent = os.getpid()
        read_fd, write_fd = os.pipe()

        async def main():
            pid = os.fork()
            await asyncio.sleep(0)
            return pid

        pid = 0
        try:
            pid = loop.run_until_complete(main())
        except RuntimeError as exc:
            if os.getpid() == parent:
                raise
            os.write(write_fd, str(exc).encode())
        finally:
            if os.getpid() != parent:
                os._exit(0)
        os.close(write_fd)
        with open(read_fd, "rb") as pipe:
            assert b"fork" in pipe.read()
        os.waitpid(pid, 0)
        loop.run_until_complete(asyncio.sleep(0))

    def test_other_calls_in_the_child(self, loop, kind):
        """Every method either works on the child's copy or raises; none hangs or crashes."""
        run_turns(loop)

        def child():
            for call in (
                lambda: loop.call_soon(print),
                lambda: loop.call_later(1, print),
                lambda: loop.call_soon_threadsafe(print),
                lambda: loop.add_reader(0, print),
                lambda: loop.remove_reader(0),
                lambda: loop.create_future(),
                lambda: loop.time(),
                lambda: loop.get_debug(),
                lambda: loop.is_running(),
                lambda: loop.is_closed(),
                lambda: repr(loop),
                lambda: loop.set_debug(True),
                lambda: loop.stop(),
                lambda: getattr(loop, "stats", int)(),
                lambda: loop.close(),
            ):
                try:
                    call()
                except (RuntimeError, OSError, PermissionError):
                    pass

        in_child(child)
        run_turns(loop)

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_multiprocessing_from_a_running_loop(self, loop, kind, method):
        context = multiprocessing.get_context(method)

        async def main():
            queue = context.SimpleQueue()
            process = context.Process(target=_in_a_process, args=(kind, queue))
            process.start()
            assert await loop.run_in_executor(None, queue.get) == "from the child"
            await loop.run_in_executor(None, process.join)
            assert process.exitcode == 0
            process.close()
            queue.close()

        loop.run_until_complete(main())
        if method != "fork":
            # Helpers of multiprocessing that would stay to the end of the program.
            if method == "forkserver":
                multiprocessing.forkserver._forkserver._stop()
            multiprocessing.resource_tracker._resource_tracker._stop()

    def test_a_fork_server_of_ones_own(self, loop, kind):
        """A pre-forking server: the parent listens, children accept on loops of their own."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        run_turns(loop)

        def child():
            mine = make_loop(kind)

            async def main():
                conn, _ = await asyncio.wait_for(mine.sock_accept(listener), 10)
                with conn:
                    await mine.sock_sendall(conn, b"%d" % os.getpid())

            mine.run_until_complete(main())
            mine.close()

        client = socket.create_connection(listener.getsockname())
        with listener, client:
            in_child(child)
            assert int(client.recv(100)) != os.getpid()


def _in_a_process(kind, queue):
    async def main():
        await asyncio.sleep(0.001)
        return "from the child"

    loop = make_loop(kind)
    try:
        queue.put(loop.run_until_complete(main()))
    finally:
        loop.close()
