"""Pipe transports and O_NONBLOCK, which belongs to everybody who shares the open file.

asyncio sets it and leaves it.  gyre does without where the kernel lets it, and takes it back where
it does not: a terminal, a FIFO or an inherited pipe is afterwards as it was.
"""

import asyncio
import contextlib
import gc
import os
import pty
import socket
import threading
import tty

import conftest
import pytest
from helpers import Collector, cancelled_at_its_first_wait, in_child, run_turns, run_until, script

ours = pytest.mark.only("gyre")

UNTOUCHED = ["pipe", "socket", "terminal"]
TAKEN_BACK = ["fifo", "master", "device"]


@pytest.fixture
def files(tmp_path):
    """Makes files of a kind: (ours, the peer's descriptor), ours in blocking mode."""
    with contextlib.ExitStack() as stack:

        def opened(fd, mode):
            return stack.enter_context(open(fd, mode, 0))

        def make(kind, writes=False):
            mode = "wb" if writes else "rb"
            if kind == "pipe":
                reading, writing = os.pipe()
                mine, peer = (writing, reading) if writes else (reading, writing)
            elif kind == "socket":
                left, right = socket.socketpair()
                mine, peer = left.detach(), right.detach()
            elif kind in ("terminal", "master"):
                master, slave = pty.openpty()
                tty.setraw(slave)
                mine, peer = (slave, master) if kind == "terminal" else (master, slave)
            elif kind == "fifo":
                path = tmp_path / f"fifo-{len(os.listdir(tmp_path))}"
                os.mkfifo(path)
                reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                writing = os.open(path, os.O_WRONLY)
                os.set_blocking(reading, True)
                mine, peer = (writing, reading) if writes else (reading, writing)
            else:
                mine, peer = os.open("/dev/null", os.O_RDWR), os.open("/dev/null", os.O_RDWR)
            stack.callback(close_quietly, peer)
            file = opened(mine, mode)
            assert os.get_blocking(mine)
            return file, peer

        yield make


def close_quietly(fd):
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture
def another():
    """Makes further descriptors of the same open file."""
    with contextlib.ExitStack() as stack:

        def make(file):
            fd = os.dup(file.fileno())
            stack.callback(close_quietly, fd)
            return fd

        yield make


def connect(loop, file, writes=False):
    make = loop.connect_write_pipe if writes else loop.connect_read_pipe
    return loop.run_until_complete(make(lambda: Collector(loop), file))


def close(loop, *connections):
    for transport, _ in connections:
        transport.close()
    loop.run_until_complete(asyncio.gather(*(protocol.lost for _, protocol in connections)))


# ---- where it is not needed


