"""The file workloads.  A workload makes `run(count)`, a coroutine function that does count
operations in one of the ways of ways.py; what an operation is stands in the title."""

import asyncio
import os
import random
import socket
import threading
from dataclasses import dataclass

from bench.files.ways import BLOCK, MIB

WORKLOADS = {}
FILE_BYTES = 64 * MIB
SMALL_FILES = 10_000
SMALL_BYTES = 1024
SENT_BYTES = 256 * 1024
TICK_S = 0.001
IN_FLIGHT = 64


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    make: object
    count: int  # operations of a slice at first; fitted to the time unless fixed
    fixed: bool = False
    quick_count: int = 0  # of a fixed one, in a quick run
    quick: bool = False
    reports_lateness: bool = False
    slices_min: int = 1  # of one whose slices differ much


def workload(name, title, *, count, **more):
    def register(make):
        assert name not in WORKLOADS
        WORKLOADS[name] = Workload(name, title, make, count, **more)
        return make

    return register


class Place:
    """The files to work with, in one folder that stays from run to run."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def big(self):
        """A file of FILE_BYTES, in the page cache and on the disk."""
        path = self.folder / "big"
        if not path.exists() or path.stat().st_size != FILE_BYTES:
            path.write_bytes(os.urandom(MIB) * (FILE_BYTES // MIB))
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        with open(path, "rb", 0) as file:
            while file.read(MIB):
                pass
        return str(path)

    def sent(self):
        path = self.folder / "sent"
        path.write_bytes(bytes(SENT_BYTES))
        return str(path)

    def small(self, count):
        """Paths of count files of SMALL_BYTES, 1000 in a folder."""
        paths = []
        for number in range(count):
            folder = self.folder / f"small{number // 1000}"
            if number % 1000 == 0:
                folder.mkdir(exist_ok=True)
            path = folder / f"{number}"
            if not path.exists() or path.stat().st_size != SMALL_BYTES:
                path.write_bytes(bytes(SMALL_BYTES))
            paths.append(str(path))
        return paths


def random_reads(place, way, *, depth, direct):
    path = place.big()
    offsets = [BLOCK * n for n in range(FILE_BYTES // BLOCK)]
    random.Random(1).shuffle(offsets)

    async def run(count):
        readers = [await way.reader(path, direct) for _ in range(depth)]
        share = max(1, count // depth)

        async def read(reader, number):
            read_at = way.read_at
            for index in range(number * share, (number + 1) * share):
                await read_at(reader, offsets[index % len(offsets)])

        if depth == 1:
            await read(readers[0], 0)
        else:
            await asyncio.gather(*(read(reader, n) for n, reader in enumerate(readers)))
        for reader in readers:
            await way.close_reader(reader)

    return run


def register_reads():
    for direct in (False, True):
        for depth in (1, 16, 64):
            kind = "direct" if direct else "hot"
            where = "past the page cache (O_DIRECT)" if direct else "from the page cache"

            def make(place, way, depth=depth, direct=direct):
                return random_reads(place, way, depth=depth, direct=direct)

            workload(
                f"read4k.{kind}.d{depth}",
                f"a random read of 4 KiB {where}, {depth} at once",
                count=64 * 4,
                quick=not direct and depth != 64,
            )(make)


register_reads()


@workload("sequential.read", "1 MiB read in sequence from the page cache", count=64, fixed=True)
def sequential_read(place, way):
    path = place.big()

    async def run(count):
        await way.read_through(path)

    return run


# One slice takes 0.6 to 1.6 of the next: the disk takes what the slice before has written.
@workload("sequential.write", "1 MiB written in sequence", count=64, fixed=True, slices_min=25)
def sequential_write(place, way):
    path = str(place.folder / "written")
    data = os.urandom(MIB)

    async def run(count):
        await way.write_through(path, data, count)

    return run


@workload(
    "small.read", "a file of 1 KiB opened, read, closed; 64 at once", count=SMALL_FILES,
    fixed=True, quick_count=1000, quick=True,
)  # fmt: skip
def small_read(place, way):
    async def run(count):
        await way.read_small(place.small_paths[:count])

    return run


@workload(
    "small.write", "a file of 1 KiB opened, written, closed; 64 at once", count=SMALL_FILES,
    fixed=True, quick_count=1000,
)  # fmt: skip
def small_write(place, way):
    data = bytes(SMALL_BYTES)

    async def run(count):
        await way.write_small(place.small_paths[:count], data)

    return run


@workload(
    "small.stat", "a stat of one of many files; 64 at once", count=SMALL_FILES, fixed=True,
    quick_count=1000, quick=True,
)  # fmt: skip
def small_stat(place, way):
    async def run(count):
        await way.stat_small(place.small_paths[:count])

    return run


@workload("send", "a file of 256 KiB sent to a socket", count=50)
def send(place, way):
    path = place.sent()

    async def run(count):
        left, right = socket.socketpair()
        left.setblocking(False)
        thread = threading.Thread(target=drain, args=(right, count * SENT_BYTES))
        thread.start()
        try:
            for _ in range(count):
                await way.send(path, left)
        finally:
            left.close()
            thread.join()
            right.close()

    return run


def drain(sock, size):
    buffer = bytearray(MIB)
    while size > 0:
        count = sock.recv_into(buffer)
        if not count:
            return
        size -= count


def ticker(place, way, direct):
    path = place.big()
    offsets = [BLOCK * n for n in range(FILE_BYTES // BLOCK)]
    random.Random(2).shuffle(offsets)

    async def run(count):
        loop = asyncio.get_running_loop()
        readers = [await way.reader(path, direct) for _ in range(IN_FLIGHT)]
        ended = False

        async def read(reader, number):
            index = number * 1000
            while not ended:
                await way.read_at(reader, offsets[index % len(offsets)])
                index += 1
                await asyncio.sleep(0)

        tasks = [loop.create_task(read(reader, n)) for n, reader in enumerate(readers)]
        late = []
        for _ in range(count):
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            late.append(loop.time() - due)
        ended = True
        await asyncio.gather(*tasks)
        for reader in readers:
            await way.close_reader(reader)
        return late

    return run


def register_tickers():
    for direct in (False, True):
        kind = "direct" if direct else "hot"

        def make(place, way, direct=direct):
            return ticker(place, way, direct)

        workload(
            f"ticker.{kind}",
            f"how late a timer of 1 ms is (p99) while 64 reads of 4 KiB are in flight, {kind}",
            count=150,
            fixed=True,
            quick_count=100,
            reports_lateness=True,
        )(make)


register_tickers()
