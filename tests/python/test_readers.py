"""add_reader and add_writer: level-triggered, both ways, and everything that goes wrong."""

import asyncio
import errno
import functools
import gc
import os
import pty
import resource
import select
import socket
import tempfile
import threading
import time
import weakref

import pytest
from helpers import run_turns, run_until


@pytest.fixture
def pipe():
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    for fd in (read_fd, write_fd):
        try:
            os.close(fd)
        except OSError:
            pass


class TestReading:
    def test_called_with_its_arguments(self, loop, pair):
        left, right = pair
        seen = []

        def on_readable(*args):
            seen.append((args, left.recv(100)))
            loop.stop()

        loop.add_reader(left, on_readable, 1, "two")
        loop.call_soon(right.send, b"hello")
        loop.run_forever()
        assert seen == [((1, "two"), b"hello")]
        assert loop.remove_reader(left) is True

    def test_wakes_a_sleeping_loop(self, loop, pair):
        left, right = pair
        loop.add_reader(left, loop.stop)
        thread = threading.Timer(0.01, right.send, (b"x",))
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        loop.remove_reader(left)

    def test_level_triggered(self, loop, pair):
        """Called in every turn until the data has been read."""
        left, right = pair
        calls = []
        right.send(b"abc")
        loop.add_reader(left, lambda: calls.append(1))
        run_until(loop, lambda: len(calls) >= 5)
        assert left.recv(2) == b"ab"
        before = len(calls)
        run_until(loop, lambda: len(calls) >= before + 3)
        assert left.recv(1) == b"c"
        run_turns(loop, 3)
        before = len(calls)
        run_turns(loop, 10)
        assert len(calls) == before
        right.send(b"again")
        run_until(loop, lambda: len(calls) > before)
        loop.remove_reader(left)

    def test_once_per_turn(self, loop, pair):
        left, right = pair
        turns = []
        right.send(b"x")
        loop.add_reader(left, lambda: turns.append(current[0]))
        current = [0]

        def tick():
            current[0] += 1
            if current[0] < 20:
                loop.call_soon(tick)
            else:
                loop.stop()

        loop.call_soon(tick)
        loop.run_forever()
        loop.remove_reader(left)
        assert len(turns) == len(set(turns)) and len(turns) >= 10

    def test_data_that_was_there_before(self, loop, pair):
        left, right = pair
        right.send(b"early")
        loop.add_reader(left, loop.stop)
        loop.run_forever()
        loop.remove_reader(left)

    def test_end_of_file(self, loop, pair):
        left, right = pair
        right.close()
        calls = []
        loop.add_reader(left, lambda: calls.append(left.recv(10)))
        run_until(loop, lambda: len(calls) >= 3)
        assert set(calls) == {b""}
        loop.remove_reader(left)

    def test_a_listening_socket(self, loop):
        server = socket.create_server(("127.0.0.1", 0))
        accepted = []
        with server:
            server.setblocking(False)
            loop.add_reader(server, lambda: (accepted.append(server.accept()[0]), loop.stop()))
            client = socket.create_connection(server.getsockname())
            loop.run_forever()
            loop.remove_reader(server)
            client.close()
            accepted[0].close()

    def test_the_context(self, loop, pair):
        import contextvars

        var = contextvars.ContextVar("var", default="none")
        left, right = pair
        seen = []
        var.set("at add_reader")
        loop.add_reader(left, lambda: (seen.append(var.get()), loop.stop()))
        var.set("later")
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
        assert seen == ["at add_reader"]


