"""One file and many tasks: turns, cancellation, what is in flight, offsets, O_DIRECT."""

import asyncio
import os

import gyre
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.fixture
def run(loop):
    """Runs a coroutine function on gyre's loop."""
    return lambda function, *args: loop.run_until_complete(function(*args))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


class Slow:
    """Makes every operation of a file one that has to be waited for, and holds it until told."""

    def __init__(self, file, *names):
        self.held = []
        self.loop = asyncio.get_running_loop()
        for name in names:
            setattr(file, name, self.wrap(getattr(file, name)))

    def wrap(self, call):
        def slow(*args):
            future = self.loop.create_future()
            self.held.append((future, call, args))
            return future

        return slow

    async def let_go(self, count=1):
        """Does what the oldest ask for and tells their waiters, if they still wait."""
        for _ in range(count):
            future, call, args = self.held.pop(0)
            try:
                result = await call(*args)
            except OSError as exc:
                if not future.done():
                    future.set_exception(exc)
            else:
                if not future.done():
                    future.set_result(result)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def asked(self):
        """Until an operation is held: asking for the size, say, takes turns before."""
        while not self.held:
            await asyncio.sleep(0)

    async def finish(self, task):
        """The result of a task whose every operation is let go."""
        while not task.done():
            if self.held:
                await self.let_go()
            await asyncio.sleep(0)
        return await task


async def soon(coro):
    """A task of it, begun."""
    task = asyncio.ensure_future(coro)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class TestTurns:
    def test_writers_in_order(self, run, path):
        lines = [b"line %03d\n" % n for n in range(300)]

        async def main():
            for buffering in (0, 16, -1):
                async with gyre.open(path, "wb", buffering) as file:
                    await asyncio.gather(*(file.write(line) for line in lines))
                assert path.read_bytes() == b"".join(lines)

        run(main)

    def test_readers_share_the_lines(self, run, path):
        lines = [b"%d\n" % n for n in range(5000)]
        path.write_bytes(b"".join(lines))

        async def reader(file):
            return [line async for line in file]

        async def main():
            async with gyre.open(path, "rb", 50) as file:
                shares = await asyncio.gather(*(reader(file) for _ in range(4)))
            assert sorted(line for share in shares for line in share) == sorted(lines)

        run(main)

    def test_a_slow_reader_and_those_behind_it(self, run, path):
        path.write_bytes(b"abcdefgh")

        async def main():
            async with gyre.open(path, "rb", 0) as file:
                slow = Slow(file, "_fread")
                first = await soon(file.read(2))
                second = await soon(file.read(2))
                where = await soon(file.tell())
                assert len(slow.held) == 1 and not where.done()
                await slow.let_go()
                await slow.let_go()
                assert await asyncio.gather(first, second, where) == [b"ab", b"cd", 4]

        run(main)

    def test_a_waiter_is_cancelled(self, run, path):
        path.write_bytes(b"abcdefgh")

        async def main():
            async with gyre.open(path, "rb", 0) as file:
                slow = Slow(file, "_fread")
                first = await soon(file.read(2))
                second = await soon(file.read(2))
                third = await soon(file.read(2))
                await cancelled(second)
                await slow.let_go()
                await slow.let_go()
                assert await asyncio.gather(first, third) == [b"ab", b"cd"]
                # Cancelled in the moment in which it gets its turn.
                fourth = await soon(file.read(2))
                fifth = await soon(file.read(2))
                sixth = await soon(file.read(2))
                future, call, args = slow.held.pop()
                future.set_result(await call(*args))
                await asyncio.sleep(0)
                assert fourth.done() and not slow.held
                await cancelled(fifth)
                assert await fourth == b"ef"
                while not slow.held:
                    await asyncio.sleep(0)
                await slow.let_go()
                assert await sixth == b"gh"

        run(main)


