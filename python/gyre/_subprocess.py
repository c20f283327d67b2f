"""Subprocesses: asyncio's own transport, and the child's end by a pidfd.

No SIGCHLD handler, no child watcher: a pidfd is readable when the child has ended.  Where
pidfd_open is refused (a sandbox), one thread per child waits for it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from asyncio import unix_events
from asyncio.log import logger
from typing import Any

__all__ = ["SubprocessMixin"]

_Transport: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]


def _exit_code(pid: int) -> int:
    """Reap the child: its exit code, or minus the number of the signal that killed it."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        # Somebody else reaped it: its status is lost, and asyncio reports 255.
        logger.warning("Unknown child process pid %d, will report returncode 255", pid)
        return 255
    return os.waitstatus_to_exitcode(status)


class SubprocessMixin(asyncio.BaseEventLoop):
    """The subprocess methods of gyre.Loop that BaseEventLoop leaves open."""

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> asyncio.SubprocessTransport:
        waiter = self.create_future()
        transport: asyncio.SubprocessTransport = _Transport(
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            waiter=waiter,
            extra=extra,
            **kwargs,
        )
        self._watch_child(transport)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()  # type: ignore[attr-defined]
            raise
        return transport

    def _watch_child(self, transport: Any) -> None:
        pid: int = transport.get_pid()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            threading.Thread(
                target=self._wait_for_child,
                args=(pid, transport),
                name=f"gyre-waitpid-{pid}",
                daemon=True,
            ).start()
            return
        self._add_reader(pidfd, self._child_ended, pid, pidfd, transport)  # type: ignore[attr-defined]

    def _child_ended(self, pid: int, pidfd: int, transport: Any) -> None:
        self._remove_reader(pidfd)  # type: ignore[attr-defined]
        os.close(pidfd)
        transport._process_exited(_exit_code(pid))

    def _wait_for_child(self, pid: int, transport: Any) -> None:
        code = _exit_code(pid)
        if self.is_closed():
            logger.warning("Loop %r that handles pid %r is closed", self, pid)
        else:
            self.call_soon_threadsafe(transport._process_exited, code)
