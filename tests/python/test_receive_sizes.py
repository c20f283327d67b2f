"""Large messages are received straight into the object that the protocol gets: of any size, in any
order, each byte once, and with one data_received() where asyncio has one."""

import asyncio
import random
import socket

import pytest
from tcp_tools import drive, spin


class Collect(asyncio.Protocol):
    def __init__(self):
        self.pieces = []

    def data_received(self, data):
        assert type(data) is bytes
        self.pieces.append(data)


def message(number, size):
    return random.Random(number).randbytes(size)


async def deliver(protocol, peer, sent):
    """Sends and waits until as much has come."""
    have = len(protocol.pieces)
    view = memoryview(sent)
    while view or sum(map(len, protocol.pieces[have:])) < len(sent):
        if view:
            try:
                view = view[peer.send(view) :]
            except BlockingIOError:
                pass
        await spin(2)
    return b"".join(protocol.pieces[have:])


@pytest.mark.parametrize("make", ["data", "streams"])
def test_sizes(loop, pair, make):
    sizes = [16384] * 3 + [16392, 16393, 40000, 100, 9000, 9008, 150000, 1, 70000, 8191, 8192, 8200]

    async def main():
        ours, peer = pair
        if make == "data":
            protocol = Collect()
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
            for number, size in enumerate(sizes * 2):
                sent = message(number, size)
                assert await deliver(protocol, peer, sent) == sent
        else:
            reader = asyncio.StreamReader(loop=loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
            for number, size in enumerate(sizes * 2):
                sent = message(number, size)
                task = loop.create_task(reader.readexactly(size))
                await loop.sock_sendall(peer, sent)
                assert await task == sent
        transport.abort()
        await spin()

    drive(loop, main())


def test_one_call_for_a_message_of_the_size_of_the_last(loop, pair):
    async def main():
        ours, peer = pair
        protocol = Collect()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        for number in range(6):
            sent = message(number, 16384)
            assert await deliver(protocol, peer, sent) == sent
        assert [len(piece) for piece in protocol.pieces] == [16384] * 6
        transport.abort()
        await spin()

    drive(loop, main())


@pytest.mark.parametrize("between", [[9000], [9000] * 7, [100] * 7, [100, 30000]])
def test_one_call_for_a_message_after_smaller_ones(loop, pair, between):
    """The room is that of the largest of the last messages: a large one is not cut."""

    async def main():
        ours, peer = pair
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        protocol = Collect()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        sizes = [60000, 60000, *between, 60000]
        for number, size in enumerate(sizes):
            sent = message(number, size)
            assert await deliver(protocol, peer, sent) == sent
        assert [len(piece) for piece in protocol.pieces] == sizes
        transport.abort()
        await spin()

    drive(loop, main())


def test_protocol_that_changes_in_between(loop, pair):
    class Into(asyncio.BufferedProtocol):
        def __init__(self):
            self.memory = bytearray(30000)
            self.pieces = []

        def get_buffer(self, hint):
            return self.memory

        def buffer_updated(self, count):
            self.pieces.append(bytes(self.memory[:count]))

    async def main():
        ours, peer = pair
        first, second = Collect(), Into()
        transport, _ = await loop.connect_accepted_socket(lambda: first, ours)
        for number, protocol in enumerate([first, first, second, second, first, second, first]):
            transport.set_protocol(protocol)
            sent = message(number, 20000)
            assert await deliver(protocol, peer, sent) == sent
        transport.abort()
        await spin()

    drive(loop, main())
