"""loop.sendfile() and loop.sock_sendfile(): sendfile(2), and splices on the ring for the disk.

A step sends what the socket takes of at most STEP_BYTES, so that other callbacks get their turn.
Pages that are not in memory are spliced into a pipe by the ring, and from there into the socket:
sendfile(2) would wait for the disk, and the loop with it.  asyncio's own code has the fallbacks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import socket
from asyncio import exceptions, unix_events
from typing import Any, NoReturn

from ._file_base import whole

__all__ = ["SendfileMixin"]

STEP_BYTES = 1 << 20
PROBE_BYTES = 128 * 1024  # as much as the kernel reads ahead: one page of it stands for all

# Newer releases of 3.13 and later put the file's position to the offset also when nothing was sent.
_put_back = getattr(unix_events.SelectorEventLoop, "_sock_sendfile_update_filepos", None)
MOVES_ALWAYS = _put_back is not None and _put_back.__code__.co_argcount == 3


def is_in_memory(fd: int, offset: int, count: int) -> bool:
    """True unless the file system says that reading this part would have to wait."""
    page = [bytearray(1)]
    last = offset + count - 1
    try:
        for place in (*range(offset, last, PROBE_BYTES), last):
            if os.preadv(fd, page, place, os.RWF_NOWAIT) == 0:
                return True  # behind the end
    except BlockingIOError:
        return False
    except OSError:
        pass  # it cannot say
    return True


class Pipe:
    """Pages on their way from the disk to a socket."""

    def __init__(self) -> None:
        self.held = 0
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, STEP_BYTES)
        except OSError:
            pass  # the user has too many large ones: it stays as small as it is

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


def make_pipe() -> Pipe | None:
    """None: there are no descriptors left for one."""
    try:
        return Pipe()
    except OSError:
        return None


def read(fd: int, offset: int, count: int) -> None:
    """In a thread: reads a part of a file, for the sake of its pages."""
    buffer = bytearray(PROBE_BYTES)
    end = offset + count
    while offset < end:
        got = os.preadv(fd, [memoryview(buffer)[: end - offset]], offset)
        if got == 0:
            return
        offset += got


def file_number(file: Any) -> tuple[int, int]:
    """(descriptor, size) of a regular file; others are for the fallback."""
    try:
        fd: int = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        raise exceptions.SendfileNotAvailableError("not a regular file") from None
    try:
        return fd, os.fstat(fd).st_size
    except OSError:
        raise exceptions.SendfileNotAvailableError("not a regular file") from None


def raise_as_sendfile(exc: OSError, total: int) -> NoReturn:
    """In the handler of exc: what sendfile() raises for it after it has sent so many bytes."""
    if total == 0:  # for one, no file that can be mapped: plain reads and sends may work
        raise exceptions.SendfileNotAvailableError("os.sendfile call failed") from exc
    if exc.errno == errno.ENOTCONN and type(exc) is not ConnectionError:
        raise ConnectionError("socket is not connected", errno.ENOTCONN) from exc
    raise exc


class SendfileMixin:
    """What BaseEventLoop's sendfile() and sock_sendfile() leave to the loop."""

    sock_sendfile: Any
    _file_call: Any
    _file_splice: Any
    _sock_wait: Any

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        if not hasattr(os, "sendfile"):  # a Python built or trimmed without it
            raise exceptions.SendfileNotAvailableError("os.sendfile() is not available")
        fd, size = file_number(file)
        if not (count or size):
            return 0
        total = 0
        pipe: Pipe | None = None
        try:
            while count is None or total < count:
                step = STEP_BYTES if count is None else min(STEP_BYTES, count - total)
                place = offset + total
                if not (pipe and pipe.held) and not is_in_memory(fd, place, step):
                    pipe = pipe or make_pipe()
                    await self._sendfile_fetch(pipe, fd, place, step, total)
                sent = self._sendfile_step(sock, fd, place, step, total, pipe)
                if sent == 0:
                    break
                if sent is not None:
                    total += sent
                held = pipe is not None and pipe.held > 0
                if count is None and not held and offset + total >= os.fstat(fd).st_size:
                    break  # without waiting for room that nothing needs
                if count is None or total < count:
                    await self._sock_wait(sock, True)
        finally:
            if pipe:
                pipe.close()
            if total > 0 or MOVES_ALWAYS:
                with contextlib.suppress(OSError):  # no file that has a position
                    os.lseek(fd, offset + total, os.SEEK_SET)
        return total

    async def _sendfile_fetch(
        self, pipe: Pipe | None, fd: int, offset: int, count: int, total: int
    ) -> None:
        """Waits for the disk: this part is in the pipe then, or at least in memory."""
        if pipe is None:
            await self._file_call(read, fd, offset, count)
            return
        try:
            # To its end: the pipe must not be closed, nor its number be another's, before.
            op = self._file_splice(fd, offset, pipe.writer, -1, count)
            pipe.held = await whole(self, op)  # type: ignore[arg-type]
        except OSError as exc:
            raise_as_sendfile(exc, total)

    def _sendfile_step(
        self,
        sock: socket.socket,
        fd: int,
        offset: int,
        count: int,
        total: int,
        pipe: Pipe | None,
    ) -> int | None:
        """How many bytes the socket took; None if it was full."""
        try:
            if pipe is None or not pipe.held:
                return os.sendfile(sock.fileno(), fd, offset, count)
            flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
            sent = os.splice(pipe.reader, sock.fileno(), pipe.held, flags=flags)
            pipe.held -= sent
            return sent
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as exc:
            raise_as_sendfile(exc, total)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: Any) -> int:
        waiter = transp._make_empty_waiter()  # raises where another one sends a file
        resume_reading = transp.is_reading()
        transp.pause_reading()
        try:
            await waiter
            sent = await self.sock_sendfile(transp._sock, file, offset, count, fallback=False)
        finally:
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()
        return int(sent)
