"""add_signal_handler and remove_signal_handler.

The Python-level handler notes the signal, in the main thread, whether the loop runs or not: one
that arrives between two runs is delivered by the next.  Who handles it is looked up behind the
callbacks of the next turn, and called in the turn after that: so asyncio does it, where the number
is an event of a descriptor.  A handler that was replaced or removed until then is not called.
Waking a sleeping loop is the C core's business (it owns signal.set_wakeup_fd() while the main
thread runs a loop).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import math
import signal
import sys
import warnings
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import _gyre

__all__ = ["SignalMixin"]


def _deliver(loop_ref: weakref.ref[SignalMixin], signum: int, frame: FrameType | None) -> None:
    loop = loop_ref()
    if loop is not None and not loop.is_closed():
        loop._signal_arrived(signum)


class SignalMixin(asyncio.BaseEventLoop):
    """The signal methods of gyre.Loop."""

    _signal_handlers: dict[int, asyncio.Handle]
    _signals_arrived: list[int]
    _watch_signals: Callable[[bool], None]

    def _check_signal(self, sig: object) -> None:
        if not isinstance(sig, int):
            raise TypeError(f"sig must be an int, not {sig!r}")
        if sig not in signal.valid_signals():
            raise ValueError(f"invalid signal number {sig}")

    def add_signal_handler(  # type: ignore[override]  # runs, and is checked as, any callable
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call callback(*args) in the loop when the signal arrives.

        TypeError or ValueError for a bad signal number, RuntimeError outside the main thread or for
        a signal that cannot be caught.
        """
        if inspect.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()  # type: ignore[attr-defined]
        handle = asyncio.Handle(callback, args, self, None)
        previous = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = handle
        try:
            signal.signal(sig, functools.partial(_deliver, weakref.ref(self)))
            signal.siginterrupt(sig, False)  # SA_RESTART, as asyncio sets it
        except (ValueError, OSError) as exc:
            if previous is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = previous
            if isinstance(exc, OSError):
                if exc.errno == errno.EINVAL:
                    raise RuntimeError(f"sig {sig} cannot be caught") from None
                raise
            # Not the main thread.  asyncio meets that in signal.set_wakeup_fd(), which says so.
            raise RuntimeError(str(exc).replace("signal only", "set_wakeup_fd only")) from None
        self._watch_signals(True)

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore the default handler.  True if there was a handler of this loop's."""
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        self._watch_signals(bool(self._signal_handlers))
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        return True

    def _signal_arrived(self, sig: int) -> None:
        """May be interrupted by itself anywhere: to look once more does no harm."""
        if self.is_running() and asyncio._get_running_loop() is not self:
            self.call_soon_threadsafe(self._handle_signal, sig)
            return
        first = not self._signals_arrived
        self._signals_arrived.append(sig)
        if first:
            self._look_for_signals()

    def _look_for_signals(self) -> None:
        """Those that arrived are looked up behind the callbacks and events of the next turn.

        C calls it, too, when an exception ends a turn: the look that this turn still owed goes
        first in the next, which has one at its end all the same, as asyncio's descriptor would
        still be readable.
        """
        if self._signals_arrived:  # a timer that is due goes there
            _gyre.LoopCore.call_at(self, -math.inf, self._handle_arrived)  # type: ignore[arg-type]

    def _handle_arrived(self) -> None:
        arrived = self._signals_arrived
        self._signals_arrived = []
        for sig in arrived:
            self._handle_signal(sig)

    def _handle_signal(self, sig: int) -> None:
        handle = self._signal_handlers.get(sig)
        if handle is None or self.is_closed():
            return  # removed between the signal and its delivery
        if handle._cancelled:
            self.remove_signal_handler(sig)
        else:
            self._add_callback_signalsafe(handle)  # type: ignore[attr-defined]

    def _signals_came(self, numbers: bytes) -> None:
        """These signals came while the loop slept or ran; C calls it.

        A program may have replaced the handler of add_signal_handler() with one of its own, by
        signal.signal() (uvicorn does): asyncio calls both.
        """
        for sig in numbers:
            if sig in self._signal_handlers:
                handler = signal.getsignal(sig)
                if not (isinstance(handler, functools.partial) and handler.func is _deliver):
                    self._handle_signal(sig)

    def _close_signals(self) -> None:
        if not self._signal_handlers:
            return
        if sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self._signal_handlers.clear()
            return
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)
