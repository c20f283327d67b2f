"""sendfile(2) for loop.sendfile() and loop.sock_sendfile(); asyncio's own code has the fallbacks.

A step sends what the socket takes of at most STEP_BYTES, so that other callbacks get their turn.
Pages that are not in memory are read by a thread before: sendfile(2) would wait for the disk, and
the loop with it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
from asyncio import exceptions, unix_events
from typing import Any

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


class SendfileMixin:
    """What BaseEventLoop's sendfile() and sock_sendfile() leave to the loop."""

    sock_sendfile: Any
    _file_call: Any
    _wait_ready: Any

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        fd, size = file_number(file)
        if not (count or size):
            return 0
        total = 0
        try:
            while count is None or total < count:
                step = STEP_BYTES if count is None else min(STEP_BYTES, count - total)
                if not is_in_memory(fd, offset + total, step):
                    await self._file_call(read, fd, offset + total, step)
                sent = self._sendfile_step(sock, fd, offset + total, step, total)
                if sent == 0:
                    break
                if sent is not None:
                    total += sent
                if count is None or total < count:
                    await self._wait_ready(sock, True)
        finally:
            if total > 0 or MOVES_ALWAYS:
                with contextlib.suppress(OSError):  # no file that has a position
                    os.lseek(fd, offset + total, os.SEEK_SET)
        return total

    def _sendfile_step(
        self, sock: socket.socket, fd: int, offset: int, count: int, total: int
    ) -> int | None:
        """How many bytes the socket took; None if it was full."""
        try:
            return os.sendfile(sock.fileno(), fd, offset, count)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as exc:
            if total == 0:  # for one, no file that can be mapped: plain reads and sends may work
                raise exceptions.SendfileNotAvailableError("os.sendfile call failed") from exc
            if exc.errno == errno.ENOTCONN and type(exc) is not ConnectionError:
                raise ConnectionError("socket is not connected", errno.ENOTCONN) from exc
            raise

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
