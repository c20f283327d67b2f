"""A peer that has ended its sending half, and a socket that is full."""

import asyncio
import socket

BYTES = 8_000_000


class Answer(asyncio.Protocol):
    """Answers at the end of the request, and counts what flow control says."""

    def __init__(self):
        self.paused = 0
        self.resumed = asyncio.Event()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def eof_received(self):
        self.transport.write(b"x" * BYTES)
        return True

    def pause_writing(self):
        self.paused += 1

    def resume_writing(self):
        self.resumed.set()


async def half_closed(loop):
    """A transport whose peer has shut down its sending half, and that peer."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    peer, _ = listener.accept()
    listener.close()
    peer.setblocking(False)
    transport, protocol = await loop.create_connection(Answer, sock=client)
    peer.shutdown(socket.SHUT_WR)
    return transport, protocol, peer


async def read_all(loop, peer):
    count = 0
    while count < BYTES:
        count += len(await loop.sock_recv(peer, 1 << 18))


def test_writing_resumes(loop):
    async def main():
        transport, protocol, peer = await half_closed(loop)
        with peer:
            await read_all(loop, peer)
            await asyncio.wait_for(protocol.resumed.wait(), 10)
            assert protocol.paused == 1
            assert transport.get_write_buffer_size() == 0
            transport.close()

    loop.run_until_complete(main())


def test_waits_without_spinning(loop, kind):
    async def main():
        transport, protocol, peer = await half_closed(loop)
        with peer:
            while not protocol.paused:
                await asyncio.sleep(0)
            turns = loop.stats()["turns"] if kind != "asyncio" else 0
            await asyncio.sleep(0.1)
            if kind != "asyncio":
                assert loop.stats()["turns"] - turns < 10
            await read_all(loop, peer)
            transport.close()

    loop.run_until_complete(main())


def test_sock_sendall_waits_without_spinning(loop, kind):
    async def main():
        sender, peer = socket.socketpair()
        sender.setblocking(False)
        peer.setblocking(False)
        with sender, peer:
            peer.shutdown(socket.SHUT_WR)
            task = loop.create_task(loop.sock_sendall(sender, b"x" * BYTES))
            await asyncio.sleep(0)
            turns = loop.stats()["turns"] if kind != "asyncio" else 0
            await asyncio.sleep(0.1)
            if kind != "asyncio":
                assert loop.stats()["turns"] - turns < 10
            await read_all(loop, peer)
            await task

    loop.run_until_complete(main())
