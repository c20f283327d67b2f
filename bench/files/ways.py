"""The ways to work with files that are compared: one class per arm, the same methods in each.

A way belongs to one loop.  `read_at` is what one of several readers at once does; each of them has
made itself a `reader` before the clock starts.
"""

import asyncio
import mmap
import os
from concurrent.futures import ThreadPoolExecutor

BLOCK = 4096
MIB = 1 << 20
WINDOW = 64  # small files in flight


def flags_of(direct):
    return os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)


class Blocking:
    """Plain calls in the loop's thread: what the kernel alone costs."""

    def __init__(self, loop):
        self.loop = loop

    def close(self):
        pass

    async def reader(self, path, direct):
        return os.open(path, flags_of(direct)), mmap.mmap(-1, BLOCK) if direct else None

    async def close_reader(self, reader):
        os.close(reader[0])

    async def read_at(self, reader, offset):
        fd, buffer = reader
        return os.pread(fd, BLOCK, offset) if buffer is None else os.preadv(fd, [buffer], offset)

    async def read_through(self, path):
        with open(path, "rb", 0) as file:
            while file.read(MIB):
                pass

    async def write_through(self, path, data, count):
        with open(path, "wb", 0) as file:
            for _ in range(count):
                file.write(data)

    async def read_small(self, paths):
        for path in paths:
            with open(path, "rb") as file:
                file.read()

    async def write_small(self, paths, data):
        for path in paths:
            with open(path, "wb") as file:
                file.write(data)

    async def stat_small(self, paths):
        for path in paths:
            os.stat(path)

    async def send(self, path, sock):
        with open(path, "rb") as file:
            sent, size = 0, os.fstat(file.fileno()).st_size
            while sent < size:
                try:
                    sent += os.sendfile(sock.fileno(), file.fileno(), sent, size - sent)
                except BlockingIOError:
                    await writable(self.loop, sock)


async def writable(loop, sock):
    future = loop.create_future()
    loop.add_writer(sock, future.set_result, None)
    try:
        await future
    finally:
        loop.remove_writer(sock)


async def spread(paths, one):
    """one(path) for all of them, WINDOW at once, by as many tasks."""
    left = iter(paths)

    async def work():
        for path in left:
            await one(path)

    await asyncio.gather(*(work() for _ in range(WINDOW)))


class Threads(Blocking):
    """Every call in a thread of a pool of the default size, without a library between."""

    def __init__(self, loop):
        super().__init__(loop)
        self.pool = ThreadPoolExecutor()

    def close(self):
        self.pool.shutdown()

    def call(self, function, *args):
        return self.loop.run_in_executor(self.pool, function, *args)

    async def read_at(self, reader, offset):
        fd, buffer = reader
        if buffer is None:
            return await self.call(os.pread, fd, BLOCK, offset)
        return await self.call(os.preadv, fd, [buffer], offset)

    async def read_through(self, path):
        with open(path, "rb", 0) as file:
            while await self.call(file.read, MIB):
                pass

    async def write_through(self, path, data, count):
        with open(path, "wb", 0) as file:
            for _ in range(count):
                await self.call(file.write, data)

    @staticmethod
    def whole(path):
        with open(path, "rb") as file:
            return file.read()

    @staticmethod
    def put(path, data):
        with open(path, "wb") as file:
            file.write(data)

    async def read_small(self, paths):
        await spread(paths, lambda path: self.call(self.whole, path))

    async def write_small(self, paths, data):
        await spread(paths, lambda path: self.call(self.put, path, data))

    async def stat_small(self, paths):
        await spread(paths, lambda path: self.call(os.stat, path))

    async def send(self, path, sock):
        with open(path, "rb") as file:
            while data := await self.call(file.read, 256 * 1024):
                await self.loop.sock_sendall(sock, data)


class Library(Blocking):
    """What aiofiles and AnyIO have in common: files with awaitable seek and read."""

    async def reader(self, path, direct):
        options = {"opener": lambda name, flags: os.open(name, flags_of(True))} if direct else {}
        file = await self.open(path, "rb", buffering=0, **options)
        return file, mmap.mmap(-1, BLOCK) if direct else None

    async def close_reader(self, reader):
        await self.end(reader[0])

    async def read_at(self, reader, offset):
        file, buffer = reader
        await file.seek(offset)
        return await file.read(BLOCK) if buffer is None else await file.readinto(buffer)

    async def read_through(self, path):
        file = await self.open(path, "rb", buffering=0)
        while await file.read(MIB):
            pass
        await self.end(file)

    async def write_through(self, path, data, count):
        file = await self.open(path, "wb", buffering=0)
        for _ in range(count):
            await file.write(data)
        await self.end(file)

    async def read_small(self, paths):
        async def one(path):
            async with self.context(path, "rb") as file:
                return await file.read()

        await spread(paths, one)

    async def write_small(self, paths, data):
        async def one(path):
            async with self.context(path, "wb") as file:
                await file.write(data)

        await spread(paths, one)

    async def send(self, path, sock):
        async with self.context(path, "rb") as file:
            while data := await file.read(256 * 1024):
                await self.loop.sock_sendall(sock, data)


class Aiofiles(Library):
    def __init__(self, loop):
        super().__init__(loop)
        import aiofiles
        import aiofiles.os

        self.module = aiofiles

    async def open(self, *args, **kwargs):
        return await self.module.open(*args, **kwargs)

    def context(self, *args):
        return self.module.open(*args)

    async def end(self, file):
        await file.close()

    async def stat_small(self, paths):
        await spread(paths, self.module.os.stat)


class Anyio(Library):
    def __init__(self, loop):
        super().__init__(loop)
        import anyio

        self.module = anyio

    async def open(self, *args, **kwargs):
        return await self.module.open_file(*args, **kwargs)

    def context(self, *args):
        return _AnyioContext(self.module, args)

    async def end(self, file):
        await file.aclose()

    async def stat_small(self, paths):
        await spread(paths, lambda path: self.module.Path(path).stat())


class _AnyioContext:
    def __init__(self, module, args):
        self.module, self.args = module, args

    async def __aenter__(self):
        self.file = await self.module.open_file(*self.args)
        return self.file

    async def __aexit__(self, *exc_info):
        await self.file.aclose()


class Gyre(Blocking):
    def __init__(self, loop):
        super().__init__(loop)
        import gyre

        self.gyre = gyre

    async def reader(self, path, direct):
        file = await self.gyre.open(path, "rb", 0, direct=direct)
        return file, self.gyre.aligned_buffer(BLOCK) if direct else None

    async def close_reader(self, reader):
        await reader[0].close()

    async def read_at(self, reader, offset):
        file, buffer = reader
        if buffer is None:
            return await file.pread(BLOCK, offset)
        return await file.preadv([buffer], offset)

    async def read_through(self, path):
        async with self.gyre.open(path, "rb", 0) as file:
            while await file.read(MIB):
                pass

    async def write_through(self, path, data, count):
        async with self.gyre.open(path, "wb", 0) as file:
            for _ in range(count):
                await file.write(data)

    async def read_small(self, paths):
        await self.gyre.read_many(paths, limit=WINDOW)

    async def write_small(self, paths, data):
        await spread(paths, lambda path: self.gyre.write_file(path, data))

    async def stat_small(self, paths):
        await self.gyre.stat_many(paths, limit=WINDOW)

    async def send(self, path, sock):
        with open(path, "rb") as file:
            await self.loop.sock_sendfile(sock, file)


WAYS = {
    "gyre": Gyre,
    "aiofiles": Aiofiles,
    "anyio": Anyio,
    "threads": Threads,
    "blocking": Blocking,
}