class TestWriting:
    def test_called_while_writable(self, loop, pair):
        left, _ = pair
        calls = []
        loop.add_writer(left, lambda: calls.append(1))
        run_until(loop, lambda: len(calls) >= 5)
        assert loop.remove_writer(left) is True
        before = len(calls)
        run_turns(loop, 5)
        assert len(calls) == before

    def test_not_while_full(self, loop, pair):
        left, right = pair
        filled = 0
        while True:
            try:
                filled += left.send(bytes(65536))
            except BlockingIOError:
                break
        calls = []
        loop.add_writer(left, lambda: calls.append(1))
        run_turns(loop, 10)
        assert calls == []

        def drain():
            nonlocal filled
            try:
                while filled:
                    filled -= len(right.recv(1 << 20))
            except BlockingIOError:
                pass

        drain()
        run_until(loop, lambda: calls)
        loop.remove_writer(left)

    def test_the_peer_is_gone(self, loop, pair):
        left, right = pair
        right.close()
        calls = []
        loop.add_writer(left, lambda: calls.append(1))
        run_until(loop, lambda: len(calls) >= 2)
        loop.remove_writer(left)

    def test_a_pipe_whose_reader_is_gone(self, loop, pipe):
        read_fd, write_fd = pipe
        os.close(read_fd)
        calls = []
        loop.add_writer(write_fd, lambda: calls.append(1))
        run_until(loop, lambda: len(calls) >= 2)
        loop.remove_writer(write_fd)

    def test_a_pipe_whose_writer_is_gone(self, loop, pipe):
        read_fd, write_fd = pipe
        os.close(write_fd)
        calls = []
        loop.add_reader(read_fd, lambda: calls.append(1))
        run_until(loop, lambda: len(calls) >= 2)
        loop.remove_reader(read_fd)

    def test_a_connect_in_progress(self, loop):
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.socket()
        client.setblocking(False)
        with server, client:
            assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
            loop.add_writer(client, loop.stop)
            loop.run_forever()
            loop.remove_writer(client)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    def test_a_connect_that_fails(self, loop):
        server = socket.create_server(("127.0.0.1", 0))
        address = server.getsockname()
        server.close()
        client = socket.socket()
        client.setblocking(False)
        with client:
            assert client.connect_ex(address) in (errno.EINPROGRESS, errno.ECONNREFUSED)
            loop.add_writer(client, loop.stop)
            loop.run_forever()
            loop.remove_writer(client)


class TestBothWays:
    def test_on_one_descriptor(self, loop, pair):
        left, right = pair
        seen = []
        loop.add_reader(left, lambda: seen.append("read"))
        loop.add_writer(left, lambda: seen.append("write"))
        run_until(loop, lambda: "write" in seen)
        assert "read" not in seen
        right.send(b"x")
        run_until(loop, lambda: "read" in seen)
        assert loop.remove_writer(left) is True
        run_turns(loop, 2)
        seen.clear()
        run_until(loop, lambda: len(seen) > 3)
        assert set(seen) == {"read"}
        assert loop.remove_reader(left) is True
        run_turns(loop, 2)
        seen.clear()
        run_turns(loop, 5)
        assert seen == []

    def test_removing_the_reader_leaves_the_writer(self, loop, pair):
        left, right = pair
        right.send(b"x")
        seen = []
        loop.add_writer(left, lambda: seen.append("write"))
        loop.add_reader(left, lambda: seen.append("read"))
        run_until(loop, lambda: {"read", "write"} <= set(seen))
        loop.remove_reader(left)
        run_turns(loop, 2)
        seen.clear()
        run_until(loop, lambda: len(seen) > 3)
        assert set(seen) == {"write"}
        loop.remove_writer(left)

    def test_the_reader_runs_before_the_writer(self, loop, pair):
        left, right = pair
        right.send(b"x")
        seen = []
        loop.add_writer(left, lambda: seen.append("write"))
        loop.add_reader(left, lambda: seen.append("read"))
        run_until(loop, lambda: len(seen) >= 4)
        assert seen[:4] == ["read", "write"] * 2
        loop.remove_reader(left)
        loop.remove_writer(left)

    def test_removed_by_the_other_of_the_same_turn(self, loop, pair):
        left, right = pair
        right.send(b"x")
        seen = []

        def on_readable():
            seen.append("read")
            loop.remove_writer(left)

        loop.add_reader(left, on_readable)
        loop.add_writer(left, lambda: seen.append("write"))
        run_until(loop, lambda: len(seen) >= 3)
        assert set(seen) == {"read"}
        loop.remove_reader(left)


