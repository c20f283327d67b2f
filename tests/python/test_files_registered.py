"""gyre.RegisteredBuffers: on both backends, with and without the kernel's help."""

import asyncio
import errno
import gc
import os
import subprocess
import sys
import weakref

import gyre
import pytest

pytestmark = pytest.mark.only("gyre")

SIZE = 8192


@pytest.fixture
def run(loop):
    return lambda function, *args: loop.run_until_complete(function(*args))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 256)
    return path


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def has_them(loop):
    from gyre import _gyre

    return (_gyre.probe(loop.backend)["enabled"] or {}).get("fixed_buffers", False)


async def open_direct(path, mode="rb"):
    try:
        return await gyre.open(path, mode, 0, direct=True)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            pytest.skip("the file system has no O_DIRECT")
        raise


class TestReadingAndWriting:
    @pytest.mark.parametrize("part", [slice(None), slice(0, 4096), slice(4096, SIZE)])
    def test_past_the_page_cache(self, run, loop, path, part):
        whole = path.read_bytes()

        async def main():
            async with (
                await open_direct(path, "r+b") as file,
                gyre.RegisteredBuffers(3, SIZE) as buffers,
            ):
                buffer = buffers[1][part]
                size = len(buffer)
                before = loop.stats()["fixed_ops"]
                assert await file.pread_into(buffer, 4096) == size
                assert buffer == whole[4096 : 4096 + size]
                assert await file.readinto(buffer) == size
                assert buffer == whole[:size]
                assert await file.preadv([buffer], 8192) == size
                assert buffer == whole[8192 : 8192 + size]
                buffer[:3] = b"new"
                assert await file.pwrite(buffer, 32768) == size
                assert await file.write(buffer) == size
                assert bytes(buffers[0]) == bytes(buffers[2]) == bytes(SIZE)
                assert loop.stats()["fixed_ops"] - before == (5 if has_them(loop) else 0)
            assert path.read_bytes()[32768 : 32768 + size] == b"new" + whole[8195 : 8192 + size]

        run(main)

    @pytest.mark.parametrize(("mode", "buffering"), [("r+b", 0), ("r+b", -1), ("r+", -1)])
    def test_through_the_page_cache(self, run, path, mode, buffering):
        whole = path.read_bytes()

        async def main():
            encoding = None if "b" in mode else "latin-1"
            async with (
                gyre.open(path, mode, buffering, encoding=encoding) as file,
                gyre.RegisteredBuffers(2, 1000) as buffers,
            ):
                assert await file.pread_into(buffers[0], 100) == 1000
                assert buffers[0] == whole[100:1100]
                assert await file.pwrite(buffers[0], 0) == 1000
                assert await file.pread_into(buffers[1], len(whole) - 10) == 10
                assert await file.pread_into(buffers[1], len(whole)) == 0
                with pytest.raises(OSError):
                    await file.pread_into(buffers[1], -1)
            assert path.read_bytes()[:1000] == whole[100:1100]
            with pytest.raises(ValueError, match="closed file"):
                await file.pread_into(buffers_of_before, 0)

        buffers_of_before = bytearray(10)
        run(main)

    def test_many_at_once(self, run, path):
        path.write_bytes(os.urandom(64 * 4096))
        whole = path.read_bytes()

        async def main():
            async with await open_direct(path) as file, gyre.RegisteredBuffers(64, 4096) as buffers:
                counts = await asyncio.gather(
                    *(file.pread_into(buffer, 4096 * n) for n, buffer in enumerate(buffers))
                )
                assert set(counts) == {4096}
                assert b"".join(buffers) == whole

        run(main)

    def test_what_a_file_has_to_say(self, run, path):
        async def main():
            async with gyre.RegisteredBuffers(1, 4096) as buffers:
                async with gyre.open(path, "rb", 0) as file:
                    with pytest.raises(OSError, match="not writable"):
                        await file.pwrite(buffers[0], 0)
                async with gyre.open("/dev/full", "wb", 0) as file:
                    with pytest.raises(OSError) as failed:
                        await file.write(buffers[0])
                    assert failed.value.errno == errno.ENOSPC

        run(main)

    def test_misaligned(self, run, path):
        async def main():
            async with (
                await open_direct(path, "r+b") as file,
                gyre.RegisteredBuffers(1, 2 * 4096) as buffers,
            ):
                memory, block = file.alignment
                if memory == 1:
                    pytest.skip("direct I/O of this file system takes memory that lies anywhere")
                beside = buffers[0][1 : 1 + block]
                for call in (
                    file.pread_into(beside, 0),
                    file.readinto(beside),
                    file.preadv([beside], 0),
                    file.pwrite(beside, 0),
                    file.write(beside),
                    file.pwritev([beside], 0),
                ):
                    with pytest.raises(ValueError, match=f"buffers at multiples of {memory} bytes"):
                        await call
                with pytest.raises(ValueError, match=f"multiples of {block} bytes"):
                    await file.pread_into(buffers[0][:block], 1)

        run(main)

    def test_a_pipe_that_is_empty_for_a_while(self, run, loop):
        """The operation goes on in the next run, where it is one of registered memory again."""
        reader, writer = os.pipe()

        async def begin():
            file = await gyre.open(reader, "rb", 0)
            buffers = gyre.RegisteredBuffers(1, 100)
            reading = asyncio.ensure_future(loop._file_readinto(reader, buffers[0]))
            await asyncio.sleep(0)
            return file, buffers, reading

        async def end(file, buffers, reading):
            os.write(writer, b"data")
            assert await reading == 4
            assert buffers[0][:4] == b"data"
            await buffers.close()
            await file.close()

        run(end, *run(begin))
        os.close(writer)


