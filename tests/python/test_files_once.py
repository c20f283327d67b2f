"""read_file, write_file, stat, copy_file, stat_many, read_many."""

import asyncio
import errno
import os
import shutil
import socket
import subprocess
import sys

import gyre
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.fixture
def run(loop):
    """Runs a coroutine function on gyre's loop."""
    return lambda function, *args: loop.run_until_complete(function(*args))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content\r\n")
    return path


class TestReadFile:
    def test_bytes_and_text(self, run, path):
        async def main():
            assert await gyre.read_file(path) == b"content\r\n"
            assert await gyre.read_file(os.fsencode(path)) == b"content\r\n"
            assert await gyre.read_file(str(path), "ascii") == "content\n"
            path.write_bytes(b"\xff")
            with pytest.raises(UnicodeDecodeError):
                await gyre.read_file(path, "utf-8")
            assert await gyre.read_file(path, "utf-8", "replace") == "\ufffd"

        run(main)

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70_000, 3_000_000])
    def test_sizes(self, run, path, size):
        data = os.urandom(size)
        path.write_bytes(data)

        async def main():
            assert await gyre.read_file(path) == data

        run(main)

    @pytest.mark.parametrize("name", ["missing", ".", "file/below", "nu\0ll"])
    def test_errors(self, run, path, monkeypatch, name):
        monkeypatch.chdir(path.parent)

        def theirs():
            with open(name, "rb") as file:
                return file.read()

        async def main():
            await gyre.read_file(name)

        seen = []
        for call in (theirs, lambda: run(main)):
            with pytest.raises((OSError, ValueError)) as failed:
                call()
            exc = failed.value
            seen.append((type(exc), getattr(exc, "errno", 0), getattr(exc, "filename", 0)))
        assert seen[0] == seen[1]

    def test_a_pipe(self, run, tmp_path):
        os.mkfifo(tmp_path / "fifo")

        async def main():
            task = asyncio.ensure_future(gyre.read_file(tmp_path / "fifo"))
            await gyre.write_file(tmp_path / "fifo", b"x" * 200_000)
            assert await task == b"x" * 200_000

        run(main)


class TestWriteFile:
    @pytest.mark.parametrize("atomic", [False, True])
    def test_contents(self, run, tmp_path, atomic):
        path = tmp_path / "file"

        async def main():
            assert await gyre.write_file(path, b"first", atomic=atomic) == 5
            assert path.read_bytes() == b"first"
            assert await gyre.write_file(path, "zwei ä", atomic=atomic) == 7
            assert path.read_bytes() == "zwei ä".encode()
            assert await gyre.write_file(path, "ä", encoding="latin-1", atomic=atomic) == 1
            big = os.urandom(2_000_000)
            assert await gyre.write_file(path, memoryview(big), atomic=atomic) == len(big)
            assert path.read_bytes() == big
            assert await gyre.write_file(path, b"", atomic=atomic) == 0
            assert path.read_bytes() == b""
            assert os.listdir(tmp_path) == ["file"]

        run(main)

    @pytest.mark.parametrize("atomic", [False, True])
    def test_permissions(self, run, tmp_path, atomic):
        path = tmp_path / "file"
        umask = os.umask(0o027)
        try:

            async def main():
                await gyre.write_file(path, b"x", atomic=atomic)
                assert path.stat().st_mode & 0o777 == 0o640
                path.chmod(0o604)
                await gyre.write_file(path, b"y", atomic=atomic)
                assert path.stat().st_mode & 0o777 == 0o604
                await gyre.write_file(tmp_path / "new", b"x", mode=0o600, atomic=atomic)
                assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600

            run(main)
        finally:
            os.umask(umask)

    @pytest.mark.parametrize("atomic", [False, True])
    @pytest.mark.parametrize("name", ["missing/x", ".", "file/x", "nu\0ll"])
    def test_errors(self, run, path, monkeypatch, name, atomic):
        monkeypatch.chdir(path.parent)

        async def main():
            await gyre.write_file(name, b"x", atomic=atomic)

        with pytest.raises((OSError, ValueError)) as failed:
            run(main)
        if isinstance(failed.value, OSError):
            assert failed.value.filename == name
        assert os.listdir() == ["file"]

    def test_atomic_is_another_file(self, run, path):
        """Who has the old one open keeps it whole."""

        async def main():
            with open(path, "rb") as before:
                await gyre.write_file(path, b"new", atomic=True)
                assert before.read() == b"content\r\n"
            assert path.read_bytes() == b"new"
            link = path.parent / "link"
            link.symlink_to("file")
            await gyre.write_file(link, b"through", atomic=True)
            assert link.is_symlink() and path.read_bytes() == b"through"
            await gyre.write_file("relative", b"x", atomic=True)

        before = os.getcwd()
        os.chdir(path.parent)
        try:
            run(main)
        finally:
            os.chdir(before)
        assert sorted(os.listdir(path.parent)) == ["file", "link", "relative"]

    def test_atomic_and_a_full_disk(self, run, tmp_path):
        """The old content stays, and no temporary file."""
        where = tmp_path / "small"
        where.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting needs root")

        async def main():
            await gyre.write_file(where / "file", b"old", atomic=True)
            with pytest.raises(OSError) as failed:
                await gyre.write_file(where / "file", bytes(200_000), atomic=True)
            assert failed.value.errno == errno.ENOSPC
            assert failed.value.filename == str(where / "file")
            assert (where / "file").read_bytes() == b"old"
            assert os.listdir(where) == ["file"]

        try:
            run(main)
        finally:
            subprocess.run(["umount", str(where)], check=True)

    def test_atomic_and_cancelled(self, run, path):
        """At any moment: the old content or the new one, and no temporary file."""

        async def main():
            seen = set()
            for turns in range(60):
                path.write_bytes(b"old")
                task = asyncio.ensure_future(gyre.write_file(path, b"new!", atomic=True))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await asyncio.sleep(0)
                seen.add(path.read_bytes())
                assert os.listdir(path.parent) == ["file"]
            assert seen <= {b"old", b"new!"} and b"old" in seen

        run(main)

    def test_dev_full(self, run):
        async def main():
            with pytest.raises(OSError) as failed:
                await gyre.write_file("/dev/full", b"x")
            assert failed.value.errno == errno.ENOSPC
            assert failed.value.filename == "/dev/full"

        run(main)


