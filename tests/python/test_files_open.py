"""gyre.open(): arguments, errors, kinds of files, life of a file."""

import asyncio
import builtins
import errno
import gc
import io
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import warnings

import gyre
import gyre.files
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.fixture
def run(loop):
    """Runs a coroutine function on gyre's loop."""
    return lambda function, *args: loop.run_until_complete(function(*args))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree\n")
    return path


def refusal(call):
    """What a call raises, as (type, errno, filename, text)."""
    try:
        call()
    except Exception as exc:
        return type(exc), getattr(exc, "errno", None), getattr(exc, "filename", None), str(exc)
    raise AssertionError("nothing was raised")


# ---- arguments ----


# An existing file is refused by "x" alone.
REFUSED = [("file", "x")] + [
    (name, mode)
    for name in ("missing/file", ".", "no\0pe", "file/below")
    for mode in ("r", "rb", "r+", "w", "x", "a", "w+b")
]


class TestArguments:
    @pytest.mark.parametrize(
        "args, kwargs",
        [
            (("f", "z"), {}),
            (("f", "rw"), {}),
            (("f", "rb+t"), {}),
            (("f", "rr"), {}),
            (("f", ""), {}),
            (("f", "+"), {}),
            (("f", "r", 0), {}),
            (("f", "rb"), {"encoding": "utf-8"}),
            (("f", "rb"), {"errors": "strict"}),
            (("f", "rb"), {"newline": ""}),
            (("f", "r"), {"newline": "x"}),
            (("f", "r"), {"encoding": "nonsense"}),
            (("f", "r"), {"errors": "nonsense"}),
            (("f", "r"), {"closefd": False}),
            ((3.5,), {}),
            ((None,), {}),
            (("f", None), {}),
            (("f", "r", "x"), {}),
            (("f", "r"), {"encoding": 5}),
            ((-1,), {}),
        ],
    )
    def test_refused_as_io_refuses_them(self, run, path, monkeypatch, args, kwargs):
        monkeypatch.chdir(path.parent)
        pathlib.Path("f").touch()
        if kwargs.get("errors") == "nonsense" and not sys.flags.dev_mode:
            theirs = (LookupError,)  # io finds out later, when something does not decode
        else:
            theirs = refusal(lambda: open(*args, **kwargs))

        async def main():
            async with gyre.open(*args, **kwargs):
                pass

        ours = refusal(lambda: run(main))
        assert ours[0] is theirs[0]

    @pytest.mark.parametrize(("name", "mode"), REFUSED)
    def test_errors(self, run, path, monkeypatch, mode, name):
        monkeypatch.chdir(path.parent)

        async def main():
            async with gyre.open(name, mode):
                pass

        ours, theirs = refusal(lambda: run(main)), refusal(lambda: open(name, mode))
        assert ours == theirs

    @pytest.mark.parametrize("made", [str, os.fsencode, pathlib.Path])
    def test_names(self, run, path, made):
        async def main():
            async with gyre.open(made(path)) as file:
                with open(made(path)) as theirs:
                    assert file.name == theirs.name or made is pathlib.Path
                assert os.fspath(file.name) == os.fspath(made(path))

        run(main)

    def test_awaited(self, run, path):
        async def main():
            file = await gyre.open(path, "rb")
            try:
                assert await file.read() == path.read_bytes()
            finally:
                await file.close()
            opening = gyre.open(path)
            async with await opening as file:
                assert await file.readline() == "one\n"
            assert file.closed

        run(main)

    def test_a_descriptor(self, run, path):
        async def main():
            fd = os.open(path, os.O_RDONLY)
            os.lseek(fd, 4, os.SEEK_SET)
            async with gyre.open(fd, "rb", closefd=False) as file:
                assert file.name == fd and file.fileno() == fd
                assert await file.readline() == b"two\n"
            os.fstat(fd)
            async with gyre.open(fd, "rb", buffering=0) as file:
                pass
            with pytest.raises(OSError):
                os.fstat(fd)

        run(main)

    def test_a_bad_descriptor(self, run):
        async def main():
            await gyre.open(999)

        assert refusal(lambda: run(main))[:2] == (OSError, errno.EBADF)

    def test_an_opener(self, run, path):
        seen = []

        def opener(name, flags):
            seen.append((name, flags, threading.current_thread() is threading.main_thread()))
            return os.open(name, flags)

        async def main():
            async with gyre.open(path, "w", opener=opener) as file:
                assert not os.get_inheritable(file.fileno())

        run(main)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        assert seen == [(str(path), flags, False)]

    @pytest.mark.parametrize("answer, raises", [(-1, ValueError), ("x", TypeError)])
    def test_a_bad_opener(self, run, path, answer, raises):
        async def main():
            with pytest.raises(raises):
                await gyre.open(path, opener=lambda name, flags: answer)

        run(main)

    def test_line_buffering_of_bytes(self, run, path):
        async def main():
            with pytest.warns(RuntimeWarning, match="line buffering"):
                async with gyre.open(path, "rb", 1):
                    pass

        run(main)

    def test_the_modes_and_types(self, run, path):
        async def main():
            for mode in ("r", "rb", "rb+", "r+", "a", "ab", "a+b", "w", "w+b"):
                for buffering in (-1, 0, 1, 77):
                    if (buffering == 0) > ("b" in mode) or (buffering == 1) and "b" in mode:
                        continue
                    with open(path, mode, buffering) as theirs:
                        async with gyre.open(path, mode, buffering) as ours:
                            for name in ("mode", "closed"):
                                assert getattr(ours, name) == getattr(theirs, name)
                            for name in ("readable", "writable", "seekable", "isatty"):
                                assert getattr(ours, name)() == getattr(theirs, name)()
                            assert type(ours).__name__ in repr(ours)

        run(main)

    def test_another_loop(self, path):
        async def main():
            with pytest.raises(RuntimeError, match=r"gyre\.run"):
                await gyre.open(path)
            with pytest.raises(RuntimeError, match="gyre's event loop"):
                await gyre.read_file(path)
            with pytest.raises(RuntimeError, match="gyre's event loop"):
                await gyre.Path(path).stat()

        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())

    def test_no_loop(self, path):
        coro = gyre.read_file(path)
        with pytest.raises(RuntimeError):
            coro.send(None)


