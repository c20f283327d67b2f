"""What a callback schedules runs before the same socket is read again, as on a selector loop."""

import asyncio
import socket
import struct

import pytest
import tcp_tools


def between(loop, told, seen):
    """Notes, once and in the next step of the loop, how many callbacks the protocol had heard."""
    if not told:
        loop.call_soon(lambda: seen.append(len(told)))


def buffered(loop, told, seen):
    class Small(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            return bytearray(1000)

        def buffer_updated(self, nbytes):
            between(loop, told, seen)
            told.append(nbytes)

    return Small()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, loop, told, seen):
        self.about = loop, told, seen

    def datagram_received(self, data, addr):
        between(*self.about)
        self.about[1].append(data)


async def hear(told, count):
    while len(told) < count:
        await asyncio.sleep(0)


def test_a_stream(loop):
    left, right = socket.socketpair()
    told, seen = [], []

    async def main():
        transport, _ = await loop.create_connection(lambda: buffered(loop, told, seen), sock=left)
        await hear(told, 10)
        transport.abort()

    with right:
        right.send(bytes(10_000))
        loop.run_until_complete(asyncio.wait_for(main(), 5))
    assert told == [1000] * 10
    assert seen == [1]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["udp", "unix"])
def test_datagrams(loop, family, tmp_path):
    told, seen = [], []
    receiver, sender = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    receiver.setblocking(False)
    receiver.bind(str(tmp_path / "there") if family == socket.AF_UNIX else ("127.0.0.1", 0))
    sent = [b"%d" % n for n in range(10)]

    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Datagrams(loop, told, seen), sock=receiver
        )
        await hear(told, len(sent))
        transport.abort()

    with sender:
        for data in sent:
            sender.sendto(data, receiver.getsockname())
        loop.run_until_complete(asyncio.wait_for(main(), 5))
    assert told == sent
    assert seen == [1]


def test_datagrams_of_one_receive(loop):
    """Segments that the kernel handed over together (UDP_GRO) are as many datagrams."""
    told, seen = [], []

    async def main():
        receiver, _ = await loop.create_datagram_endpoint(
            lambda: Datagrams(loop, told, seen), local_addr=("127.0.0.1", 0)
        )
        sender, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiver.get_extra_info("sockname")
        )
        for n in range(20):
            sender.sendto(b"%03d" % n)
        await hear(told, 20)
        receiver.abort()
        sender.abort()

    loop.run_until_complete(asyncio.wait_for(main(), 5))
    assert told == [b"%03d" % n for n in range(20)]
    assert seen == [1]


def test_a_reset_behind_data(loop):
    """It is told of in the turn after the data, neither sooner nor later."""
    seen = []

    class Ticks(asyncio.Protocol):
        def data_received(self, data):
            seen.append(len(data))
            loop.call_soon(self.tick)

        def tick(self):
            seen.append("tick")
            if not lost.done():
                loop.call_soon(self.tick)

        def connection_lost(self, exc):
            seen.append(type(exc))
            lost.set_result(None)

    async def main():
        nonlocal lost
        lost = loop.create_future()
        await loop.create_connection(Ticks, sock=left)
        right.send(b"data")
        right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        right.close()
        await lost

    lost = None
    left, right = tcp_tools.pair()
    with right:
        loop.run_until_complete(asyncio.wait_for(main(), 5))
    assert seen[:4] == [4, "tick", "tick", ConnectionResetError]