class TestCancellation:
    def test_a_read_leaves_the_position(self, run, path):
        path.write_bytes(b"0123456789" * 2000)

        async def main():
            for mode, buffering in (("rb", 0), ("rb", -1), ("r", -1)):
                async with gyre.open(path, mode, buffering) as file:
                    below = file.buffer if mode == "r" else file
                    slow = Slow(below, "_fread")
                    for call in (file.read(5), file.read(), file.readline(), file.readlines()):
                        task = await soon(call)
                        await slow.asked()
                        await cancelled(task)
                        slow.held.clear()
                        assert await file.tell() == 0
                    task = await soon(file.read(12_000))
                    data = await slow.finish(task)
                    assert data in ("0123456789" * 1200, b"0123456789" * 1200)

        run(main)

    def test_a_read_that_had_some_already(self, run, path):
        path.write_bytes(bytes(range(200)) * 100)

        async def main():
            async with gyre.open(path, "rb", 16) as file:
                await file.read(3)
                slow = Slow(file, "_fread")
                task = await soon(file.read())
                await slow.asked()
                await slow.let_go()
                await slow.asked()  # it has most, and asks whether that was the end
                await cancelled(task)
                assert await file.tell() == 3
                del slow.held[:]
                task = await soon(file.read(5))
                assert await slow.finish(task) == bytes(range(3, 8))

        run(main)

    def test_a_write_that_goes_on(self, run, path):
        """The bytes get there; the position says so; what follows is behind them."""

        async def main():
            for buffering in (0, 4):
                async with gyre.open(path, "wb", buffering) as file:
                    slow = Slow(file, "_fwrite")
                    task = await soon(file.write(b"hello "))
                    assert slow.held
                    await cancelled(task)
                    after = await soon(file.write(b"world!"))
                    where = await soon(file.tell())
                    assert len(slow.held) == 1 and not where.done()
                    await slow.let_go()
                    await slow.let_go()
                    assert await after == 6
                    assert await where == 12
                assert path.read_bytes() == b"hello world!"

        run(main)

    def test_a_flush_that_goes_on(self, run, path):
        async def main():
            for mode in ("wb", "ab", "r+b"):
                path.write_bytes(b"")
                file = await gyre.open(path, mode)
                await file.write(b"x" * 1000)
                slow = Slow(file, "_fwrite")
                task = await soon(file.flush())
                await cancelled(task)
                task = await soon(file.flush())
                assert len(slow.held) == 1
                await slow.let_go()
                await task
                assert not slow.held  # once is enough
                assert await file.tell() == 1000
                await file.close()
                assert path.read_bytes() == b"x" * 1000

        run(main)

    def test_a_flush_that_fails_unseen(self, run, path):
        """What was not written is still there, for the next one."""

        async def main():
            file = await gyre.open(path, "wb")
            await file.write(b"precious")
            slow = Slow(file, "_fwrite")
            task = await soon(file.flush())
            await cancelled(task)
            future, call, args = slow.held.pop()
            future.set_exception(OSError(28, "full"))
            task = await soon(file.flush())
            await slow.let_go()
            await task
            await file.close()
            assert path.read_bytes() == b"precious"

        run(main)

    def test_a_short_write(self, run, path):
        async def main():
            file = await gyre.open(path, "wb", 4)
            slow = Slow(file, "_fwrite")
            task = await soon(file.write(b"0123456789"))
            future, call, args = slow.held.pop()
            future.set_result(await call(args[0], bytes(args[1])[:3], args[2]))
            for _ in range(4):
                await asyncio.sleep(0)
            await slow.let_go()
            assert await task == 10
            await file.close()
            assert path.read_bytes() == b"0123456789"

        run(main)

    def test_close_goes_on(self, run, path):
        async def main():
            file = await gyre.open(path, "wb")
            await file.write(b"data")
            slow = Slow(file, "_fwrite")
            task = await soon(file.close())
            await cancelled(task)
            assert not file.closed
            again = await soon(file.close())
            await slow.let_go()
            await again
            assert file.closed and path.read_bytes() == b"data"

        run(main)

    def test_what_a_pipe_brings_is_not_lost(self, run):
        async def main():
            for mode, buffering in (("rb", 0), ("rb", -1), ("r", -1)):
                reader, writer = os.pipe()
                async with gyre.open(reader, mode, buffering) as file:
                    for _ in range(3):
                        await cancelled(await soon(self.ask(file, buffering)))
                    os.write(writer, b"line\n")
                    got = await self.ask(file, buffering)
                    assert got in (b"line\n", "line\n")
                    await cancelled(await soon(file.read(1)))
                os.close(writer)

        run(main)

    def ask(self, file, buffering):
        return file.readline() if buffering else file.read(100)

    def test_close_ends_a_read_without_a_reader(self, run):
        async def main():
            reader, writer = os.pipe()
            file = await gyre.open(reader, "rb")
            await cancelled(await soon(file.read(5)))
            await file.close()
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"x")
            os.close(writer)

        run(main)

    def test_at_any_moment(self, run, path):
        """Cancelled after each number of turns: what is in the file is what was said."""

        async def work(file, log):
            for number in range(6):
                line = b"%d" % number * 3000
                log.append(line)
                await file.write(line)
            await file.flush()
            log.append(None)

        async def main():
            for turns in range(40):
                async with gyre.open(path, "wb", 2000) as file:
                    log = []
                    task = asyncio.ensure_future(work(file, log))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    await file.write(b"end")
                    where = await file.tell()
                data = path.read_bytes()
                assert len(data) == where and data.endswith(b"end")
                whole = b"".join(line for line in log if line is not None)
                assert whole.startswith(data[:-3])
                if log[-1:] == [None]:
                    assert whole == data[:-3]

        run(main)