class TestReturnValues:
    def test_remove(self, loop, pair):
        left, _ = pair
        assert loop.remove_reader(left) is False
        assert loop.remove_writer(left) is False
        loop.add_reader(left, print)
        assert loop.remove_writer(left) is False
        assert loop.remove_reader(left) is True
        assert loop.remove_reader(left) is False
        loop.add_writer(left, print)
        assert loop.remove_reader(left) is False
        assert loop.remove_writer(left) is True
        assert loop.remove_writer(left) is False

    def test_remove_on_a_closed_loop(self, new_loop, pair):
        left, _ = pair
        loop = new_loop()
        loop.add_reader(left, print)
        loop.close()
        assert loop.remove_reader(left) is False
        assert loop.remove_writer(left) is False

    def test_add_on_a_closed_loop(self, new_loop, pair):
        left, _ = pair
        loop = new_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            loop.add_reader(left, print)
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            loop.add_writer(left, print)

    def test_replaced(self, loop, pair):
        left, right = pair
        seen = []
        right.send(b"x")
        loop.add_reader(left, seen.append, "old")
        loop.add_reader(left, seen.append, "new")
        run_until(loop, lambda: len(seen) >= 3)
        assert set(seen) == {"new"}
        assert loop.remove_reader(left) is True
        assert loop.remove_reader(left) is False

    def test_replaced_from_the_callback(self, loop, pair):
        left, right = pair
        seen = []
        right.send(b"x")

        def first():
            seen.append("first")
            loop.add_reader(left, second)

        def second():
            seen.append("second")
            loop.stop()

        loop.add_reader(left, first)
        loop.run_forever()
        assert seen == ["first", "second"]
        loop.remove_reader(left)

    def test_callbacks_are_dropped_when_removed(self, loop, pair):
        class Arg:
            pass

        left, _ = pair
        arg = Arg()
        gone = weakref.ref(arg)
        loop.add_reader(left, print, arg)
        loop.add_writer(left, print, arg)
        del arg
        loop.remove_reader(left)
        assert gone() is not None
        loop.remove_writer(left)
        gc.collect()
        assert gone() is None

    def test_callbacks_are_dropped_by_close(self, new_loop, pair):
        class Arg:
            pass

        left, _ = pair
        loop = new_loop()
        arg = Arg()
        gone = weakref.ref(arg)
        loop.add_reader(left, print, arg)
        del arg
        loop.close()
        gc.collect()
        assert gone() is None


