"""counts_paths: the hot paths whose instructions counts.py counts; it runs this under callgrind.

    python counts_paths.py [--list] [path ...]

Each path runs twice, N and 2 N operations, and calls os.getppid() before and after: callgrind
writes a file at each of these calls and counts from zero again.  The difference of the two runs is
N operations without their set-up.  Everything is in one thread and one process and no clock is
looked at, so that two runs execute the same instructions.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import gyre

OPERATIONS = 200
WARM_UP = 300
MESSAGE = b"x" * 64

Main = Callable[[Any, int], Coroutine[Any, Any, None]]
PATHS: dict[str, Main] = {}


def path(name: str) -> Callable[[Main], Main]:
    def register(main: Main) -> Main:
        PATHS[name] = main
        return main

    return register


class Client:
    """The other end of a connection: plain calls on a socket, none of them gyre's.

    It answers an answer from a callback of its own, so that the loop waits for nothing but the next
    message to the server.
    """

    def __init__(self, loop: Any, count: int) -> None:
        self.server, self.mine = socket.socketpair()
        self.mine.setblocking(False)
        self.server.setblocking(False)
        self.loop = loop
        self.left = count
        self.finished: asyncio.Future[None] = loop.create_future()
        self.mine.send(MESSAGE)

    def was_served(self) -> None:
        """The server has written: what it held back leaves when its callback ends."""
        self.loop.call_soon(self.go_on)

    def go_on(self) -> None:
        assert self.mine.recv(4096) == MESSAGE
        self.left -= 1
        if self.left:
            self.mine.send(MESSAGE)
        else:
            self.finished.set_result(None)


class Echo(asyncio.Protocol):
    def __init__(self, client: Client) -> None:
        self.client = client

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.client.was_served()


class BufferedEcho(asyncio.BufferedProtocol):
    def __init__(self, client: Client) -> None:
        self.client = client
        self.buffer = bytearray(4096)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))
        self.client.was_served()


async def echo_by(loop: Any, protocol: Callable[[Client], Any], count: int) -> None:
    client = Client(loop, count)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol(client), client.server)
    await client.finished
    transport.abort()
    client.mine.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@path("echo_protocol")
async def echo_protocol(loop: Any, count: int) -> None:
    await echo_by(loop, Echo, count)


@path("echo_buffered")
async def echo_buffered(loop: Any, count: int) -> None:
    await echo_by(loop, BufferedEcho, count)


@path("echo_streams")
async def echo_streams(loop: Any, count: int) -> None:
    client = Client(loop, count)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
            client.was_served()
        writer.close()

    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, serve, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, client.server)
    await client.finished
    client.mine.close()
    while not transport.is_closing():
        await asyncio.sleep(0)
    await asyncio.sleep(0)


@path("echo_sock")
async def echo_sock(loop: Any, count: int) -> None:
    client = Client(loop, count)

    async def serve() -> None:
        while data := await loop.sock_recv(client.server, 4096):
            await loop.sock_sendall(client.server, data)
            client.was_served()

    task = loop.create_task(serve())
    await client.finished
    client.mine.close()
    await task
    client.server.close()


@path("sleep0")
async def sleep0(loop: Any, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@path("wakeup")
async def wakeup(loop: Any, count: int) -> None:
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def nothing() -> None:
    pass


@path("create_task")
async def create_task(loop: Any, count: int) -> None:
    for _ in range(count):
        await loop.create_task(nothing())


def callback() -> None:
    pass


@path("call_soon")
async def call_soon(loop: Any, count: int) -> None:
    for _ in range(count // 50):
        for _ in range(50):
            loop.call_soon(callback)
        await asyncio.sleep(0)


@path("call_later_cancel")
async def call_later_cancel(loop: Any, count: int) -> None:
    for _ in range(count):
        loop.call_later(60, callback).cancel()


@path("call_soon_threadsafe")
async def call_soon_threadsafe(loop: Any, count: int) -> None:
    for _ in range(count // 50):
        for _ in range(50):
            loop.call_soon_threadsafe(callback)
        await asyncio.sleep(0)


def main(names: list[str]) -> None:
    loop = gyre.new_event_loop(backend="epoll", busy_poll=0)
    gc.disable()
    for name in names:
        run = PATHS[name]
        loop.run_until_complete(run(loop, WARM_UP))
        for count in (OPERATIONS, 2 * OPERATIONS):
            gc.collect()
            os.getppid()
            loop.run_until_complete(run(loop, count))
            os.getppid()
    loop.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(PATHS))
    else:
        main(sys.argv[1:] or list(PATHS))
