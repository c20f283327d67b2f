"""connect_read_pipe() and connect_write_pipe(): pipes, FIFOs, sockets, terminals, devices."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import pty
import signal
import socket
import tty
import weakref

import pytest
from helpers import cancelled_at_its_first_wait, run_turns, run_until, script


class Reader(asyncio.Protocol):
    def __init__(self, loop):
        self.trace = []
        self.data = b""
        self.lost = loop.create_future()
        self.transport = None

    def connection_made(self, transport):
        self.trace.append("made")
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.trace.append("data")
        self.data += data

    def eof_received(self):
        self.trace.append("eof")

    def connection_lost(self, exc):
        self.trace.append(("lost", type(exc)))
        self.lost.set_result(exc)


class Writer(asyncio.BaseProtocol):
    def __init__(self, loop):
        self.trace = []
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.trace.append("made")

    def pause_writing(self):
        self.trace.append("pause")

    def resume_writing(self):
        self.trace.append("resume")

    def connection_lost(self, exc):
        self.trace.append(("lost", type(exc)))
        self.lost.set_result(exc)


NONE = type(None)


@pytest.fixture
def ends():
    """The ends of a new pipe, as raw file objects: (reading, writing)."""
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as r, open(writing, "wb", 0) as w:
        yield r, w


def reader(loop, pipe):
    return loop.run_until_complete(loop.connect_read_pipe(lambda: Reader(loop), pipe))


def writer(loop, pipe):
    return loop.run_until_complete(loop.connect_write_pipe(lambda: Writer(loop), pipe))


# ---- reading


def test_read(loop, ends):
    r, w = ends
    transport, protocol = reader(loop, r)
    assert isinstance(transport, asyncio.ReadTransport)
    assert not isinstance(transport, asyncio.WriteTransport)
    assert not hasattr(transport, "write")
    assert transport.get_extra_info("pipe") is r
    assert transport.get_extra_info("socket", "nothing") == "nothing"
    assert transport.get_protocol() is protocol
    assert transport.is_reading()
    w.write(b"one")
    run_until(loop, lambda: protocol.data == b"one")
    w.write(b"two")
    w.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.data == b"onetwo"
    assert protocol.trace[0] == "made"
    assert protocol.trace[-2:] == ["eof", ("lost", NONE)]
    assert r.closed
    assert transport.is_closing()
    assert not transport.is_reading()


def test_data_and_end_in_one_go(loop, ends):
    r, w = ends
    w.write(b"all of it")
    w.close()
    _, protocol = reader(loop, r)
    loop.run_until_complete(protocol.lost)
    assert protocol.trace == ["made", "data", "eof", ("lost", NONE)]


def test_read_more_than_a_pipe_holds(loop, ends):
    r, w = ends
    _, protocol = reader(loop, r)
    sent = os.urandom(1 << 20)

    def feed():
        with w:
            w_left = memoryview(sent)
            while w_left:
                w_left = w_left[w.write(w_left) :]

    loop.run_until_complete(loop.run_in_executor(None, feed))
    loop.run_until_complete(protocol.lost)
    assert protocol.data == sent


def test_pause_and_resume_reading(loop, ends):
    r, w = ends
    transport, protocol = reader(loop, r)
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    w.write(b"later")
    run_turns(loop, 20)
    assert protocol.data == b""
    transport.resume_reading()
    transport.resume_reading()
    run_until(loop, lambda: protocol.data == b"later")
    transport.pause_reading()
    transport.close()
    transport.resume_reading()
    loop.run_until_complete(protocol.lost)
    assert protocol.trace == ["made", "data", ("lost", NONE)]


def test_paused_in_connection_made(loop, ends):
    r, w = ends
    w.write(b"early")

    class Paused(Reader):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol = loop.run_until_complete(loop.connect_read_pipe(lambda: Paused(loop), r))
    run_turns(loop, 20)
    assert protocol.trace == ["made"]
    transport.resume_reading()
    run_until(loop, lambda: protocol.data == b"early")
    transport.close()


def test_close_a_reader(loop, ends):
    r, w = ends
    transport, protocol = reader(loop, r)
    w.write(b"never read")
    transport.close()
    transport.close()
    assert transport.is_closing()
    loop.run_until_complete(protocol.lost)
    assert protocol.trace == ["made", ("lost", NONE)]
    assert r.closed
    with pytest.raises(BrokenPipeError):
        w.write(b"x")


def test_an_exception_of_data_received_is_reported_and_reading_goes_on(loop, ends):
    r, w = ends
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Fails(Reader):
        def data_received(self, data):
            super().data_received(data)
            if len(self.trace) == 2:
                raise ZeroDivisionError

    transport, protocol = loop.run_until_complete(loop.connect_read_pipe(lambda: Fails(loop), r))
    w.write(b"one")
    run_until(loop, lambda: contexts)
    assert type(contexts[0]["exception"]) is ZeroDivisionError
    assert contexts[0]["message"].startswith("Exception in callback")
    w.write(b"two")
    run_until(loop, lambda: protocol.data == b"onetwo")
    transport.close()


def test_set_protocol(loop, ends):
    r, w = ends
    transport, first = reader(loop, r)
    second = Reader(loop)
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    w.write(b"x")
    w.close()
    loop.run_until_complete(second.lost)
    assert first.trace == ["made"]
    assert second.data == b"x"


def test_a_terminal_that_hangs_up(loop, asyncio_log):
    master, slave = pty.openpty()
    tty.setraw(slave)
    with open(master, "rb", 0) as m:
        _, protocol = reader(loop, m)
        os.write(slave, b"line")
        run_until(loop, lambda: protocol.data == b"line")
        os.close(slave)
        exc = loop.run_until_complete(protocol.lost)
    assert isinstance(exc, OSError)
    assert asyncio_log.messages() == []


def test_both_directions_of_a_terminal(loop):
    master, slave = pty.openpty()
    tty.setraw(slave)
    with open(slave, "r+b", 0) as s, open(os.dup(slave), "r+b", 0) as again:
        reading, protocol = reader(loop, s)
        writing, other = writer(loop, again)
        os.write(master, b"typed")
        run_until(loop, lambda: protocol.data == b"typed")
        writing.write(b"shown")
        assert os.read(master, 100) == b"shown"
        reading.close()
        writing.close()
        loop.run_until_complete(asyncio.gather(protocol.lost, other.lost))
    os.close(master)


def test_both_directions_on_one_descriptor(loop, pair):
    """Two transports may share a pipe object: descriptors of pipes are in no table."""
    left, right = pair
    reading, protocol = reader(loop, left)
    right.send(b"in")
    run_until(loop, lambda: protocol.data == b"in")
    writing, other = writer(loop, left)
    writing.write(b"out")
    assert right.recv(10) == b"out"
    reading.close()
    writing.close()
    loop.run_until_complete(asyncio.gather(protocol.lost, other.lost))


def test_a_fifo(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as r, open(path, "wb", 0) as w:
        _, protocol = reader(loop, r)
        writing, _ = writer(loop, w)
        writing.write(b"through the file system")
        writing.close()
        loop.run_until_complete(protocol.lost)
    assert protocol.data == b"through the file system"


def test_a_socket_that_is_read(loop, pair):
    left, right = pair
    _, protocol = reader(loop, left)
    right.send(b"hello")
    run_until(loop, lambda: protocol.data == b"hello")
    right.close()
    loop.run_until_complete(protocol.lost)
    assert left.fileno() == -1
    assert protocol.trace[-2:] == ["eof", ("lost", NONE)]


def test_packets(loop):
    """A pipe in packet mode gives one packet per read(): none may be forgotten."""
    reading, writing = os.pipe2(os.O_DIRECT)
    with open(reading, "rb", 0) as r:
        _, protocol = reader(loop, r)
        for _ in range(10):
            os.write(writing, b"packet")
        run_until(loop, lambda: protocol.data == b"packet" * 10)
        os.close(writing)
        loop.run_until_complete(protocol.lost)


# ---- writing


def test_write_leaves_at_once(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    assert isinstance(transport, asyncio.WriteTransport)
    assert transport.get_extra_info("pipe") is w
    assert transport.get_protocol() is protocol
    assert transport.can_write_eof()
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.write(b"one")
    assert os.read(r.fileno(), 100) == b"one"
    transport.write(bytearray(b"two"))
    transport.write(memoryview(b"three"))
    transport.write(b"")
    transport.writelines([b"4", b"5"])
    assert os.read(r.fileno(), 100) == b"twothree45"

    async def inside():
        transport.write(b"in a callback")
        return os.read(r.fileno(), 100)

    assert loop.run_until_complete(inside()) == b"in a callback"
    transport.close()
    transport.close()
    loop.run_until_complete(protocol.lost)
    assert protocol.trace == ["made", ("lost", NONE)]
    assert w.closed
    assert r.read() == b""


def test_write_what_is_no_buffer(loop, ends):
    _, w = ends
    transport, _ = writer(loop, w)
    with pytest.raises(AssertionError):
        transport.write("text")
    transport.close()


def test_write_more_than_the_pipe_holds(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    sent = os.urandom(300_000)
    buffer = bytearray(sent)
    transport.write(buffer)
    buffer[:] = bytes(len(buffer))  # was copied
    assert protocol.trace == ["made", "pause"]
    size = transport.get_write_buffer_size()
    assert 0 < size < len(sent)
    transport.write(b"end")
    assert transport.get_write_buffer_size() == size + 3
    transport.write_eof()
    transport.write_eof()
    assert transport.is_closing()
    os.set_blocking(r.fileno(), False)
    got = b""
    while len(got) < len(sent) + 3:
        run_turns(loop)
        got += r.read() or b""
    assert got == sent + b"end"
    loop.run_until_complete(protocol.lost)
    assert protocol.trace == ["made", "pause", "resume", ("lost", NONE)]
    assert r.read() == b""


def test_write_while_it_drains(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    reading, other = reader(loop, r)
    blocks = [os.urandom(n * 997) for n in range(60)]

    async def main():
        for block in blocks:
            transport.write(block)
            while protocol.trace[-1] == "pause":
                await asyncio.sleep(0)
        transport.write_eof()
        await protocol.lost
        await other.lost

    loop.run_until_complete(main())
    assert other.data == b"".join(blocks)
    assert reading.is_closing()


def test_the_reader_goes_away(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    r.close()
    assert loop.run_until_complete(protocol.lost) is None
    assert transport.is_closing()
    assert w.closed


def test_the_reader_goes_away_before_the_buffer_is_written(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    transport.write(bytes(200_000))
    r.close()
    exc = loop.run_until_complete(protocol.lost)
    assert isinstance(exc, BrokenPipeError)
    assert transport.get_write_buffer_size() == 0


def test_the_reader_goes_away_before_the_loop_looks(loop, ends, asyncio_log):
    r, w = ends
    transport, protocol = writer(loop, w)
    r.close()
    transport.write(b"x")
    exc = loop.run_until_complete(protocol.lost)
    assert isinstance(exc, BrokenPipeError)
    for _ in range(10):
        transport.write(b"ignored")
    texts = asyncio_log.messages()
    assert 5 <= len(texts) <= 6
    assert set(texts) == {"pipe closed by peer or os.write(pipe, data) raised exception."}


def test_no_sigpipe(new):
    """Not even where the program has not ignored it."""
    done = script(f"""
        import asyncio, os, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        loop = {new}
        if "gyre" in type(loop).__module__:
            reading, writing = os.pipe()
            transport, _ = loop.run_until_complete(
                loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0)))
            transport.write(bytes(200000))
            os.close(reading)
            transport.write(b"x")
            while not transport.is_closing():
                loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print("alive")
    """)
    assert done.stdout.strip() == "alive", done
    assert done.returncode != -signal.SIGPIPE


def test_abort_drops_the_buffer(loop, ends):
    r, w = ends
    transport, protocol = writer(loop, w)
    transport.write(bytes(300_000))
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    loop.run_until_complete(protocol.lost)
    assert w.closed
    assert 0 < len(r.read()) < 300_000


def test_a_peer_that_sends_ends_the_writing_socket(loop, pair):
    """asyncio takes anything readable for the end of the other side."""
    left, right = pair
    _, protocol = writer(loop, left)
    right.send(b"x")
    assert loop.run_until_complete(protocol.lost) is None


def test_a_writing_socket(loop, pair):
    left, right = pair
    transport, protocol = writer(loop, left)
    transport.write(b"hello")
    assert right.recv(10) == b"hello"
    right.close()
    assert loop.run_until_complete(protocol.lost) is None


def test_write_to_a_device(loop):
    with open("/dev/null", "wb", 0) as null:
        transport, protocol = writer(loop, null)
        transport.write(bytes(1 << 20))
        assert transport.get_write_buffer_size() == 0
        run_turns(loop, 5)
        assert not transport.is_closing()
        transport.close()
        loop.run_until_complete(protocol.lost)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_read_a_device(loop, kind, device):
    """One that cannot be polled: gyre reads it; asyncio reports PermissionError and never does."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    with open(device, "rb", 0) as file:
        transport, protocol = reader(loop, file)
        if kind == "asyncio":
            run_turns(loop, 3)
            assert [type(context["exception"]) for context in contexts] == [PermissionError]
            assert protocol.trace == ["made"]
        elif device == "/dev/zero":
            run_until(loop, lambda: len(protocol.data) > 100_000)
            assert protocol.data.count(0) == len(protocol.data)
        else:
            loop.run_until_complete(protocol.lost)
            assert protocol.trace == ["made", "eof", ("lost", NONE)]
        assert kind == "asyncio" or contexts == []
        transport.close()
        if not protocol.lost.done():
            loop.run_until_complete(protocol.lost)


