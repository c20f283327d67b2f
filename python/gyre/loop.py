"""gyre.Loop: the C core before asyncio.BaseEventLoop in the MRO.

What runs per callback, per step or per packet is C (LoopCore); orchestration (happy eyeballs,
servers, start_tls, executors, asyncgens) is inherited and follows each Python release.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
import weakref
from asyncio import unix_events
from typing import Any

from . import _gyre
from ._file_call import FileCallMixin
from ._sendfile import SendfileMixin
from ._signals import SignalMixin
from ._subprocess import SubprocessMixin
from ._tcp import TCPMixin

__all__ = ["Loop", "new_event_loop"]

# Bound here: the names in asyncio may be replaced by the program, as tests/conformance does.
_Base = asyncio.BaseEventLoop
_Unix: Any = unix_events._UnixSelectorEventLoop

# The address lookup that numeric addresses may bypass; a patched one must see every call.
_getaddrinfo = socket.getaddrinfo


def _is_numeric(host: Any, port: Any) -> bool:
    """True if getaddrinfo() would look nothing up: a numeric address and a numeric port."""
    if isinstance(host, bytes):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if isinstance(port, bytes):
        port = port.decode("latin-1")
    if isinstance(port, str):
        if not (port.isdecimal() and port.isascii()):
            return False
    elif not (port is None or isinstance(port, int)):
        return False
    if host is None:
        return port is not None
    if not isinstance(host, str) or "\0" in host:
        return False
    address, _, _zone = host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return True
    return False


class Loop(
    TCPMixin,
    _gyre.LoopCore,
    FileCallMixin,
    SendfileMixin,
    SignalMixin,
    SubprocessMixin,
    asyncio.BaseEventLoop,
):
    """An asyncio event loop on io_uring.

    backend: 'auto', 'io_uring' or 'epoll'; None reads GYRE_BACKEND and defaults to 'auto'.
    receive: how TCP streams receive.  'poll' (the default): a poll per connection and recv(2), good
    at every size.  'multishot': io_uring's multishot receive into buffers that all connections
    share, with fewer system calls for small messages; where the kernel lacks it, 'poll'.
    send: how streams send.  'immediate': by send(2) as soon as the callback ends, or at once if it
    is much; what the socket does not take leaves by the ring.  'adaptive' (the default): the same,
    but while many connections are answered by quick callbacks, their small sends wait for one
    another, about 160 us at most, and leave by one system call; not on epoll.  'batched': all by
    the ring, submitted by the system call that waits for events, one for many connections.
    busy_poll: microseconds that the loop looks for events before it sleeps, because to be woken
    takes longer than that. None (the default): up to 50, while waits usually take less than 25,
    within an eighth of the time beyond what sleeps would have cost (10 each). 0: never. Any other
    number: always, that long.
    udp_offload: datagrams of one size to one destination, sent in a row in one callback, leave as
    one system call (UDP_SEGMENT), and those of one sender arrive by one (UDP_GRO), where the kernel
    can; protocols see no difference.
    heap_trim: what a burst of messages leaves in the C library's heap goes back to the system
    (malloc_trim(3)) once the loop has had little to do for a tenth of a second, and while large
    messages come it stays where it is; glibc only.
    Raises BackendError, with the cause and a remedy, where the backend is refused.
    """

    def __init__(
        self,
        *,
        backend: str | None = None,
        receive: str | None = None,
        send: str | None = None,
        busy_poll: float | None = None,
        udp_offload: bool = True,
        heap_trim: bool = True,
    ) -> None:
        self._signal_handlers = {}
        self._signals_arrived = []
        self._children = {}
        self._unix_server_sockets: dict[Any, Any] = {}
        # Transports of other libraries by descriptor, as asyncio's own code keeps them.
        self._transports: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        _gyre.LoopCore.__init__(
            self,
            backend=backend,
            receive=receive,
            send=send,
            busy_poll=busy_poll,
            udp_offload=udp_offload,
            heap_trim=heap_trim,
        )
        _Base.__init__(self)

    def run_forever(self) -> None:
        """Run until stop() is called."""
        before: bool = self._forever  # type: ignore[has-type]
        self._forever = True  # one _run_once() makes all the turns
        try:
            super().run_forever()
        finally:
            self._forever = before

    def close(self) -> None:
        """Close the loop.  Pending callbacks are dropped, open transports' descriptors closed."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        self._close_signals()
        self._close_file_threads()
        self._close_core()
        self._close_children()
        super().close()

    @property
    def _nest_patched(self) -> bool:
        # nest_asyncio.apply() asks for this first. It would replace the turn, which is C here, and
        # fail later in the selector that gyre has not: better now, and in words.
        raise RuntimeError(
            "nest_asyncio cannot patch a gyre loop: it replaces parts of asyncio's own loop that "
            "gyre does not have; await instead, or run the inner loop in a thread"
        )

    def __del__(self, _warn: Any = warnings.warn, _is_finalizing: Any = sys.is_finalizing) -> None:
        # A loop whose creation failed has nothing to close.
        if self.backend is None or self.is_closed():
            return
        _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
        if not self.is_running():
            if _is_finalizing():
                self.set_debug(False)  # close() would log, and the logger may be gone
            self.close()

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """socket.getaddrinfo() without blocking; numeric addresses are answered at once."""
        if (
            socket.getaddrinfo is _getaddrinfo
            and isinstance(flags, int)
            and not self.get_debug()
            and _is_numeric(host, port)
        ):
            self._check_closed()  # type: ignore[attr-defined]
            numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return _getaddrinfo(host, port, family, type, proto, flags | numeric)
        return await super().getaddrinfo(
            host, port, family=family, type=type, proto=proto, flags=flags
        )

    # asyncio's own unix loop has these on top of the hooks that gyre supplies, and they touch
    # nothing else.
    create_unix_connection = _Unix.create_unix_connection
    create_unix_server = _Unix.create_unix_server


Loop._own_methods()


def new_event_loop(
    *,
    backend: str | None = None,
    receive: str | None = None,
    send: str | None = None,
    busy_poll: float | None = None,
    udp_offload: bool = True,
    heap_trim: bool = True,
) -> Loop:
    """A new gyre.Loop; the parameters are Loop's."""
    return Loop(
        backend=backend,
        receive=receive,
        send=send,
        busy_poll=busy_poll,
        udp_offload=udp_offload,
        heap_trim=heap_trim,
    )
