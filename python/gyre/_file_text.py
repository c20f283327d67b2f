"""TextFile: text over a BufferedFile (open(..., "r"), "w" ...).

`_text` is what the bytes in `_fed` decode to from the decoder state `_before`, and `_at` how much
of it has been read: that is enough to say where in the file any character begins (tell()).  Both
grow only behind what has not been read, so a cancelled read leaves them valid.  The turn is the
buffered file's.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from collections.abc import Iterable
from io import UnsupportedOperation
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._file_buffered import BufferedFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["TextFile"]

CHUNK_BYTES = 8 * 1024
CHUNK_BYTES_MOST = 128 * 1024

# Encoders without a state: str.encode() says the same, and faster.
_STATELESS = {"ascii", "iso8859-1", "utf-8"}


class Cookie(NamedTuple):
    """What tell() returns, as fields: where to seek, which decoder state to set there, how many
    bytes to feed it then, and how many characters of the answer to skip."""

    start: int
    flags: int = 0
    feed: int = 0
    skip: int = 0
    final: int = 0

    def pack(self) -> int:
        """One integer, which is the plain offset in the common case."""
        high = self.flags << 1 | self.final
        return self.start | self.feed << 64 | self.skip << 128 | high << 192

    @classmethod
    def unpack(cls, number: int) -> Cookie:
        mask = (1 << 64) - 1
        high = number >> 192
        return cls(number & mask, high >> 1, number >> 64 & mask, number >> 128 & mask, high & 1)


def default_encoding() -> str:
    """What open() uses when no encoding is given."""
    return "utf-8" if sys.flags.utf8_mode else locale.getencoding()


class TextFile:
    """What io.TextIOWrapper is, awaitable."""

    __slots__ = (
        "__weakref__",
        "_at",
        "_before",
        "_buffer",
        "_chunk",
        "_decoder",
        "_encode",
        "_encoder",
        "_encoding",
        "_ends",
        "_errors",
        "_fed",
        "_line_buffering",
        "_mode",
        "_text",
        "_write_newline",
    )

    def __init__(
        self,
        buffer: BufferedFile,
        encoding: str,
        errors: str,
        newline: str | None,
        line_buffering: bool,
        mode: str,
    ) -> None:
        """Everything has been checked by open()."""
        self._buffer = buffer
        self._encoding = encoding
        self._errors = errors
        self._mode = mode
        self._line_buffering = line_buffering
        self._write_newline = newline if newline and newline != "\n" else ""
        # How a line ends; None: at any of \n, \r, \r\n.
        self._ends = None if newline == "" else newline or "\n"
        self._text = ""
        self._at = 0
        self._fed: bytes | None = None  # None: nothing has been read since the last seek
        self._before: tuple[bytes, int] = (b"", 0)
        self._chunk = CHUNK_BYTES
        info = codecs.lookup(encoding)
        decoder: Any = None
        if buffer._readable:
            assert info.incrementaldecoder is not None
            decoder = info.incrementaldecoder(errors)
            if not newline:
                decoder = io.IncrementalNewlineDecoder(decoder, translate=newline is None)
        self._decoder = decoder
        self._encoder: Any = None
        if buffer._writable:
            assert info.incrementalencoder is not None
            self._encoder = info.incrementalencoder(errors)
            if buffer.seekable() and buffer._tell() != 0:
                self._encoder.setstate(0)  # no byte order mark in the middle
        self._encode = None if info.name not in _STATELESS else info.name

    # ---- what is known without asking the disk ----

    @property
    def buffer(self) -> BufferedFile:
        """The binary file below."""
        return self._buffer

    @property
    def name(self) -> Any:
        """What was given to open(): a path, or a descriptor."""
        return self._buffer._name

    @property
    def mode(self) -> str:
        """The mode that was given to open()."""
        return self._mode

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._encoding

    @property
    def errors(self) -> str:
        """What happens to bytes or characters that the encoding has not."""
        return self._errors

    @property
    def line_buffering(self) -> bool:
        """True if the end of a line flushes."""
        return self._line_buffering

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines that were seen so far, where they are translated or looked at."""
        return getattr(self._decoder, "newlines", None)

    @property
    def closed(self) -> bool:
        """True when close() has ended."""
        return self._buffer._fd < 0

    def fileno(self) -> int:
        """The descriptor."""
        return self._buffer.fileno()

    def isatty(self) -> bool:
        """True for a terminal."""
        return self._buffer.isatty()

    def readable(self) -> bool:
        """True if it was opened for reading."""
        return self._buffer.readable()

    def writable(self) -> bool:
        """True if it was opened for writing."""
        return self._buffer.writable()

    def seekable(self) -> bool:
        """True if it has a position."""
        return self._buffer.seekable()

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return (
            f"<gyre.TextFile name={self.name!r} mode={self._mode!r} "
            f"encoding={self._encoding!r}{state}>"
        )

    # ---- reading; the caller has the turn ----

    async def _more(self, size: int) -> bool:
        """Decodes another piece behind the text at hand.  False at the end of the file."""
        buffer = self._buffer
        if buffer._out:
            await buffer._put_out()
        data = await buffer._read1(size)
        if self._at >= len(self._text):
            self._before = self._decoder.getstate()
            self._fed, self._text, self._at = b"", "", 0
        self._fed = (self._fed or b"") + data
        self._text += self._decoder.decode(data, not data)
        return bool(data)

    async def _read(self, size: int) -> str:
        missing = size - (len(self._text) - self._at)
        while missing > 0 and await self._more(max(self._chunk, missing)):
            missing = size - (len(self._text) - self._at)
        return self._take(self._at + size)

    async def _read_all(self) -> str:
        data = await self._buffer._read_all()
        rest: str = self._text[self._at :] + self._decoder.decode(data, True)
        self._forget()
        return rest

    def _take(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at += len(text)
        return text

    def _forget(self) -> None:
        """There is no text at hand any more."""
        self._text, self._at, self._fed = "", 0, None

    def _end_of_line(self, searched: int) -> int:
        """The index behind the line that begins at _at; 0: its end has not been read yet."""
        text, start = self._text, self._at + searched
        if self._ends is not None:
            found = text.find(self._ends, max(self._at, start - len(self._ends) + 1))
            return found + len(self._ends) if found >= 0 else 0
        line_feed = text.find("\n", start)
        stop = len(text) if line_feed < 0 else line_feed
        carriage_return = text.find("\r", start, stop)
        if carriage_return < 0:
            return line_feed + 1
        # The decoder never cuts \r\n in two.
        return carriage_return + (2 if text.startswith("\n", carriage_return + 1) else 1)

    async def _line(self, size: int) -> str:
        searched = 0
        while True:
            end = self._end_of_line(searched)
            have = len(self._text) - self._at
            if 0 <= size <= (end - self._at if end else have):
                return self._take(self._at + size)
            if end:
                return self._take(end)
            searched = have
            # A file that is read on line by line is read in larger pieces.
            self._chunk = min(2 * self._chunk, CHUNK_BYTES_MOST)
            if not await self._more(max(self._chunk, have)):
                end = self._end_of_line(searched)  # the decoder may have held a last \r back
                return self._take(end or len(self._text))

    def _check_read(self) -> None:
        self._buffer._check_read()

    # ---- reading ----

    async def read(self, size: int | None = -1, /) -> str:
        """size characters, fewer only at the end; all up to the end if size < 0."""
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        buffer._busy = True
        try:
            buffer._check_read()
            if size is None or size < 0:
                return await self._read_all()
            return await self._read(size)
        finally:
            buffer._pass_turn()

    async def readall(self) -> str:
        """Everything up to the end."""
        return await self.read()

    async def readline(self, size: int | None = -1, /) -> str:
        """One line with its end, at most size characters of it; "" at the end of the file."""
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        buffer._busy = True
        try:
            buffer._check_read()
            return await self._line(-1 if size is None else size)
        finally:
            buffer._pass_turn()

    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """The lines up to the end, or until their characters reach the hint."""
        lines: list[str] = []
        total = 0
        while line := await self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint < total:
                break
        return lines

    def __aiter__(self) -> TextFile:
        self._buffer._check_open()
        return self

    async def __anext__(self) -> str:
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        elif self._ends is not None:
            at = self._at
            end = self._text.find(self._ends, at)
            if end >= 0:
                self._at = end = end + len(self._ends)
                return self._text[at:end]
        buffer._busy = True
        try:
            buffer._check_read()
            line = await self._line(-1)
        finally:
            buffer._pass_turn()
        if not line:
            raise StopAsyncIteration
        return line

    # ---- writing ----

    async def write(self, text: str, /) -> int:
        """Takes all of it, into the buffer while there is room; the number of characters."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        buffer._busy = True
        try:
            buffer._check_write()
            if self._fed is not None:
                self._forget()
                self._decoder.reset()
            translated = text.replace("\n", self._write_newline) if self._write_newline else text
            if self._encode is not None:
                data = translated.encode(self._encode, self._errors)
            else:
                data = self._encoder.encode(translated)
            if not buffer._buf and len(buffer._out) + len(data) <= buffer._limit:
                buffer._out += data
            else:
                await buffer._write(memoryview(data))
            if self._line_buffering and ("\n" in text or "\r" in text):
                await buffer._put_out()
            return len(text)
        finally:
            buffer._pass_turn()

    async def writelines(self, lines: Iterable[str], /) -> None:
        """Writes each of them."""
        self._buffer._check_open()
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Writes what is buffered; what cannot be written stays there, and the error says why."""
        await self._buffer.flush()

    # ---- the position ----

    def _check_seekable(self) -> None:
        if not self._buffer.seekable():
            raise UnsupportedOperation("underlying stream is not seekable")

    async def tell(self) -> int:
        """A number for seek() to come back here, in this file or another of the same content.

        The plain offset wherever that is enough; opaque where the decoder has a state.
        """
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        buffer._busy = True
        try:
            buffer._check_open()
            self._check_seekable()
            await buffer._put_out()
            return self._tell()
        finally:
            buffer._pass_turn()

    def _tell(self) -> int:
        here = self._buffer._tell()
        if self._fed is None or self._decoder is None:
            return here
        pending, flags = self._decoder.getstate()
        if self._at >= len(self._text):
            return Cookie(here - len(pending), flags).pack()
        held, flags = self._before
        cookie = Cookie(here - len(self._fed) - len(held), flags)
        return self._locate(cookie, held + self._fed).pack()

    def _locate(self, cookie: Cookie, data: bytes) -> Cookie:
        """The latest clean point at or before character _at of what data decodes to."""
        decoder, wanted = self._decoder, self._at
        state = decoder.getstate()
        try:
            # Back from a guess, in growing steps, to a point where the decoder holds nothing.
            fed, step = min(len(data), wanted * len(data) // max(1, len(self._text)) + 1), 1
            while True:
                decoder.setstate((b"", cookie.flags))
                count = len(decoder.decode(data[:fed]))
                pending, flags = decoder.getstate()
                if not fed or (count <= wanted and not pending):
                    break
                fed, step = max(0, fed - step), 2 * step
            best = Cookie(cookie.start + fed, flags, 0, wanted - count)
            # On, byte by byte, to the character.
            since, chars = 0, 0
            for number, byte in enumerate(data[fed:], 1):
                if count + chars >= wanted:
                    break
                chars += len(decoder.decode(bytes((byte,))))
                since += 1
                pending, flags = decoder.getstate()
                if not pending and count + chars <= wanted:
                    best = Cookie(cookie.start + fed + number, flags, 0, wanted - count - chars)
                    count, chars, since = count + chars, 0, 0
            if not best.skip:
                return best
            final = count + chars < wanted
            return best._replace(feed=since, final=int(final))
        finally:
            decoder.setstate(state)

    async def seek(self, cookie: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a place that tell() named, to the beginning (0), or to the end (0, SEEK_END)."""
        buffer = self._buffer
        if buffer._busy:
            await buffer._wait_turn()
        buffer._busy = True
        try:
            buffer._check_open()
            self._check_seekable()
            return await self._seek(cookie, whence)
        finally:
            buffer._pass_turn()

    async def _seek(self, cookie: int, whence: int) -> int:
        buffer = self._buffer
        if whence == os.SEEK_CUR:
            if cookie:
                raise UnsupportedOperation("can't do nonzero cur-relative seeks")
            await buffer._put_out()
            cookie = self._tell()
        elif whence == os.SEEK_END:
            if cookie:
                raise UnsupportedOperation("can't do nonzero end-relative seeks")
            cookie = await buffer._seek(0, os.SEEK_END)
        elif whence != os.SEEK_SET:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if cookie < 0:
            raise ValueError(f"negative seek position {cookie!r}")
        where = Cookie.unpack(cookie)
        await buffer._seek(where.start, os.SEEK_SET)
        self._chunk = CHUNK_BYTES
        self._forget()
        if self._decoder is not None:
            await self._restore(where)
        if self._encoder is not None:
            if where.start or where.skip:
                self._encoder.setstate(0)
            else:
                self._encoder.reset()  # a byte order mark belongs here
        return cookie

    async def _restore(self, where: Cookie) -> None:
        if where == (0, 0, 0, 0, 0):
            self._decoder.reset()
            return
        self._decoder.setstate((b"", where.flags))
        if not (where.feed or where.final):
            if where.skip:
                raise OSError("can't restore logical file position")
            if where.flags:
                self._before, self._fed = (b"", where.flags), b""
            return
        data = await self._buffer._read(where.feed)
        text = self._decoder.decode(data, bool(where.final))
        if len(text) < where.skip:
            raise OSError("can't restore logical file position")
        self._before, self._fed, self._text, self._at = (b"", where.flags), data, text, where.skip

    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file this long, in bytes (None: up to the position); the size."""
        await self.flush()
        return await self._buffer.truncate(await self.tell() if size is None else size)

    # ---- bytes at an offset, and the disk ----

    async def pread(self, size: int, offset: int, /) -> bytes:
        """BufferedFile.pread()."""
        return await self._buffer.pread(size, offset)

    async def pwrite(self, data: ReadableBuffer, offset: int, /) -> int:
        """BufferedFile.pwrite()."""
        return await self._buffer.pwrite(data, offset)

    async def preadv(self, buffers: Iterable[WriteableBuffer], offset: int, /) -> int:
        """BufferedFile.preadv()."""
        return await self._buffer.preadv(buffers, offset)

    async def pread_into(self, buffer: WriteableBuffer, offset: int, /) -> int:
        """BufferedFile.pread_into()."""
        return await self._buffer.pread_into(buffer, offset)

    async def pwritev(self, buffers: Iterable[ReadableBuffer], offset: int, /) -> int:
        """BufferedFile.pwritev()."""
        return await self._buffer.pwritev(buffers, offset)

    async def fsync(self) -> None:
        """flush(), then waits until data and metadata are on the disk."""
        await self._buffer.fsync()

    async def fdatasync(self) -> None:
        """flush(), then waits until the data is on the disk."""
        await self._buffer.fdatasync()

    async def fallocate(self, offset: int, length: int, mode: int = 0) -> None:
        """Reserves space as fallocate(2) does; mode 0 also extends the file."""
        await self._buffer.fallocate(offset, length, mode)

    async def fadvise(self, offset: int, length: int, advice: int) -> None:
        """Tells the kernel what will be read (os.POSIX_FADV_...)."""
        await self._buffer.fadvise(offset, length, advice)

    # ---- the end ----

    async def close(self) -> None:
        """Waits for what is in flight, writes what is buffered, closes.  Again: does nothing."""
        await self._buffer.close()

    async def aclose(self) -> None:
        """close(), by the name that contextlib.aclosing() and AnyIO know."""
        await self._buffer.close()

    async def __aenter__(self) -> Self:
        self._buffer._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._buffer.close()