def test_write_limits(loop, ends):
    _, w = ends
    transport, protocol = writer(loop, w)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(60_000))
    assert protocol.trace == ["made", "pause"]
    transport.abort()


# ---- what is refused


@pytest.mark.parametrize("direction", ["read", "write"])
def test_regular_files(loop, tmp_path, direction):
    texts = {
        "read": "Pipe transport is for pipes/sockets only.",
        "write": "Pipe transport is only for pipes, sockets and character devices",
    }
    with open(tmp_path / "file", "w+b", 0) as file:
        connect = getattr(loop, f"connect_{direction}_pipe")
        with pytest.raises(ValueError) as raised:
            loop.run_until_complete(connect(asyncio.Protocol, file))
        assert str(raised.value) == texts[direction]
        assert not file.closed
        assert os.get_blocking(file.fileno())


def test_a_closed_pipe(loop, ends, unraisable):
    r, _ = ends
    r.close()
    with pytest.raises(ValueError):
        loop.run_until_complete(loop.connect_read_pipe(asyncio.Protocol, r))
    gc.collect()
    unraisable.take()  # asyncio's half-made transport has no `_pipe` to look at


def test_a_closed_loop(loop, ends, recwarn):
    r, _ = ends
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._make_read_pipe_transport(r, asyncio.Protocol())
    gc.collect()