class TestOffsets:
    def test_many_at_once(self, run, path):
        blocks = [bytes([n]) * 1000 for n in range(200)]

        async def main():
            async with gyre.open(path, "w+b") as file:
                counts = await asyncio.gather(
                    *(file.pwrite(block, 1000 * n) for n, block in enumerate(blocks))
                )
                assert counts == [1000] * 200
                got = await asyncio.gather(*(file.pread(1000, 1000 * n) for n in range(200)))
                assert got == blocks
                assert await file.tell() == 0
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(file.pread(10, n)) for n in range(0, 5000, 7)]
                assert all(len(task.result()) == 10 for task in tasks)

        run(main)

    def test_with_the_buffer(self, run, path):
        path.write_bytes(b"0123456789")

        async def main():
            async with gyre.open(path, "r+b") as file:
                assert await file.read(2) == b"01"
                assert await file.pwrite(b"xy", 3) == 2
                assert await file.read(4) == b"2xy5"
                await file.write(b"ZZ")
                assert await file.pread(100, 5) == b"5ZZ89"
                first, second = bytearray(2), bytearray(3)
                assert await file.preadv([first, second], 1) == 5
                assert (first, second) == (b"12", b"xy5")
                assert await file.pwritev([b"A", b"B"], 0) == 2
                assert await file.tell() == 8
            async with gyre.open(path, "r+") as text:
                await text.write("!")
                assert await text.pread(4, 0) == b"!B2x"
                await text.pwrite(b"$", 9)
                assert await text.preadv([first], 8) == 2 and first == b"8$"
                await text.pwritev([b"&"], 9)
            assert path.read_bytes() == b"!B2xy5ZZ8&"

        run(main)

    def test_bad_offsets(self, run, path):
        async def main():
            async with gyre.open(path, "w+b") as file:
                for call in (
                    file.pread(1, -1),
                    file.pwrite(b"x", -1),
                    file.preadv([bytearray(1)], -1),
                    file.pwritev([b"x"], -1),
                ):
                    with pytest.raises(OSError, match="Invalid argument"):
                        await call

        run(main)

    def test_syncing_and_space(self, run, path):
        async def main():
            async with gyre.open(path, "w+") as file:
                await file.write("text")
                await file.fdatasync()
                assert path.read_bytes() == b"text"
                await file.write("more")
                await file.fsync()
                assert path.read_bytes() == b"textmore"
                await file.fallocate(0, 5000)
                assert path.stat().st_size == 5000
                await file.fadvise(0, 0, os.POSIX_FADV_SEQUENTIAL)
                assert await file.truncate(2) == 2
                assert path.read_bytes() == b"te"

        run(main)

    def test_the_descriptors_own_position(self, run, path):
        path.write_bytes(b"0123456789")

        async def main():
            async with gyre.open(path, "rb", 0) as file:
                await file.read(3)
                assert os.read(file.fileno(), 2) == b"34"
            fd = os.open(path, os.O_RDONLY)
            async with gyre.open(fd, "rb", 0, closefd=False) as file:
                await file.read(4)
            assert os.read(fd, 1) == b"4"
            os.close(fd)

        run(main)

    def test_holes(self, run, path):
        async def main():
            async with gyre.open(path, "w+b") as file:
                await file.seek(1_000_000)
                await file.write(b"x")
                await file.flush()
                assert await file.seek(0, os.SEEK_DATA) > 0 or os.fstat(file.fileno()).st_blocks > 8
                assert await file.seek(0, os.SEEK_HOLE) in (0, 1_000_001)
                with pytest.raises(OSError):
                    await file.seek(2_000_000, os.SEEK_DATA)

        run(main)


