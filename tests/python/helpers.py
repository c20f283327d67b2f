"""What several of the tests do with a loop, a thread or a process."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings

import pytest


def run_turns(loop, turns=1):
    """Runs exactly this many turns."""

    def count(left):
        if left:
            loop.call_soon(count, left - 1)
        else:
            loop.stop()

    loop.call_soon(count, turns - 1)
    loop.run_forever()


def run_until(loop, condition, limit=5.0):
    """Turns, without sleeping, until condition() holds."""
    deadline = loop.time() + limit
    while not condition():
        assert loop.time() < deadline, "it never happened"
        run_turns(loop)


def in_child(function, timeout=20):
    """Forks; the child calls function() and ends.  What went wrong there fails the test here."""
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_fd)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                function()
            code = 0
        except BaseException:
            os.write(write_fd, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        if not select.select([pipe], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
        text = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {status}:\n{text}"


def script(code, *, timeout=40, flags=(), arguments=(), **environment):
    """Runs a program of its own; the finished process."""
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def in_thread(function):
    """function() in a thread of its own; its result or exception."""
    box = []

    def work():
        try:
            box.append((function(), None))
        except BaseException as exc:
            box.append((None, exc))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    result, exc = box[0]
    if exc is not None:
        raise exc
    return result


async def echo(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
    writer.close()


class Served:
    """An echo server and one client connection on a loop."""

    def __init__(self, loop):
        self.loop = loop
        loop.run_until_complete(self.start())

    async def start(self):
        self.server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = self.server.sockets[0].getsockname()
        self.reader, self.writer = await asyncio.open_connection(*address)
        await self.ask(b"hello")

    async def ask(self, data):
        self.writer.write(data)
        assert await self.reader.readexactly(len(data)) == data

    async def stop(self):
        self.writer.close()
        await self.writer.wait_closed()
        self.server.close()
        await self.server.wait_closed()
        for _ in range(20):  # the handler of the other end sees the end of the file
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(0.001)


class Collector(asyncio.Protocol):
    """Keeps what it receives, as `data`; `lost` is a future of how the connection ended."""

    def __init__(self, loop):
        self.data = b""
        self.lost = loop.create_future()

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def cancelled_at_its_first_wait(coroutine):
    """Starts it, cancels it, and leaves what it began the turns to be closed."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(5):
        await asyncio.sleep(0)
