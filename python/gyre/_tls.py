"""TLS: gyre's SSLProtocol and its transport, asyncio's own with the data path in C.

Everything that happens once per connection (handshake, shutdown, time limits, messages) is the code
of asyncio.sslproto, in the version that runs; _gyre.SSLCore and _gyre.SSLTransportCore, which come
first in the bases, replace what runs per packet (src/binding/ssl.h).
"""

from __future__ import annotations

import os
from asyncio import StreamReaderProtocol, sslproto
from typing import Any

from . import _gyre

try:
    import _ssl
    import ssl

    _SSL_FILE = os.fsencode(_ssl.__file__) if hasattr(_ssl, "__file__") else None
except ImportError:  # a Python without TLS: asyncio says so when it is asked for
    ssl = None  # type: ignore[assignment]

__all__ = ["ssl_protocol"]

# Tests set it: "native"; "calls", as where OpenSSL cannot be called directly; "asyncio", for its
# classes alone.
implementation = "native"

_asyncio: Any = sslproto
_NO_BUFFER = bytearray()
_NO_VIEW = memoryview(_NO_BUFFER)


class SSLTransport(_gyre.SSLTransportCore, _asyncio._SSLProtocolTransport):  # type: ignore[misc]
    """What an application gets as its transport."""


_make_transport: Any = SSLTransport


class SSLProtocol(_gyre.SSLCore, _asyncio.SSLProtocol):  # type: ignore[misc]
    """The protocol of a stream transport that speaks TLS."""

    _app_transport: Any
    _app_transport_created: bool
    max_size = 0  # of the buffer that asyncio's __init__ makes: ours is the loop's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._watch(_SSL_FILE, _ssl.OPENSSL_VERSION if implementation == "native" else "")
        super().__init__(*args, **kwargs)
        self.max_size = _asyncio.SSLProtocol.max_size
        self._ssl_buffer = _NO_BUFFER
        self._ssl_buffer_view = _NO_VIEW

    # What was written in data_received() waits for its end: here it leaves, as in asyncio it has.

    def _abort(self, *args: Any) -> None:
        self._send_held()
        super()._abort(*args)

    def _fatal_error(self, exc: BaseException, *args: Any) -> None:
        if not isinstance(exc, OSError):  # else OpenSSL's alert would leave, too
            self._send_held()
        super()._fatal_error(exc, *args)

    def _get_app_transport(self) -> Any:
        if self._app_transport is None:
            if self._app_transport_created:
                raise RuntimeError("Creating _SSLProtocolTransport twice")
            self._app_transport = _make_transport(self._loop, self)
            self._app_transport_created = True
            self._adopt_streams()
        return self._app_transport


def _is_plain(sslcontext: Any) -> bool:
    """Whether the objects that this context makes are the ones that C knows."""
    return (
        isinstance(sslcontext, ssl.SSLContext)
        and type(sslcontext).wrap_bio is ssl.SSLContext.wrap_bio
        and type(sslcontext).sslobject_class is ssl.SSLObject
        and sslcontext.sslobject_class is ssl.SSLObject
        and "wrap_bio" not in vars(sslcontext)
        # What such a callback raises is found by _ssl's own calls alone.
        and getattr(sslcontext, "_msg_callback", None) is None
    )


def check_start_tls(transport: Any, sslcontext: Any) -> None:
    """What start_tls() refuses, in asyncio's words."""
    if ssl is None:
        raise RuntimeError("Python ssl module is not available")
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")


def move_received(protocol: Any, ssl_protocol: Any) -> None:
    """The client's first record may have come with its last plain line: StreamReader has it."""
    reader = getattr(protocol, "_stream_reader", None)
    if isinstance(protocol, StreamReaderProtocol) and reader is not None and reader._buffer:
        ssl_protocol._incoming.write(reader._buffer)
        reader._buffer.clear()


def ssl_protocol(sslcontext: Any) -> Any:
    """The class for a connection with this context (None: the default one)."""
    if ssl is None or implementation == "asyncio":
        return _asyncio.SSLProtocol
    return SSLProtocol if not sslcontext or _is_plain(sslcontext) else _asyncio.SSLProtocol
