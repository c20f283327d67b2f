"""The transports half of a differential world: connections, protocols with plans, their other ends.

A connection's protocol notes every callback.  Its plan says what else it does: entries
(callback, n-th call, actions, ending), an ending being None, ("raise", key) or ("return", value).
The other end is a plain socket.  It reads as long as its flow is on, or what it was told to take;
that, and its side of TLS, happens between the turns of the loop.
"""

import asyncio
import asyncio.selector_events
import contextlib
import math
import os
import socket
import ssl
import struct
import sys
import tempfile
import zlib

import tcp_tools
from differential import EXCEPTIONS, World, pattern, readable, ssl_context, told

BIG = 1_000_000  # more than any socket here holds, by more than any limit
SOCKET_BYTES = 131_072
LINES_PAUSE = sys.version_info < (3, 12) or "_maybe_pause_protocol" in (
    asyncio.selector_events._SelectorSocketTransport.writelines.__code__.co_names
)
PIPES = ("rpipe", "wpipe")
DATAGRAMS = frozenset(["udp", "udp_any", "unix_dgram"])


class PipeEnd:
    """The other end of a pipe, with the methods of a socket that are used here."""

    def __init__(self, fd):
        self.fd = fd
        os.set_blocking(fd, False)

    def fileno(self):
        return self.fd

    def send(self, data):
        return os.write(self.fd, data)

    def recv(self, size):
        return os.read(self.fd, size)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def shutdown(self, how):
        self.close()