class TestLife:
    def test_what_they_are(self, run, loop):
        async def main():
            buffers = gyre.RegisteredBuffers(3, 5000, alignment=512)
            assert buffers.registered == has_them(loop)
            assert buffers.refusal is None
            assert buffers.size == 5000
            assert len(buffers) == 3
            assert [len(buffer) for buffer in buffers] == [5000] * 3
            assert buffers[-1] is buffers[2]
            assert buffers[:2] == (buffers[0], buffers[1])
            for buffer in buffers:
                assert not buffer.readonly
                assert loop._file_address(buffer) % 512 == 0
            state = "registered" if has_them(loop) else "plain memory"
            assert repr(buffers) == f"<gyre.RegisteredBuffers count=3 size=5000 {state}>"
            with pytest.raises(IndexError):
                buffers[3]
            kept = buffers[0]
            await buffers.close()
            await buffers.aclose()
            kept[:1] = b"x"
            assert not buffers.registered
            assert repr(buffers) == "<gyre.RegisteredBuffers closed>"
            assert len(buffers) == 0
            for use in (lambda: buffers[0], lambda: list(buffers)):
                with pytest.raises(ValueError, match="closed"):
                    use()

        run(main)

    @pytest.mark.parametrize(
        ("args", "alignment", "words"),
        [
            ((0, 1), 1, "count"),
            ((1, 0), 1, "size"),
            ((1, 1), 3, "power of two"),
            ((1, 1), 0, "power of two"),
            ((1 << 20, 4096), 4096, "in one piece"),
        ],
    )
    def test_arguments(self, run, args, alignment, words):
        async def main():
            with pytest.raises(ValueError, match=words):
                gyre.RegisteredBuffers(*args, alignment=alignment)

        run(main)

    def test_no_loop(self):
        with pytest.raises(RuntimeError):
            gyre.RegisteredBuffers(1, 1)

    def test_close_waits(self, run, loop, pipe):
        reader, writer = pipe

        async def main():
            buffers = gyre.RegisteredBuffers(2, 100)
            reading = asyncio.ensure_future(loop._file_readinto(reader, buffers[1]))
            closers = [asyncio.ensure_future(buffers.close()) for _ in range(3)]
            for _ in range(5):
                await asyncio.sleep(0)
            assert not any(closer.done() for closer in closers)
            assert len(buffers) == 2
            closers.pop().cancel()
            await asyncio.sleep(0)
            os.write(writer, b"data")
            await asyncio.gather(*closers)
            assert await reading == 4
            assert len(buffers) == 0

        run(main)

    def test_close_waits_for_what_was_cancelled(self, run, loop, pipe):
        reader, writer = pipe

        async def main():
            buffers = gyre.RegisteredBuffers(1, 100)
            reading = asyncio.ensure_future(loop._file_readinto(reader, buffers[0]))
            await asyncio.sleep(0)
            reading.cancel()
            await buffers.close()
            assert loop._file_idle(buffers._memory) is None

        run(main)

    def test_in_flight_it_outlives_its_names(self, run, loop, pipe):
        reader, writer = pipe

        async def main():
            buffers = gyre.RegisteredBuffers(1, 100)
            gone = weakref.ref(buffers)
            reading = loop._file_readinto(reader, buffers[0])
            del buffers
            gc.collect()
            assert gone() is None
            os.write(writer, b"data")
            assert await reading == 4

        run(main)

    def test_dropped_and_made_again(self, run, loop):
        """More than the ring has slots, one after the other, and too many at once."""

        async def main():
            for _ in range(100):
                assert gyre.RegisteredBuffers(1, 100).registered == has_them(loop)
            many = [gyre.RegisteredBuffers(1, 100) for _ in range(65)]
            assert sum(buffers.registered for buffers in many) == (64 if has_them(loop) else 0)
            if has_them(loop):
                assert many[64].refusal.errno == errno.ENOSPC

        run(main)

    def test_after_their_loop(self, path):
        async def make():
            return gyre.RegisteredBuffers(1, 4096)

        async def use(buffers):
            assert not buffers.registered
            async with gyre.open(path, "rb", 0) as file:
                assert await file.pread_into(buffers[0], 0) == 4096
            await buffers.close()

        with asyncio.Runner(loop_factory=gyre.new_event_loop) as runner:
            buffers = runner.run(make())
        gyre.run(use(buffers))

    def test_another_loops_file(self, path, loop, new_loop):
        async def make():
            return gyre.RegisteredBuffers(1, 4096)

        async def use(buffers):
            async with await open_direct(path) as file:
                assert await file.pread_into(buffers[0], 0) == 4096

        buffers = loop.run_until_complete(make())
        other = new_loop()
        other.run_until_complete(use(buffers))
        assert other.stats()["fixed_ops"] == 0
        assert bytes(buffers[0]) == path.read_bytes()[:4096]
        loop.run_until_complete(buffers.close())

    def test_where_the_kernel_has_no_such_thing(self, path, monkeypatch):
        monkeypatch.setenv("GYRE_FEATURES", "-fixed_buffers")

        async def main():
            async with (
                gyre.RegisteredBuffers(1, 4096) as buffers,
                await open_direct(path) as file,
            ):
                assert not buffers.registered and buffers.refusal is None
                assert await file.pread_into(buffers[0], 0) == 4096
                assert buffers[0] == path.read_bytes()[:4096]

        gyre.run(main())

    def test_where_a_later_ring_takes_no_more(self, loop, run, monkeypatch):
        async def main():
            async with gyre.RegisteredBuffers(1, 4096) as buffers:
                assert buffers.registered == has_them(loop)
                monkeypatch.setattr(loop, "_file_register", lambda buffer: False)
                assert not buffers.registered
                assert "plain memory" in repr(buffers)

        run(main)

    def test_where_the_kernel_takes_no_more(self, path, loop, run, monkeypatch):
        def refuse(buffer):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        monkeypatch.setattr(loop, "_file_register", refuse)

        async def main():
            async with (
                gyre.RegisteredBuffers(1, 4096) as buffers,
                await open_direct(path) as file,
            ):
                assert not buffers.registered
                assert buffers.refusal.errno == errno.ENOMEM
                assert await file.pread_into(buffers[0], 0) == 4096

        run(main)

    def test_where_the_limit_of_locked_memory_is_reached(self):
        """The kernel's own refusal: it counts what the rings of an unprivileged user register."""
        done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