class TestDescriptors:
    @pytest.mark.parametrize("form", ["object", "number", "fileno object", "python file"])
    def test_every_form(self, loop, pipe, form):
        read_fd, write_fd = pipe

        class Fileno:
            def fileno(self):
                return read_fd

        file = {
            "object": lambda: open(read_fd, "rb", 0, closefd=False),
            "number": lambda: read_fd,
            "fileno object": Fileno,
            "python file": lambda: open(read_fd, closefd=False),
        }[form]()
        loop.add_reader(file, loop.stop)
        os.write(write_fd, b"x")
        loop.run_forever()
        # The number is what counts, in whatever form it comes.
        assert loop.remove_reader(read_fd) is True
        if hasattr(file, "close"):
            file.close()

    def test_a_file_object_may_be_dropped(self, loop, pipe):
        """asyncio keeps the object that was given, so that it is not closed by its collection."""
        read_fd, write_fd = pipe

        class File:
            def __init__(self, fd):
                self.fd = fd

            def fileno(self):
                return self.fd

            def __del__(self):
                os.close(self.fd)

        file = File(os.dup(read_fd))
        number = file.fileno()
        calls = []
        loop.add_reader(file, lambda: calls.append(1))
        del file
        gc.collect()
        os.write(write_fd, b"x")
        try:
            os.fstat(number)
        except OSError:
            pytest.fail("the file was collected and its descriptor closed")
        run_until(loop, lambda: calls)
        assert loop.remove_reader(number) is True
        gc.collect()
        with pytest.raises(OSError):
            os.fstat(number)

    @pytest.mark.parametrize("bad", ["text", None, 1.5, object()])
    def test_what_is_no_descriptor(self, loop, bad):
        with pytest.raises(ValueError, match="^Invalid file object: "):
            loop.add_reader(bad, print)
        with pytest.raises(ValueError, match="^Invalid file object: "):
            loop.add_writer(bad, print)

    @pytest.mark.parametrize("convert", [float, str], ids=["float", "str"])
    def test_fileno_that_int_understands(self, loop, pair, convert):
        class File:
            def fileno(self):
                return convert(pair[0].fileno())

        loop.add_reader(File(), print)
        assert loop.remove_reader(pair[0]) is True
        assert loop.remove_reader(File()) is False

    def test_a_number_that_nothing_can_have(self, loop):
        class File:
            def fileno(self):
                return 1 << 70

        for file in (1 << 70, File()):
            with pytest.raises((OSError, OverflowError)):
                loop.add_reader(file, print)
            assert loop.remove_reader(file) is False

    def test_a_negative_number(self, loop):
        with pytest.raises(ValueError, match="^Invalid file descriptor: -1$"):
            loop.add_reader(-1, print)

    def test_a_number_that_is_not_open(self, loop):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with pytest.raises(OSError) as caught:
            loop.add_reader(min(limit - 1, 900_000), print)
        assert caught.value.errno == errno.EBADF
        assert loop.remove_reader(min(limit - 1, 900_000)) is False

    def test_regular_files_are_refused(self, loop):
        with tempfile.TemporaryFile() as file:
            for add in (loop.add_reader, loop.add_writer):
                with pytest.raises(PermissionError) as caught:
                    add(file, print)
                assert caught.value.errno == errno.EPERM
            assert loop.remove_reader(file) is False
            assert loop.remove_writer(file) is False

    def test_directories_are_refused(self, loop):
        fd = os.open("/", os.O_RDONLY)
        try:
            with pytest.raises(PermissionError):
                loop.add_reader(fd, print)
        finally:
            os.close(fd)

    def test_a_refusal_leaves_the_rest_alone(self, loop, pair):
        left, right = pair
        loop.add_reader(left, loop.stop)
        with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
            loop.add_reader(file, print)
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)

    def test_a_terminal(self, loop):
        leader, follower = pty.openpty()
        try:
            loop.add_reader(follower, loop.stop)
            os.write(leader, b"line\n")
            loop.run_forever()
            assert os.read(follower, 10) == b"line\n"
            loop.remove_reader(follower)
        finally:
            os.close(leader)
            os.close(follower)

    def test_an_epoll_descriptor(self, loop, pair):
        left, right = pair
        with select.epoll() as epoll:
            epoll.register(left, select.EPOLLIN)
            loop.add_reader(epoll, loop.stop)
            right.send(b"x")
            loop.run_forever()
            loop.remove_reader(epoll)

    def test_an_eventfd_and_a_timerless_pipe(self, loop):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            loop.add_reader(fd, loop.stop)
            os.eventfd_write(fd, 1)
            loop.run_forever()
            loop.remove_reader(fd)
        finally:
            os.close(fd)

    def test_the_blocking_mode_is_left_alone(self, loop, pair):
        left, right = socket.socketpair()
        with left, right:
            assert os.get_blocking(left.fileno())
            loop.add_reader(left, loop.stop)
            right.send(b"x")
            loop.run_forever()
            assert os.get_blocking(left.fileno())
            loop.remove_reader(left)
            assert os.get_blocking(left.fileno())

    def test_blocking_sockets_in_debug_mode(self, loop):
        loop.set_debug(True)
        left, right = socket.socketpair()
        with left, right:
            loop.add_reader(left, loop.stop)
            right.send(b"x")
            loop.run_forever()
            loop.remove_reader(left)


