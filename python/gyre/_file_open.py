"""gyre.open(): checks what built-in open() checks, opens on the ring, makes the file object."""

from __future__ import annotations

import asyncio
import codecs
import errno
import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ._file_base import File, running_loop, settle
from ._file_buffered import BUFFER_BYTES, BufferedFile
from ._file_raw import DirectFile, RawFile
from ._file_text import TextFile, default_encoding

if TYPE_CHECKING:
    from _typeshed import FileDescriptorOrPath, OpenBinaryMode, OpenTextMode

    from .loop import Loop

__all__ = ["Opening", "aligned_buffer", "open"]

_F = TypeVar("_F", bound="File | TextFile")

_FLAGS = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "x": os.O_CREAT | os.O_EXCL,
    "a": os.O_CREAT | os.O_APPEND,
}


class Opening(Generic[_F]):
    """What gyre.open() returns: `await` it for the file, or `async with` it for its lifetime."""

    __slots__ = ("_make", "_file")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._make: Callable[[], Coroutine[Any, Any, _F]] = make
        self._file: _F | None = None

    def __await__(self) -> Generator[Any, Any, _F]:
        return self._make().__await__()

    async def __aenter__(self) -> _F:
        self._file = file = await self._make()
        return file

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        await self._file.close()


class _Request:
    """The arguments of one open(), checked."""

    def __init__(
        self,
        file: Any,
        mode: str,
        buffering: int,
        encoding: str | None,
        errors: str | None,
        newline: str | None,
        closefd: bool,
        opener: Callable[[str, int], int] | None,
        direct: bool,
    ) -> None:
        self.file = file if isinstance(file, int) else os.fspath(file)
        self.closefd = closefd
        self.opener = opener
        self.direct = direct
        self.mode = mode
        self.letters = _letters(mode)
        self.binary = "b" in self.letters
        self.buffering = self._buffering(buffering)
        self.newline = newline
        if self.binary:
            for what, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
                if value is not None:
                    raise ValueError(f"binary mode doesn't take {_article(what)} {what} argument")
        else:
            self._check_text(encoding, errors)
        if direct and not (self.binary and self.buffering == 0):
            raise ValueError("direct=True needs a binary mode and buffering=0")
        if isinstance(self.file, int):
            if self.file < 0:
                raise ValueError("negative file descriptor")
        elif not closefd:
            raise ValueError("Cannot use closefd=False with file name")

    def _buffering(self, buffering: int) -> int:
        if not isinstance(buffering, int):
            raise TypeError(f"an integer is required, not {type(buffering).__name__}")
        if buffering == 1 and self.binary:
            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer "
                "size will be used",
                RuntimeWarning,
                stacklevel=4,
            )
            return -1
        if buffering < 0:
            return -1
        if buffering == 0 and not self.binary:
            raise ValueError("can't have unbuffered text I/O")
        return buffering

    def _check_text(self, encoding: str | None, errors: str | None) -> None:
        for what, value in (("encoding", encoding), ("errors", errors), ("newline", self.newline)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"open() argument {what!r} must be str or None")
        encoding = io.text_encoding(encoding, 4)
        if encoding == "locale":
            encoding = default_encoding()
        if self.newline not in (None, "", "\n", "\r", "\r\n"):
            raise ValueError(f"illegal newline value: {self.newline!r}")
        info = codecs.lookup(encoding)
        if not getattr(info, "_is_text_encoding", True):
            raise LookupError(
                f"{encoding!r} is not a text encoding; use codecs.open() to handle arbitrary codecs"
            )
        self.encoding = encoding
        self.errors = "strict" if errors is None else errors
        codecs.lookup_error(self.errors)

    @property
    def flags(self) -> int:
        letters = self.letters
        access = os.O_RDONLY if "r" in letters else os.O_WRONLY
        if "+" in letters:
            access = os.O_RDWR
        kind = _FLAGS[next(letter for letter in letters if letter in _FLAGS)]
        return access | kind | os.O_CLOEXEC | (os.O_DIRECT if self.direct else 0)

    @property
    def raw_mode(self) -> str:
        """The mode as io.FileIO names it: rb, rb+, wb ..."""
        letter = next(letter for letter in self.letters if letter in _FLAGS)
        if "+" in self.letters:
            # io.FileIO could not tell the two apart before 3.15.
            return "rb+" if letter == "w" and sys.version_info < (3, 15) else letter + "b+"
        return letter + "b"

    # ---- opening ----

    async def make(self) -> Any:
        loop = running_loop()
        fd = await self._descriptor(loop)
        try:
            return self._wrap(loop, fd)
        except BaseException:
            if self.closefd and not isinstance(self.file, int):
                os.close(fd)
            raise

    async def _descriptor(self, loop: Loop) -> int:
        if isinstance(self.file, int):
            return self.file
        if self.opener is not None:
            return await self._from_opener(loop)
        try:
            fd: int = await loop._file_open(os.fsencode(self.file), self.flags, 0o666)
        except OSError as exc:
            exc.filename = self.file
            raise
        return fd

    async def _from_opener(self, loop: Loop) -> int:
        opener: Any = self.opener
        op = loop._file_call(opener, self.file, self.flags)
        try:
            fd: int = await settle(loop, op)
        except asyncio.CancelledError:
            op.add_done_callback(_close_unclaimed)
            raise
        if not isinstance(fd, int):
            raise TypeError("expected integer from opener")
        if fd < 0:
            raise ValueError(f"opener returned {fd}")
        os.set_inheritable(fd, False)
        return fd

    def _wrap(self, loop: Loop, fd: int) -> Any:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.file)
        closefd, mode = self.closefd, self.raw_mode
        if self.direct:
            return DirectFile(loop, fd, self.file, mode, closefd)
        if self.buffering == 0:
            return RawFile(loop, fd, self.file, mode, closefd)
        line_buffering = self.buffering == 1 or (
            self.buffering == -1 and stat.S_ISCHR(kind) and os.isatty(fd)
        )
        size = self.buffering if self.buffering > 1 else BUFFER_BYTES
        if "+" in mode and not _can_seek(fd):
            raise io.UnsupportedOperation("File or stream is not seekable.")
        if self.binary:
            return BufferedFile(loop, fd, self.file, mode, closefd, size)
        buffered = BufferedFile(loop, fd, self.file, mode, closefd, size)
        try:
            return TextFile(
                buffered, self.encoding, self.errors, self.newline, line_buffering, self.mode
            )
        except BaseException:
            buffered._fd = -1  # make() closes the descriptor
            raise