def test_a_pipe_that_is_closed_behind_our_back(loop, ends):
    """Whatever gets the number is not touched."""
    r, w = ends
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    transport, protocol = reader(loop, r)
    fd = r.fileno()
    other_r, other_w = os.pipe()
    r.close()
    try:
        os.dup2(other_r, fd)
        os.write(other_w, b"a stranger's")
        run_turns(loop, 20)
        assert protocol.data == b""
        assert os.read(other_r, 100) == b"a stranger's"
        transport.close()
        loop.run_until_complete(protocol.lost)
        os.fstat(fd)  # still open
    finally:
        for number in (other_r, other_w, fd):
            os.close(number)


# ---- life


def test_repr(loop, ends):
    r, w = ends
    reading, read_protocol = reader(loop, r)
    writing, write_protocol = writer(loop, w)
    assert f"ReadPipeTransport fd={r.fileno()} polling>" in repr(reading)
    assert f"WritePipeTransport fd={w.fileno()} idle bufsize=0>" in repr(writing)
    reading.pause_reading()
    assert "idle>" in repr(reading)
    writing.write(bytes(1 << 20))
    assert " polling bufsize=" in repr(writing)
    writing.abort()
    assert "WritePipeTransport closing" in repr(writing)
    reading.close()
    loop.run_until_complete(asyncio.gather(read_protocol.lost, write_protocol.lost))
    assert "ReadPipeTransport closed" in repr(reading)