# ---- special files ----


class TestSpecialFiles:
    def test_dev_full(self, run):
        async def main():
            file = await gyre.open("/dev/full", "wb")
            assert await file.write(b"x") == 1
            with pytest.raises(OSError) as failed:
                await file.flush()
            assert failed.value.errno == errno.ENOSPC
            with pytest.raises(OSError) as failed:
                await file.close()
            assert failed.value.errno == errno.ENOSPC and file.closed
            async with gyre.open("/dev/full", "wb", 0) as raw:
                with pytest.raises(OSError):
                    await raw.write(b"x")
            with pytest.raises(OSError):
                async with gyre.open("/dev/full", "w") as text:
                    await text.write("x" * 1_000_000)

        run(main)

    def test_proc(self, run):
        async def main():
            async with gyre.open("/proc/self/stat") as file:
                assert (await file.read()).startswith(f"{os.getpid()} ")
                await file.seek(0)
                assert (await file.readline()).startswith(f"{os.getpid()} ")
            assert (await gyre.read_file("/proc/self/maps")).count(b"\n") > 10
            async with gyre.open("/proc/self/status", "rb", 0) as file:
                assert b"VmRSS" in await file.readall()

        run(main)

    def test_null_and_zero(self, run):
        async def main():
            async with gyre.open("/dev/null", "r+b", 0) as file:
                assert await file.write(b"abc") == 3
                assert await file.read() == b""
                assert await file.tell() == 0
            async with gyre.open("/dev/zero", "rb") as file:
                assert await file.read(70_000) == bytes(70_000)

        run(main)

    def test_a_pipe(self, run):
        async def main():
            reader, writer = os.pipe()
            async with gyre.open(writer, "wb") as out:
                assert not out.seekable()
                with pytest.raises(io.UnsupportedOperation):
                    await out.seek(0)
                with pytest.raises(io.UnsupportedOperation):
                    await out.tell()
                await out.write(b"one\ntwo")
            async with gyre.open(reader) as file:
                assert await file.readline() == "one\n"
                assert await file.readline() == "two"
                assert await file.read() == ""

        run(main)

    def test_what_a_pipe_brings_later(self, run, loop):
        async def main():
            reader, writer = os.pipe()
            async with gyre.open(reader, "rb") as file:
                task = asyncio.ensure_future(file.readline())
                await asyncio.sleep(0)
                os.write(writer, b"li")
                await asyncio.sleep(0)
                os.write(writer, b"ne\nrest")
                assert await task == b"line\n"
                os.close(writer)
                assert await file.read() == b"rest"

        run(main)

    def test_a_pipe_cannot_be_opened_for_both(self, run):
        async def main():
            reader, writer = os.pipe()
            try:
                with pytest.raises(io.UnsupportedOperation):
                    await gyre.open(reader, "r+b", closefd=False)
            finally:
                os.close(reader)
                os.close(writer)

        run(main)

    def test_a_pipe_without_readers(self, run):
        async def main():
            reader, writer = os.pipe()
            os.close(reader)
            file = await gyre.open(writer, "wb", 0)
            with pytest.raises(BrokenPipeError):
                await file.write(b"x")
            await file.close()

        run(main)

    def test_a_fifo(self, run, tmp_path):
        name = tmp_path / "fifo"
        os.mkfifo(name)

        async def read():
            async with gyre.open(name, "rb") as file:
                return await file.read()

        async def main():
            task = asyncio.ensure_future(read())
            async with gyre.open(name, "wb") as file:
                await file.write(b"through the fifo")
            assert await task == b"through the fifo"

        run(main)

    def test_a_terminal(self, run):
        async def main():
            ours, theirs = os.openpty()
            async with gyre.open(theirs, "r+b", 0) as file:
                assert file.isatty() and not file.seekable()
                task = asyncio.ensure_future(file.readline())
                await asyncio.sleep(0)
                await file.write(b"prompt")  # while the read waits
                os.write(ours, b"answer\n")
                assert await task == b"answer\n"
            os.close(ours)

        run(main)

    @pytest.mark.parametrize("buffering", [0, -1])
    def test_nonblocking(self, run, buffering):
        """Waited for like any other: awaiting is what does not block."""

        async def main():
            reader, writer = os.pipe2(os.O_NONBLOCK)
            data = os.urandom(300_000)
            async with gyre.open(reader, "rb", buffering) as file:
                reading = asyncio.ensure_future(file.read())
                async with gyre.open(writer, "wb", buffering) as out:
                    await out.writelines([data])
                assert await reading == data

        run(main)

    def test_a_directory(self, run, tmp_path):
        async def main():
            for mode in ("r", "rb"):
                with pytest.raises(IsADirectoryError) as failed:
                    await gyre.open(tmp_path, mode)
                assert failed.value.filename == str(tmp_path)

        run(main)