class TestClosedUnderUs:
    def test_closed_without_removing(self, loop):
        """The kernel forgets the descriptor; the loop must not spin, crash or complain."""
        left, right = socket.socketpair()
        calls = []
        loop.add_reader(left, lambda: calls.append(1))
        number = left.fileno()
        left.close()
        right.close()
        run_turns(loop, 3)
        loop.call_later(0.02, loop.stop)
        before = time.process_time()
        loop.run_forever()
        assert time.process_time() - before < 0.015
        assert calls == []
        assert loop.remove_reader(number) is True

    def test_closed_while_ready(self, loop):
        left, right = socket.socketpair()
        right.send(b"x")
        calls = []

        def on_readable():
            calls.append(1)
            left.close()

        loop.add_reader(left, on_readable)
        number = left.fileno()
        run_turns(loop, 6)
        assert calls == [1]
        assert loop.remove_reader(number) is True
        right.close()

    @pytest.mark.only("gyre")  # asyncio's selector believes that nothing changed: never called
    def test_the_number_is_used_again(self, loop):
        """Closed without remove_reader, and a new socket gets the same number: the new
        registration must work and the old callback must not run for it."""
        left, right = socket.socketpair()
        number = left.fileno()
        seen = []
        loop.add_reader(number, seen.append, "old")
        run_turns(loop)
        left.close()
        new_left, new_right = socket.socketpair()  # the lowest free number is the closed one
        assert new_left.fileno() == number
        loop.add_reader(number, seen.append, "new")
        new_right.send(b"x")
        run_until(loop, lambda: seen)
        assert set(seen) == {"new"}
        assert loop.remove_reader(number) is True
        for sock in (right, new_left, new_right):
            sock.close()

    def test_used_again_after_a_proper_removal(self, loop):
        seen = []
        for generation in range(20):
            left, right = socket.socketpair()
            with left, right:
                loop.add_reader(left, seen.append, generation)
                right.send(b"x")
                run_until(loop, functools.partial(seen.__contains__, generation))
                assert loop.remove_reader(left) is True
        run_turns(loop, 3)
        assert sorted(set(seen)) == list(range(20))

    def test_removing_after_the_close(self, loop):
        left, right = socket.socketpair()
        number = left.fileno()
        loop.add_writer(number, print)
        left.close()
        assert loop.remove_writer(number) is True
        assert loop.remove_writer(number) is False
        right.close()

    @pytest.mark.only("gyre")  # asyncio raises OSError: EBADF from the first removal
    def test_removing_both_after_the_close(self, loop):
        left, right = socket.socketpair()
        number = left.fileno()
        loop.add_reader(number, print)
        loop.add_writer(number, print)
        left.close()
        assert loop.remove_reader(number) is True
        assert loop.remove_writer(number) is True
        assert loop.remove_writer(number) is False
        right.close()

    def test_a_duplicate_keeps_nothing_alive(self, loop):
        """remove_reader is synchronous: a duplicate that stays open must not keep the old
        registration ready for ever."""
        left, right = socket.socketpair()
        duplicate = left.dup()
        calls = []
        loop.add_reader(left, lambda: calls.append(1))
        right.send(b"x")
        run_until(loop, lambda: calls)
        loop.remove_reader(left)
        left.close()
        calls.clear()
        loop.call_later(0.02, loop.stop)
        before = time.process_time()
        loop.run_forever()
        assert time.process_time() - before < 0.015
        assert calls == []
        duplicate.close()
        right.close()