class TestStat:
    def test_results(self, run, path):
        async def main():
            link = path.parent / "link"
            link.symlink_to("file")
            assert await gyre.stat(path) == os.stat(path)
            assert (await gyre.stat(path)).st_mtime_ns == os.stat(path).st_mtime_ns
            assert await gyre.stat(link) == os.stat(path)
            assert await gyre.stat(link, follow_symlinks=False) == os.lstat(link)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                assert await gyre.stat(folder) == os.stat(path.parent)
                assert await gyre.stat("file", dir_fd=folder) == os.stat(path)
            finally:
                os.close(folder)
            with pytest.raises(FileNotFoundError) as failed:
                await gyre.stat("missing")
            assert failed.value.filename == "missing"
            with pytest.raises(OSError) as failed:
                await gyre.stat(999)
            assert failed.value.errno == errno.EBADF

        run(main)


class TestCopyFile:
    @pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
    def test_contents(self, run, path, size):
        data = os.urandom(size)
        path.write_bytes(data)
        path.chmod(0o640)
        target = path.parent / "copy"

        async def main():
            for _ in range(2):
                assert await gyre.copy_file(path, target) == size
                assert target.read_bytes() == data
                assert target.stat().st_mode == path.stat().st_mode
                target.write_bytes(b"longer than it will be" * 10)

        run(main)

    def test_special(self, run, path):
        async def main():
            target = path.parent / "copy"
            assert await gyre.copy_file("/proc/self/stat", target) > 10
            assert target.read_bytes().startswith(b"%d " % os.getpid())
            assert await gyre.copy_file("/proc/version", target) > 0
            link = path.parent / "link"
            link.symlink_to("file")
            assert await gyre.copy_file(link, path.parent / "link2", follow_symlinks=False) == 0
            assert os.readlink(path.parent / "link2") == "file"
            with pytest.raises(shutil.SameFileError):
                await gyre.copy_file(path, link)
            assert path.read_bytes() == b"content\r\n"
            os.mkfifo(path.parent / "fifo")

        run(main)

    def test_errors(self, run, path):
        async def main():
            missing = str(path.parent / "missing")
            with pytest.raises(FileNotFoundError) as failed:
                await gyre.copy_file(missing, path)
            assert failed.value.filename == missing
            with pytest.raises(FileNotFoundError) as failed:
                await gyre.copy_file(path, missing + "/x")
            assert failed.value.filename == missing + "/x"
            with pytest.raises(IsADirectoryError):
                await gyre.copy_file(path, path.parent)
            with pytest.raises(IsADirectoryError):
                await gyre.copy_file(path.parent, missing)
            with pytest.raises(OSError) as failed:
                await gyre.copy_file(path, "/dev/full")
            assert failed.value.errno == errno.ENOSPC

        run(main)