# ---- what goes wrong ----


class TestErrors:
    def test_no_more_descriptors(self, run, path):
        async def main():
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            try:
                with pytest.raises(OSError) as failed:
                    await gyre.open(path)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert failed.value.errno == errno.EMFILE
            assert failed.value.filename == str(path)

        run(main)

    def test_truncated_while_it_is_read(self, run, tmp_path):
        big = tmp_path / "big"
        big.write_bytes(b"x" * 300_000)

        async def main():
            async with gyre.open(big, "rb") as file:
                assert await file.read(10) == b"x" * 10
                os.truncate(big, 5)
                rest = await file.read()
                assert len(rest) <= 8192
                assert await file.read() == b""
                await file.seek(0)
                assert await file.read() == b"x" * 5

        run(main)

    def test_a_full_disk(self, run, tmp_path):
        """Nothing is reported as written that was not, and what was written can be read."""
        where = tmp_path / "small"
        where.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting needs root")

        async def main():
            file = await gyre.open(where / "file", "wb", 0)
            total = 0
            with pytest.raises(OSError) as failed:
                while True:
                    total += await file.write(b"y" * 10_000)
            assert failed.value.errno == errno.ENOSPC
            assert await file.tell() == total == os.fstat(file.fileno()).st_size
            await file.close()
            os.truncate(where / "file", 0)

            file = await gyre.open(where / "file", "wb")
            with pytest.raises(OSError) as failed:
                await file.write(b"z" * 200_000)
            assert failed.value.errno == errno.ENOSPC
            size = os.fstat(file.fileno()).st_size
            assert await file.tell() == size
            await file.seek(0)
            await file.write(b"a" * 10)  # what is there can be overwritten
            await file.close()
            assert (where / "file").read_bytes() == b"a" * 10 + b"z" * (size - 10)

        try:
            run(main)
        finally:
            subprocess.run(["umount", str(where)], check=True)

    def test_an_input_output_error(self, run):
        """/proc/self/mem answers EIO where there is no memory."""

        async def main():
            for buffering in (0, -1):
                async with gyre.open("/proc/self/mem", "rb", buffering) as file:
                    for call in (file.pread(10, 0), file.read(10), file.read()):
                        with pytest.raises(OSError) as failed:
                            await call
                        assert failed.value.errno == errno.EIO
                    assert await file.tell() == 0
            with pytest.raises(OSError) as failed:
                await gyre.read_file("/proc/self/mem")
            assert failed.value.errno == errno.EIO
            assert failed.value.filename == "/proc/self/mem"

        run(main)

    def test_the_file_size_limit(self, run, tmp_path):
        async def main():
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            try:
                async with gyre.open(tmp_path / "limited", "wb", 0) as file:
                    assert await file.write(bytes(3000)) == 1000
                    with pytest.raises(OSError) as failed:
                        await file.write(b"x")
                    assert failed.value.errno == errno.EFBIG
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                signal.signal(signal.SIGXFSZ, before)

        run(main)

    def test_signals_in_between(self, run, loop, tmp_path):
        """A timer fires all the while: nothing is lost and nothing raises InterruptedError."""
        name = tmp_path / "file"
        hits = []

        async def main():
            async with gyre.open(name, "wb", 100) as file:
                for number in range(2000):
                    await file.write(b"%05d\n" % number)
            async with gyre.open(name) as file:
                assert [int(line) async for line in file] == list(range(2000))
            while not hits:
                await asyncio.sleep(0)

        before = signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            run(main)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_of_the_wrong_kind(self, run, path):
        async def main():
            async with gyre.open(path, "rb") as file:
                with pytest.raises(io.UnsupportedOperation):
                    await file.write(b"x")
                with pytest.raises(io.UnsupportedOperation):
                    await file.pwrite(b"x", 0)
            async with gyre.open(path, "ab") as file:
                with pytest.raises(io.UnsupportedOperation):
                    await file.read()
                with pytest.raises(TypeError):
                    await file.write("text")
                with pytest.raises(TypeError):
                    await file.write(5)
            async with gyre.open(path, "a") as file:
                with pytest.raises(TypeError):
                    await file.write(b"bytes")
                with pytest.raises(io.UnsupportedOperation):
                    await file.read()

        run(main)

    def test_closed(self, run, path):
        async def main():
            for mode, buffering in (("r+", -1), ("r+b", -1), ("r+b", 0)):
                file = await gyre.open(path, mode, buffering)
                await file.close()
                await file.close()
                await file.aclose()
                data = b"" if "b" in mode else ""
                calls = [
                    ("read",),
                    ("read", 0),
                    ("read", 1),
                    ("readline",),
                    ("readlines",),
                    ("write", data),
                    ("seek", 0),
                    ("tell",),
                    ("flush",),
                    ("truncate",),
                    ("pread", 1, 0),
                    ("pwrite", b"", 0),
                    ("preadv", [bytearray(1)], 0),
                    ("pwritev", [b"x"], 0),
                    ("fsync",),
                    ("fdatasync",),
                    ("fallocate", 0, 1),
                    ("fadvise", 0, 1, 0),
                    ("__aenter__",),
                ]
                for name, *args in calls:
                    with pytest.raises(ValueError, match="closed file"):
                        await getattr(file, name)(*args)
                for call in (file.fileno, file.isatty, file.readable, file.__aiter__):
                    with pytest.raises(ValueError, match="closed file"):
                        call()

        run(main)


