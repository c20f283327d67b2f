"""RawFile: every call is one operation of the kernel, nothing is buffered (open(..., buffering=0)).

DirectFile: the same past the page cache (O_DIRECT), where the kernel wants multiples of its blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._file_base import File, settle, view_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .loop import Loop

__all__ = ["DirectFile", "RawFile"]

READ_ALL_FIRST = 64 * 1024  # when the size is not known
READ_ALL_MOST = 8 * 1024 * 1024


class RawFile(File):
    """What io.FileIO is, awaitable."""

    __slots__ = ()

    async def read(self, size: int | None = -1, /) -> bytes:
        """At most size bytes in one operation, all up to the end if size < 0.

        b"" at the end.  A non-blocking descriptor is waited for like any other.
        """
        if size is None or size < 0:
            return await self.readall()
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            if self._fd < 0 or not self._readable:
                self._refuse(False)
            if not self._positioned:
                return await self._stream_read(size)
            data: bytes = await self._fread(self._fd, size, self._pos)
            self._pos += len(data)
            return data
        finally:
            if self._waiters:
                self._pass_turn()
            else:
                self._busy = False

    async def _read_once(self, size: int) -> bytes:
        if not self._positioned:
            return await self._stream_read(size)
        data: bytes = await self._fread(self._fd, size, self._pos)
        self._pos += len(data)
        return data

    async def readall(self) -> bytes:
        """Everything up to the end."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        before, parts = self._pos, []
        try:
            if self._fd < 0 or not self._readable:
                self._refuse(False)
            want = READ_ALL_FIRST
            if self._positioned:
                # One more than the size: a full answer that is short says that this was the end.
                want = max(1, await self._size() - self._pos + 1)
            while data := await self._read_once(want):
                parts.append(data)
                if len(data) == want:
                    want = min(max(READ_ALL_FIRST, 2 * want), READ_ALL_MOST)
                elif self._positioned:
                    want = READ_ALL_FIRST
        except BaseException:
            self._pos = before
            if not self._positioned:
                self._stash = b"".join(parts) + self._stash
            raise
        finally:
            self._pass_turn()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills a buffer in one operation; the number of bytes, 0 at the end."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            if self._fd < 0 or not self._readable:
                self._refuse(False)
            if self._positioned:
                count: int = await self._loop._file_readinto(self._fd, buffer, self._pos)
                self._pos += count
                return count
            view = view_of(buffer)
            data = await self._stream_read(len(view))
            view[: len(data)] = data
            return len(data)
        finally:
            self._pass_turn()

    async def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its end, at most size bytes of it.  Byte by byte, so slow."""
        line = bytearray()
        limit = -1 if size is None else size
        while limit < 0 or len(line) < limit:
            data = await self.read(1)
            if not data:
                break
            line += data
            if data == b"\n":
                break
        return bytes(line)

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines up to the end, or until their bytes reach the hint."""
        lines, total = [], 0
        while line := await self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint < total:
                break
        return lines

    async def write(self, data: ReadableBuffer, /) -> int:
        """Writes in one operation; how many bytes were written, which may be fewer."""
        turn = self._positioned  # a terminal can be written to while a read waits
        if turn:
            if self._busy:
                await self._wait_turn()
            self._busy = True
        try:
            if self._fd < 0 or not self._writable:
                self._refuse(True)
            if turn:
                return await self._write_once(data)
        finally:
            if turn:
                self._pass_turn()
        # What has no turn must not pass one when it ends after its caller.
        op = self._fwrite(self._fd, data, -1)
        self._track(op)
        written: int = await settle(self._loop, op)
        return written

    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Writes each of them, whole."""
        self._check_open()
        for line in lines:
            view = view_of(line)
            if not self._writable:
                self._refuse(True)
            while view:
                view = view[await self.write(view) :]

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position; the new one."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_open()
            self._pos = target = await self._seek_to(offset, whence)
            return target
        finally:
            if not self._positioned:
                self._pos = -1
            self._pass_turn()

    async def tell(self) -> int:
        """The position."""
        if self._busy:
            await self._wait_turn()
            self._pass_turn()
        self._check_open()
        return self._pos if self._positioned else os.lseek(self._fd, 0, os.SEEK_CUR)

    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file this long (None: up to the position), which stays; the size."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            if self._fd < 0 or not self._writable:
                self._refuse(True)
            if size is None:
                size = self._pos if self._positioned else os.lseek(self._fd, 0, os.SEEK_CUR)
            await self._cut(size)
            return size
        finally:
            self._pass_turn()

    def __aiter__(self) -> RawFile:
        self._check_open()
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line


class DirectFile(RawFile):
    """A raw file that was opened with direct=True: requests have to be whole blocks.

    alignment is (memory, offset and length) in bytes.  gyre.aligned_buffer() makes buffers for
    readinto(), preadv(), write(), pwrite(); bytes objects are copied through such a buffer.
    """

    __slots__ = ("_memory", "_block")

    def __init__(self, loop: Loop, fd: int, name: Any, mode: str, closefd: bool = True) -> None:
        self._fd = -1
        self._memory, self._block = loop._file_alignment(fd)
        super().__init__(loop, fd, name, mode, closefd)

    @property
    def alignment(self) -> tuple[int, int]:
        """What addresses, and what offsets and lengths, have to be multiples of."""
        return self._memory, self._block

    def _check_blocks(self, what: str, number: int) -> None:
        if number % self._block:
            raise ValueError(
                f"O_DIRECT on {self._name!r} needs {what} in multiples of {self._block} bytes, "
                f"not {number}"
            )

    def _check_buffer(self, buffer: ReadableBuffer) -> None:
        self._check_blocks("lengths", len(view_of(buffer)))
        address = self._loop._file_address(buffer)
        if address % self._memory:
            raise ValueError(
                f"O_DIRECT on {self._name!r} needs buffers at multiples of {self._memory} bytes, "
                f"as gyre.aligned_buffer() makes them; this one is {address % self._memory} beside"
            )

    async def _read_at(self, size: int, offset: int) -> bytes:
        self._check_blocks("offsets", offset)
        self._check_blocks("lengths", size)
        buffer = memoryview(self._loop._file_buffer(size, self._memory))
        op = self._loop._file_readinto(self._fd, buffer, offset)
        self._track(op)
        count: int = await op
        return bytes(buffer[:count])

    def _aligned(self, data: ReadableBuffer, offset: int) -> ReadableBuffer:
        """The data itself, or a copy of bytes that may lie anywhere."""
        view = view_of(data)
        self._check_blocks("offsets", offset)
        self._check_blocks("lengths", len(view))
        if not len(view):
            return data
        if not isinstance(data, bytes):
            self._check_buffer(data)
            return data
        buffer = memoryview(self._loop._file_buffer(len(view), self._memory))
        buffer[: len(view)] = view
        return buffer

    async def _read_once(self, size: int) -> bytes:
        if self._pos % self._block and self._pos >= await self._size():
            return b""  # the end, where the last block was not whole
        data = await self._read_at(size, self._pos)
        self._pos += len(data)
        return data

    async def read(self, size: int | None = -1, /) -> bytes:
        """At most size bytes in one operation, all up to the end if size < 0."""
        if size is None or size < 0:
            return await self.readall()
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            if self._fd < 0 or not self._readable:
                self._refuse(False)
            return await self._read_once(size)
        finally:
            self._pass_turn()

    async def readall(self) -> bytes:
        """Everything up to the end."""
        parts = []
        while data := await self.read(max(self._block, 1024 * 1024)):
            parts.append(data)
        return b"".join(parts)

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills a buffer of gyre.aligned_buffer(); the number of bytes, 0 at the end."""
        self._check_buffer(buffer)
        self._check_blocks("offsets", self._pos)
        return await super().readinto(buffer)

    async def pread_into(self, buffer: WriteableBuffer, offset: int, /) -> int:
        """Fills a buffer of gyre.aligned_buffer() from this offset; the number of bytes."""
        self._check_buffer(buffer)
        self._check_blocks("offsets", offset)
        return await super().pread_into(buffer, offset)

    async def pread(self, size: int, offset: int, /) -> bytes:
        """Up to size bytes from this offset; the position stays.  Many may be in flight."""
        if self._fd < 0 or not self._readable:
            self._refuse(False)
        return await self._read_at(size, offset)

    async def preadv(self, buffers: Iterable[WriteableBuffer], offset: int, /) -> int:
        """Fills these buffers, in order, from this offset; the number of bytes."""
        buffers = list(buffers)
        self._check_blocks("offsets", offset)
        for buffer in buffers:
            self._check_buffer(buffer)
        return await super().preadv(buffers, offset)

    async def _write_once(self, data: ReadableBuffer) -> int:
        offset = 0 if self._append else self._pos
        return await super()._write_once(self._aligned(data, offset))

    async def pwrite(self, data: ReadableBuffer, offset: int, /) -> int:
        """Writes at this offset; the position stays.  How many bytes were written."""
        return await super().pwrite(self._aligned(data, offset), offset)

    async def pwritev(self, buffers: Iterable[ReadableBuffer], offset: int, /) -> int:
        """Writes these buffers, in order, at this offset; the number of bytes."""
        self._check_blocks("offsets", offset)
        aligned = [self._aligned(buffer, 0) for buffer in buffers]
        return await super().pwritev(aligned, offset)
