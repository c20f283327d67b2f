"""Ctrl-C, whatever the program waits for: the main task of a Runner is cancelled, and nothing stays
behind (the fixture counts descriptors and operations)."""

import asyncio
import contextlib
import os
import signal
import socket
import time

import pytest
from test_signals import Later


async def sleeping(keep):
    await asyncio.sleep(3600)


async def a_future(keep):
    await asyncio.get_running_loop().create_future()


async def a_lock(keep):
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def a_queue(keep):
    await asyncio.Queue().get()


async def a_group(keep):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))
        group.create_task(asyncio.sleep(3600))


async def an_event_with_a_limit(keep):
    async with asyncio.timeout(3600):
        await asyncio.Event().wait()


async def a_thread(keep):
    await asyncio.to_thread(time.sleep, 0.3)


async def a_child(keep):
    process = await asyncio.create_subprocess_exec("/bin/sleep", "3600")
    try:
        await process.wait()
    finally:
        process.kill()
        await process.wait()


async def the_output_of_a_child(keep):
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await process.stdout.read()
    finally:
        process.stdin.close()
        await process.wait()


def sockets(keep):
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
        keep(contextlib.closing(sock))
    return pair


async def a_socket_that_is_silent(keep):
    await asyncio.get_running_loop().sock_recv(sockets(keep)[0], 10)


async def a_socket_that_is_full(keep):
    await asyncio.get_running_loop().sock_sendall(sockets(keep)[0], bytes(50_000_000))


async def a_listener(keep):
    listener = keep(socket.create_server(("127.0.0.1", 0)))
    listener.setblocking(False)
    await asyncio.get_running_loop().sock_accept(listener)


async def a_stream(keep):
    reader, writer = await asyncio.open_connection(sock=sockets(keep)[0])
    try:
        await reader.readline()
    finally:
        writer.close()


async def a_stream_that_drains(keep):
    reader, writer = await asyncio.open_connection(sock=sockets(keep)[0])
    try:
        writer.write(bytes(50_000_000))
        await writer.drain()
    finally:
        writer.transport.abort()


async def a_server(keep):
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        await server.serve_forever()


async def a_handshake(keep):
    import ssl

    loop = asyncio.get_running_loop()
    await loop.create_connection(
        asyncio.Protocol,
        sock=sockets(keep)[0],
        ssl=ssl.create_default_context(),
        server_hostname="localhost",
    )


async def a_pipe(keep):
    read_fd, write_fd = os.pipe()
    keep(open(write_fd, "wb", 0))
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), open(read_fd, "rb", 0)
    )
    try:
        await reader.read()
    finally:
        transport.close()


async def a_file_on_its_way(keep):
    left, right = sockets(keep)
    file = keep(open("/usr/bin/env", "rb"))
    while True:  # until the socket is full
        file.seek(0)
        await asyncio.get_running_loop().sock_sendfile(left, file)


async def a_generator_that_closes(keep):
    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(3600)

    async for _ in numbers():
        break
    await asyncio.sleep(3600)


WAITS = [
    sleeping,
    a_future,
    a_lock,
    a_queue,
    a_group,
    an_event_with_a_limit,
    a_thread,
    a_child,
    the_output_of_a_child,
    a_socket_that_is_silent,
    a_socket_that_is_full,
    a_listener,
    a_stream,
    a_stream_that_drains,
    a_server,
    a_handshake,
    a_pipe,
    a_file_on_its_way,
    a_generator_that_closes,
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_while_it_waits_for(new_loop, wait):
    cancelled = []

    async def main(keep):
        with Later(asyncio.get_running_loop(), signal.SIGINT):
            try:
                await wait(keep)
            except asyncio.CancelledError:
                cancelled.append(wait)
                raise

    with contextlib.ExitStack() as stack:
        with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(KeyboardInterrupt):
            runner.run(main(stack.enter_context))
        assert cancelled == [wait]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("where", ["connection_made", "data_received", "connection_lost"])
def test_inside_of_a_protocol(new_loop, where):
    """It comes out of the run; the loop can run again."""
    loop = new_loop()
    left, right = socket.socketpair()
    left.setblocking(False)

    def hit(*args):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

    protocol = type("Interrupted", (asyncio.Protocol,), {where: hit})
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(loop.create_connection(protocol, sock=left))
        right.send(b"x")
        if where == "connection_lost":
            right.close()
        loop.run_forever()
    right.close()
    loop.run_until_complete(asyncio.sleep(0.001))
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))


def test_between_two_runs(new_loop):
    """Outside of a run it is Python's own business, and the next run is not hurt."""
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)  # the signal ends it at once; without it the test fails
    assert loop.run_until_complete(asyncio.sleep(0, "fine")) == "fine"


def test_twice(new_loop):
    """The first cancels the main task; the second, while it cleans up, leaves the run at once."""

    async def main():
        loop = asyncio.get_running_loop()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            with Later(loop, signal.SIGINT):
                await asyncio.sleep(3600)

    runner = asyncio.Runner(loop_factory=new_loop)
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    runner.close()
