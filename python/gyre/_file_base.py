"""What the files of gyre.open() have in common: one descriptor, its position, its turns, its end.

A file belongs to the loop that opened it and to that loop's thread.  What touches the position or
a buffer takes turns: `_busy` is the turn, waiters get it in the order in which they came.  State
changes only after an operation has ended, never before an await, so that a cancelled call leaves
the file as if it had not been made.  Two kinds of operation outlive their caller instead: a write,
whose bytes may be in the file already (the turn stays taken until the kernel said how many), and
a read of a stream, whose bytes could not be read again (they wait for the next reader).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from io import UnsupportedOperation
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias

from ._gyre import Future, LoopCore

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .loop import Loop

__all__ = ["File", "running_loop", "settle", "view_of", "whole"]

# What gyre's file operations return: a Future, or something that has its result and is awaited
# once, at once.  What fails at once raises in the call.
Op: TypeAlias = Awaitable[Any]


def running_loop() -> Loop:
    """The running loop, which has to be gyre's."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, LoopCore):
        raise RuntimeError(
            f"gyre's files need gyre's event loop, and {loop!r} is running: start the program by "
            "gyre.run(main()), or give loop_factory=gyre.new_event_loop to asyncio.Runner"
        )
    return loop  # type: ignore[return-value]


def _look_at(op: asyncio.Future[Any]) -> None:
    """Takes the exception of an operation that nobody waits for."""
    if not op.cancelled():
        op.exception()


async def _outlast(loop: Loop, op: asyncio.Future[Any]) -> None:
    """Waits for an operation that goes on when its waiter is cancelled."""
    waiter = loop.create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    op.add_done_callback(wake)
    try:
        await waiter
    except BaseException:
        op.add_done_callback(_look_at)
        raise


async def settle(loop: Loop, op: Op) -> Any:
    """The result of an operation that goes on when its waiter is cancelled."""
    if isinstance(op, asyncio.Future):
        if not op.done():
            await _outlast(loop, op)
        return op.result()
    return await op


async def whole(loop: Loop, op: Op) -> Any:
    """The result of an operation that is waited for to its end, also by a cancelled waiter."""
    if not isinstance(op, asyncio.Future):
        return await op
    try:
        return await settle(loop, op)
    except asyncio.CancelledError:
        while not op.done():
            try:
                await _outlast(loop, op)
            except asyncio.CancelledError:
                pass  # the first one is raised
        raise


