"""Every operation, cancelled at each of its await points, while descriptor numbers are reused."""

import asyncio
import contextlib
import gc
import os
import pathlib
import socket
import ssl
from asyncio.subprocess import PIPE

import pytest
from canaries import Canaries

pytestmark = [pytest.mark.only("gyre"), pytest.mark.timeout(300)]

CERTIFICATES = pathlib.Path(__file__).parent.parent / "python" / "certs"
POINTS_MAX = 400
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


async def serve(reader, writer):
    """Echoes until the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def talk(reader, writer, size=200_000):
    try:
        for _ in range(3):
            writer.write(bytes(size))
            await writer.drain()
            await reader.readexactly(size)
    finally:
        writer.close()
    await writer.wait_closed()


@scenario
async def tcp_streams(loop, tmp_path):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        await talk(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    finally:
        server.close()


@scenario
async def unix_streams(loop, tmp_path):
    server = await asyncio.start_unix_server(serve, tmp_path / "socket")
    try:
        await talk(*await asyncio.open_unix_connection(tmp_path / "socket"))
    finally:
        server.close()


def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATES / "localhost.crt", CERTIFICATES / "localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


@scenario
async def tls_streams(loop, tmp_path):
    for_server, for_client = contexts()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=for_server)
    try:
        address = server.sockets[0].getsockname()
        await talk(*await asyncio.open_connection(*address, ssl=for_client), size=20_000)
    finally:
        server.close()


@scenario
async def start_tls(loop, tmp_path):
    for_server, for_client = contexts()

    async def upgrade(reader, writer):
        with contextlib.suppress(OSError):
            await writer.start_tls(for_server)
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            await writer.start_tls(for_client)
            await talk(reader, writer, size=5000)
        finally:
            writer.close()
    finally:
        server.close()


@scenario
async def sock_methods(loop, tmp_path):
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        conn, _ = await loop.sock_accept(listener)
        with conn:
            sending = asyncio.create_task(loop.sock_sendall(client, bytes(3_000_000)))
            try:
                left = 3_000_000
                while left:
                    left -= len(await loop.sock_recv(conn, 1 << 17))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


@scenario
async def datagrams(loop, tmp_path):
    received = asyncio.Queue()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.put_nowait(data)

    one, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
    try:
        address = one.get_extra_info("sockname")
        two, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=address)
        try:
            for i in range(5):
                two.sendto(b"%d" % i)
                assert await received.get() == b"%d" % i
        finally:
            two.close()
    finally:
        one.close()


@scenario
async def pipes(loop, tmp_path):
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as r, open(writing, "wb", 0) as w:
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), r)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, w)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        for _ in range(3):
            writer.write(bytes(150_000))
            draining = asyncio.create_task(writer.drain())
            try:
                await stream.readexactly(150_000)
            finally:
                await asyncio.gather(draining, return_exceptions=True)
        writer.close()
        assert await stream.read() == b""


@scenario
async def subprocesses(loop, tmp_path):
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    try:
        out, _ = await process.communicate(bytes(300_000))
        assert len(out) == 300_000
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.stdout.read()  # while it is full and paused, wait() does not end
        await process.wait()


@scenario
async def sendfile(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(500_000))
    left, right = socket.socketpair()
    with left, right, open(path, "rb") as file:
        left.setblocking(False)
        right.setblocking(False)
        sending = asyncio.create_task(loop.sock_sendfile(left, file))
        try:
            left_over = 500_000
            while left_over:
                left_over -= len(await loop.sock_recv(right, 1 << 16))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def cancelled_after(loop, make, turns, canaries, pause):
    """True if it was still running after so many turns."""
    task = loop.create_task(make())
    for turn in range(turns):
        if task.done():
            break
        await asyncio.sleep(pause if turn > 60 else 0)
    running = task.cancel()
    canaries.hatch()
    with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
        await task
    canaries.hatch()
    for _ in range(12):
        await asyncio.sleep(pause)
    canaries.check()
    return running


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_point(new_loop, tmp_path, name, asyncio_log, unraisable):
    loop = new_loop()
    canaries = Canaries()
    pause = 0.0003 if name == "subprocesses" else 0

    def make():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp_path / "socket")
        return SCENARIOS[name](loop, tmp_path)

    async def main():
        for turns in range(POINTS_MAX):
            if not await cancelled_after(loop, make, turns, canaries, pause):
                return turns
        return POINTS_MAX

    points = loop.run_until_complete(main())
    assert points > 2
    loop.run_until_complete(asyncio.sleep(0.05))
    rest = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
    gc.collect()
    canaries.hatch(30)
    loop.run_until_complete(asyncio.sleep(0.01))
    canaries.check()
    asyncio_log.take()  # what a cancelled handshake or a torn connection is logged as
    unraisable.take()
