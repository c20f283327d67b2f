"""An exception of a sock_*() call is not kept alive by a cycle through the frame that raised it."""

import asyncio
import gc
import socket
import struct

import pytest

pytestmark = pytest.mark.only("gyre")  # asyncio itself made such cycles before 3.14


def futures_that_hold(exc):
    return [held for held in gc.get_referrers(exc) if isinstance(held, asyncio.Future)]


def test_connect_refused(loop):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening
        address = unused.getsockname()

        async def main():
            with socket.socket() as sock:
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except ConnectionRefusedError as exc:
                    await asyncio.sleep(0)  # the wake-up itself holds the future
                    assert futures_that_hold(exc) == []
                else:
                    raise AssertionError("connected")

        loop.run_until_complete(main())


def test_reset_while_receiving(loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
        client.setblocking(False)
        with client:
            task = loop.create_task(loop.sock_recv(client, 100))
            await asyncio.sleep(0)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await asyncio.wait([task])
            exc = task.exception()
            assert isinstance(exc, ConnectionResetError)
            await asyncio.sleep(0)
            assert futures_that_hold(exc) == [task]

    loop.run_until_complete(main())
