"""The file operations of LoopCore, which python/gyre/files.py and path.py are made of."""

import asyncio
import os
import stat

import pytest
from conftest import descriptors

pytestmark = pytest.mark.only("gyre")

STAT_NAMES = [name for name in dir(os.stat_result) if name.startswith("st_")]


@pytest.fixture
def run(loop):
    """Runs one coroutine function on the loop."""
    return lambda function: loop.run_until_complete(function())


@pytest.fixture
def opened(tmp_path):
    """A new file: its descriptor and its path as bytes."""
    path = os.fsencode(tmp_path / "file")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    yield fd, path
    os.close(fd)


def test_life_of_a_file(loop, run, tmp_path):
    path = os.fsencode(tmp_path / "file")

    async def main():
        fd = await loop._file_open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        assert not os.get_inheritable(fd)
        assert await loop._file_write(fd, b"hello ", -1) == 6
        assert await loop._file_write(fd, bytearray(b"world")) == 5
        assert await loop._file_read(fd, 5, 6) == b"world"
        assert await loop._file_read(fd, 100, 6) == b"world"
        assert await loop._file_read(fd, 100, 11) == b""
        assert await loop._file_read(fd, 0, 0) == b""
        assert await loop._file_read(fd, 100) == b""  # the position is at the end
        assert await loop._file_close(fd) is None
        with pytest.raises(OSError) as failed:
            await loop._file_read(fd, 1, 0)
        assert failed.value.args == (9, "Bad file descriptor")

    run(main)


def test_buffers(loop, run, opened):
    fd, _ = opened

    async def main():
        assert await loop._file_writev(fd, [b"ab", memoryview(b"cde"), b""], 0) == 5
        first, second = bytearray(1), bytearray(10)
        assert await loop._file_readv(fd, (first, second), 0) == 5
        assert (first, second[:4]) == (b"a", b"bcde")
        assert await loop._file_readinto(fd, second, 3) == 2
        assert second[:4] == b"dede"[0:2] + b"de"
        second.append(0)  # nothing exports it any more
        with pytest.raises((BufferError, TypeError)):
            await loop._file_readinto(fd, b"constant", 0)
        with pytest.raises((BufferError, TypeError)):
            await loop._file_readv(fd, [first, b"constant"], 0)
        first.append(0)

    run(main)


def test_descriptors(loop, run, opened):
    fd, _ = opened

    async def main():
        await loop._file_write(fd, b"0123456789", 0)
        assert await loop._file_fsync(fd) is None
        assert await loop._file_fsync(fd, True) is None
        assert await loop._file_truncate(fd, 4) is None
        assert os.fstat(fd).st_size == 4
        assert await loop._file_fallocate(fd, 0, 0, 100) is None
        assert os.fstat(fd).st_size == 100
        for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED):
            assert await loop._file_fadvise(fd, 0, 0, advice) is None
        with pytest.raises(OSError, match="Invalid argument"):
            await loop._file_truncate(fd, -1)

    run(main)


@pytest.mark.parametrize("by", ["path", "descriptor", "link"])
def test_stat(loop, run, opened, by):
    fd, path = opened
    os.symlink(b"file", path + b"-link")
    what = {"path": path, "descriptor": fd, "link": path + b"-link"}[by]

    async def main():
        for follow in (True, False):
            expected = os.stat(what) if by == "descriptor" or follow else os.lstat(what)
            found = await loop._file_stat(what, -100, follow)
            assert type(found) is os.stat_result
            for name in STAT_NAMES:
                assert getattr(found, name) == getattr(expected, name), name
            assert tuple(found) == tuple(expected)
            assert repr(found) == repr(expected)

    run(main)


