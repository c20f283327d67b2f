"""File operations that outlive their cancelled caller: no descriptor's number is free before."""

import asyncio
import os
import resource
import threading

import gyre
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.fixture
def run(loop):
    """Runs a coroutine function on gyre's loop."""
    return lambda function, *args: loop.run_until_complete(function(*args))


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(coro):
    task = asyncio.ensure_future(coro)
    await turns()
    return task


@pytest.mark.parametrize("buffering", [0, -1])
def test_truncate(run, loop, tmp_path, monkeypatch, buffering):
    async def main():
        file = await gyre.open(tmp_path / "file", "wb", buffering)
        op = loop.create_future()
        monkeypatch.setattr(loop, "_file_truncate", lambda fd, size: op)
        await cancelled(await begun(file.truncate(5)))
        assert not op.done()
        closing = await begun(file.close())
        assert not closing.done() and not file.closed
        op.set_result(None)
        await closing

    run(main)


def test_an_open_in_debug_mode(run, loop, tmp_path):
    async def opening():
        await gyre.open(tmp_path / "file", "wb")

    async def main():
        task = asyncio.ensure_future(opening())
        await asyncio.sleep(0)
        await cancelled(task)

    loop.set_debug(True)
    run(main)


def test_write_file(run, loop, tmp_path, monkeypatch):
    async def main():
        op, closed = loop.create_future(), []
        close = loop._file_close
        monkeypatch.setattr(loop, "_file_write", lambda fd, data, offset: op)
        monkeypatch.setattr(loop, "_file_close", lambda fd: closed.append(fd) or close(fd))
        writing = asyncio.ensure_future(gyre.write_file(tmp_path / "file", b"data"))
        while not getattr(op, "_callbacks", None):
            await asyncio.sleep(0)
        writing.cancel()
        await turns()
        assert not closed and not writing.done()
        op.set_result(4)
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert len(closed) == 1

    run(main)


def test_a_write_without_a_turn(run, loop, tmp_path):
    """It ends while others have the turn: what a stream brings is read once."""
    os.mkfifo(tmp_path / "fifo")

    async def main():
        async with gyre.open(tmp_path / "fifo", "r+b", 0) as file:
            op, write = loop.create_future(), file._fwrite
            file._fwrite = lambda *args: op
            await cancelled(await begun(file.write(b"late")))
            file._fwrite = write
            readers = [await begun(file.read(4)) for _ in range(2)]
            op.set_result(4)
            await turns()
            await file.write(b"once")
            done, waits = await asyncio.wait(readers, return_when="FIRST_COMPLETED")
            assert [task.result() for task in done] == [b"once"]
            await file.write(b"more")
            assert await waits.pop() == b"more"

    run(main)


def test_an_opener(run, loop, tmp_path, monkeypatch):
    """The descriptor that nobody waits for any more is closed."""
    inside, go_on, made = threading.Event(), threading.Event(), []

    def opener(path, flags):
        inside.set()
        go_on.wait()
        made.append(os.open(path, flags))
        return made[0]

    async def opening():
        await gyre.open(tmp_path / "file", "w", opener=opener)

    closed, close = asyncio.Event(), os.close

    def watched(fd):
        close(fd)
        if fd in made:
            closed.set()

    monkeypatch.setattr(os, "close", watched)

    async def main():
        task = await begun(opening())
        await asyncio.to_thread(inside.wait)
        await cancelled(task)
        go_on.set()
        await asyncio.wait_for(closed.wait(), 30)

    try:
        run(main)
    finally:
        go_on.set()


def test_entries(run, loop, tmp_path, monkeypatch):
    """What a thread found for a cancelled iteration is there for the next one."""
    for number in range(100):
        (tmp_path / f"{number}").touch()

    async def main():
        entries = gyre.Path(tmp_path).iterdir()
        inside, go_on, batch = threading.Event(), threading.Event(), entries._batch

        def slow(count):
            inside.set()
            go_on.wait()
            return batch(count)

        monkeypatch.setattr(type(entries), "_batch", lambda self, count: slow(count))
        try:
            task = await begun(anext(entries))
            await asyncio.to_thread(inside.wait)
            await cancelled(task)
        finally:
            go_on.set()
        assert sorted([int(path.name) async for path in entries]) == list(range(100))

    run(main)


def test_stat_without_descriptors(run, tmp_path):
    """stat(2) needs none."""

    async def main():
        await gyre.Path(tmp_path / "file").write_bytes(b"")  # what the ring needs for itself
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            result = await gyre.stat(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert result.st_ino == os.stat(tmp_path).st_ino

    run(main)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_shutdown_does_not_keep_close_from_closing(new_loop, tmp_path, steps):
    """asyncio.run() cancels every task, the one that closes too; it waits for what is in flight."""
    path = tmp_path / "file"
    path.write_bytes(b"data")
    loop = new_loop()

    async def main():
        file = await gyre.open(path, "rb", buffering=0)
        in_flight = loop.create_future()
        file._track(in_flight)
        closing = asyncio.ensure_future(file.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        assert not file.closed
        again = asyncio.ensure_future(file.close())  # nobody cancels this one
        await asyncio.sleep(0)
        in_flight.set_result(None)
        await asyncio.gather(closing, return_exceptions=True)
        await again
        assert file.closed

    loop.run_until_complete(main())
