"""gyre.Path: pathlib's paths, with awaitable methods for everything that asks the disk.

A gyre.Path is a PurePosixPath: joining, splitting, comparing and matching are pathlib's own code
and work without a loop.  Where the kernel has an operation for the ring the method uses it; the
rest (resolving, globbing, owners) is pathlib's code in a thread of gyre's pool.
"""

from __future__ import annotations

import asyncio
import io
import os
import pathlib
import stat as modes
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from ._file_base import running_loop, settle, view_of
from ._file_once import decode, fill
from ._file_open import Opening
from ._file_open import open as open_file
from ._file_raw import RawFile
from ._file_text import TextFile, default_encoding

if TYPE_CHECKING:
    from _typeshed import (
        OpenBinaryMode,
        OpenTextMode,
        ReadableBuffer,
        StrPath,
    )

    from ._file_buffered import BufferedFile

__all__ = ["Path"]

_T = TypeVar("_T")

# What "there is no such thing" looks like to pathlib's questions; from 3.14 on every error does.
_ABSENT_ERRNOS = {2, 20, 9, 40}  # ENOENT, ENOTDIR, EBADF, ELOOP


class Entries(Generic[_T]):
    """An async iterator over what a thread finds, fetched in growing batches."""

    __slots__ = ("_items", "_most", "_next", "_op", "_source", "_start", "_wrap")

    def __init__(
        self,
        start: Callable[[], Iterator[Any]],
        wrap: Callable[[Any], _T],
        most: int = 256,
    ) -> None:
        self._start: Callable[[], Iterator[Any]] | None = start
        self._wrap = wrap
        self._source: Iterator[Any] | None = None
        self._items: deque[Any] = deque()
        self._next = min(16, most)
        self._most = most
        self._op: Any = None  # a batch on its way; one that lost its caller waits for the next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        if not self._items:
            await self._fetch()
            if not self._items:
                raise StopAsyncIteration
        return self._wrap(self._items.popleft())

    async def _fetch(self) -> None:
        loop, op = running_loop(), self._op
        if op is None:
            if self._start is None and self._source is None:
                return
            op = self._op = loop._file_call(self._batch, self._next)
            self._next = min(2 * self._next, self._most)
        try:
            found = await settle(loop, op)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._op = None
            raise
        if self._op is op:
            self._op = None
            self._items.extend(found)

    def _batch(self, count: int) -> list[Any]:
        """In a thread: the next ones."""
        if self._source is None:
            assert self._start is not None
            self._source, self._start = iter(self._start()), None
        found: list[Any] = []
        for item in self._source:
            found.append(item)
            if len(found) >= count:
                return found
        self._source = None
        return found

    async def aclose(self) -> None:
        """Ends the iteration."""
        self._start = self._source = self._op = None
        self._items.clear()


def _name_error(exc: OSError, path: Any, second: Any = None) -> None:
    exc.filename = path
    if second is not None:
        exc.filename2 = second


