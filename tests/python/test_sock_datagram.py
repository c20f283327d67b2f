"""loop.sock_recvfrom, sock_recvfrom_into and sock_sendto, on both loops."""

import array
import asyncio
import socket

import pytest
from tcp_tools import drive, spin

NO_IPV6 = not socket.has_ipv6


def bound(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(address)
    return sock


@pytest.fixture
def pair(peer):
    """Two UDP sockets that are not connected."""
    left, right = bound(), bound()
    peer += [left, right]
    return left, right


def fill(sock, address):
    """Until the receiver's queue takes no more; how many datagrams that were."""
    sent = 0
    while True:
        try:
            sock.sendto(b"f" * 1000, address)
        except BlockingIOError:
            return sent
        sent += 1


def test_they_are_coroutines(loop, pair):
    left, right = pair
    coros = [
        loop.sock_recvfrom(left, 1),
        loop.sock_recvfrom_into(left, bytearray(1)),
        loop.sock_sendto(left, b"", right.getsockname()),
    ]
    for coro in coros:
        assert asyncio.iscoroutine(coro)
        coro.close()


def test_recvfrom(loop, pair):
    left, right = pair

    async def main():
        right.sendto(b"at once", left.getsockname())
        assert await loop.sock_recvfrom(left, 100) == (b"at once", right.getsockname())
        task = asyncio.create_task(loop.sock_recvfrom(left, 4))
        await spin()
        assert not task.done()
        right.sendto(b"later", left.getsockname())
        assert await task == (b"late", right.getsockname())  # the rest of the datagram is lost
        right.sendto(b"", left.getsockname())
        assert await loop.sock_recvfrom(left, 100) == (b"", right.getsockname())
        right.sendto(b"x" * 60_000, left.getsockname())
        data, _ = await loop.sock_recvfrom(left, 1 << 16)
        assert data == b"x" * 60_000

    drive(loop, main())


def test_recvfrom_into(loop, pair):
    left, right = pair

    async def main():
        buffer = bytearray(10)
        right.sendto(b"at once", left.getsockname())
        assert await loop.sock_recvfrom_into(left, buffer) == (7, right.getsockname())
        assert buffer == b"at once\0\0\0"
        task = asyncio.create_task(loop.sock_recvfrom_into(left, memoryview(buffer)[8:]))
        await spin()
        right.sendto(b"abc", left.getsockname())
        assert await task == (2, right.getsockname())
        assert buffer == b"at once\0ab"
        buffer.clear()  # nobody holds on to it
        items = array.array("i", [0, 0])
        right.sendto(b"\1\2\3\4\5\6\7\7", left.getsockname())
        assert (await loop.sock_recvfrom_into(left, items, 4))[0] == 4
        assert items.tobytes() == b"\1\2\3\4\0\0\0\0"
        for everything in (0, None, False):
            right.sendto(b"once more", left.getsockname())
            assert (await loop.sock_recvfrom_into(left, bytearray(9), everything))[0] == 9

    drive(loop, main())


def test_sendto(loop, pair):
    left, right = pair

    async def main():
        for data in (b"bytes", bytearray(b"array"), memoryview(b"view"), b"", b"x" * 60_000):
            sent = await loop.sock_sendto(left, data, right.getsockname())
            assert sent == len(data)
            assert right.recvfrom(1 << 16) == (bytes(data), left.getsockname())

    drive(loop, main())


def test_sendto_a_name(loop, pair):
    """Names are looked up by the socket module."""
    left, right = pair

    async def main():
        assert await loop.sock_sendto(left, b"x", ("localhost", right.getsockname()[1])) == 1
        assert right.recv(10) == b"x"

    drive(loop, main())


@pytest.mark.skipif(NO_IPV6, reason="needs IPv6")
def test_ipv6(loop, peer):
    left, right = (bound(socket.AF_INET6, ("::1", 0)) for _ in range(2))
    peer += [left, right]

    async def main():
        for address in (right.getsockname(), right.getsockname()[:2]):
            await loop.sock_sendto(left, b"x", address)
            assert await loop.sock_recvfrom(right, 10) == (b"x", left.getsockname())

    drive(loop, main())


@pytest.mark.parametrize("how", ["path", "abstract", "unnamed"])
def test_unix(loop, peer, tmp_path, how):
    names = {
        "path": [str(tmp_path / "left"), str(tmp_path / "right")],
        "abstract": [f"\0{tmp_path}left".encode(), f"\0{tmp_path}right".encode()],
        "unnamed": ["", str(tmp_path / "right")],
    }[how]
    left, right = (bound(socket.AF_UNIX, name) if name else unbound() for name in names)
    peer += [left, right]

    async def main():
        await loop.sock_sendto(left, b"x", right.getsockname())
        expected = right.recvfrom(10) if how == "unnamed" else (b"x", left.getsockname())
        await loop.sock_sendto(left, b"x", right.getsockname())
        assert await loop.sock_recvfrom(right, 10) == expected

    drive(loop, main())


def unbound():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


def test_sendto_waits(loop, peer, tmp_path):
    left, right = unbound(), bound(socket.AF_UNIX, str(tmp_path / "right"))
    peer += [left, right]

    async def main():
        count = fill(left, right.getsockname())
        task = asyncio.create_task(loop.sock_sendto(left, b"last", right.getsockname()))
        await spin()
        assert not task.done()
        for _ in range(count):
            right.recv(2000)
        assert await task == 4
        assert right.recv(2000) == b"last"

    drive(loop, main())


def test_cancel_leaves_no_trace(loop, peer, tmp_path):
    left, right = unbound(), bound(socket.AF_UNIX, str(tmp_path / "right"))
    peer += [left, right]

    async def cancelled(coro):
        task = asyncio.create_task(coro)
        await spin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main():
        buffer = bytearray(10)
        await cancelled(loop.sock_recvfrom(right, 10))
        await cancelled(loop.sock_recvfrom_into(right, buffer))
        buffer.clear()
        left.sendto(b"kept", right.getsockname())
        await spin()
        assert await loop.sock_recvfrom(right, 10) == (b"kept", None)
        count = fill(left, right.getsockname())
        await cancelled(loop.sock_sendto(left, b"never", right.getsockname()))
        for _ in range(count):
            right.recv(2000)
        await spin()
        with pytest.raises(BlockingIOError):
            right.recv(2000)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_two_at_once(loop, pair, peer, tmp_path):
    left, right = pair

    async def main():
        tasks = [asyncio.create_task(loop.sock_recvfrom(left, 1)) for _ in range(2)]
        await spin()
        for data in (b"a", b"b"):
            right.sendto(data, left.getsockname())
        assert sorted(data for data, _ in await asyncio.gather(*tasks)) == [b"a", b"b"]
        full, reader = unbound(), bound(socket.AF_UNIX, str(tmp_path / "reader"))
        peer.extend([full, reader])
        count = fill(full, reader.getsockname())
        tasks = [
            asyncio.create_task(loop.sock_sendto(full, data, reader.getsockname()))
            for data in (b"a", b"b")
        ]
        await spin()
        for _ in range(count):
            reader.recv(2000)
        assert await asyncio.gather(*tasks) == [1, 1]
        assert sorted(reader.recv(10) for _ in range(2)) == [b"a", b"b"]

    drive(loop, main())


def test_errors(loop, pair):
    left, right = pair
    address = right.getsockname()

    async def main():
        with pytest.raises(ValueError, match="negative buffersize in recvfrom"):
            await loop.sock_recvfrom(left, -1)
        with pytest.raises(TypeError):
            await loop.sock_recvfrom(left, "1")
        with pytest.raises(TypeError, match="read-write bytes-like object, not bytes"):
            await loop.sock_recvfrom_into(left, b"constant")
        with pytest.raises(ValueError, match="negative buffersize in recvfrom_into"):
            await loop.sock_recvfrom_into(left, bytearray(4), -1)
        with pytest.raises(ValueError, match="nbytes is greater than the length"):
            await loop.sock_recvfrom_into(left, bytearray(4), 5)
        with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
            await loop.sock_sendto(left, "text", address)
        for bad in (None, 5, ("127.0.0.1",), ("127.0.0.1", "port")):
            with pytest.raises(TypeError):
                await loop.sock_sendto(left, b"x", bad)
        with pytest.raises(OverflowError):
            await loop.sock_sendto(left, b"x", ("127.0.0.1", 65536))
        with pytest.raises(OSError, match="Message too long"):
            await loop.sock_sendto(left, b"x" * 70_000, address)
        left.close()
        for coro in (loop.sock_recvfrom(left, 1), loop.sock_sendto(left, b"x", address)):
            with pytest.raises(OSError, match="Bad file descriptor"):
                await coro

    drive(loop, main())


def test_refused_in_debug_mode(loop, pair):
    left, right = pair
    left.setblocking(True)
    loop.set_debug(True)

    async def main():
        for coro in (
            loop.sock_recvfrom(left, 1),
            loop.sock_recvfrom_into(left, bytearray(1)),
            loop.sock_sendto(left, b"x", right.getsockname()),
        ):
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await coro

    drive(loop, main())


def test_refused_connection(loop, peer):
    """The ICMP answer is the next call's error, once."""
    gone = bound()
    address = gone.getsockname()
    gone.close()
    left = bound()
    peer.append(left)
    left.connect(address)

    async def main():
        left.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_recvfrom(left, 10)

    drive(loop, main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="needs netlink")
def test_a_family_of_the_socket_module(loop, peer):
    left = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    left.setblocking(False)
    left.bind((0, 0))
    peer.append(left)

    async def main():
        # A message of no type and with an acknowledge wanted, to the kernel.
        message = b"\x10\0\0\0\0\0\5\0\1\0\0\0\0\0\0\0"
        assert await loop.sock_sendto(left, message, (0, 0)) == len(message)
        data, address = await loop.sock_recvfrom(left, 1000)
        assert address == (0, 0)
        await loop.sock_sendto(left, message, (0, 0))
        count, address = await loop.sock_recvfrom_into(left, bytearray(1000))
        assert (count, address) == (len(data), (0, 0))
        task = asyncio.create_task(loop.sock_recvfrom(left, 1000))
        await spin()
        await loop.sock_sendto(left, message, (0, 0))
        assert (await task)[1] == (0, 0)

    drive(loop, main())