LIMITED = """
import errno, os, resource
import gyre, gyre.files
gyre.new_event_loop().close()  # imports are done: another user may not read them
resource.setrlimit(resource.RLIMIT_MEMLOCK, (256 << 10, 256 << 10))
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
loop = gyre.new_event_loop()

async def use(buffers):
    reader, writer = os.pipe()
    os.write(writer, b"x" * 4096)
    os.close(writer)
    async with gyre.open(reader, "rb", 0) as file:
        assert await file.readinto(buffers[0]) == 4096
    assert bytes(buffers[0][:4097]) == b"x" * 4096 + b"\\0"

async def main():
    first = gyre.RegisteredBuffers(2, 64 << 10)
    too_much = gyre.RegisteredBuffers(1, 192 << 10)
    assert not too_much.registered
    if first.registered:
        assert too_much.refusal.errno == errno.ENOMEM, too_much.refusal
    else:
        assert loop.backend == "epoll" or first.refusal is None, first.refusal
    await use(first)
    await use(too_much)
    known = first.registered
    await first.close()
    async with gyre.RegisteredBuffers(1, 192 << 10) as again:  # there is room for it now
        assert again.registered == known
        await use(again)
    await too_much.close()

loop.run_until_complete(main())
loop.close()
print("fine")
"""