class Path(pathlib.PurePosixPath):
    """pathlib.Path for asynchronous programs.  Needs gyre's loop for what it has to await."""

    __slots__ = ()

    def _new(self, *segments: Any) -> Self:
        """A path of this one's kind, as pathlib makes them on this Python."""
        if sys.version_info >= (3, 12):
            return self.with_segments(*segments)
        return type(self)(*segments)

    def _plain(self) -> pathlib.Path:
        return pathlib.Path(self)

    async def _in_thread(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """pathlib's own method, in a thread; paths in the answer become ours."""
        call = getattr(self._plain(), method)
        answer = await running_loop()._file_call(lambda: call(*args, **kwargs))
        return self._new(answer) if isinstance(answer, pathlib.PurePath) else answer

    # ---- opening, reading, writing ----

    @overload
    def open(
        self,
        mode: OpenTextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Opening[TextFile]: ...
    @overload
    def open(  # type: ignore[overload-overlap]  # Literal[0] is an int; the first one is taken
        self,
        mode: OpenBinaryMode,
        buffering: Literal[0],
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> Opening[RawFile]: ...
    @overload
    def open(
        self,
        mode: OpenBinaryMode,
        buffering: int = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> Opening[BufferedFile]: ...
    @overload
    def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Opening[Any]: ...
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Opening[Any]:
        """gyre.open() of this path: `async with path.open() as file`, or `await` it."""
        return open_file(self, mode, buffering, encoding, errors, newline)

    async def read_bytes(self) -> bytes:
        """The content."""
        try:
            data = await running_loop()._file_read_path(os.fsencode(self))
        except OSError as exc:
            _name_error(exc, str(self))
            raise
        return data

    async def read_text(
        self,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> str:
        """The content as text; newline as open() has it."""
        encoding = io.text_encoding(encoding)
        data = await self.read_bytes()
        if encoding == "locale":
            encoding = default_encoding()
        return decode(data, encoding, errors or "strict", newline)

    async def _write(self, view: memoryview) -> None:
        loop = running_loop()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            fd = await loop._file_open(os.fsencode(self), flags, 0o666)
        except OSError as exc:
            _name_error(exc, str(self))
            raise
        await fill(loop, fd, view)

    async def write_bytes(self, data: ReadableBuffer) -> int:
        """Replaces the content; the number of bytes."""
        view = view_of(data)
        await self._write(view)
        return len(view)

    async def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        """Replaces the content by text; the number of characters."""
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        encoding = io.text_encoding(encoding)
        if newline not in (None, "", "\n", "\r", "\r\n"):
            raise ValueError(f"illegal newline value: {newline!r}")
        text = data.replace("\n", newline) if newline and newline != "\n" else data
        if encoding == "locale":
            encoding = default_encoding()
        await self._write(memoryview(text.encode(encoding, errors or "strict")))
        return len(data)

    async def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Makes an empty file, or sets the times of one that is there."""
        await self._in_thread("touch", mode, exist_ok)

    # ---- questions ----

    async def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """os.stat()."""
        try:
            result: os.stat_result = await running_loop()._file_stat(
                os.fsencode(self), -100, follow_symlinks
            )
        except OSError as exc:
            _name_error(exc, str(self))
            raise
        return result

    async def lstat(self) -> os.stat_result:
        """os.lstat(): of a symbolic link itself."""
        return await self.stat(follow_symlinks=False)

    async def _mode(self, follow_symlinks: bool = True) -> int:
        """st_mode, 0 where pathlib says that there is nothing."""
        try:
            return (await self.stat(follow_symlinks=follow_symlinks)).st_mode
        except OSError as exc:
            if sys.version_info >= (3, 14) or exc.errno in _ABSENT_ERRNOS:
                return 0
            raise
        except ValueError:  # a null character
            return 0

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        """True if there is something."""
        return await self._mode(follow_symlinks) != 0

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """True for a directory."""
        return modes.S_ISDIR(await self._mode(follow_symlinks))

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """True for a regular file."""
        return modes.S_ISREG(await self._mode(follow_symlinks))

    async def is_symlink(self) -> bool:
        """True for a symbolic link."""
        return modes.S_ISLNK(await self._mode(False))

    async def is_block_device(self) -> bool:
        """True for a block device."""
        return modes.S_ISBLK(await self._mode())

    async def is_char_device(self) -> bool:
        """True for a character device."""
        return modes.S_ISCHR(await self._mode())

    async def is_fifo(self) -> bool:
        """True for a named pipe."""
        return modes.S_ISFIFO(await self._mode())

    async def is_socket(self) -> bool:
        """True for a socket."""
        return modes.S_ISSOCK(await self._mode())

    async def is_mount(self) -> bool:
        """True where a file system is mounted."""
        answer: bool = await self._in_thread("is_mount")
        return answer

    async def samefile(self, other_path: StrPath) -> bool:
        """True if both are the same file."""
        other = other_path if isinstance(other_path, Path) else self._new(other_path)
        return os.path.samestat(await self.stat(), await other.stat())

    async def owner(self, **options: Any) -> str:
        """The name of the file's owner."""
        answer: str = await self._in_thread("owner", **options)
        return answer

    async def group(self, **options: Any) -> str:
        """The name of the file's group."""
        answer: str = await self._in_thread("group", **options)
        return answer

    # ---- other paths ----

    @classmethod
    async def cwd(cls) -> Self:
        """The working directory."""
        return cls(os.getcwd())

    @classmethod
    async def home(cls) -> Self:
        """The user's home."""
        return cls(await running_loop()._file_call(pathlib.Path.home))

    async def absolute(self) -> Self:
        """With the working directory before it, if it is relative."""
        return self._new(self._plain().absolute())

    async def expanduser(self) -> Self:
        """With ~ and ~user replaced."""
        path: Self = await self._in_thread("expanduser")
        return path

    async def resolve(self, strict: bool = False) -> Self:
        """Absolute and without symbolic links."""
        path: Self = await self._in_thread("resolve", strict)
        return path

    async def readlink(self) -> Self:
        """What a symbolic link says."""
        path: Self = await self._in_thread("readlink")
        return path

    # ---- changes ----

    async def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a directory."""
        loop = running_loop()
        try:
            await settle(loop, loop._file_mkdir(os.fsencode(self), mode))
        except FileNotFoundError as exc:
            if not parents or self.parent == self:
                _name_error(exc, str(self))
                raise
            await self.parent.mkdir(parents=True, exist_ok=True)
            await self.mkdir(mode, parents=False, exist_ok=exist_ok)
        except OSError as exc:
            # Whatever it was: a directory that is there is what was wanted.
            if not exist_ok or not await self.is_dir():
                _name_error(exc, str(self))
                raise

    async def _remove(self, directory: bool) -> None:
        loop = running_loop()
        try:
            await settle(loop, loop._file_unlink(os.fsencode(self), directory))
        except OSError as exc:
            _name_error(exc, str(self))
            raise

    async def rmdir(self) -> None:
        """Removes an empty directory."""
        await self._remove(True)

    async def unlink(self, missing_ok: bool = False) -> None:
        """Removes a file or a symbolic link."""
        try:
            await self._remove(False)
        except FileNotFoundError:
            if not missing_ok:
                raise

    async def rename(self, target: StrPath) -> Self:
        """Gives it another name, replacing a file that has it; the new path."""
        loop = running_loop()
        try:
            await settle(loop, loop._file_rename(os.fsencode(self), os.fsencode(target), 0))
        except OSError as exc:
            _name_error(exc, str(self), os.fspath(target))
            raise
        return self._new(target)

    async def replace(self, target: StrPath) -> Self:
        """rename()."""
        return await self.rename(target)

    async def symlink_to(self, target: StrPath, target_is_directory: bool = False) -> None:
        """Makes this path a symbolic link to target."""
        loop = running_loop()
        try:
            await settle(loop, loop._file_symlink(os.fsencode(target), os.fsencode(self)))
        except OSError as exc:
            _name_error(exc, os.fspath(target), str(self))
            raise

    async def hardlink_to(self, target: StrPath) -> None:
        """Makes this path another name of target."""
        loop = running_loop()
        try:
            await settle(loop, loop._file_link(os.fsencode(target), os.fsencode(self)))
        except OSError as exc:
            _name_error(exc, os.fspath(target), str(self))
            raise

    async def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        """Changes the permissions."""
        await self._in_thread("chmod", mode, follow_symlinks=follow_symlinks)

    async def lchmod(self, mode: int) -> None:
        """chmod() of a symbolic link itself; Linux refuses it."""
        await self._in_thread("lchmod", mode)

    # ---- directories ----

    def iterdir(self) -> Entries[Self]:
        """The paths in a directory, as an async iterator."""
        return Entries(lambda: iter(os.listdir(self)), lambda name: self._new(self, name))

    def glob(self, pattern: str, **options: Any) -> Entries[Self]:
        """The paths below this one that match, as an async iterator; options are pathlib's."""
        plain = self._plain()
        return Entries(lambda: iter(plain.glob(pattern, **options)), self._new)

    def rglob(self, pattern: str, **options: Any) -> Entries[Self]:
        """glob() in all directories below; options are pathlib's."""
        plain = self._plain()
        return Entries(lambda: iter(plain.rglob(pattern, **options)), self._new)

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Entries[tuple[Self, list[str], list[str]]]:
        """(path, directories, files) of each directory below, as an async iterator.

        Top down, the list of directories may be changed to steer what is visited.  on_error is
        called in a thread.
        """

        def start() -> Iterator[Any]:
            return _walk(str(self), top_down, on_error, follow_symlinks)

        def wrap(found: Any) -> tuple[Self, list[str], list[str]]:
            return self._new(found[0]), found[1], found[2]

        return Entries(start, wrap, 1 if top_down else 256)

    # ---- what newer Pythons have ----

    if sys.version_info < (3, 12):

        async def link_to(self, target: StrPath) -> None:
            """Makes target another name of this path.  Deprecated: hardlink_to()."""
            await self._in_thread("link_to", target)

    if sys.version_info >= (3, 12):

        async def is_junction(self) -> bool:
            """False: only Windows has them."""
            return False

    if sys.version_info >= (3, 13):

        @classmethod
        def from_uri(cls, uri: str) -> Self:
            """The path that a file: URI names."""
            return cls(pathlib.Path.from_uri(uri))

    if sys.version_info >= (3, 14):

        def as_uri(self) -> str:
            """The file: URI."""
            return self._plain().as_uri()

        async def copy(self, target: Any, **options: Any) -> Self:
            """Copies a file or a tree; the copy's path.  Options are pathlib's."""
            path: Self = await self._in_thread("copy", _plain(target), **options)
            return path

        async def copy_into(self, target_dir: Any, **options: Any) -> Self:
            """copy() to the same name in another directory."""
            path: Self = await self._in_thread("copy_into", _plain(target_dir), **options)
            return path

        async def move(self, target: Any) -> Self:
            """Moves a file or a tree, also to another file system; the new path."""
            path: Self = await self._in_thread("move", _plain(target))
            return path

        async def move_into(self, target_dir: Any) -> Self:
            """move() to the same name in another directory."""
            path: Self = await self._in_thread("move_into", _plain(target_dir))
            return path

        @property
        def info(self) -> PathInfo:
            """What kind of thing this is, remembered after the first question."""
            return PathInfo(self._plain().info)


class PathInfo:
    """pathlib.types.PathInfo with awaitable methods (Path.info, from Python 3.14 on)."""

    __slots__ = ("_info",)

    def __init__(self, info: Any) -> None:
        self._info = info

    async def _ask(self, method: str, *, follow_symlinks: bool | None = None) -> bool:
        options = {} if follow_symlinks is None else {"follow_symlinks": follow_symlinks}
        call = getattr(self._info, method)
        answer: bool = await running_loop()._file_call(lambda: call(**options))
        return answer

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        """True if there is something."""
        return await self._ask("exists", follow_symlinks=follow_symlinks)

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """True for a directory."""
        return await self._ask("is_dir", follow_symlinks=follow_symlinks)

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """True for a regular file."""
        return await self._ask("is_file", follow_symlinks=follow_symlinks)

    async def is_symlink(self) -> bool:
        """True for a symbolic link."""
        return await self._ask("is_symlink")


def _plain(path: Any) -> Any:
    """pathlib's own kind of path, where it is one of ours."""
    return pathlib.Path(path) if isinstance(path, Path) else path


def _walk(
    top: str,
    top_down: bool,
    on_error: Callable[[OSError], object] | None,
    follow_symlinks: bool,
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Path.walk() as pathlib has it from 3.12 on: links to directories that are not followed are
    files."""
    stack: list[Any] = [top]
    while stack:
        here = stack.pop()
        if isinstance(here, tuple):
            yield here
            continue
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(here or ".") as entries:
                for entry in entries:
                    try:
                        is_folder = entry.is_dir(follow_symlinks=follow_symlinks)
                    except OSError:
                        is_folder = False
                    (folders if is_folder else files).append(entry.name)
        except OSError as exc:
            if on_error is not None:
                on_error(exc)
            continue
        if top_down:
            yield here, folders, files
        else:
            stack.append((here, folders, files))
        stack += [os.path.join(here, name) for name in reversed(folders)]