class TestMany:
    def test_in_order(self, run, tmp_path):
        paths = [tmp_path / f"{number}" for number in range(300)]
        for number, path in enumerate(paths):
            path.write_bytes(b"x" * number)

        async def main():
            for limit in (1, 3, 64, 1000):
                contents = await gyre.read_many(paths, limit=limit)
                assert contents == [b"x" * number for number in range(300)]
                sizes = [info.st_size for info in await gyre.stat_many(paths, limit=limit)]
                assert sizes == list(range(300))
            assert await gyre.read_many([]) == []
            assert len(await gyre.stat_many(iter(paths))) == 300

        run(main)

    def test_errors(self, run, tmp_path):
        good = tmp_path / "good"
        good.write_bytes(b"good")
        missing, folder = tmp_path / "missing", tmp_path

        async def main():
            for call in (gyre.read_many, gyre.stat_many):
                with pytest.raises(FileNotFoundError) as failed:
                    await call([good, missing, good])
                assert failed.value.filename == str(missing)
                with pytest.raises(ValueError, match="limit"):
                    await call([good], limit=0)
                first, second, third = await call([good, missing, good], return_exceptions=True)
                assert isinstance(second, FileNotFoundError) and first == third
                assert second.filename == str(missing)
            results = await gyre.read_many([folder, good], return_exceptions=True)
            assert isinstance(results[0], IsADirectoryError) and results[1] == b"good"

        run(main)

    def test_what_is_in_memory_costs_no_future(self, run, loop, tmp_path, monkeypatch):
        kinds = []
        ask = loop._file_stat

        def counted(*args):
            op = ask(*args)
            kinds.append(type(op))
            return op

        async def main():
            if isinstance(ask(str(tmp_path)), gyre.Future):
                pytest.skip("a stat of this file system may wait, so each goes by the ring")
            assert len(await gyre.stat_many([str(tmp_path)] * 500)) == 500
            assert len(kinds) == 500 and gyre.Future not in kinds

        monkeypatch.setattr(loop, "_file_stat", counted, raising=False)
        run(main)

    def test_no_more_than_the_limit(self, run, loop, tmp_path, monkeypatch):
        flying = most = 0

        def slow(name, dirfd=-100, follow=True):
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            future = loop.create_future()

            def land():
                nonlocal flying
                flying -= 1
                if not future.done():
                    future.set_result(name)

            loop.call_later(0.001, land)
            return future

        async def main():
            names = [f"/{n}" for n in range(50)]
            assert await gyre.stat_many(names, limit=7) == names
            assert most == 7

        monkeypatch.setattr(loop, "_file_stat", slow, raising=False)
        run(main)

    def test_cancelled(self, run, loop, monkeypatch):
        made = []

        def never(name, dirfd=-100, follow=True):
            made.append(loop.create_future())
            return made[-1]

        async def main():
            task = asyncio.ensure_future(gyre.stat_many(["/"] * 10, limit=4))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(made) == 4 and all(future.cancelled() for future in made)

        monkeypatch.setattr(loop, "_file_stat", never, raising=False)
        run(main)

    def test_others_have_their_turn(self, run, path):
        async def main():
            turns = 0

            async def other():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            await gyre.stat_many([path] * 2000)
            task.cancel()
            assert turns > 10

        run(main)


def test_import_is_quick_and_silent():
    """What a program that opens no file would not use is not imported with the package."""
    code = (
        "import asyncio, sys; before = set(sys.modules);"  # pathlib since 3.15
        "import gyre; new = set(sys.modules) - before;"
        "assert not {'gyre.files', 'gyre.path', 'pathlib'} & new;"
        "gyre.open; gyre.Path; gyre.read_file; assert 'gyre.files' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_static_file_by_sendfile(run, loop, path):
    """A file of gyre's can be given to loop.sock_sendfile() by its descriptor."""

    async def main():
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        with left, right:
            async with gyre.open(path, "rb", 0) as file:
                with open(file.fileno(), "rb", closefd=False) as plain:
                    assert await loop.sock_sendfile(left, plain) == 9
            assert await loop.sock_recv(right, 100) == b"content\r\n"

    run(main)