class TlsEnd:
    """The other end of a TLS connection, between the program and a socket."""

    def __init__(self, sock, server_side):
        self.sock = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.object = ssl_context(server_side).wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )
        self.shaken = False
        self.unsent = b""

    def fileno(self):
        return self.sock.fileno()

    def close(self):
        self.sock.close()

    def flush(self):
        self.unsent += self.outgoing.read()
        while self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def shake(self):
        """True if the handshake went on."""
        if self.shaken:
            return False
        before = self.incoming.pending
        try:
            self.object.do_handshake()
            self.shaken = True
        except ssl.SSLWantReadError:
            pass
        self.flush()
        return self.shaken or self.incoming.pending != before

    def send(self, data):
        if self.shaken:
            self.object.write(data)
            self.flush()
        return len(data)

    def recv(self, size):
        """Raises BlockingIOError when there is nothing, as a socket does."""
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(size)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()
        if not self.shaken and self.shake():
            return None
        try:
            return self.object.read(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def shutdown(self, how):
        if self.shaken:
            with contextlib.suppress(ssl.SSLError):
                self.object.unwrap()
        self.flush()


class Traced:
    """What every kind of protocol notes."""

    def __init__(self, conn, number):
        self.conn = conn
        self.number = number

    def call(self, name, *args):
        return self.conn.called(name, self.number, *args)

    def connection_made(self, transport):
        self.conn.transport = transport
        self.conn.below = getattr(transport, "_ssl_protocol", None)
        self.call("connection_made")

    def connection_lost(self, exc):
        self.conn.unclean |= exc is not None
        try:
            self.call("connection_lost", told(exc))
        finally:
            self.conn.lost = True

    def pause_writing(self):
        self.call("pause_writing")

    def resume_writing(self):
        self.call("resume_writing")


class TracedStream(Traced, asyncio.Protocol):
    def data_received(self, data):
        assert type(data) is bytes
        self.conn.got(self.number, data)

    def eof_received(self):
        return self.call("eof_received")


class TracedBuffered(Traced, asyncio.BufferedProtocol):
    def __init__(self, conn, number):
        super().__init__(conn, number)
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        ending = self.conn.react("get_buffer")
        if ending is None:
            return self.buffer
        return {0: bytearray(), 1: None, 2: b"no", 3: 7}.get(ending, self.buffer)

    def buffer_updated(self, nbytes):
        self.conn.got(self.number, self.buffer[:nbytes])

    def eof_received(self):
        return self.call("eof_received")


class TracedDatagrams(Traced, asyncio.DatagramProtocol):
    def datagram_received(self, data, addr):
        self.call("datagram_received", len(data), zlib.crc32(data), host_of(addr))

    def error_received(self, exc):
        self.call("error_received", told(exc))


def host_of(address):
    """An address without the port, which the kernel chose."""
    if isinstance(address, tuple):
        return address[0]
    return type(address).__name__


class Conn:
    def __init__(self, world, number, kind, plan, flow):
        self.world = world
        self.number = number
        self.label = f"c{number}"
        self.kind = kind
        self.plan = plan
        self.flow = flow
        self.counts = {}
        self.protocols = 0
        self.transport = None
        self.below = None  # the SSLProtocol, which knows the transport under TLS
        self.peer = None
        self.address = None
        self.lost = False
        self.unclean = False  # not everything that was written need have arrived
        self.big = False
        self.sent = 0
        self.peer_sent = 0
        self.wanted = 0
        self.peer_got = self.noted = self.crc = 0
        self.peer_over = False
        self.sending = False  # a file
        self.wrote = None  # the step in which something was written last
        self.last_words = None  # the step in which something was written to a peer that has left

    def protocol(self, buffered=False):
        self.protocols += 1
        if self.kind in DATAGRAMS:
            return TracedDatagrams(self, self.protocols)
        return (TracedBuffered if buffered else TracedStream)(self, self.protocols)

    def called(self, name, *args):
        self.world.note(self.label, name, *args)
        return self.react(name)

    def react(self, name):
        count = self.counts[name] = self.counts.get(name, 0) + 1
        for callback, nth, actions, ending in self.plan:
            if callback == name and nth == count - 1:
                for action, *args in actions:
                    if not self.is_undefined(callback, action):
                        self.world.act(self.label, (action, self.number, *args))
                if ending is not None and not self.is_undefined(callback, ending[1]):
                    how, what = ending
                    if how == "raise":
                        raise EXCEPTIONS[what]()
                    return what
        return None

    def is_undefined(self, callback, action):
        """asyncio goes on with what it was doing, and stumbles or breaks its own promise."""
        ends = action in ("close", "abort", "write_eof")
        if callback == "get_buffer":
            # It calls buffer_updated() after close() or pause_reading(), and after a write() that
            # met the peer's reset it receives all the same, and tells eof_received().
            writes = self.unclean and action in ("write", "writelines")
            return ends or writes or action in ("pause", "set_protocol")
        if callback == "connection_made":  # it registers a reader for a pipe that is closed
            return ends and self.kind in PIPES
        if callback == "eof_received":  # the end is still readable, and told again
            return action in ("exit", "interrupt")
        if callback == "resume_writing":  # its writer stays, with nothing to write
            # And what is left then, which other limits may be less than, is the kernel's choice.
            # A pipe that is closed there is lost at once, and again by a callback that fails.
            return action in ("exit", "interrupt", "limits") or (ends and self.kind in PIPES)
        return False

    def got(self, number, data):
        self.world.count(self.label, "data", len(data), number)
        self.react("data_received")

    # ---- the other end

    def note(self, *event):
        """In a trace of its own: the peer acts between turns, whose number is by chance."""
        self.world.note(self.label + " peer", *event)

    def take(self, most):
        """Takes up to so many bytes of what has arrived at the peer; True if it was something."""
        try:
            data = self.peer.recv(min(most, 1 << 20) if most < math.inf else 1 << 20)
        except BlockingIOError:
            return False
        except OSError as exc:
            self.peer_over = True
            if self.kind not in DATAGRAMS:
                self.note_end(exc)
            return True
        if data is None:
            return True
        if not data and self.kind not in DATAGRAMS:
            self.peer_over = True
            self.note("end")
            return True
        self.peer_got += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self.wanted -= len(data)
        return True

    def note_end(self, exc):
        """Of a handshake: what is closing may be closed before the peer's first word or after it,
        by how many turns it took to accept the connection; EPIPE, ECONNRESET or an end tells which,
        and nothing else has the peer seen."""
        shakes = isinstance(self.peer, TlsEnd) and not self.peer.shaken
        early = shakes and isinstance(exc, (ConnectionError, ssl.SSLEOFError))
        # Closed with something unread: what the kernel had not sent by then is gone.
        self.unclean |= isinstance(exc, ConnectionResetError)
        self.note("end", "no handshake" if early else told(exc)[0])

    def pump(self):
        if self.peer is None or self.peer_over or self.peer.fileno() < 0 or self.kind == "rpipe":
            return False
        if isinstance(self.peer, TlsEnd) and not self.peer.shaken:
            return self.shake()
        most = math.inf if self.flow else self.wanted
        return most > 0 and self.take(most)

    def shake(self):
        try:
            return self.peer.shake() or self.take(math.inf)
        except ConnectionError as exc:
            self.note_end(exc)
        except OSError as exc:
            self.note("handshake", told(exc))
        self.peer_over = True
        return True

    def note_peer(self):
        """What the peer got in this step; how much of what was lost left before is by chance."""
        if self.peer_got != self.noted and not (self.big and self.unclean):
            self.noted = self.peer_got
            self.note("got", self.peer_got, self.crc)


def is_over(transport):
    """True after connection_lost()."""
    try:
        return transport.get_protocol() is None
    except AttributeError:  # of TLS in asyncio, which has lost its other half
        return True


def stream_pair(kind):
    """TLS runs over a socketpair: a window of TCP that was shut opens when a timer says so."""
    if kind == "tcp":
        ours, theirs = tcp_tools.pair()
    else:
        ours, theirs = socket.socketpair()
    # Less than BIG, and for TCP more than a segment: see above.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
    if kind == "tcp":  # else asyncio waits for an acknowledgement, 40 ms
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def named_pair():
    """Two UNIX datagram sockets with names of the kernel's choice, connected."""
    pair = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in pair:
        sock.bind("")
    pair[0].connect(pair[1].getsockname())
    pair[1].connect(pair[0].getsockname())
    return pair


class Transports(World):
    def __init__(self, loop):
        super().__init__(loop)
        self.conns = []
        self.callbacks = 0
        self.watched = []

    def label_of(self, context):
        protocol = context.get("protocol")
        conn = getattr(protocol, "conn", None)
        return conn.label if conn else super().label_of(context)

    def on_exception(self, loop, context):
        exc = context.get("exception")
        if isinstance(exc, AttributeError) and "'NoneType'" in str(exc):
            return  # asyncio's write handlers go on with a transport that resume_writing() closed
        super().on_exception(loop, context)

    # ---- opening

    def op_open(self, kind, client, buffered, flow, plan):
        """client: as the side that connects, where that makes a difference."""
        conn = Conn(self, len(self.conns), kind, plan, flow)
        self.conns.append(conn)
        if kind in DATAGRAMS:
            opening = self.open_datagram(conn)
        elif kind in PIPES:
            opening = self.open_pipe(conn, buffered)
        else:
            opening = self.open_stream(conn, client, buffered)
        self.watch(conn, "open", opening)

    def watch(self, conn, name, coro):
        async def run():
            try:
                await coro
            except Exception as exc:
                self.note(conn.label, name, told(exc))
            else:
                self.note(conn.label, name, "done")

        self.watched.append(self.loop.create_task(run()))

    async def open_stream(self, conn, client, buffered):
        ours, theirs = stream_pair(conn.kind)
        self.closing += (ours, theirs)
        options = {}
        conn.peer = theirs
        if conn.kind == "tls":
            conn.peer = TlsEnd(theirs, server_side=client)
            options["ssl"] = ssl_context(not client)
            if client:
                options["server_hostname"] = "localhost"
        if client:
            make = self.loop.create_connection
            await make(lambda: conn.protocol(buffered), sock=ours, **options)
        else:
            make = self.loop.connect_accepted_socket
            await make(lambda: conn.protocol(buffered), ours, **options)

    async def open_pipe(self, conn, buffered):
        read_fd, write_fd = os.pipe()
        if conn.kind == "rpipe":
            ours, conn.peer = open(read_fd, "rb", buffering=0), PipeEnd(write_fd)
            make = self.loop.connect_read_pipe
        else:
            ours, conn.peer = open(write_fd, "wb", buffering=0), PipeEnd(read_fd)
            make = self.loop.connect_write_pipe
        self.closing += (ours, conn.peer)
        await make(lambda: conn.protocol(False), ours)

    async def open_datagram(self, conn):
        if conn.kind == "unix_dgram":
            ours, conn.peer = named_pair()
            options = {"sock": ours}
            self.closing.append(ours)
        else:
            conn.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            conn.peer.bind(("127.0.0.1", 0))
            options = {"local_addr": ("127.0.0.1", 0)}
            conn.address = conn.peer.getsockname()
            if conn.kind == "udp":
                options["remote_addr"] = conn.address
        conn.peer.setblocking(False)
        self.closing.append(conn.peer)
        transport, _ = await self.loop.create_datagram_endpoint(conn.protocol, **options)
        if conn.kind != "unix_dgram":
            conn.peer.connect(transport.get_extra_info("sockname"))

    # ---- what is done to a transport

    def of(self, number, method=None):
        """The connection if there is one and its transport has this method, else nothing.

        After connection_lost() asyncio's transports have neither loop nor socket, and some methods
        stumble over that: they may be closed and looked at.
        """
        if not self.conns:
            return None
        conn = self.conns[number % len(self.conns)]
        if conn.transport is None or (method and not hasattr(conn.transport, method)):
            return None
        if method is not None and (conn.lost or is_over(conn.transport)):
            return None
        return conn

    def free(self, number, method=None):
        """As of(), but not while it sends a file: asyncio does not expect that it is closed then,
        reads, or has another protocol."""
        conn = self.of(number, method)
        return None if conn is None or conn.sending else conn

    def is_held(self, conn):
        """Whether a write may wait for the end of its callback, to hear that the peer has left:
        asyncio knows it at once, and what depends on that differs."""
        return conn.wrote is self.step and conn.peer.fileno() < 0

    def next_bytes(self, conn, size):
        """Not much to a peer that has left, and but once per step: whether pause_writing() comes
        before the error depends on how often a transport tries at once, and a second write of the
        same callback, which may leave with the first, may meet the reset that answers that."""
        if size and conn.peer.fileno() < 0:
            size = 0 if conn.last_words is self.step else min(size, 5000)
            conn.last_words = self.step
        data = pattern(conn.sent, size)
        conn.sent += size
        conn.wrote = self.step
        conn.big |= size >= BIG
        return data

    def op_write(self, number, size, make=bytes):
        if conn := self.of(number, "write"):
            conn.transport.write(make(self.next_bytes(conn, size)))

    def op_writelines(self, number, sizes):
        if conn := self.of(number, "writelines"):
            conn.transport.writelines(self.next_lines(conn, sizes))

    def next_lines(self, conn, sizes):
        """What asyncio's writelines() gets right: since 3.12 an empty item at the end is never
        sent, and before 3.12.10 and 3.13.4 it does not call pause_writing()."""
        if sys.version_info >= (3, 12) and conn.transport.is_closing():
            return []  # and it stumbles over a connection that is lost
        most = BIG if LINES_PAUSE else 5000
        lines = [self.next_bytes(conn, min(size, most)) for size in sizes]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def op_writelines_wrong(self, number, what):
        conn = self.of(number, "writelines")
        if conn is None or isinstance(conn.peer, TlsEnd):  # there it goes wrong half-way, and later
            return
        if self.is_held(conn):
            return
        # Newer asyncio looks at nothing once the connection is lost.
        # And asyncio 3.15 keeps what it has seen of a list that goes wrong, unsent.
        right = [b"right"] if sys.version_info < (3, 15) else []
        if not conn.transport.is_closing():
            conn.transport.writelines([*right, what])

    def op_write_wrong(self, number, what):
        if conn := self.of(number, "write"):
            conn.transport.write(what)

    def op_sendto(self, number, size, address):
        if conn := self.of(number, "sendto"):
            where = {"peer": conn.address, "none": None, "wrong": ("127.0.0.1", 1)}[address]
            data = pattern(conn.sent, size)
            conn.sent += size
            conn.transport.sendto(data, where)

    def op_write_eof(self, number):
        if conn := self.free(number, "write_eof"):
            conn.transport.write_eof()

    def op_can_write_eof(self, number):
        if conn := self.of(number, "can_write_eof"):
            return conn.transport.can_write_eof()

    def op_close(self, number):
        if conn := self.free(number):
            conn.transport.close()

    def op_abort(self, number):
        if conn := self.free(number, "abort"):
            conn.unclean = True
            conn.transport.abort()

    def op_pause(self, number):
        if conn := self.free(number, "pause_reading"):
            conn.transport.pause_reading()

    def op_resume(self, number):
        if conn := self.free(number, "resume_reading"):
            conn.transport.resume_reading()

    def op_limits(self, number, high, low):
        if conn := self.of(number, "set_write_buffer_limits"):
            conn.transport.set_write_buffer_limits(high, low)

    def op_set_protocol(self, number, buffered):
        if conn := self.free(number, "set_protocol"):
            conn.transport.set_protocol(conn.protocol(buffered))

    def op_look(self, number, key):
        """What can be asked of a transport."""
        if (conn := self.of(number)) and not self.is_held(conn):
            transport = conn.transport
            protocol = transport.get_protocol()
            found = [transport.is_closing(), getattr(protocol, "number", type(protocol).__name__)]
            if hasattr(transport, "is_reading"):
                found.append(transport.is_reading())
            if hasattr(transport, "get_write_buffer_limits") and not conn.lost:
                found.append(transport.get_write_buffer_limits())
            value = transport.get_extra_info(key, "nothing")
            if key in ("peername", "sockname"):
                value = host_of(value)
            elif not isinstance(value, (str, tuple, dict, type(None))):
                value = "a value"
            return (*found, value)

    def op_buffered(self, number):
        """How much depends on what the kernel holds, that it is much does not."""
        if conn := self.of(number, "get_write_buffer_size"):
            return conn.transport.get_write_buffer_size() > BIG // 10

    def op_callback(self, number, how, actions, raises, cancelled):
        """What a callback of the loop's does to a connection; it may raise."""
        conn = self.conns[number % len(self.conns)] if self.conns else None
        if conn is None or (conn.transport is not None and self.is_held(conn)):
            return None
        self.callbacks += 1
        handle = self.schedule(how, self.called_back, conn, self.callbacks, actions, raises)
        if cancelled:
            handle.cancel()
        return handle.cancelled()

    def called_back(self, conn, number, actions, raises):
        self.note(conn.label, "called back", number)
        for action, *args in actions:
            self.act(conn.label, (action, conn.number, *args))
        if raises is not None:
            raise EXCEPTIONS[raises]()

    def op_sendfile(self, number, size, *where):
        """A file of this size, with nothing that needs a thread."""
        conn = self.free(number, "write")
        plain = conn is not None and conn.kind in ("tcp", "unix") and conn.peer.fileno() >= 0
        if not plain or isinstance(conn.peer, TlsEnd):
            return
        conn.big |= size >= BIG

        async def send():
            if is_over(conn.transport) or conn.sending:
                return
            conn.sending = True
            with tempfile.TemporaryFile() as file:
                file.write(pattern(0, size))
                file.flush()
                try:
                    sent = await self.loop.sendfile(conn.transport, file, *where, fallback=False)
                finally:
                    conn.sending = False
                self.note(conn.label, "sent", sent, file.tell())

        self.watch(conn, "sendfile", send())

    def op_start_tls(self, number, server_side):
        conn = self.free(number, "write")
        plain = conn is not None and conn.kind in ("tcp", "unix") and conn.peer.fileno() >= 0
        if not plain or isinstance(conn.peer, TlsEnd) or conn.peer_over or conn.big:
            return
        self.drain_peer(conn)
        conn.peer = TlsEnd(conn.peer, not server_side)

        async def start():
            if is_over(conn.transport):  # by now: asyncio waits as long as a handshake may take,
                return  # for a transport of TLS that nobody closes
            try:
                conn.transport = await self.loop.start_tls(
                    conn.transport,
                    conn.transport.get_protocol(),
                    ssl_context(server_side),
                    server_side=server_side,
                    server_hostname=None if server_side else "localhost",
                )
            except BaseException:
                conn.unclean = True
                raise
            conn.below = getattr(conn.transport, "_ssl_protocol", None)

        self.watch(conn, "start_tls", start())

    def drain_peer(self, conn):
        """What is plain leaves the way of TLS."""
        while readable(conn.peer) and not conn.peer_over:
            conn.take(math.inf)

    # ---- what is done at the other end

    def peer_of(self, number):
        if self.conns:
            conn = self.conns[number % len(self.conns)]
            if conn.peer is not None and conn.peer.fileno() >= 0:
                return conn
        return None

    def op_peer_send(self, number, size):
        if (conn := self.peer_of(number)) and conn.kind != "wpipe":
            with contextlib.suppress(OSError):  # also what was sent to nobody before
                conn.peer_sent += conn.peer.send(pattern(conn.peer_sent, size))

    def op_peer_raw(self, number):
        """Past TLS, where there is TLS."""
        if (conn := self.peer_of(number)) and conn.kind != "wpipe":
            with contextlib.suppress(OSError):
                getattr(conn.peer, "sock", conn.peer).send(b"some bytes")

    def op_peer_eof(self, number):
        if conn := self.peer_of(number):
            with contextlib.suppress(OSError):
                conn.peer.shutdown(socket.SHUT_WR)

    def op_peer_close(self, number):
        if (conn := self.peer_of(number)) and not conn.sending:
            conn.unclean = True
            self.torn |= conn.big
            conn.peer.close()

    def op_peer_reset(self, number):
        if (conn := self.peer_of(number)) and not conn.sending:
            conn.unclean = True
            self.torn |= conn.big
            sock = getattr(conn.peer, "sock", conn.peer)
            if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.peer.close()

    def op_peer_take(self, number, count):
        if conn := self.peer_of(number):
            conn.wanted = count

    def op_peer_flow(self, number, on):
        if conn := self.peer_of(number):
            conn.flow = on

    def pump(self):
        return any([super().pump(), *(conn.pump() for conn in self.conns)])

    def settle(self):
        super().settle()
        for conn in self.conns:
            conn.note_peer()

    def finish(self):
        for conn in self.conns:
            conn.flow = True
        self.settle()
        for conn in self.conns:
            if conn.transport is not None and not is_over(conn.transport):
                self.note(conn.label, "at the end", conn.transport.is_closing())
                self.op_abort(conn.number)
                self.op_close(conn.number)
        self.settle()
        for task in self.watched:
            task.cancel()
        self.settle()
        for conn in self.conns:
            self.note(conn.label, "left", conn.lost)
            # A TLS transport that was closed twice has let go of what waits for the peer's word.
            if not conn.lost and getattr(conn.below, "_transport", None) is not None:
                conn.below._transport.abort()
        self.settle()
        super().finish()