def test_paths(loop, run, tmp_path):
    base = os.fsencode(tmp_path)

    async def main():
        await loop._file_mkdir(base + b"/dir", 0o750)
        assert stat.S_IMODE(os.stat(base + b"/dir").st_mode) == 0o750
        await loop._file_symlink(b"target", base + b"/soft")
        assert os.readlink(base + b"/soft") == b"target"
        os.close(os.open(base + b"/file", os.O_CREAT | os.O_WRONLY, 0o600))
        await loop._file_link(base + b"/file", base + b"/hard")
        assert os.path.samefile(base + b"/file", base + b"/hard")
        await loop._file_rename(base + b"/hard", base + b"/moved", 0)
        await loop._file_unlink(base + b"/moved")
        await loop._file_unlink(base + b"/dir", True)
        assert sorted(os.listdir(base)) == [b"file", b"soft"]

    run(main)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda loop, base: loop._file_open(base + b"/none", os.O_RDONLY, 0), FileNotFoundError),
        (lambda loop, base: loop._file_open(base, os.O_RDWR, 0), IsADirectoryError),
        (lambda loop, base: loop._file_open(b"/dev/null/x", os.O_RDONLY, 0), NotADirectoryError),
        (lambda loop, base: loop._file_stat(base + b"/none"), FileNotFoundError),
        (lambda loop, base: loop._file_unlink(base + b"/none"), FileNotFoundError),
        (lambda loop, base: loop._file_unlink(base), IsADirectoryError),
        (lambda loop, base: loop._file_mkdir(base, 0o700), FileExistsError),
        (lambda loop, base: loop._file_rename(base + b"/none", base + b"/x", 0), FileNotFoundError),
        (lambda loop, base: loop._file_open(b"nul\0byte", os.O_RDONLY, 0), ValueError),
        (lambda loop, base: loop._file_read(-1, 10), OSError),
        (lambda loop, base: loop._file_close(-1), OSError),
        (lambda loop, base: loop._file_read("1", 10), TypeError),
        (lambda loop, base: loop._file_read(0), TypeError),
        (lambda loop, base: loop._file_read(0, -1), OSError),
    ],
)
def test_errors(loop, run, tmp_path, call, error):
    async def main():
        with pytest.raises(error):
            await call(loop, os.fsencode(tmp_path))

    run(main)


def test_full_device(loop, run):
    async def main():
        fd = await loop._file_open(b"/dev/full", os.O_WRONLY, 0)
        with pytest.raises(OSError, match="No space left"):
            await loop._file_write(fd, b"x")
        await loop._file_close(fd)

    run(main)


def test_pipe_waits_and_is_cancelled(loop, run):
    reader, writer = os.pipe()

    async def main():
        waits = asyncio.ensure_future(loop._file_read(reader, 10))
        await asyncio.sleep(0.01)
        assert not waits.done()
        assert await loop._file_write(writer, b"bytes") == 5
        assert await waits == b"bytes"
        before = loop.stats()["ops_in_flight"]
        waits = asyncio.ensure_future(loop._file_read(reader, 10))
        await asyncio.sleep(0.01)
        assert loop.stats()["ops_in_flight"] == before + 1
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        while loop.stats()["ops_in_flight"] > before:
            await asyncio.sleep(0)
        os.write(writer, b"later")
        assert os.read(reader, 10) == b"later"

    run(main)
    os.close(reader)
    os.close(writer)


def test_end_of_a_pipe(loop, run):
    reader, writer = os.pipe()
    os.close(writer)

    async def main():
        assert await loop._file_read(reader, 10) == b""
        await loop._file_close(reader)

    run(main)


def test_goes_on_in_the_next_run(loop):
    """What a run left in flight ends in the next one, and loses nothing."""
    reader, writer = os.pipe()

    async def begin():
        waits = loop._file_read(reader, 10)
        await asyncio.sleep(0)
        return waits

    waits = loop.run_until_complete(begin())
    assert loop.stats()["ops_in_flight"] == 0
    os.write(writer, b"between")
    assert loop.run_until_complete(waits) == b"between"
    os.close(reader)
    os.close(writer)


def test_closed_with_an_operation_left(new_loop):
    loop = new_loop()
    reader, writer = os.pipe()
    target = bytearray(10)

    async def begin():
        return loop._file_readinto(reader, target)

    waits = loop.run_until_complete(begin())
    loop.close()
    assert not waits.done()
    target.append(0)  # no longer exported
    os.close(reader)
    os.close(writer)