def test_unclosed(new_loop, ends):
    r, w = ends
    loop = new_loop()
    reading, _ = reader(loop, r)
    writing, _ = writer(loop, w)
    reading.pause_reading()
    known = weakref.ref(reading), weakref.ref(writing)
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del reading, writing, loop
        gc.collect()
    gc.collect()  # the warning named the transport
    assert [ref() for ref in known] == [None, None]
    assert r.closed
    assert w.closed


def test_a_loop_is_collected_with_its_pipes(kind):
    import conftest

    loop = conftest.make_loop(kind)
    reading, writing = os.pipe()
    transport, protocol = reader(loop, open(reading, "rb", 0))  # noqa: SIM115
    os.close(writing)
    loop.run_until_complete(protocol.lost)
    ref = weakref.ref(transport)
    loop.close()
    del transport, protocol, loop
    gc.collect()
    assert ref() is None


def test_between_runs(loop, ends):
    """What happens while no loop runs is seen by the next run."""
    r, w = ends
    _, protocol = reader(loop, r)
    writing, other = writer(loop, w)
    for i in range(5):
        writing.write(b"%d" % i)
        run_until(loop, lambda i=i: len(protocol.data) == i + 1)
    writing.write(bytes(200_000))
    run_until(loop, lambda: len(protocol.data) == 200_005)
    writing.close()
    run_until(loop, protocol.lost.done)
    assert other.lost.done()


