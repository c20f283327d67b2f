"""Child processes and their pipes. Importing this adds them to the workloads of bench/micro."""

import asyncio
import os
import subprocess
from asyncio.subprocess import PIPE

from bench.micro.workloads import workload

BLOCK = 64 * 1024
MEBIBYTE = 1 << 20


@workload(
    "proc.spawn",
    "create_subprocess_exec('/bin/true'), then wait()",
    count=20,
    pinned=False,
    quick=True,
)
def spawn(context):
    async def main(count):
        for _ in range(count):
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()

    return context.run_main(main)


@workload("proc.spawn10", "the same, 10 at a time", count=40, group=10, pinned=False)
def spawn10(context):
    async def one():
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()

    async def main(count):
        for _ in range(count // 10):
            await asyncio.gather(*[one() for _ in range(10)])

    return context.run_main(main)


@workload("proc.spawn_pipes", "the same with three pipes that stay empty", count=20, pinned=False)
def spawn_pipes(context):
    async def main(count):
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                "/bin/true", stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            await process.communicate()

    return context.run_main(main)


class Echo(asyncio.SubprocessProtocol):
    """Keeps a child that echoes busy, with as much under way as flow control lets through."""

    def __init__(self, loop):
        self.loop = loop
        self.block = bytes(BLOCK)
        self.left_in = self.left_out = 0
        self.paused = False
        self.done = None

    def connection_made(self, transport):
        self.stdin = transport.get_pipe_transport(0)

    def start(self, size):
        self.left_in = self.left_out = size
        self.done = self.loop.create_future()
        self.write()
        return self.done

    def write(self):
        while self.left_out > 0 and not self.paused:
            self.left_out -= BLOCK
            self.stdin.write(self.block)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.write()

    def pipe_data_received(self, fd, data):
        self.left_in -= len(data)
        if self.left_in == 0:
            self.done.set_result(None)


@workload(
    "proc.pipe", "64 KiB to a child (cat) and back, with flow control", count=50, pinned=False
)
def pipe(context):
    loop = context.loop
    transport, protocol = loop.run_until_complete(
        loop.subprocess_exec(lambda: Echo(loop), "/bin/cat", stdin=PIPE, stdout=PIPE, stderr=None)
    )

    def end():
        transport.get_pipe_transport(0).close()
        loop.run_until_complete(transport._wait())
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))

    context.undo.append(end)

    async def main(count):
        await protocol.start(count * BLOCK)

    return context.run_main(main)


class PipeEcho(Echo, asyncio.Protocol):
    """The same as the protocol of both pipes; `closed` when both are."""

    def __init__(self, loop):
        super().__init__(loop)
        self.open = 0
        self.closed = loop.create_future()

    def connection_made(self, transport):
        self.open += 1

    def connection_lost(self, exc):
        self.open -= 1
        if self.open == 0:
            self.closed.set_result(None)

    def data_received(self, data):
        self.pipe_data_received(1, data)


@workload(
    "proc.own_pipe",
    "the same through two pipes that the program made (os.pipe), on every loop",
    count=50,
    pinned=False,
)
def own_pipe(context):
    loop = context.loop
    stdin, writing = os.pipe()
    reading, stdout = os.pipe()
    child = subprocess.Popen(["/bin/cat"], stdin=stdin, stdout=stdout)
    os.close(stdin)
    os.close(stdout)
    protocol = PipeEcho(loop)

    async def begin():
        await loop.connect_read_pipe(lambda: protocol, open(reading, "rb", 0))
        transport, _ = await loop.connect_write_pipe(lambda: protocol, open(writing, "wb", 0))
        return transport

    protocol.stdin = loop.run_until_complete(begin())

    def end():
        protocol.stdin.close()
        loop.run_until_complete(protocol.closed)
        child.wait()

    context.undo.append(end)

    async def main(count):
        await protocol.start(count * BLOCK)

    return context.run_main(main)


async def cat():
    return await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)


@workload(
    "proc.pingpong",
    "64 bytes to a child (cat) and back, one message at a time",
    count=200,
    pinned=False,
)
def pingpong(context):
    loop = context.loop
    process = loop.run_until_complete(cat())

    def end():
        process.stdin.close()
        loop.run_until_complete(process.wait())

    context.undo.append(end)
    message = b"x" * 63 + b"\n"

    async def main(count):
        for _ in range(count):
            process.stdin.write(message)
            await process.stdout.readline()

    return context.run_main(main)


@workload(
    "proc.communicate",
    "communicate() of 1 MiB with a child (cat)",
    count=4,
    pinned=False,
    quick=True,
)
def communicate(context):
    data = bytes(MEBIBYTE)

    async def main(count):
        for _ in range(count):
            process = await cat()
            out, _ = await process.communicate(data)
            assert len(out) == MEBIBYTE

    return context.run_main(main)
