"""Subprocesses: asyncio's own transport over gyre's pipes, and the child's end by a pidfd.

No SIGCHLD handler, no child watcher, no thread: a pidfd is readable when the child has ended, and
one poll of the ring waits for that.  It also names the child for as long as it is open, so that no
signal hits a stranger that got its number.  Where pidfd_open is refused (a sandbox), one thread per
child waits for it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
from asyncio import unix_events
from asyncio.log import logger
from typing import Any

__all__ = ["SubprocessMixin"]

_Base: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]
_LOST = "Unknown child process pid %d, will report returncode 255"


class _Child:
    """A child that is not yet reaped, by its pidfd; -1 afterwards."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def fileno(self) -> int:
        return self.pidfd

    def send_signal(self, sig: int) -> None:
        """As os.kill(), but only this child is hit; nothing if it is reaped."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, sig)
        except ProcessLookupError:
            pass
        except OSError:
            os.kill(self.pid, sig)  # a sandbox that knows kill() alone; or its own answer

    def reap(self) -> int:
        """The exit code, or minus the number of the signal.  ChildProcessError: reaped before."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            raise
        except OSError:  # Linux before 5.4
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)


class _SubprocessTransport(_Base):  # type: ignore[misc]
    """asyncio's transport, with signals that cannot miss and no pipe left behind."""

    _child: _Child | None = None

    async def _connect_pipes(self, waiter: Any) -> None:
        proc = self._proc
        await super()._connect_pipes(waiter)
        if self._closed or any(pipe is None for pipe in self._pipes.values()):
            # close() was called, or it failed, while they were being connected.
            for protocol in self._pipes.values():
                if protocol is not None:
                    protocol.pipe.close()
            if not self._closed:
                for pipe in (proc.stdin, proc.stdout, proc.stderr):
                    if pipe is not None:
                        pipe.close()

    def send_signal(self, signal: int) -> None:
        self._check_proc()
        if self._returncode is not None:
            return
        if self._child is None:
            super().send_signal(signal)
        else:
            self._child.send_signal(signal)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class SubprocessMixin(asyncio.BaseEventLoop):
    """The subprocess methods of gyre.Loop that BaseEventLoop leaves open."""

    _children: dict[int, _Child]  # by pidfd
    _sock_wait: Any

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
        transport = _SubprocessTransport(
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
            await asyncio.shield(transport._wait())
            raise
        return transport

    def _watch_child(self, transport: Any) -> None:
        pid: int = transport.get_pid()
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # another part of the program waits for every child
            self.call_soon(self._child_is_lost, pid, transport)
            return
        except OSError:
            self._start_waiting_thread(pid, transport)
            return
        child = _Child(pid, pidfd)
        transport._child = child
        transport._proc.send_signal = child.send_signal  # kill() and terminate() call it
        self._children[pidfd] = child
        ended = self._sock_wait(child, False).future
        ended.add_done_callback(functools.partial(self._child_ended, child, transport))

    def _child_ended(self, child: _Child, transport: Any, ended: Any) -> None:
        del self._children[child.pidfd]
        try:
            code = child.reap()
        except ChildProcessError:
            self._child_is_lost(child.pid, transport)
        else:
            transport._process_exited(code)
        finally:
            child.close()

    def _child_is_lost(self, pid: int, transport: Any) -> None:
        """Somebody else has reaped it: Popen.poll(), which knows, or a stranger: then, as asyncio
        does, 255."""
        code = transport._proc.returncode
        if code is None:
            logger.warning(_LOST, pid)
            code = 255
        transport._process_exited(code)

    def _close_children(self) -> None:
        """The loop is being closed: nobody hears of their ends any more."""
        for child in self._children.values():
            child.close()
        self._children.clear()

    # ---- where there is no pidfd_open

    def _start_waiting_thread(self, pid: int, transport: Any) -> None:
        def start(daemon: bool) -> None:
            threading.Thread(
                target=self._wait_for_child,
                args=(pid, transport),
                name=f"gyre-waitpid-{pid}",
                daemon=daemon,
            ).start()

        try:
            start(daemon=True)
        except RuntimeError:  # a subinterpreter that allows none
            start(daemon=False)

    def _wait_for_child(self, pid: int, transport: Any) -> None:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            report: Any = (self._child_is_lost, pid, transport)
        else:
            report = (transport._process_exited, code)
        try:
            self.call_soon_threadsafe(*report)
        except RuntimeError:
            logger.warning("Loop %r that handles pid %r is closed", self, pid)