def test_debug_mode(loop, ends, asyncio_log):
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    loop.set_debug(True)
    r, w = ends
    reading, protocol = reader(loop, r)
    reading.pause_reading()
    reading.resume_reading()
    w.close()
    loop.run_until_complete(protocol.lost)
    texts = [record.getMessage() for record in asyncio_log.records]
    asyncio_log.records.clear()
    assert any("pauses reading" in text for text in texts)
    assert any("resumes reading" in text for text in texts)
    assert any("was closed by peer" in text for text in texts)


def test_streams_over_pipes(loop, ends):
    r, w = ends

    async def main():
        stream = asyncio.StreamReader(limit=1000)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), r)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, w)
        out = asyncio.StreamWriter(transport, protocol, None, loop)
        lines = []

        async def read():
            while line := await stream.readline():
                lines.append(line)

        task = asyncio.create_task(read())
        for i in range(20_000):
            out.write(b"line %d\n" % i)
            await out.drain()
        out.close()
        await task
        return lines

    lines = loop.run_until_complete(main())
    assert lines == [b"line %d\n" % i for i in range(20_000)]


def test_cancelled_while_connecting(loop, ends):
    r, _ = ends

    async def main():
        await cancelled_at_its_first_wait(loop.connect_read_pipe(lambda: Reader(loop), r))

    loop.run_until_complete(main())
    assert r.closed


def test_connect_pair_of_sockets_as_pipes(loop):
    left, right = socket.socketpair()
    with left, right:
        transport, protocol = writer(loop, left)
        _, other = reader(loop, right)
        transport.write(bytes(1 << 20))
        transport.close()
        loop.run_until_complete(asyncio.gather(protocol.lost, other.lost))
        assert len(other.data) == 1 << 20


@pytest.mark.only("gyre")
def test_a_busy_pipe_gets_more_room(loop):
    """Not at once: a pipe that nobody reads pushes back after 64 KiB, as on asyncio."""

    def room(fd):
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)

    async def main():
        ends = [os.pipe() for _ in range(2)]
        (in_r, in_w), (out_r, out_w) = ends
        with open(in_r, "rb", 0) as r, open(out_w, "wb", 0) as w:
            stream = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), r)
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, w)
            writer = asyncio.StreamWriter(transport, protocol, None, loop)
            before = room(in_r), room(out_w)
            os.set_blocking(out_r, False)
            for _ in range(10):
                os.write(in_w, bytes(65536))
                await stream.readexactly(65536)
                writer.write(bytes(200_000))
                left = 200_000
                while left:
                    with contextlib.suppress(BlockingIOError):
                        left -= len(os.read(out_r, left))
                    await asyncio.sleep(0)
            assert room(in_r) > before[0]
            assert room(out_w) > before[1]
            transport.abort()
            for fd in (in_w, out_r):
                os.close(fd)
            await stream.read()

    loop.run_until_complete(main())


@pytest.mark.only("gyre")
def test_a_foreign_object_in_the_place_of_the_pipe(loop, ends):
    """asyncio's tests set _pipe to None; whatever else it is set to is asked, not looked into."""
    r, w = ends

    class Other:
        fileno = r.fileno
        close = r.close

    transport, protocol = reader(loop, r)
    transport._pipe = Other()
    w.write(b"data")
    run_until(loop, lambda: protocol.data == b"data")
    transport.close()
    assert loop.run_until_complete(protocol.lost) is None
    assert r.closed