class TestDirect:
    @pytest.fixture
    def direct(self, path):
        path.write_bytes(bytes(range(256)) * 256)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            pytest.skip("the file system has no O_DIRECT")
        return path

    def test_reading_and_writing(self, run, direct):
        async def main():
            async with gyre.open(direct, "r+b", 0, direct=True) as file:
                memory, block = file.alignment
                assert block in (512, 1024, 2048, 4096) or block % 512 == 0
                whole = direct.read_bytes()
                assert await file.pread(block, block) == whole[block : 2 * block]
                assert await file.read(block) == whole[:block]
                assert await file.readall() == whole[block:]
                assert await file.read(block) == b""
                buffer = gyre.aligned_buffer(2 * block, memory)
                assert await file.preadv([buffer], 0) == 2 * block
                assert bytes(buffer) == whole[: 2 * block]
                await file.seek(0)
                assert await file.readinto(buffer) == 2 * block
                buffer[:] = b"z" * (2 * block)
                await file.seek(0)
                assert await file.write(buffer) == 2 * block
                assert await file.pwrite(b"y" * block, block) == block  # copied into such a one
                assert await file.pwritev([buffer], 2 * block) == 2 * block
                assert await file.tell() == 2 * block
            expected = b"z" * block + b"y" * block + b"z" * 2 * block
            assert direct.read_bytes()[: 4 * block] == expected

        run(main)

    def test_an_end_that_is_no_whole_block(self, run, direct):
        os.truncate(direct, 5000)

        async def main():
            async with gyre.open(direct, "rb", 0, direct=True) as file:
                assert len(await file.readall()) == 5000
                assert await file.read(4096) == b""

        run(main)

    def test_misaligned(self, run, direct):
        async def main():
            async with gyre.open(direct, "r+b", 0, direct=True) as file:
                block = file.alignment[1]
                if block == 1:
                    pytest.skip("no alignment is needed here")
                for call in (
                    file.read(block + 1),
                    file.pread(block, 1),
                    file.pread(1, 0),
                    file.pwrite(b"x", 0),
                    file.pwrite(b"x" * block, 3),
                    file.write(b"x"),
                    file.preadv([bytearray(3)], 0),
                    file.pwritev([b"x" * block], 5),
                    file.readinto(bytearray(5)),
                ):
                    with pytest.raises(ValueError, match=f"multiples of {block} bytes"):
                        await call

        run(main)

    def test_arguments(self, run, direct):
        for mode, buffering in (("rb", -1), ("r", -1)):
            with pytest.raises(ValueError, match="buffering=0"):
                gyre.open(direct, mode, buffering, direct=True)

        async def main():
            with pytest.raises(ValueError, match="power of two"):
                gyre.aligned_buffer(100, 3)
            with pytest.raises(ValueError, match="negative"):
                gyre.aligned_buffer(-1)
            buffer = gyre.aligned_buffer(100)
            buffer[:3] = b"abc"
            assert len(buffer) == 100

        run(main)
