"""One call for one whole thing: read_file(), write_file(), stat(), copy_file() and those for many.

The calls for many issue operations themselves, with a window of them in flight: no task per path.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ._file_base import running_loop, settle, view_of, whole
from ._gyre import Future

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .loop import Loop

__all__ = ["copy_file", "read_file", "read_many", "stat", "stat_many", "write_file"]

_T = TypeVar("_T")

WINDOW = 64  # operations in flight, where the caller does not say
FAIR = 31  # answers from the cache in a row; then others have their turn (file.c: at most 32)
COPY_BYTES = 8 * 1024 * 1024  # at a time, so that a cancelled copy ends soon


@overload
async def read_file(path: StrOrBytesPath) -> bytes: ...
@overload
async def read_file(path: StrOrBytesPath, encoding: str, errors: str = "strict") -> str: ...
async def read_file(
    path: StrOrBytesPath, encoding: str | None = None, errors: str = "strict"
) -> bytes | str:
    """The content of a file: bytes, or text with universal newlines if there is an encoding."""
    try:
        data = await running_loop()._file_read_path(os.fsencode(path))
    except OSError as exc:
        exc.filename = os.fspath(path)
        raise
    return data if encoding is None else decode(data, encoding, errors)


def decode(data: bytes, encoding: str, errors: str, newline: str | None = None) -> str:
    """Text as a file in text mode reads it."""
    if newline not in (None, "", "\n", "\r", "\r\n"):
        raise ValueError(f"illegal newline value: {newline!r}")
    text = codecs.decode(data, encoding, errors)
    if newline is None and "\r" in text:
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return text


async def write_file(
    path: StrOrBytesPath,
    data: ReadableBuffer | str,
    *,
    atomic: bool = False,
    mode: int | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> int:
    """Writes a whole file, which is made if there is none; how many bytes it has now.

    mode: the permissions of a new file (0o666), less the umask.
    atomic=True: whoever opens the path finds the old content or the new one, also after a crash:
    the data goes to a temporary file in the same folder and to the disk, then the file is
    renamed, and the folder goes to the disk.  The permissions of a file that is replaced are kept
    where mode says nothing.  What fails or is cancelled leaves the old file.
    """
    view = view_of(data.encode(encoding, errors) if isinstance(data, str) else data)
    loop = running_loop()
    name = os.fsencode(path)
    try:
        if atomic:
            await _write_atomically(loop, name, view, mode)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            fd = await loop._file_open(name, flags, 0o666 if mode is None else mode)
            await fill(loop, fd, view)
    except OSError as exc:
        exc.filename = os.fspath(path)
        raise
    return len(view)


async def fill(loop: Loop, fd: int, view: memoryview) -> None:
    """Writes all of it and closes the descriptor, whatever happens."""
    try:
        # At offsets where there are some: io_uring (6.18) does not move the position of the
        # descriptor when it reports what it wrote before the disk was full.
        regular = S_ISREG(os.fstat(fd).st_mode)
        done = 0
        while done < len(view):
            op = loop._file_write(fd, view[done:], done if regular else -1)
            # To its end: after the close it might write to another file of that number.
            done += await (whole(loop, op) if regular else op)
    finally:
        await settle(loop, loop._file_close(fd))


async def _write_atomically(loop: Loop, name: bytes, view: memoryview, mode: int | None) -> None:
    name = await _target(loop, name)
    folder, base = os.path.split(name)
    temporary = os.path.join(folder, b"." + base[:200] + b"." + secrets.token_hex(8).encode())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    # A task: were the open itself cancelled, nobody would know whether there is a file now.
    opening = loop.create_task(_open(loop, temporary, flags, 0o666 if mode is None else mode))
    try:
        fd = await whole(loop, opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and not opening.exception():
            await _discard(loop, temporary, opening.result())
        raise
    try:
        if mode is None:
            await _take_permissions(loop, name, fd)
        done = 0
        while done < len(view):
            done += await whole(loop, loop._file_write(fd, view[done:], done))
        await whole(loop, loop._file_fsync(fd, False))
        await settle(loop, loop._file_rename(temporary, name, 0))
    except BaseException:
        await _discard(loop, temporary, fd)
        raise
    await settle(loop, loop._file_close(fd))
    await _sync_folder(loop, folder or b".")


async def _open(loop: Loop, name: bytes, flags: int, mode: int) -> int:
    return await loop._file_open(name, flags, mode)


async def _discard(loop: Loop, temporary: bytes, fd: int) -> None:
    closing = loop._file_close(fd)
    try:
        await settle(loop, loop._file_unlink(temporary, False))
    except FileNotFoundError:
        pass  # it was renamed before we were cancelled
    await settle(loop, closing)


async def _target(loop: Loop, name: bytes) -> bytes:
    """What a symbolic link leads to: that is replaced, not the link."""
    if os.path.islink(name):
        target: bytes = await loop._file_call(os.path.realpath, name)
        return target
    return name


async def _take_permissions(loop: Loop, name: bytes, fd: int) -> None:
    try:
        before = await loop._file_stat(name)
    except FileNotFoundError:
        return
    await whole(loop, loop._file_call(os.fchmod, fd, before.st_mode & 0o7777))


async def _sync_folder(loop: Loop, folder: bytes) -> None:
    fd = await loop._file_open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0)
    try:
        await whole(loop, loop._file_fsync(fd, False))
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        await settle(loop, loop._file_close(fd))


async def stat(
    path: StrOrBytesPath | int, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """os.stat()."""
    try:
        result: os.stat_result = await _stat_op(running_loop(), path, dir_fd, follow_symlinks)
    except OSError as exc:
        exc.filename = path if isinstance(path, int) else os.fspath(path)
        raise
    return result


def _stat_op(loop: Loop, path: Any, dir_fd: int | None, follow: bool) -> Any:
    name = path if isinstance(path, int) else os.fsencode(path)
    return loop._file_stat(name, -100 if dir_fd is None else dir_fd, follow)


async def copy_file(
    source: StrOrBytesPath, target: StrOrBytesPath, *, follow_symlinks: bool = True
) -> int:
    """Copies the content and the permissions, as shutil.copy(); the number of bytes.

    The bytes stay in the kernel (copy_file_range, splice), and file systems that can share blocks
    do.  follow_symlinks=False copies a symbolic link as a link, and returns 0.
    """
    loop = running_loop()
    if not follow_symlinks and os.path.islink(source):
        await loop._file_call(_copy_link, source, target)
        return 0
    fd_in = await _open_named(loop, source, os.O_RDONLY, 0)
    try:
        info = os.fstat(fd_in)
        fd_out = await _open_named(loop, target, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            return await _copy_content(loop, fd_in, fd_out, info, source, target)
        finally:
            await settle(loop, loop._file_close(fd_out))
    finally:
        await settle(loop, loop._file_close(fd_in))


async def _copy_content(
    loop: Loop, fd_in: int, fd_out: int, info: os.stat_result, source: Any, target: Any
) -> int:
    there = os.fstat(fd_out)
    if os.path.samestat(info, there):
        import shutil

        raise shutil.SameFileError(f"{source!r} and {target!r} are the same file")
    try:
        if there.st_size:
            await whole(loop, loop._file_truncate(fd_out, 0))
        copied = 0
        while count := await whole(loop, loop._file_call(_copy_piece, fd_in, fd_out)):
            copied += count
        await whole(loop, loop._file_call(os.fchmod, fd_out, info.st_mode & 0o7777))
    except OSError as exc:
        exc.filename, exc.filename2 = os.fspath(source), os.fspath(target)
        raise
    return copied


_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


def _copy_piece(fd_in: int, fd_out: int) -> int:
    """Copies from position to position, in a thread; how many bytes, 0 at the end."""
    try:
        count = os.copy_file_range(fd_in, fd_out, COPY_BYTES)
        if count:
            return count  # 0 is also what files of /proc and /sys answer, whose size is 0
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
    try:
        count = os.sendfile(fd_out, fd_in, None, COPY_BYTES)
        if count:
            return count
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
    data = os.read(fd_in, 256 * 1024)
    view = memoryview(data)
    while view:
        view = view[os.write(fd_out, view) :]
    return len(data)


def _copy_link(source: Any, target: Any) -> None:
    os.symlink(os.readlink(source), target)


async def _open_named(loop: Loop, path: Any, flags: int, mode: int) -> int:
    try:
        return await _open(loop, os.fsencode(path), flags | os.O_CLOEXEC, mode)
    except OSError as exc:
        exc.filename = os.fspath(path)
        raise


@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    limit: int = WINDOW,
    follow_symlinks: bool = True,
    return_exceptions: Literal[False] = False,
) -> list[os.stat_result]: ...
@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    limit: int = WINDOW,
    follow_symlinks: bool = True,
    return_exceptions: bool,
) -> list[os.stat_result | OSError]: ...
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    limit: int = WINDOW,
    follow_symlinks: bool = True,
    return_exceptions: bool = False,
) -> Any:
    """os.stat() of many paths, at most limit at once; the results in the order of the paths.

    return_exceptions=True puts the OSError of a path into its place in the list; otherwise the
    first one is raised and no further path is looked at.
    """
    ask = running_loop()._file_stat
    if not follow_symlinks:
        return await _many(paths, limit, return_exceptions, lambda name: ask(name, -100, False))
    return await _many(paths, limit, return_exceptions, ask)


@overload
async def read_many(
    paths: Iterable[StrOrBytesPath],
    *,
    limit: int = WINDOW,
    return_exceptions: Literal[False] = False,
) -> list[bytes]: ...
@overload
async def read_many(
    paths: Iterable[StrOrBytesPath], *, limit: int = WINDOW, return_exceptions: bool
) -> list[bytes | OSError]: ...
async def read_many(
    paths: Iterable[StrOrBytesPath], *, limit: int = WINDOW, return_exceptions: bool = False
) -> Any:
    """The contents of many files, at most limit read at once, in the order of the paths.

    return_exceptions: as stat_many().
    """
    return await _many(paths, limit, return_exceptions, running_loop()._file_read_path)


async def _many(
    paths: Iterable[Any], limit: int, keep: bool, start: Callable[[Any], Any]
) -> list[Any]:
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    results: list[Any] = []
    window: deque[tuple[int, Any, asyncio.Future[Any]]] = deque()
    at_once = 0
    try:
        for path in paths:
            op = None
            try:
                op = start(path if path.__class__ is str else os.fsencode(path))
                if op.__class__ is not Future:
                    results.append(await op)
                    op = None
            except OSError as exc:
                results.append(_named(exc, path, keep))
            if op is not None:
                window.append((len(results), path, op))
                results.append(None)
                if len(window) >= limit:
                    at_once = 0
                    await _oldest(window, results, keep)
                continue
            at_once += 1
            if at_once == FAIR:
                at_once = 0
                await asyncio.sleep(0)
        while window:
            await _oldest(window, results, keep)
    finally:
        for _, _, op in window:
            op.cancel()
    return results


def _named(exc: OSError, path: Any, keep: bool) -> OSError:
    exc.filename = os.fspath(path)
    if not keep:
        raise exc
    return exc


async def _oldest(
    window: deque[tuple[int, Any, asyncio.Future[Any]]], results: list[Any], keep: bool
) -> None:
    number, path, op = window[0]
    try:
        results[number] = await op
    except OSError as exc:
        results[number] = _named(exc, path, keep)
    window.popleft()