def test_close_happens_whatever_becomes_of_the_loop(new_loop, tmp_path):
    loop = new_loop()

    async def begin(cancel):
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        os.unlink(tmp_path / "file")
        closing = loop._file_close(fd)  # it frees the file: not at once
        if cancel:
            closing.cancel()

    for cancel in (False, True):
        loop.run_until_complete(begin(cancel))
        if cancel:
            loop.run_until_complete(asyncio.sleep(0.01))
        else:
            loop.close()
        assert not any(what.startswith(str(tmp_path)) for what in descriptors().values())
        loop = new_loop()


def test_many_at_once(loop, run, opened):
    fd, _ = opened
    content = os.urandom(64 * 4096)
    os.write(fd, content)

    async def main():
        writes = [loop._file_write(fd, content[i : i + 4096], i) for i in range(0, 1 << 18, 4096)]
        assert await asyncio.gather(*writes) == [4096] * 64
        reads = [loop._file_read(fd, 4096, i) for i in range(0, 1 << 18, 4096)]
        assert b"".join(await asyncio.gather(*reads)) == content

    run(main)


def test_call(loop, run, tmp_path):
    async def main():
        assert await loop._file_call(os.listdir, tmp_path) == []
        with pytest.raises(FileNotFoundError):
            await loop._file_call(os.listdir, tmp_path / "none")

    run(main)


def test_closed_loop(new_loop):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop._file_read(0, 1)
    with pytest.raises(RuntimeError, match="closed"):
        loop._file_call(os.getcwd)


def test_ready_is_an_awaitable(loop, run, opened):
    fd, _ = opened
    os.write(fd, b"content")

    async def main():
        ready = loop._file_read(fd, 7, 0)
        assert type(ready).__name__ == "Ready"
        with pytest.raises(StopIteration) as ended:
            ready.send(None)
        assert ended.value.value == b"content"
        with pytest.raises(RuntimeError, match="already awaited"):
            await ready
        assert await asyncio.gather(loop._file_read(fd, 1, 0), loop._file_read(fd, 2, 1)) == [
            b"c",
            b"on",
        ]
        ready = loop._file_read(fd, 7, 0)
        with pytest.raises(KeyError):
            ready.throw(KeyError("x"))

    run(main)


@pytest.mark.parametrize("size", [0, 1, 4096, 16 * 1024, 16 * 1024 + 1, 3 << 20])
def test_read_path(loop, run, opened, size):
    fd, path = opened
    content = os.urandom(size)
    os.write(fd, content)

    async def main():
        assert await loop._file_read_path(path) == content
        assert await loop._file_read_path(path, 10) == content[:10]
        assert await loop._file_read_path(path, 0) == b""
        assert await loop._file_read_path(path, 1 << 40) == content

    run(main)