def _close_unclaimed(op: asyncio.Future[Any]) -> None:
    """What an opener brings after its caller was cancelled."""
    if not op.cancelled() and op.exception() is None:
        fd = op.result()
        if isinstance(fd, int) and fd >= 0:
            os.close(fd)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _can_seek(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _letters(mode: str) -> set[str]:
    """The mode's letters, where they make a mode."""
    if not isinstance(mode, str):
        raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
    letters = set(mode)
    if letters - set("axrwb+t") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"t", "b"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    if len(letters & set(_FLAGS)) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    return letters


@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[TextFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: Literal[True],
) -> Opening[DirectFile]: ...
@overload
def open(  # type: ignore[overload-overlap]  # Literal[0] is an int; the first one is taken
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[RawFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[BufferedFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[Any]: ...
def open(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[Any]:
    """Open a file for asynchronous use: `async with gyre.open(path) as file`, or `await` it.

    The parameters are built-in open()'s, and so are the errors; an opener runs in a thread.
    direct=True (a binary mode, buffering=0) opens with O_DIRECT, past the page cache.
    Raises RuntimeError where the running loop is not gyre's.
    """
    request = _Request(file, mode, buffering, encoding, errors, newline, closefd, opener, direct)
    return Opening(request.make)


def aligned_buffer(size: int, alignment: int = 4096) -> memoryview:
    """A writable buffer whose address is a multiple of alignment, as O_DIRECT wants it.

    Needs a running gyre loop; the memory lives as long as anything refers to it.
    """
    if size < 0:
        raise ValueError("a buffer cannot have a negative size")
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"an alignment is a power of two, not {alignment}")
    return memoryview(running_loop()._file_buffer(size, alignment))