# ---- the end ----


class TestEnd:
    @pytest.mark.parametrize("mode, buffering", [("r", -1), ("rb", -1), ("rb", 0)])
    def test_unclosed(self, run, path, mode, buffering):
        async def main():
            file = await gyre.open(path, mode, buffering)
            fd = file.fileno()
            with pytest.warns(ResourceWarning, match="unclosed file <gyre"):
                del file
                gc.collect()
            with pytest.raises(OSError):
                os.fstat(fd)

        run(main)

    def test_unclosed_and_unwritten(self, run, path):
        """As io: what was buffered is written."""

        async def main():
            file = await gyre.open(path, "ab")
            await file.write(b"four\n")
            with pytest.warns(ResourceWarning):
                del file
                gc.collect()
            assert path.read_bytes().endswith(b"three\nfour\n")

        run(main)

    def test_unclosed_without_owning_it(self, run, path):
        async def main():
            fd = os.open(path, os.O_RDONLY)
            file = await gyre.open(fd, closefd=False)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del file
                gc.collect()
            os.close(fd)

        run(main)

    def test_open_fails_late(self, run, path, monkeypatch):
        """What cannot become a file object leaves no descriptor behind (the fixture counts)."""

        async def main():
            with pytest.raises(IsADirectoryError):
                await gyre.open(path.parent, "rb", opener=lambda n, f: os.open(n, os.O_RDONLY))

        run(main)

    def test_close_waits_for_what_is_in_flight(self, run, path):
        async def main():
            file = await gyre.open(path, "r+b")
            calls = [asyncio.ensure_future(file.pwrite(b"x" * 4096, 4096 * n)) for n in range(50)]
            await asyncio.sleep(0)
            await file.close()
            assert await asyncio.gather(*calls) == [4096] * 50
            assert path.stat().st_size == 50 * 4096

        run(main)

    def test_close_waits_for_a_reader(self, run):
        async def main():
            reader, writer = os.pipe()
            file = await gyre.open(reader, "rb")
            reading = asyncio.ensure_future(file.read(3))
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(file.close())
            await asyncio.sleep(0)
            assert not closing.done()
            os.write(writer, b"abc")
            await closing
            assert await reading == b"abc"
            os.close(writer)

        run(main)

    def test_two_closers(self, run, path):
        async def main():
            file = await gyre.open(path, "wb")
            await file.write(b"data")
            await asyncio.gather(file.close(), file.close(), file.close())
            assert path.read_bytes() == b"data"

        run(main)

    def test_closed_after_its_loop(self, path):
        """The descriptor is closed; nothing else works."""

        async def opened():
            return await gyre.open(path, "rb")

        async def close(file):
            with pytest.raises(RuntimeError):
                await file.read()
            await file.close()
            assert file.closed

        with asyncio.Runner(loop_factory=gyre.new_event_loop) as runner:
            file = runner.run(opened())
        gyre.run(close(file))

    @pytest.mark.parametrize("mode", ["wb", "w", "r+b"])
    def test_closed_after_its_loop_with_something_to_write(self, path, mode):
        async def opened():
            file = await gyre.open(path, mode)
            await file.write("tail" if mode == "w" else b"tail")
            return file

        async def close(file):
            await file.close()
            assert file.closed
            with pytest.raises(ValueError):
                await file.write("more" if mode == "w" else b"more")
            await file.close()

        path.write_bytes(b"0123456789")
        with asyncio.Runner(loop_factory=gyre.new_event_loop) as runner:
            file = runner.run(opened())
        gyre.run(close(file))
        assert path.read_bytes() == (b"tail456789" if mode == "r+b" else b"tail")

    def test_closed_behind_our_back(self, run, path):
        async def main():
            fd = os.open(path, os.O_RDONLY)
            file = await gyre.open(fd, "rb", 0, closefd=False)
            os.close(fd)
            with pytest.raises(OSError) as failed:
                await file.read(1)
            assert failed.value.errno == errno.EBADF
            with pytest.raises(OSError) as failed:
                await file.close()
            assert failed.value.errno == errno.EBADF and file.closed

        run(main)


def test_the_same_names_as_io():
    """What io's objects have, ours have, but for what makes no sense without blocking."""
    left_out = {"detach", "raw", "getbuffer", "getvalue", "reconfigure", "write_through"}
    for theirs, ours in (
        (io.FileIO, gyre.files.RawFile),
        (io.BufferedRandom, gyre.files.BufferedFile),
        (io.TextIOWrapper, gyre.files.TextFile),
    ):
        public = {name for name in dir(theirs) if not name.startswith("_")}
        assert public - set(dir(ours)) - left_out == set(), ours


def test_star_import_and_builtins():
    assert gyre.open is not builtins.open
    assert gyre.open is gyre.files.open