class TestCallbacks:
    def test_removal_inside_the_callback(self, loop, pair):
        left, right = pair
        right.send(b"x")
        calls = []

        def on_readable():
            calls.append(1)
            assert loop.remove_reader(left) is True

        loop.add_reader(left, on_readable)
        run_turns(loop, 6)
        assert calls == [1]

    def test_removal_of_another_that_is_ready_too(self, loop):
        pairs = [socket.socketpair() for _ in range(10)]
        calls = []

        def on_readable(index):
            calls.append(index)
            for other, (left, _) in enumerate(pairs):
                if other != index:
                    loop.remove_reader(left)

        for index, (left, right) in enumerate(pairs):
            loop.add_reader(left, on_readable, index)
            right.send(b"x")
        run_until(loop, lambda: calls)
        run_turns(loop, 3)
        assert len(set(calls)) == 1
        for left, right in pairs:
            loop.remove_reader(left)
            left.close()
            right.close()

    def test_removed_after_it_was_found_ready(self, loop, pair):
        """A callback that runs earlier in the same turn removes the reader."""
        left, right = pair
        calls = []
        right.send(b"x")
        loop.add_reader(left, calls.append, 1)
        loop.call_soon(loop.remove_reader, left)
        run_turns(loop, 4)
        assert calls == []

    def test_an_exception_is_reported_and_the_reader_stays(self, loop, pair, asyncio_log):
        left, right = pair
        right.send(b"x")
        calls = []

        def on_readable():
            calls.append(1)
            if len(calls) == 1:
                raise LookupError
            loop.stop()

        loop.add_reader(left, on_readable)
        loop.run_forever()
        loop.remove_reader(left)
        (record,) = asyncio_log.take()
        assert record.exc_info[0] is LookupError
        assert "on_readable" in record.getMessage() and "handle: <Handle " in record.getMessage()

    @pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
    def test_the_way_out(self, loop, pair, exc_type):
        left, right = pair
        right.send(b"x")

        def on_readable():
            raise exc_type

        loop.add_reader(left, on_readable)
        with pytest.raises(exc_type):
            loop.run_forever()
        loop.remove_reader(left)
        run_turns(loop)

    def test_kept_between_runs(self, loop, pair):
        left, right = pair
        seen = []

        def on_readable():
            seen.append(left.recv(10))
            loop.stop()

        loop.add_reader(left, on_readable)
        for number in range(20):
            right.send(b"%d" % number)
            loop.run_forever()
        assert seen == [b"%d" % number for number in range(20)]
        loop.remove_reader(left)

    def test_added_and_removed_while_stopped(self, loop, pair):
        left, right = pair
        run_turns(loop)
        loop.add_reader(left, print, "never")
        right.send(b"x")
        assert loop.remove_reader(left) is True
        loop.add_reader(left, loop.stop)
        loop.run_forever()
        loop.remove_reader(left)

    def test_close_with_readers_registered(self, new_loop, pair):
        left, right = pair
        loop = new_loop()
        loop.add_reader(left, print)
        loop.add_writer(left, print)
        run_turns(loop)
        loop.close()
        # The sockets are the user's and still work.
        right.send(b"x")
        assert left.recv(1) == b"x"


class TestMany:
    def test_hundreds(self, loop):
        pairs = [socket.socketpair() for _ in range(300)]
        seen = set()

        def on_readable(index):
            pairs[index][0].recv(10)
            seen.add(index)
            if len(seen) == len(pairs):
                loop.stop()

        for index, (left, right) in enumerate(pairs):
            loop.add_reader(left, on_readable, index)
            right.send(b"x")
        loop.run_forever()
        assert seen == set(range(300))
        for left, right in pairs:
            assert loop.remove_reader(left) is True
            left.close()
            right.close()

    def test_fairness(self, loop):
        """Two hundred descriptors that are ready all the time: each gets its turn."""
        pairs = [socket.socketpair() for _ in range(200)]
        calls = [0] * len(pairs)

        def on_readable(index):
            calls[index] += 1

        for index, (left, right) in enumerate(pairs):
            loop.add_reader(left, on_readable, index)
            right.send(b"x")
        run_until(loop, lambda: min(calls) >= 10)
        assert max(calls) <= 3 * min(calls) + 10
        for left, right in pairs:
            loop.remove_reader(left)
            left.close()
            right.close()

    def test_timers_and_callbacks_run_between(self, loop):
        """A flood of readiness does not keep the rest of the loop waiting."""
        pairs = [socket.socketpair() for _ in range(200)]
        for left, right in pairs:
            loop.add_reader(left, int)
            right.send(b"x")
        seen = []
        loop.call_later(0.005, seen.append, "timer")

        def tick(left):
            if left:
                loop.call_soon(tick, left - 1)
            else:
                seen.append("ticks")

        tick(50)
        run_until(loop, lambda: len(seen) == 2)
        for left, right in pairs:
            loop.remove_reader(left)
            left.close()
            right.close()

    def test_churn(self, loop, pair):
        left, right = pair
        for _ in range(500):
            loop.add_reader(left, print)
            loop.add_writer(left, print)
            assert loop.remove_reader(left) and loop.remove_writer(left)
        run_turns(loop, 3)
        loop.add_reader(left, loop.stop)
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)


def test_a_transports_descriptor_is_refused(loop):
    """asyncio guards the descriptors of its transports against add_reader by hand."""

    async def main():
        async def client(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        fd = writer.get_extra_info("socket").fileno()
        expected = f"^File descriptor {fd} is used by transport "
        for add in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match=expected):
                add(fd, print)
        for remove in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(RuntimeError, match=expected):
                remove(fd)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        # What the transport has let go of is the user's again.
        assert loop.remove_reader(fd) is False
        for _ in range(10):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
