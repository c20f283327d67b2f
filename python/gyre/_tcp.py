"""TCP: what happens once per connection, per server or per sock_*() call; the rest is C.

`TCPMixin` comes before LoopCore in gyre.Loop's bases.
"""

from __future__ import annotations

import os
import socket
from asyncio import base_events, constants
from asyncio.log import logger
from typing import Any

from . import _gyre, _tls

__all__ = ["TCPMixin"]

_SockOp = _gyre.SockOp
_SOCKET = socket.socket  # some tests put a function in its place
_check_ssl_socket: Any = base_events._check_ssl_socket  # type: ignore[attr-defined]
_HANDSHAKE_TIMEOUT: float = constants.SSL_HANDSHAKE_TIMEOUT
_SHUTDOWN_TIMEOUT: float = constants.SSL_SHUTDOWN_TIMEOUT


class TCPMixin:
    """The Python half of TCP in gyre.Loop."""

    _debug: bool
    create_future: Any
    create_task: Any
    call_soon: Any
    call_exception_handler: Any
    _ensure_resolved: Any
    _make_socket_transport: Any
    _make_accepted_transport: Any
    _transport_of_fd: Any
    _transports: Any
    _unix_server_sockets: dict[Any, Any]
    _peer_address: Any
    _sock_recv: Any
    _sock_recv_into: Any
    _sock_recvfrom: Any
    _sock_recvfrom_into: Any
    _sock_sendto: Any
    _sock_sendall: Any
    _sock_wait: Any
    _sock_accept: Any
    _sock_connect: Any

    # ---- transports

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = _HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = _SHUTDOWN_TIMEOUT,
        context: Any = None,
    ) -> Any:
        ssl_protocol = _tls.ssl_protocol(sslcontext)(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._make_socket_transport(
            rawsock, ssl_protocol, extra=extra, server=server, context=context
        )
        return ssl_protocol._app_transport

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade transport to TLS; the new transport, which protocol is to use from now on."""
        _tls.check_start_tls(transport, sslcontext)
        waiter = self.create_future()
        ssl_protocol = _tls.ssl_protocol(sslcontext)(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # So that nothing is received before connection_made().
        transport.pause_reading()
        if server_side:
            _tls.move_received(protocol, ssl_protocol)
        transport.set_protocol(ssl_protocol)
        connection_made = self.call_soon(ssl_protocol.connection_made, transport)
        resume_reading = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            connection_made.cancel()
            resume_reading.cancel()
            raise
        return ssl_protocol._app_transport

    def _accept_tls(
        self, fd: int, is_tcp: bool, protocol_factory: Any, server: Any, tls_args: Any
    ) -> None:
        """A new connection of a server with an sslcontext; the listener calls this."""
        sslcontext, handshake_timeout, shutdown_timeout = tls_args
        protocol = None
        try:
            try:
                protocol = protocol_factory()
                waiter = self.create_future()
                ssl_protocol = _tls.ssl_protocol(sslcontext)(
                    self,
                    protocol,
                    sslcontext,
                    waiter,
                    server_side=True,
                    ssl_handshake_timeout=handshake_timeout,
                    ssl_shutdown_timeout=shutdown_timeout,
                )
                self._make_accepted_transport(fd, is_tcp, ssl_protocol, server)
            except BaseException:
                os.close(fd)
                raise
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report_accept(exc, protocol, None)
        else:
            transport = ssl_protocol._app_transport
            self.create_task(self._handshake(waiter, protocol, transport))

    async def _handshake(self, waiter: Any, protocol: Any, transport: Any) -> None:
        try:
            try:
                await waiter
            finally:
                # An exception in it would keep the protocol alive in a cycle.
                del waiter
        except BaseException as exc:
            transport.close()
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            self._report_accept(exc, protocol, transport)

    def _report_accept(self, exc: BaseException, protocol: Any, transport: Any) -> None:
        if not self._debug:
            return
        context = {
            "message": "Error on transport creation for incoming connection",
            "exception": exc,
        }
        if protocol is not None:
            context["protocol"] = protocol
        if transport is not None:
            context["transport"] = transport
        self.call_exception_handler(context)

    def _stop_serving(self, sock: socket.socket) -> None:
        """Stop accepting; remove the file of a UNIX server that is to be removed with it (3.13)."""
        # From 3.13 on create_unix_server() notes the inodes of the paths that it has to remove.
        inode = self._unix_server_sockets.pop(sock, None)
        path = sock.getsockname() if inode is not None else None
        super()._stop_serving(sock)  # type: ignore[misc]
        if path is None:
            return
        try:
            if os.stat(path).st_ino == inode:
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        """RuntimeError if a transport uses this descriptor: nobody else may wait for it."""
        fileno = fd
        if not isinstance(fileno, int):
            try:
                fileno = int(fileno.fileno())
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"Invalid file object: {fd!r}") from None
        transport = self._transport_of_fd(fileno) if abs(fileno) < 1 << 31 else None
        if transport is None:
            transport = self._transports.get(fileno)
        if transport is not None and not transport.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")

    # ---- sock_*: the call is tried at once, only the wait is on the ring.  Then it gives a SockOp,
    # which ends with the coroutine that awaits it

    def _check_sock(self, sock: Any, method: str) -> bool:
        """True: this is not socket.socket's method; the one that it is has to be called."""
        another = False
        if type(sock) is not _SOCKET:
            _check_ssl_socket(sock)
            another = getattr(type(sock), method, None) is not getattr(_SOCKET, method)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        return another

    @_gyre._sock_method
    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to n bytes."""
        if self._check_sock(sock, "recv"):
            return await self._try_when_ready(sock, False, "recv", n)  # type: ignore[no-any-return]
        op = self._sock_recv(sock, n)
        return await op if type(op) is _SockOp else op  # type: ignore[no-any-return]

    @_gyre._sock_method
    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into a writable buffer; the number of bytes."""
        if self._check_sock(sock, "recv_into"):
            return await self._try_when_ready(sock, False, "recv_into", buf)  # type: ignore[no-any-return]
        op = self._sock_recv_into(sock, buf)
        return await op if type(op) is _SockOp else op  # type: ignore[no-any-return]

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram of up to bufsize bytes: (bytes, address)."""
        another = self._check_sock(sock, "recvfrom")
        op = NotImplemented if another else self._sock_recvfrom(sock, bufsize)
        if op is NotImplemented:
            return await self._try_when_ready(sock, False, "recvfrom", bufsize)  # type: ignore[no-any-return]
        return await op if type(op) is _SockOp else op  # type: ignore[no-any-return]

    async def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> tuple[int, Any]:
        """Receive a datagram into a writable buffer: (number of bytes, address)."""
        another = self._check_sock(sock, "recvfrom_into")
        op = NotImplemented if another else self._sock_recvfrom_into(sock, buf, nbytes or 0)
        if op is NotImplemented:
            return await self._try_when_ready(  # type: ignore[no-any-return]
                sock, False, "recvfrom_into", buf, nbytes or len(buf)
            )
        return await op if type(op) is _SockOp else op  # type: ignore[no-any-return]

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send data as one datagram to address; the number of bytes."""
        another = self._check_sock(sock, "sendto")
        op = NotImplemented if another else self._sock_sendto(sock, data, address)
        if op is NotImplemented:
            return await self._try_when_ready(sock, True, "sendto", data, address)  # type: ignore[no-any-return]
        return await op if type(op) is _SockOp else op  # type: ignore[no-any-return]

    async def _try_when_ready(
        self, sock: socket.socket, writable: bool, method: str, *args: Any
    ) -> Any:
        """sock.method(*args), again whenever the socket is ready, until it need not wait."""
        while True:
            try:
                return getattr(sock, method)(*args)
            except (BlockingIOError, InterruptedError):
                pass
            await self._sock_wait(sock, writable)

    @_gyre._sock_method
    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of data."""
        if self._check_sock(sock, "send"):
            await self._sendall_otherwise(sock, data)
            return
        op = self._sock_sendall(sock, data)
        if type(op) is _SockOp:
            await op

    async def _sendall_otherwise(self, sock: Any, data: Any) -> None:
        sent = await self._try_when_ready(sock, True, "send", data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            await self._sock_wait(sock, True)
            sent = await self._try_when_ready(sock, True, "send", data)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection: (socket, address)."""
        if self._check_sock(sock, "accept"):
            sock.fileno()  # what is no socket has none, says asyncio
            conn, address = await self._try_when_ready(sock, False, "accept")
            conn.setblocking(False)
            return conn, address
        op = self._sock_accept(sock)
        fd = await op if type(op) is _SockOp else op
        conn = socket.socket(sock.family, sock.type, sock.proto, fileno=fd)
        conn.setblocking(False)
        address = self._peer_address(conn.fileno())
        return conn, conn.getpeername() if address is None else address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to address, looking its host up if need be."""
        another = self._check_sock(sock, "connect")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        op = NotImplemented if another else self._sock_connect(sock, address)
        if op is NotImplemented:
            await self._connect_otherwise(sock, address)
            return
        if type(op) is _SockOp:
            await op

    async def _connect_otherwise(self, sock: socket.socket, address: Any) -> None:
        """For families whose addresses only the socket module knows, and what is like a socket."""
        try:
            sock.connect(address)
            return
        except (BlockingIOError, InterruptedError):
            pass
        await self._sock_wait(sock, True)
        err = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if err != 0:
            raise OSError(err, f"Connect call failed {address}")