@ours
@pytest.mark.parametrize("writes", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("kind_of_file", UNTOUCHED)
def test_untouched(loop, files, another, kind_of_file, writes):
    file, peer = files(kind_of_file, writes)
    copy = another(file)
    connection = transport, protocol = connect(loop, file, writes)
    assert os.get_blocking(copy)
    if writes:
        transport.write(b"out")
        assert os.read(peer, 10) == b"out"
    else:
        os.write(peer, b"in")
        run_until(loop, lambda: protocol.data == b"in")
    run_turns(loop, 3)
    assert os.get_blocking(copy)
    close(loop, connection)
    assert os.get_blocking(copy)


@pytest.mark.parametrize("kind_of_file", ["pipe", "socket", "terminal", "fifo", "master"])
def test_writing_never_waits(loop, files, kind_of_file):
    """More than fits; what is left is written as the peer reads."""
    file, peer = files(kind_of_file, True)
    transport, protocol = connect(loop, file, True)
    sent = os.urandom(1 << 16) * 8
    transport.write(sent)
    assert 0 < transport.get_write_buffer_size() < len(sent)
    run_turns(loop, 3)
    os.set_blocking(peer, False)
    got = b""

    def read_some():
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += os.read(peer, 1 << 20)
        return len(got) == len(sent)

    run_until(loop, read_some)
    assert got == sent
    close(loop, (transport, protocol))


@pytest.mark.parametrize("kind_of_file", ["pipe", "socket", "terminal", "fifo", "master"])
def test_reading_never_waits(loop, files, another, kind_of_file):
    """Not even if somebody who shares the file puts it into blocking mode."""
    file, peer = files(kind_of_file)
    copy = another(file)
    transport, protocol = connect(loop, file)
    for i in range(1, 4):
        os.set_blocking(copy, True)
        os.write(peer, b"line")
        run_until(loop, lambda i=i: protocol.data == b"line" * i)
        run_turns(loop, 3)
    os.write(peer, bytes(3000))
    run_until(loop, lambda: len(protocol.data) == 3012)
    close(loop, (transport, protocol))


@ours
def test_two_readers_of_one_pipe(loop, files, another):
    """Each is told of the bytes; one gets them, the other does not wait for more."""
    file, peer = files("pipe")
    with open(another(file), "rb", 0, closefd=False) as again:
        connections = [connect(loop, file), connect(loop, again)]
        got = [protocol for _, protocol in connections]
        for i in range(1, 50):
            os.write(peer, b"x")
            run_until(loop, lambda i=i: sum(len(protocol.data) for protocol in got) == i)
        close(loop, *connections)


@pytest.mark.parametrize("kind_of_file", ["pipe", "fifo"])
def test_a_writer_in_another_thread(loop, files, kind_of_file):
    """No byte is left behind, however the reads and the writes meet."""
    file, peer = files(kind_of_file)
    _, protocol = connect(loop, file)

    def write():
        for i in range(20_000):
            os.write(peer, b"%05d" % i)
        os.close(peer)

    thread = threading.Thread(target=write)
    thread.start()
    loop.run_until_complete(protocol.lost)
    thread.join()
    assert protocol.data == b"".join(b"%05d" % i for i in range(20_000))


# ---- terminals


@ours
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_one_terminal_as_input_and_output(loop, files, another, order):
    """As a shell hands it out: one open file, three descriptors.  print() goes on to work."""
    stdin, master = files("terminal")
    stdout, stderr = another(stdin), another(stdin)
    shell = another(stdin)
    with open(stdout, "wb", 0) as out, open(stderr, "wb", 0) as err:
        connections = [
            connect(loop, stdin),
            connect(loop, out, True),
            connect(loop, err, True),
        ]
        os.write(master, b"typed")
        run_until(loop, lambda: connections[0][1].data == b"typed")
        connections[1][0].write(b"shown")
        connections[2][0].write(b"too")
        os.write(shell, b"!")
        got = b""
        while len(got) < 9:
            got += os.read(master, 100)
        assert got == b"showntoo!"
        for i in order:
            assert os.get_blocking(shell)
            close(loop, connections[i])
        assert os.get_blocking(shell)


def test_a_terminal_hangs_up_when_its_transport_has_ended(loop, files):
    """No descriptor of ours keeps it open: the master's read() would wait for ever."""
    file, master = files("terminal")
    transport, protocol = connect(loop, file)
    os.write(master, b"typed")
    run_until(loop, lambda: protocol.data == b"typed")

    async def end():
        transport.close()
        await protocol.lost
        with pytest.raises(OSError, match="Input/output error"):
            os.read(master, 100)

    loop.run_until_complete(end())


def test_a_terminal_that_cannot_be_opened_again(loop, files):
    """Its master is gone already."""
    file, master = files("terminal")
    os.close(master)
    _, protocol = connect(loop, file)
    loop.run_until_complete(protocol.lost)
    assert file.closed


def test_a_terminal_that_is_closed_behind_our_back(loop, files, asyncio_log):
    file, master = files("terminal")
    transport, protocol = connect(loop, file)
    file.close()
    if hasattr(loop, "stats"):
        with contextlib.suppress(OSError):
            os.write(master, b"typed")
    else:
        transport.close()
    loop.run_until_complete(protocol.lost)
    asyncio_log.take()


# ---- where it is needed


@ours
@pytest.mark.parametrize("end", ["close", "abort", "peer", "loop", "refused"])
@pytest.mark.parametrize("writes", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("kind_of_file", TAKEN_BACK)
def test_taken_back(new_loop, files, another, recwarn, kind_of_file, writes, end):
    loop = new_loop()
    file, peer = files(kind_of_file, writes)
    copy = another(file)
    if end == "refused":
        loop.run_until_complete(refused(loop, file, writes))
        assert os.get_blocking(copy)
        return
    transport, protocol = connect(loop, file, writes)
    if kind_of_file != "device" or writes:  # the end of /dev/null comes at once
        assert not os.get_blocking(copy)
    if end == "close":
        transport.close()
    elif end == "abort" and writes:
        transport.abort()
    elif end == "peer" and (kind_of_file, writes) in ENDED_BY_PEER:
        os.close(peer)
    elif end == "loop":
        loop.close()
    else:
        transport.close()
    if end != "loop":
        loop.run_until_complete(protocol.lost)
    assert file.closed
    assert os.get_blocking(copy)


@ours
@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.parametrize("kind_of_file", TAKEN_BACK)
def test_taken_back_by_the_collector(kind, files, another, kind_of_file):
    file, _ = files(kind_of_file, True)
    copy = another(file)
    loop = conftest.make_loop(kind)
    connection = connect(loop, file, True)
    assert not os.get_blocking(copy)
    del connection, loop
    gc.collect()
    assert file.closed
    assert os.get_blocking(copy)


ENDED_BY_PEER = [("fifo", False), ("fifo", True), ("master", False)]


async def refused(loop, file, writes):
    """connect_*_pipe() is cancelled before it has ended."""
    make = loop.connect_write_pipe if writes else loop.connect_read_pipe
    await cancelled_at_its_first_wait(make(lambda: Collector(loop), file))


@ours
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("kind_of_file", ["fifo", "master"])
def test_the_last_one_takes_it_back(new_loop, files, another, kind_of_file, order):
    """Three transports of two loops over one open file."""
    first, second = new_loop(), new_loop()
    file, _ = files(kind_of_file)
    copy = another(file)
    with open(another(file), "rb", 0) as two, open(another(file), "rb", 0) as three:
        connections = [
            (first, connect(first, file)),
            (second, connect(second, two)),
            (first, connect(first, three)),
        ]
        for i in order:
            assert not os.get_blocking(copy)
            loop, connection = connections[i]
            close(loop, connection)
        assert os.get_blocking(copy)


@pytest.mark.parametrize("kind_of_file", UNTOUCHED + TAKEN_BACK)
def test_non_blocking_before_and_after(loop, files, another, kind_of_file):
    file, _ = files(kind_of_file, True)
    copy = another(file)
    os.set_blocking(copy, False)
    connection = connect(loop, file, True)
    close(loop, connection)
    assert not os.get_blocking(copy)


@ours
def test_not_on_a_number_of_somebody_elses(loop, files, another, asyncio_log):
    """The file was closed behind the transport's back, and its number is another FIFO's."""
    file, _ = files("fifo")
    transport, protocol = connect(loop, file)
    other, _ = files("fifo")
    os.set_blocking(other.fileno(), False)
    number = file.fileno()
    os.dup2(other.fileno(), number)
    transport.close()
    loop.run_until_complete(protocol.lost)
    assert not os.get_blocking(other.fileno())
    asyncio_log.take()


@ours
def test_a_forked_child_takes_nothing_back(loop, files, another):
    file, _ = files("fifo")
    copy = another(file)
    connection = connect(loop, file)

    def child():
        connection[0].close()
        loop.close()
        assert not os.get_blocking(copy)

    in_child(child)
    assert not os.get_blocking(copy)
    close(loop, connection)
    assert os.get_blocking(copy)


@ours
@pytest.mark.parametrize("writes", [False, True], ids=["read", "write"])
def test_kernels_without_nowait_on_pipes(writes):
    """The same for pipes, by the mode."""
    end = 1 if writes else 0
    done = script(
        f"""
        import asyncio, os, gyre
        ends = os.pipe()
        copy = os.dup(ends[{end}])

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.lost = asyncio.get_running_loop().create_future()
                self.got = asyncio.get_running_loop().create_future()
            def data_received(self, data):
                self.got.set_result(data)
            def connection_lost(self, exc):
                self.lost.set_result(exc)

        async def main():
            loop = asyncio.get_running_loop()
            file = open(ends[{end}], {"'wb'" if writes else "'rb'"}, 0)
            make = loop.connect_{"write" if writes else "read"}_pipe
            transport, protocol = await make(Protocol, file)
            assert not os.get_blocking(copy)
            if {writes}:
                transport.write(b"data")
                assert os.read(ends[0], 10) == b"data"
            else:
                os.write(ends[1], b"data")
                assert await protocol.got == b"data"
            transport.close()
            await protocol.lost
            assert os.get_blocking(copy)

        gyre.run(main())
        """,
        GYRE_FEATURES="-pipe_nowait",
    )
    assert done.returncode == 0, done.stderr