def view_of(data: ReadableBuffer) -> memoryview:
    """The bytes of an object, as io's files take them: anything contiguous, but no str."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class File:
    """One open descriptor; RawFile, BufferedFile and TextFile are made of it."""

    __slots__ = (
        "__weakref__",
        "_append",
        "_busy",
        "_closefd",
        "_closing",
        "_fd",
        "_fread",
        "_fwrite",
        "_in_flight",
        "_loop",
        "_mode",
        "_name",
        "_pending",
        "_pos",
        "_positioned",
        "_readable",
        "_late",
        "_seekable",
        "_stash",
        "_waiters",
        "_writable",
    )

    def __init__(self, loop: Loop, fd: int, name: Any, mode: str, closefd: bool = True) -> None:
        """Takes over a descriptor that open() made; raises what fstat(fd) raises."""
        self._fd = -1  # __del__ must find it when what follows raises
        self._closing: asyncio.Task[None] | None = None
        self._loop = loop
        self._name = name
        self._mode = mode
        self._closefd = closefd
        self._readable = "r" in mode or "+" in mode
        self._writable = "r" not in mode or "+" in mode
        self._append = "a" in mode
        self._busy = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._late: asyncio.Future[Any] | None = (
            None  # a write that has lost its caller and keeps the turn
        )
        self._pending: asyncio.Future[Any] | None = None  # a read of a stream, whoever takes it
        self._stash = b""  # of a stream: read, and wanted by nobody yet
        self._fread: Callable[[int, int, int], Awaitable[bytes]] = loop._file_read
        self._fwrite: Callable[[int, ReadableBuffer, int], Op] = loop._file_write
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            self._fread = loop._file_read_buffered
        kind = os.fstat(fd).st_mode
        # Ours to count where the offset means something; else the kernel's (offset -1).
        self._positioned = stat.S_ISREG(kind) or stat.S_ISBLK(kind)
        self._pos = -1
        self._seekable: bool | None = None
        if self._positioned:
            self._pos = os.lseek(fd, 0, os.SEEK_END if self._append else os.SEEK_CUR)
            self._seekable = True
        self._fd = fd

    # ---- turns ----

    async def _wait_turn(self) -> None:
        """Takes the turn.  Callers look at _busy first: `if self._busy: await ...`."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._pass_turn()
            raise

    def _pass_turn(self) -> None:
        """Gives the turn to the next one, unless a write without a caller still needs it."""
        if self._late is not None:
            return
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._busy = False

    def _track(self, op: Op) -> None:
        """close() will wait for it, if it has not ended."""
        if not isinstance(op, Future):
            return
        self._in_flight.add(op)
        op.add_done_callback(self._in_flight.discard)

    # ---- one read, one write; the caller has the turn ----

    async def _stream_read(self, size: int) -> bytes:
        """One read of what has no offsets.  A cancelled one leaves its bytes to the next."""
        data = self._stash
        if not data:
            if self._pending is None:
                op = self._fread(self._fd, size, -1)
                if isinstance(op, Future):
                    self._pending = op
                    self._track(op)
                else:
                    data = await op
            if self._pending is not None:
                data = await self._take_pending(self._pending)
        self._stash = data[size:]
        return data[:size]

    async def _take_pending(self, op: asyncio.Future[Any]) -> bytes:
        if not op.done():
            await _outlast(self._loop, op)
        self._pending = None
        data: bytes = op.result()
        return data

    async def _write_once(self, data: ReadableBuffer) -> int:
        """One write at the position, which moves by what was written."""
        op = self._fwrite(self._fd, data, -1 if self._append else self._pos)
        if isinstance(op, Future):
            self._track(op)
            try:
                await _outlast(self._loop, op)
            except asyncio.CancelledError:
                self._late = op
                op.add_done_callback(self._write_was_late)
                raise
            written: int = op.result()
        else:
            written = await op
        self._wrote(written)
        return written

    def _write_was_late(self, op: asyncio.Future[Any]) -> None:
        self._late = None
        if not op.cancelled() and op.exception() is None:
            self._wrote(op.result())
        self._pass_turn()

    async def _cut(self, size: int) -> None:
        """ftruncate(2).  Like a write it goes on without its caller, and keeps the turn."""
        op: Any = self._loop._file_truncate(self._fd, size)
        self._track(op)
        try:
            await settle(self._loop, op)
        except asyncio.CancelledError:
            self._late = op
            op.add_done_callback(self._cut_was_late)
            raise

    def _cut_was_late(self, _: asyncio.Future[Any]) -> None:
        self._late = None
        self._pass_turn()

    def _wrote(self, count: int) -> None:
        """Moves the position.  The one place where written bytes become part of the state."""
        if self._positioned:
            if not self._append:
                self._pos += count
            elif count > 0:  # writing nothing moves nothing
                self._pos = os.lseek(self._fd, 0, os.SEEK_CUR)

    # ---- checks ----

    def _refuse(self, writing: bool) -> NoReturn:
        if self._fd < 0:
            raise ValueError("I/O operation on closed file.")
        raise UnsupportedOperation("not writable" if writing else "not readable")

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError("I/O operation on closed file.")

    # ---- what is known without asking the disk ----

    @property
    def name(self) -> Any:
        """What was given to open(): a path, or a descriptor."""
        return self._name

    @property
    def mode(self) -> str:
        """The mode, as io's objects of this kind name it."""
        return self._mode

    @property
    def closefd(self) -> bool:
        """True if close() closes the descriptor."""
        return self._closefd

    @property
    def closed(self) -> bool:
        """True when close() has ended."""
        return self._fd < 0

    def fileno(self) -> int:
        """The descriptor.  Its own position is brought to where this file is."""
        self._check_open()
        if self._positioned and not self._append:
            os.lseek(self._fd, self._pos, os.SEEK_SET)
        return self._fd

    def isatty(self) -> bool:
        """True for a terminal."""
        self._check_open()
        return not self._positioned and os.isatty(self._fd)

    def readable(self) -> bool:
        """True if it was opened for reading."""
        self._check_open()
        return self._readable

    def writable(self) -> bool:
        """True if it was opened for writing."""
        self._check_open()
        return self._writable

    def seekable(self) -> bool:
        """True if it has a position."""
        self._check_open()
        if self._seekable is None:
            try:
                os.lseek(self._fd, 0, os.SEEK_CUR)
                self._seekable = True
            except OSError:
                self._seekable = False
        return self._seekable

    def __repr__(self) -> str:
        state = " closed" if self._fd < 0 else ""
        return f"<gyre.{type(self).__name__} name={self._name!r} mode={self.mode!r}{state}>"

    # ---- at an offset: no turn, any number at once ----

    async def pread(self, size: int, offset: int, /) -> bytes:
        """Up to size bytes from this offset; the position stays.  Many may be in flight."""
        fd = self._fd
        if fd < 0 or not self._readable:
            self._refuse(False)
        if offset < 0:
            _refuse_offset()
        op = self._fread(fd, size, offset)
        if op.__class__ is Future:
            self._track(op)
        data: bytes = await op
        return data

    async def pwrite(self, data: ReadableBuffer, offset: int, /) -> int:
        """Writes at this offset; the position stays.  How many bytes were written."""
        if self._fd < 0 or not self._writable:
            self._refuse(True)
        op = self._fwrite(self._fd, data, _offset(offset))
        self._track(op)
        written: int = await settle(self._loop, op)
        return written

    async def preadv(self, buffers: Iterable[WriteableBuffer], offset: int, /) -> int:
        """Fills these buffers, in order, from this offset; the number of bytes."""
        if self._fd < 0 or not self._readable:
            self._refuse(False)
        op = self._loop._file_readv(self._fd, list(buffers), _offset(offset))
        self._track(op)
        count: int = await op
        return count

    async def pread_into(self, buffer: WriteableBuffer, offset: int, /) -> int:
        """Fills a buffer from this offset, in one operation; the number of bytes, 0 at the end."""
        if self._fd < 0 or not self._readable:
            self._refuse(False)
        op = self._loop._file_readinto(self._fd, buffer, _offset(offset))
        self._track(op)
        count: int = await op
        return count

    async def pwritev(self, buffers: Iterable[ReadableBuffer], offset: int, /) -> int:
        """Writes these buffers, in order, at this offset; the number of bytes."""
        if self._fd < 0 or not self._writable:
            self._refuse(True)
        op = self._loop._file_writev(self._fd, list(buffers), _offset(offset))
        self._track(op)
        count: int = await settle(self._loop, op)
        return count

    async def _descriptor_call(self, op: Op) -> None:
        self._track(op)
        await settle(self._loop, op)

    async def flush(self) -> None:
        """Writes what is buffered; nothing for a raw file."""
        self._check_open()

    async def fsync(self) -> None:
        """flush(), then waits until data and metadata are on the disk."""
        await self.flush()
        await self._descriptor_call(self._loop._file_fsync(self._fd, False))

    async def fdatasync(self) -> None:
        """flush(), then waits until the data is on the disk."""
        await self.flush()
        await self._descriptor_call(self._loop._file_fsync(self._fd, True))

    async def fallocate(self, offset: int, length: int, mode: int = 0) -> None:
        """Reserves space as fallocate(2) does; mode 0 also extends the file."""
        await self.flush()
        await self._descriptor_call(self._loop._file_fallocate(self._fd, mode, offset, length))

    async def fadvise(self, offset: int, length: int, advice: int) -> None:
        """Tells the kernel what will be read (os.POSIX_FADV_...)."""
        self._check_open()
        await self._descriptor_call(self._loop._file_fadvise(self._fd, offset, length, advice))

    async def _size(self) -> int:
        """The size of the file, as of now."""
        result: os.stat_result = await self._loop._file_stat(self._fd)
        return result.st_size

    async def _seek_to(self, offset: int, whence: int) -> int:
        """Where a seek leads; moves the descriptor only where the position is the kernel's."""
        if not self._positioned:
            return os.lseek(self._fd, offset, whence)
        if whence == os.SEEK_SET:
            target = offset
        elif whence == os.SEEK_CUR:
            target = self._pos + offset
        elif whence == os.SEEK_END and self._pos_of_end_is_the_size():
            target = offset + await self._size()
        else:  # SEEK_DATA, SEEK_HOLE, the end of a block device
            op = self._loop._file_call(os.lseek, self._fd, offset, whence)
            self._track(op)
            found: int = await settle(self._loop, op)
            return found
        if target < 0:
            _refuse_offset()
        return target

    def _pos_of_end_is_the_size(self) -> bool:
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    # ---- the end ----

    async def close(self) -> None:
        """Waits for what is in flight, writes what is buffered, closes.  Again: does nothing.

        A cancelled close() goes on; what flush() would raise is raised when all is closed.
        """
        if self._fd < 0:
            return
        if self._loop.is_closed():  # by another loop's task; nothing is left to ask but the kernel
            self._close_here()
            return
        if self._closing is None or self._closing.done():  # done: cancelled before its first step
            if self._is_idle():
                op = self._close_descriptor()
                if op is not None:
                    await settle(self._loop, op)
                return
            self._closing = self._loop.create_task(self._close_slowly())
        await settle(self._loop, self._closing)

    async def aclose(self) -> None:
        """close(), by the name that contextlib.aclosing() and AnyIO know."""
        await self.close()

    def _is_idle(self) -> bool:
        """True if closing has nothing to wait for."""
        return not (self._busy or self._in_flight)

    def _close_descriptor(self) -> Op | None:
        fd, self._fd = self._fd, -1
        if self._closefd:
            return self._loop._file_close(fd)
        if self._positioned and not self._append:
            os.lseek(fd, self._pos, os.SEEK_SET)
        return None

    async def _close_slowly(self) -> None:
        if self._pending is not None and not self._busy:
            self._pending.cancel()  # a read that nobody waits for
        op = None
        try:
            if self._busy:
                await self._wait_turn()
            self._busy = True
            try:
                await self._end()
            finally:
                await self._land()
                op = self._close_descriptor()
                self._pass_turn()
        finally:
            self._closing = None
        if op is not None:
            await settle(self._loop, op)

    async def _land(self) -> None:
        """Until nothing is in flight: what is in use is not closed.

        This is a task of its own that asyncio.run() cancels too at its end.  It goes on, and who
        waits for the same close() is told that the file is closed, not of that cancel.
        """
        while self._in_flight:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(set(self._in_flight))

    async def _end(self) -> None:
        """What is to be done before the descriptor is closed; the caller has the turn."""

    def _last_words(self) -> bytes:
        """What an unclosed file has not written."""
        return b""

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._fd < 0:
            return
        if self._closefd:
            _warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._close_here()

    def _close_here(self) -> None:
        """Without the loop: writes what is buffered and closes, by calls that may block."""
        fd, self._fd = self._fd, -1
        try:
            view = memoryview(self._last_words())
            while view:
                if self._positioned and not self._append:
                    count = os.pwrite(fd, view, self._pos)
                    self._pos += count
                else:
                    count = os.write(fd, view)
                view = view[count:]
        finally:
            if self._closefd:
                os.close(fd)

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _refuse_offset() -> NoReturn:
    """An offset below zero: to the primitives it would mean the position."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _offset(offset: int) -> int:
    if offset < 0:
        _refuse_offset()
    return offset
