"""BufferedFile: binary files with a buffer of their own (open(..., "rb"), "wb", "r+b" ...).

Either `_buf[_i:]` holds bytes that were read ahead, and `_pos` is the offset of its end; or `_out`
holds bytes to be written at `_pos`; never both.  What the buffer can answer is answered without a
suspension, and the first lines of the hot methods do only that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Any

from ._file_base import File, view_of
from ._file_raw import READ_ALL_FIRST, READ_ALL_MOST
from ._gyre import Future

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .loop import Loop

__all__ = ["BUFFER_BYTES", "BufferedFile"]

BUFFER_BYTES = 128 * 1024
FIRST_FILL = 8 * 1024  # after a seek: what is read there may be all that is wanted


class BufferedFile(File):
    """What io.BufferedReader, BufferedWriter and BufferedRandom are, awaitable."""

    __slots__ = ("_buf", "_fill", "_i", "_limit", "_out", "_size_of_buffer")

    def __init__(
        self,
        loop: Loop,
        fd: int,
        name: Any,
        mode: str,
        closefd: bool = True,
        size: int = BUFFER_BYTES,
    ) -> None:
        self._buf = b""
        self._i = 0
        self._out = bytearray()
        super().__init__(loop, fd, name, mode, closefd)
        self._size_of_buffer = size
        self._fill = min(size, FIRST_FILL)
        self._limit = size if self._writable else -1  # of _out; -1 also when closed

    # ---- the buffer; the caller has the turn ----

    def _check_read(self) -> None:
        if self._fd < 0 or not self._readable:
            self._refuse(False)

    def _check_write(self) -> None:
        if self._fd < 0 or not self._writable:
            self._refuse(True)

    def _tell(self) -> int:
        """Where the next byte is read or written."""
        pos = self._pos if self._positioned else os.lseek(self._fd, 0, os.SEEK_CUR)
        return pos - (len(self._buf) - self._i) + len(self._out)

    def _drop_read_ahead(self) -> None:
        if self._i < len(self._buf):
            if self._positioned:
                self._pos -= len(self._buf) - self._i
            elif self._seekable:
                os.lseek(self._fd, self._i - len(self._buf), os.SEEK_CUR)
        self._buf = b""
        self._i = 0

    def _wrote(self, count: int) -> None:
        super()._wrote(count)
        if self._out:  # it was what _put_out() had given
            self._out = self._out[count:]

    async def _put_out(self) -> None:
        """Writes _out.  What an error or a cancellation leaves unwritten stays in it."""
        while self._out:
            await self._write_once(self._out)

    async def _get(self, size: int) -> bytes:
        """One read at the position."""
        if not self._positioned:
            return await self._stream_read(size)
        data: bytes = await self._fread(self._fd, size, self._pos)
        self._pos += len(data)
        return data

    async def _more(self) -> bool:
        """Reads more behind what is in the buffer.  False at the end of the file."""
        if self._out:
            await self._put_out()
        # A long line is read in ever larger pieces, or joining them would take most of the time.
        data = await self._get(max(self._fill, len(self._buf) - self._i))
        if not data:
            return False
        if len(data) >= self._fill and self._fill < self._size_of_buffer:
            self._fill = min(2 * self._fill, self._size_of_buffer)  # read on: in larger pieces
        self._buf = self._buf[self._i :] + data if self._i < len(self._buf) else data
        self._i = 0
        return True

    def _take(self, size: int) -> bytes:
        i = self._i
        data = self._buf[i : i + size]
        self._i = i + len(data)
        return data

    async def _read(self, size: int) -> bytes:
        """As io does it: size bytes, or fewer at the end."""
        if self._out:
            await self._put_out()
        have = len(self._buf) - self._i
        if size <= have:
            return self._take(size)
        parts = [self._take(have)] if have else []
        missing = size - have
        try:
            while missing > 0:
                want = missing if missing >= self._fill else self._fill
                if self._positioned:
                    data: bytes = await self._fread(self._fd, want, self._pos)
                    self._pos += len(data)
                else:
                    data = await self._stream_read(want)
                if not data:
                    break
                parts.append(data)
                missing -= len(data)
        except BaseException:
            self._buf = b"".join(parts)
            self._i = 0
            raise
        self._buf = b""
        self._i = 0
        if missing < 0:
            self._buf = parts.pop()
            self._i = len(self._buf) + missing
            parts.append(self._buf[: self._i])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_all(self) -> bytes:
        if self._out:
            await self._put_out()
        want = READ_ALL_FIRST
        if self._positioned:
            want = max(1, await self._size() - self._pos + 1)
        parts = [self._buf[self._i :]] if self._i < len(self._buf) else []
        try:
            while data := await self._get(want):
                parts.append(data)
                grow = len(data) == want
                want = min(max(READ_ALL_FIRST, 2 * want), READ_ALL_MOST) if grow else READ_ALL_FIRST
        except BaseException:
            self._buf = b"".join(parts)
            self._i = 0
            raise
        self._buf = b""
        self._i = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _line(self, size: int) -> bytes:
        """One line, at most size bytes of it if size >= 0."""
        searched = 0
        while True:
            start = self._i
            stop = len(self._buf) if size < 0 else min(len(self._buf), start + size)
            end = self._buf.find(b"\n", start + searched, stop) + 1
            if not end and 0 <= size <= stop - start:
                end = stop
            if end:
                break
            searched = stop - start
            if not await self._more():
                end = len(self._buf)
                break
        data = self._buf[self._i : end]
        self._i = end
        return data

    # ---- reading ----

    async def read(self, size: int | None = -1, /) -> bytes:
        """size bytes, fewer only at the end; all up to the end if size < 0."""
        if self._busy:
            await self._wait_turn()
        elif size is not None and size > 0:
            i = self._i
            end = i + size
            buf = self._buf
            if end <= len(buf):
                self._i = end
                return buf[i:end]
        self._busy = True
        try:
            self._check_read()
            if size is None or size < 0:
                if size is not None and size < -1:
                    raise ValueError("read length must be non-negative or -1")
                return await self._read_all()
            if size >= self._fill and self._positioned and self._i >= len(self._buf):
                if self._out:
                    await self._put_out()
                # Large, and nothing of it here: what the kernel answers goes out as it is.
                data: bytes = await self._fread(self._fd, size, self._pos)
                self._pos += len(data)
                self._buf, self._i = data, 0
                if len(data) == size:
                    self._buf = b""
                    return data
            return await self._read(size)
        finally:
            if self._waiters or self._late is not None:
                self._pass_turn()
            else:
                self._busy = False

    async def readall(self) -> bytes:
        """Everything up to the end."""
        return await self.read()

    async def read1(self, size: int = -1, /) -> bytes:
        """What the buffer has, else the answer to one read of the kernel; at most size bytes."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_read()
            return await self._read1(self._size_of_buffer if size < 0 else size)
        finally:
            self._pass_turn()

    async def _read1(self, size: int) -> bytes:
        if self._i >= len(self._buf) and size:
            if self._out:
                await self._put_out()
            if size >= self._fill:
                self._buf, self._i = b"", 0
                return await self._get(size)
            await self._more()
        return self._take(size)

    async def peek(self, size: int = 0, /) -> bytes:
        """What the next read() would begin with; the position stays.  b"" at the end only."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_read()
            if self._i >= len(self._buf):
                await self._more()
            return self._buf[self._i :]
        finally:
            self._pass_turn()

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills a buffer, fewer bytes only at the end; how many."""
        view = view_of(buffer)
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_read()
            return await self._read_into(view)
        finally:
            self._pass_turn()

    async def _read_into(self, view: memoryview) -> int:
        """Straight into the caller's memory what is larger than the buffer."""
        if self._out:
            await self._put_out()
        before = self._buf, self._i, self._pos
        done = 0
        try:
            while self._positioned and len(view) - done >= self._size_of_buffer:
                data = self._take(len(view))
                view[done : done + len(data)] = data
                done += len(data)
                if done < len(view):
                    self._buf, self._i = b"", 0
                    count = await self._loop._file_readinto(self._fd, view[done:], self._pos)
                    self._pos += count
                    done += count
                    if not count:
                        return done
            rest = await self._read(len(view) - done)
        except BaseException:
            if self._positioned:
                self._buf, self._i, self._pos = before
            raise
        view[done : done + len(rest)] = rest
        return done + len(rest)

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """read1() into a buffer."""
        view = view_of(buffer)
        data = await self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    async def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its end, at most size bytes of it; b"" at the end of the file."""
        if self._busy:
            await self._wait_turn()
        elif size == -1:
            i = self._i
            end = self._buf.find(b"\n", i) + 1
            if end:
                self._i = end
                return self._buf[i:end]
        self._busy = True
        try:
            self._check_read()
            return await self._line(-1 if size is None else size)
        finally:
            self._pass_turn()

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines up to the end, or until their bytes reach the hint."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_read()
            if hint is None or hint <= 0:
                return _lines(await self._read_all())
            lines: list[bytes] = []
            total = 0
            while total <= hint and (line := await self._line(-1)):
                lines.append(line)
                total += len(line)
            return lines
        finally:
            self._pass_turn()

    def __aiter__(self) -> BufferedFile:
        self._check_open()
        return self

    async def __anext__(self) -> bytes:
        if self._busy:
            await self._wait_turn()
        else:
            i = self._i
            end = self._buf.find(b"\n", i) + 1
            if end:
                self._i = end
                return self._buf[i:end]
        self._busy = True
        try:
            self._check_read()
            line = await self._line(-1)
        finally:
            self._pass_turn()
        if not line:
            raise StopAsyncIteration
        return line

    # ---- writing ----

    async def write(self, data: ReadableBuffer, /) -> int:
        """Takes all of it, into the buffer while there is room; the number of bytes."""
        if self._busy:
            await self._wait_turn()
        elif type(data) is bytes and self._i >= len(self._buf):
            out = self._out
            size = len(data)
            if len(out) + size <= self._limit:
                out += data
                return size
        self._busy = True
        try:
            if self._fd < 0 or not self._writable:
                view_of(data)  # a str is a TypeError before all else
                self._check_write()
            return await self._write(view_of(data))
        finally:
            self._pass_turn()

    async def _write(self, view: memoryview) -> int:
        if self._buf:
            self._drop_read_ahead()
        size = len(view)
        if len(self._out) + size > self._limit:
            await self._put_out()
            if size > self._limit:
                while view:
                    view = view[await self._write_once(view) :]
                return size
        self._out += view
        return size

    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Writes each of them."""
        self._check_open()
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Writes what is buffered; what cannot be written stays there, and the error says why."""
        if not self._busy and not self._out:
            self._check_open()
            return
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_open()
            await self._put_out()
        finally:
            self._pass_turn()

    # ---- the position ----

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position; the new one."""
        if self._busy:
            await self._wait_turn()
        elif whence == 0 and not self._out:
            behind = self._pos - offset  # how far the buffer's end lies behind the target
            if 0 < behind <= len(self._buf):
                self._i = len(self._buf) - behind
                return offset
        self._busy = True
        try:
            self._check_open()
            return await self._seek(offset, whence)
        finally:
            self._pass_turn()

    async def _seek(self, offset: int, whence: int) -> int:
        if not self.seekable():
            raise UnsupportedOperation("File or stream is not seekable.")
        if whence not in _WHENCE:
            raise ValueError(f"whence value {whence} unsupported")
        if self._out:
            await self._put_out()
        if whence == os.SEEK_CUR:
            offset += self._tell()
            whence = os.SEEK_SET
        target = await self._seek_to(offset, whence)
        if self._positioned:
            behind = self._pos - target
            if 0 <= behind <= len(self._buf):
                self._i = len(self._buf) - behind
                return target
            self._pos = target
            self._fill = min(self._size_of_buffer, FIRST_FILL)
        self._buf, self._i = b"", 0
        return target

    async def tell(self) -> int:
        """The position, what is buffered taken into account."""
        if self._busy:
            await self._wait_turn()
            self._pass_turn()
        self._check_open()
        if not self.seekable():
            raise UnsupportedOperation("File or stream is not seekable.")
        return self._tell()

    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file this long (None: up to the position), which stays; the size."""
        if self._busy:
            await self._wait_turn()
        self._busy = True
        try:
            self._check_write()
            await self._put_out()
            self._drop_read_ahead()
            if size is None:
                size = self._tell()
            await self._cut(size)
            return size
        finally:
            self._pass_turn()

    # ---- at an offset ----

    async def pread(self, size: int, offset: int, /) -> bytes:
        """Up to size bytes from this offset; the position stays.  Many may be in flight.

        Bytes that write() has buffered are written first.
        """
        if self._out:
            await self.flush()
        fd = self._fd
        if fd < 0 or not self._readable or offset < 0:
            return await super().pread(size, offset)  # which says what is wrong
        op = self._fread(fd, size, offset)
        if op.__class__ is Future:
            self._track(op)
        data: bytes = await op
        return data

    async def preadv(self, buffers: Iterable[WriteableBuffer], offset: int, /) -> int:
        """Fills these buffers, in order, from this offset; the number of bytes."""
        if self._out:
            await self.flush()
        return await super().preadv(buffers, offset)

    async def pread_into(self, buffer: WriteableBuffer, offset: int, /) -> int:
        """Fills a buffer from this offset, in one operation; the number of bytes, 0 at the end."""
        if self._out:
            await self.flush()
        return await super().pread_into(buffer, offset)

    async def _before_pwrite(self) -> None:
        """What is buffered would hide what is written, or be written over it later."""
        if self._out or self._buf:
            if self._busy:
                await self._wait_turn()
            self._busy = True
            try:
                self._check_write()
                await self._put_out()
                self._drop_read_ahead()
            finally:
                self._pass_turn()

    async def pwrite(self, data: ReadableBuffer, offset: int, /) -> int:
        """Writes at this offset; the position stays.  How many bytes were written."""
        await self._before_pwrite()
        return await super().pwrite(data, offset)

    async def pwritev(self, buffers: Iterable[ReadableBuffer], offset: int, /) -> int:
        """Writes these buffers, in order, at this offset; the number of bytes."""
        await self._before_pwrite()
        return await super().pwritev(buffers, offset)

    # ---- the descriptor and the end ----

    def _is_idle(self) -> bool:
        return not (self._busy or self._in_flight or self._out)

    def _close_descriptor(self) -> Any:
        self._limit = -1
        self._buf, self._i = b"", 0
        self._out = bytearray()
        return super()._close_descriptor()

    def _close_here(self) -> None:
        try:
            super()._close_here()
        finally:
            self._limit = -1
            self._buf, self._i = b"", 0
            self._out = bytearray()

    async def _end(self) -> None:
        await self._put_out()

    def _last_words(self) -> bytes:
        return bytes(self._out)


_WHENCE = {os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE}


def _lines(data: bytes) -> list[bytes]:
    """data cut behind each newline."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
    return lines