def test_read_path_not_in_memory(loop, run, opened):
    fd, path = opened
    content = os.urandom(300 * 1024)
    os.write(fd, content)
    os.fsync(fd)
    os.posix_fadvise(fd, 4096, 0, os.POSIX_FADV_DONTNEED)

    async def main():
        assert await loop._file_read_path(path) == content
        os.posix_fadvise(fd, 8192, 0, os.POSIX_FADV_DONTNEED)
        assert await loop._file_read(fd, 1 << 20, 5) == content[5:]
        os.posix_fadvise(fd, 8192, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(fd, 0, os.SEEK_SET)
        assert await loop._file_read(fd, 1 << 20) == content
        assert os.lseek(fd, 0, os.SEEK_CUR) == len(content)

    run(main)


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/cpuinfo", "/sys/kernel/mm/ksm/run"])
def test_read_path_without_a_size(loop, run, path):
    if not os.path.exists(path):
        pytest.skip("this kernel has no such file")
    with open(path, "rb") as file:
        expected = file.readline()

    async def main():
        found = await loop._file_read_path(os.fsencode(path))
        assert found.startswith(expected)

    run(main)


def test_read_path_of_a_pipe(loop, run, tmp_path):
    path = os.fsencode(tmp_path / "fifo")
    os.mkfifo(path)

    async def main():
        reads = asyncio.ensure_future(loop._file_read_path(path))
        await asyncio.sleep(0.01)
        assert not reads.done()
        fd = await loop._file_open(path, os.O_WRONLY, 0)
        os.write(fd, b"first ")
        await asyncio.sleep(0.01)
        os.write(fd, b"second")
        os.close(fd)
        assert await reads == b"first second"

    run(main)


def test_read_path_errors(loop, run, tmp_path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await loop._file_read_path(os.fsencode(tmp_path / "none"))
        with pytest.raises(IsADirectoryError):
            await loop._file_read_path(os.fsencode(tmp_path))

    run(main)


def test_a_task_that_never_waits_lets_others_run(loop, run, opened):
    fd, _ = opened
    os.write(fd, b"content")
    seen = []

    async def other():
        while len(seen) < 10:
            seen.append(None)
            await asyncio.sleep(0)

    async def main():
        task = asyncio.ensure_future(other())
        reads = 0
        while not task.done():
            assert await loop._file_read(fd, 7, 0) == b"content"
            reads += 1
            assert reads < 1000
        await task

    run(main)


@pytest.mark.parametrize("into", [False, True])
def test_large_reads_let_others_run(loop, run, tmp_path, into):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    turns = 0
    ended = False

    async def others():
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    async def main():
        nonlocal ended
        fd = os.open(path, os.O_RDONLY)
        buffer = bytearray(1 << 20)
        counting = asyncio.ensure_future(others())
        for _ in range(64):
            if into:
                assert await loop._file_readinto(fd, buffer, 0) == 1 << 20
            else:
                assert len(await loop._file_read(fd, 1 << 20, 0)) == 1 << 20
        ended = True
        await counting
        os.close(fd)
        assert turns >= 7

    run(main)


def test_cancelled_open_leaves_no_descriptor(loop, run, tmp_path):
    """Cancelled before, while and after the kernel opens; the fixtures count descriptors."""

    async def open_new(name):
        path = os.fsencode(tmp_path / name)
        return await loop._file_open(path, os.O_RDWR | os.O_CREAT, 0o600)

    async def main():
        for turns in range(12):
            task = asyncio.ensure_future(open_new(str(turns)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                os.close(await task)
            except asyncio.CancelledError:
                pass
        # Done, and cancelled before the task has seen it.
        opening = loop._file_open(os.fsencode(tmp_path / "late"), os.O_RDWR | os.O_CREAT, 0o600)
        next(opening).add_done_callback(lambda _: None)
        while not (tmp_path / "late").exists():
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        opening.close()
        with pytest.raises(RuntimeError, match="already awaited"):
            opening.close()
            await opening
            await opening

    run(main)


def test_cancelled_reads_and_writes(loop, run, opened):
    """Whatever they came to, nothing is exported and nothing leaks."""
    fd, _ = opened
    before = None

    async def main():
        nonlocal before
        before = loop.stats()["ops_in_flight"]
        targets = [bytearray(1 << 16) for _ in range(50)]
        tasks = [
            asyncio.ensure_future(loop._file_write(fd, t, i << 16)) for i, t in enumerate(targets)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(map(type, outcomes[1::2])) == {int}
        for _ in range(1000):
            if loop.stats()["ops_in_flight"] <= before + 1:
                break
            await asyncio.sleep(0.001)
        for target in targets:
            target.append(0)

    run(main)


def test_aligned_buffers(loop, run, opened):
    fd, path = opened
    memory, offset = loop._file_alignment(fd)
    assert memory > 0
    assert offset > 0
    with pytest.raises(OSError, match="Bad file"):
        loop._file_alignment(1 << 20)
    for size in (0, 1, 4096, 10000):
        buffer = loop._file_buffer(size, 4096)
        view = memoryview(buffer)
        assert len(buffer) == len(view) == size
        assert not view.readonly
        view[:] = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for wrong in ((-1, 4096), (10, 0), (10, 3), (10, -4)):
        with pytest.raises(ValueError, match="alignment"):
            loop._file_buffer(*wrong)
    os.write(fd, bytes(3 * 4096) + b"x" * 4096)

    async def main():
        direct = await loop._file_open(path, os.O_RDWR | os.O_DIRECT, 0)
        view = memoryview(loop._file_buffer(4096, max(memory, 4096)))
        assert await loop._file_readinto(direct, view, 3 * 4096) == 4096
        assert view == b"x" * 4096
        view[:] = b"y" * 4096
        assert await loop._file_write(direct, view, 4096) == 4096
        assert os.pread(fd, 4096, 4096) == b"y" * 4096
        with pytest.raises(OSError, match="Invalid argument"):
            await loop._file_readinto(direct, view[:100], 0)
        await loop._file_close(direct)

    run(main)


@pytest.mark.parametrize("blocking", [True, False])
def test_full_and_empty_pipes_wait(loop, run, blocking):
    reader, writer = os.pipe()
    os.set_blocking(reader, blocking)
    os.set_blocking(writer, blocking)

    async def main():
        waits = asyncio.ensure_future(loop._file_read(reader, 10))
        await asyncio.sleep(0.01)
        assert not waits.done()
        assert await loop._file_write(writer, b"x") == 1
        assert await waits == b"x"
        # A short count is what the pipe takes at once; then there is no room.
        total = await loop._file_write(writer, bytes(1 << 20))
        assert 0 < total < 1 << 20
        waits = asyncio.ensure_future(loop._file_write(writer, bytes(4096)))
        await asyncio.sleep(0.01)
        assert not waits.done()
        while total:
            total -= len(await loop._file_read(reader, total))
        assert await waits == 4096

    run(main)
    os.close(reader)
    os.close(writer)


def test_large_reads_have_their_own_memory(loop, run, tmp_path):
    """That of a result is used again, but not before nobody has it any more."""
    size = 256 * 1024
    pieces = [bytes([n]) * size for n in range(6)]
    path = tmp_path / "file"
    path.write_bytes(b"".join(pieces) + b"tail")

    async def main():
        fd = os.open(path, os.O_RDONLY)
        for _ in range(50):
            kept = [await loop._file_read(fd, size, n * size) for n in range(6)]
            assert kept == pieces
            assert len({hash(piece) for piece in kept}) == 6
            view = memoryview(kept.pop())
            assert await loop._file_read(fd, size, 0) == pieces[0] == kept[0]
            assert view == pieces[5]
            del kept, view
            hashes = set()
            for n in range(6):
                data = await loop._file_read(fd, size, n * size)
                assert data == pieces[n]
                hashes.add(hash(data))
                del data
            assert len(hashes) == 6
            assert await loop._file_read(fd, size, 6 * size) == b"tail"
            assert await loop._file_read(fd, size, 7 * size) == b""
        os.close(fd)

    run(main)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 5 << 20])
def test_long_copies(loop, run, opened, size):
    """More than the loop copies by itself."""
    fd, _ = opened
    content = os.urandom(size)

    async def main():
        assert await loop._file_write(fd, content, 0) == size
        assert await loop._file_read(fd, size, 0) == content
        first, second = bytearray(size - 3), bytearray(3)
        assert await loop._file_readv(fd, [first, second], 0) == size
        assert first + second == content
        assert await loop._file_writev(fd, [content[:3], content[3:]], size) == size
        assert await loop._file_readinto(fd, first, size) == len(first)
        assert first == content[:-3]

    run(main)


def other_threads():
    """The names of the process's threads, the kernel's workers for it among them."""
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            pass  # it has ended
    return names


def test_workers_are_bounded(loop, tmp_path):
    """docs/kernel.md: at most 8 of each of the kernel's two kinds, or 8 threads."""
    before = len(other_threads())
    most = 0

    async def one(number):
        for turn in range(2):
            path = os.fsencode(tmp_path / f"{number}.{turn}")
            fd = await loop._file_open(path, os.O_CREAT | os.O_WRONLY, 0o600)
            await loop._file_write(fd, bytes(100_000), 0)
            await loop._file_close(fd)
            await loop._file_mkdir(path + b".d", 0o700)
            await loop._file_unlink(path + b".d", True)

    async def main():
        nonlocal most
        work = asyncio.gather(*(one(number) for number in range(64)))
        while not work.done():
            names = other_threads()
            workers = [name for name in names if name.startswith("iou-wrk")]
            most = max(most, len(workers) if loop.backend == "io_uring" else len(names) - before)
            await asyncio.sleep(0)
        await work

    loop.run_until_complete(main())
    if loop.backend == "io_uring":
        assert 1 <= most <= 16
    else:
        assert most <= 8
