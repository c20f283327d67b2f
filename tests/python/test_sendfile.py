"""loop.sendfile and loop.sock_sendfile, on both loops: what is sent, errors, positions, cancels."""

import asyncio
import errno
import inspect
import io
import os
import socket

import pytest
from tcp_tools import drive, spin

SIZE = 5_000_000
DATA = bytes(range(256)) * (SIZE // 256) + b"tail"

# Where the file stands after nothing was sent: newer releases of asyncio put it to the offset.
_put_back = asyncio.SelectorEventLoop._sock_sendfile_update_filepos
MOVES_ALWAYS = "total_sent" not in inspect.signature(_put_back).parameters


@pytest.fixture(params=["socket", "transport"])
def sender(request, loop, connect, peer):
    """await sender() is (send, peer's socket); send(file, ...) is one of the two methods."""

    async def make():
        if request.param == "transport":
            transport, protocol, theirs = await connect()
            theirs.setblocking(False)

            async def send(*args, **kwargs):
                return await loop.sendfile(transport, *args, **kwargs)

            async def end():
                transport.abort()
                await protocol.lost

            return send, theirs, end
        ours, theirs = socket.socketpair()
        peer.extend([ours, theirs])
        ours.setblocking(False)
        theirs.setblocking(False)

        async def send(*args, **kwargs):
            return await loop.sock_sendfile(ours, *args, **kwargs)

        async def end():
            ours.close()

        return send, theirs, end

    return make


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        yield opened


async def received(sock, count):
    data = bytearray()
    while len(data) < count:
        try:
            part = sock.recv(1 << 20)
        except BlockingIOError:
            await asyncio.sleep(0)
            continue
        assert part
        data += part
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (1, None), (0, 1), (3, 4_000_000), (len(DATA) - 4, None), (len(DATA) - 4, 100)],
)
def test_parts(loop, sender, file, offset, count):
    drive(loop, sends(sender, file, offset, count))


async def sends(sender, file, offset, count):
    expected = DATA[offset:] if count is None else DATA[offset : offset + count]
    send, theirs, end = await sender()
    reading = asyncio.create_task(received(theirs, len(expected)))
    assert await send(file, offset, count, fallback=False) == len(expected)
    assert await reading == expected
    assert file.tell() == offset + len(expected)
    await end()


def test_nothing_to_send(loop, sender, file, tmp_path):
    async def main():
        send, _, end = await sender()
        (tmp_path / "empty").touch()
        with (tmp_path / "empty").open("rb") as empty:
            assert await send(empty) == 0
            assert await send(empty, 10) == 0
        file.seek(7)
        assert await send(file, len(DATA) + 10) == 0
        assert file.tell() == (len(DATA) + 10 if MOVES_ALWAYS else 7)
        await end()

    drive(loop, main())


def test_pages_that_are_not_in_memory(loop, sender, file):
    """What the disk has to bring first."""
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    async def main():
        send, theirs, end = await sender()
        reading = asyncio.create_task(received(theirs, len(DATA)))
        assert await send(file, fallback=False) == len(DATA)
        assert await reading == DATA
        await end()

    drive(loop, main())


@pytest.mark.only("gyre")  # asyncio asks once more, and waits for room to do so
def test_the_end_needs_no_room(loop, peer, tmp_path):
    """All is sent, nobody has read it, and the socket is too full to be writable."""
    (tmp_path / "file").write_bytes(DATA[:100_000])
    ours, theirs = socket.socketpair()
    peer.extend([ours, theirs])
    ours.setblocking(False)
    theirs.setblocking(False)

    async def main():
        with (tmp_path / "file").open("rb") as file:
            async with asyncio.timeout(30):
                assert await loop.sock_sendfile(ours, file, fallback=False) == 100_000
            assert file.tell() == 100_000
        assert await received(theirs, 100_000) == DATA[:100_000]

    drive(loop, main())


def test_others_run_meanwhile(loop, sender, file):
    async def main():
        send, theirs, end = await sender()
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        reading = asyncio.create_task(received(theirs, len(DATA)))
        await send(file)
        await reading
        assert turns > 3
        counting.cancel()
        await end()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_cancel(loop, sender, file):
    """The position of the file says how far it came, which asyncio forgets; the socket got that."""

    async def main():
        send, theirs, end = await sender()
        task = asyncio.create_task(send(file, 100))
        await spin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sent = file.tell() - 100
        assert 0 < sent < len(DATA) - 100
        assert await received(theirs, sent) == DATA[100 : 100 + sent]
        await spin()
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        await end()

    drive(loop, main())


def test_peer_goes(loop, sender, file):
    async def main():
        send, theirs, end = await sender()
        task = asyncio.create_task(send(file))
        await spin()
        theirs.close()
        with pytest.raises(ConnectionError):
            await task
        assert 0 < file.tell() < len(DATA)
        await end()

    drive(loop, main())


def test_no_regular_file(loop, sender):
    """The fallback reads and sends; without it, an error."""

    async def main():
        send, theirs, end = await sender()
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await send(io.BytesIO(b"in memory"), fallback=False)
        assert await send(io.BytesIO(b"in memory"), 3) == 6
        assert await received(theirs, 6) == b"memory"
        await end()

    drive(loop, main())


def test_bad_arguments(loop, sender, file, tmp_path):
    async def main():
        send, _, end = await sender()
        for args, exc_type in (
            ((file, -1), ValueError),
            ((file, 0, 0), ValueError),
            ((file, 0, -1), ValueError),
            ((file, "0"), TypeError),
            ((file, 0, "1"), TypeError),
        ):
            with pytest.raises(exc_type):
                await send(*args)
        with (tmp_path / "file").open() as text, pytest.raises(ValueError, match="binary mode"):
            await send(text)
        await end()

    drive(loop, main())


