"""The servers half of a differential world: connections that others begin, and servers that end.

A program dials in a step of its own: what a server that is closed in the same turn makes of those
that wait to be accepted no loop promises.
"""

import collections
import contextlib
import socket

from differential import ssl_context, told
from differential_transports import SOCKET_BYTES, Conn, TlsEnd, Transports


def bound(kind):
    """A socket to listen on, which those that it accepts get their buffers' sizes from."""
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
    else:  # asyncio asks for no delay only where the protocol was named
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind("" if kind == "unix" else ("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return sock


class Served:
    """A server of the program's."""

    def __init__(self, number, kind, options):
        self.label = f"v{number}"
        self.kind = kind
        self.options = options  # of its connections
        self.sock = bound("unix" if kind == "tls" else kind)  # see stream_pair()
        self.address = self.sock.getsockname()
        self.server = None
        self.dialled = collections.deque()
        self.tasks = {}


class Servers(Transports):
    def __init__(self, loop):
        super().__init__(loop)
        self.served = []

    def op_serve(self, kind, start, *options):
        served = Served(len(self.served), kind, options)
        self.served.append(served)
        self.closing.append(served.sock)
        self.spawn_for(served, "serve", self.serve(served, start))

    async def serve(self, served, start):
        options = {"ssl": ssl_context(True)} if served.kind == "tls" else {}
        unix = served.sock.family == socket.AF_UNIX
        make = self.loop.create_unix_server if unix else self.loop.create_server

        def factory():
            buffered, _, _ = served.options
            return served.dialled.popleft().protocol(buffered)

        served.server = await make(factory, sock=served.sock, start_serving=start, **options)

    def spawn_for(self, served, name, coro):
        async def run():
            try:
                result = await coro
            except BaseException as exc:
                self.note(served.label, name, told(exc))
            else:
                self.note(served.label, name, "done", result)

        task = self.loop.create_task(run())
        served.tasks[name] = task
        self.watched.append(task)

    def op_peer_dial(self, number):
        """Before there is a server, and when it was closed, that is refused."""
        if not self.served:
            return
        served = self.served[number % len(self.served)]
        sock = socket.socket(served.sock.family if served.kind == "tcp" else socket.AF_UNIX)
        self.closing.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        if served.kind == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(served.address)
        except OSError as exc:
            self.note(served.label, "refused", told(exc))
            return
        sock.setblocking(False)
        _, flow, plan = served.options
        conn = Conn(self, len(self.conns), served.kind, plan, flow)
        conn.peer = TlsEnd(sock, False) if served.kind == "tls" else sock
        self.conns.append(conn)
        served.dialled.append(conn)

    def op_server(self, number, what):
        served = self.served[number % len(self.served)] if self.served else None
        if served is None or served.server is None:
            return None
        server = served.server
        if what == "look":
            return server.is_serving(), len(server.sockets), server.get_loop() is self.loop
        if what == "cancel":
            return [served.tasks[name].cancel() for name in sorted(served.tasks)]
        if what in ("wait_closed", "serve_forever", "start_serving"):
            self.spawn_for(served, what, getattr(server, what)())
        elif hasattr(server, what):  # close, and close_clients, abort_clients since 3.13
            if what != "close":
                for conn in self.conns:
                    conn.unclean = True
            getattr(server, what)()
        return None

    def finish(self):
        for served in self.served:
            if served.server is not None:
                served.server.close()
        self.settle()
        super().finish()
        with contextlib.suppress(IndexError):
            for served in self.served:
                self.note(served.label, "not accepted", len(served.dialled))