def test_refused_in_debug_mode(loop, file, peer):
    ours, theirs = socket.socketpair()
    peer += [ours, theirs]
    loop.set_debug(True)

    async def main():
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await loop.sock_sendfile(ours, file)

    drive(loop, main())


def test_transport_that_is_closing(loop, connect, file):
    async def main():
        transport, protocol, _ = await connect()
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, file)
        await protocol.lost

    drive(loop, main())


def test_writes_before_and_after(loop, connect, file):
    async def main():
        transport, protocol, theirs = await connect()
        theirs.setblocking(False)
        reading = asyncio.create_task(received(theirs, len(DATA) + 2_000_003))
        transport.write(b"b" * 2_000_000)
        assert await loop.sendfile(transport, file) == len(DATA)
        transport.write(b"end")
        assert await reading == b"b" * 2_000_000 + DATA + b"end"
        transport.abort()
        await protocol.lost

    drive(loop, main())


@pytest.mark.only("gyre")
def test_cancelled_before_it_begins(loop, connect, file):
    """asyncio leaves reading paused."""

    async def main():
        transport, protocol, theirs = await connect()
        theirs.setblocking(False)
        transport.write(b"b" * 8_000_000)
        sending = asyncio.create_task(loop.sendfile(transport, file))
        await spin()
        assert not transport.is_reading()
        with pytest.raises(RuntimeError, match="already set"):
            await loop.sendfile(transport, file)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading()
        assert file.tell() == 0
        transport.write(b"end")
        assert await received(theirs, 8_000_003) == b"b" * 8_000_000 + b"end"
        transport.abort()
        await protocol.lost

    drive(loop, main())


@pytest.fixture
def cold(monkeypatch):
    """Nothing is in memory, as far as the loop can see; the parts that were asked for."""
    from gyre import _sendfile

    parts = []
    monkeypatch.setattr(_sendfile, "is_in_memory", lambda *part: not parts.append(part) and False)
    return parts


@pytest.mark.only("gyre")
@pytest.mark.parametrize(("offset", "count"), [(0, None), (5000, None), (3, 4_000_000), (7, 1)])
def test_the_disk_is_waited_for_by_the_ring(loop, sender, file, cold, monkeypatch, offset, count):
    splices = []
    splice = loop._file_splice
    monkeypatch.setattr(
        loop, "_file_splice", lambda *args: splices.append(args[1]) or splice(*args)
    )
    drive(loop, sends(sender, file, offset, count))
    assert splices == [place for _, place, _ in cold]
    assert splices[0] == offset


@pytest.mark.only("gyre")
def test_the_disk_is_waited_for_in_a_thread(loop, sender, file, cold, monkeypatch):
    """Where there is no pipe to be had."""
    from gyre import _sendfile

    reads = []
    read = _sendfile.read
    monkeypatch.setattr(_sendfile, "read", lambda *part: reads.append(part) or read(*part))

    def no_pipe():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(_sendfile, "Pipe", no_pipe)

    async def main():
        send, theirs, end = await sender()
        reading = asyncio.create_task(received(theirs, len(DATA)))
        assert await send(file, fallback=False) == len(DATA)
        assert await reading == DATA
        assert reads == cold
        assert {count for _, _, count in reads} == {1 << 20}
        await end()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_the_disk_fails(loop, sender, file, cold, monkeypatch):
    """At once: the fallback reads and sends; later: the error, and the position says how far."""
    splice = loop._file_splice
    good = 0

    def fail(*args):
        nonlocal good
        good -= 1
        if good < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return splice(*args)

    monkeypatch.setattr(loop, "_file_splice", fail)

    async def main():
        nonlocal good
        send, theirs, end = await sender()
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await send(file, fallback=False)
        reading = asyncio.create_task(received(theirs, len(DATA)))
        assert await send(file) == len(DATA)
        assert await reading == DATA
        good = 2
        file.seek(0)
        reading = asyncio.create_task(received(theirs, len(DATA)))
        with pytest.raises(OSError) as failed:
            await send(file, fallback=False)
        assert failed.value.errno == errno.EIO
        assert 0 < file.tell() < len(DATA)
        reading.cancel()
        await end()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_cancelled_while_the_disk_is_waited_for(loop, sender, file, cold, monkeypatch):
    """The pipe stays until the kernel has done with it."""
    from gyre import _sendfile

    pipes = []

    class Pipe(_sendfile.Pipe):
        def __init__(self):
            super().__init__()
            self.closed = False
            pipes.append(self)

        def close(self):
            super().close()
            self.closed = True

    monkeypatch.setattr(_sendfile, "Pipe", Pipe)

    async def main():
        send, _, end = await sender()
        op = loop.create_future()
        monkeypatch.setattr(loop, "_file_splice", lambda *args: op)
        sending = asyncio.create_task(send(file))
        await spin()
        sending.cancel()
        await spin()
        assert not sending.done()
        assert [pipe.closed for pipe in pipes] == [False]
        op.set_result(100)
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert [pipe.closed for pipe in pipes] == [True]
        assert file.tell() == 0
        await end()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_truncated_while_it_is_sent(loop, sender, file, cold):
    async def main():
        send, theirs, end = await sender()
        sending = asyncio.create_task(send(file))
        first = await received(theirs, 100_000)
        os.truncate(file.name, 1_500_000)
        reading = asyncio.create_task(received(theirs, len(DATA)))
        sent = await sending
        assert len(first) <= sent < len(DATA)
        assert file.tell() == sent
        reading.cancel()
        await end()

    drive(loop, main())
