"""The server of the network benchmarks, for every loop and every way to write one.

    python -m bench.net.server --loop uvloop --mode proto --size 1024
    python -m bench.net.server --loop floor@spin_us=50 --mode streams

Prints one JSON line with its port when it listens, serves until SIGTERM, then prints a second one
with its own resource usage and the loop's counters as they were at each SIGUSR1. The listener
carries TCP_NODELAY and cubic, which what it accepts inherits.
"""

import argparse
import asyncio
import functools
import json
import os
import resource
import signal
import socket
import ssl
import sys
import traceback
from pathlib import Path

from bench import arms

CERTIFICATE = Path(__file__).resolve().parents[2] / "tests/python/certs/localhost.crt"
CHUNK_MAX = 256 * 1024
CHUNK_MIN = 16 * 1024
WRITES_PER_TURN = 16  # of a source; then others get their turn
DATAGRAMS_PER_TURN = 64


class Settings:
    """What the handlers of all connections share."""

    def __init__(self, args):
        self.size = args.size
        self.split = args.split
        # what an application that knows its messages would choose
        self.chunk = max(CHUNK_MIN, min(args.size, CHUNK_MAX))
        self.source = bytes(range(256)) * max(1, args.size // 256)


# ---- Protocol and BufferedProtocol ----


class Echo(asyncio.Protocol):
    def __init__(self, settings):
        self.settings = settings

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class SplitEcho(Echo):
    """Answers with two writes, as a header and a body are written."""

    def data_received(self, data):
        split = self.settings.split
        self.transport.write(data[:split])
        self.transport.write(data[split:])


class BufferedEcho(asyncio.BufferedProtocol):
    def __init__(self, settings):
        self.buffer = memoryview(bytearray(settings.chunk))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        # A copy: the transport may keep what it is given, and this buffer is filled again.
        self.transport.write(bytes(self.buffer[:nbytes]))


class Sink(asyncio.Protocol):
    """Reads without end; answers the end of the stream with the number of bytes."""

    def __init__(self, settings):
        self.total = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.total += len(data)

    def eof_received(self):
        self.transport.write(self.total.to_bytes(8, "big"))


class BufferedSink(BufferedEcho):
    def __init__(self, settings):
        super().__init__(settings)
        self.total = 0

    def buffer_updated(self, nbytes):
        self.total += nbytes

    def eof_received(self):
        self.transport.write(self.total.to_bytes(8, "big"))


class Source(asyncio.Protocol):
    """Writes whenever the transport lets it."""

    def __init__(self, settings):
        self.settings = settings
        self.paused = False
        self.scheduled = False

    def connection_made(self, transport):
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.pump()

    def pump(self):
        self.scheduled = False
        for _ in range(WRITES_PER_TURN):
            if self.paused or self.transport.is_closing():
                return
            self.transport.write(self.settings.source)
        self.scheduled = True
        self.loop.call_soon(self.pump)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        if not self.scheduled:
            self.pump()


PROTOCOLS = {
    ("proto", "echo"): Echo,
    ("proto", "split"): SplitEcho,
    ("proto", "sink"): Sink,
    ("proto", "source"): Source,
    ("buffered", "echo"): BufferedEcho,
    ("buffered", "sink"): BufferedSink,
}


# ---- UDP ----


class UdpEcho(asyncio.DatagramProtocol):
    def __init__(self, settings):
        self.settings = settings
        self.count = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class UdpSink(UdpEcho):
    """Counts; a datagram of one byte asks for the count."""

    def datagram_received(self, data, addr):
        if len(data) == 1:
            self.transport.sendto(self.count.to_bytes(8, sys.byteorder), addr)
        else:
            self.count += 1


class UdpSource(UdpEcho):
    """Sends to whoever wrote a datagram of two bytes, and counts; one byte asks for the count."""

    paused = False

    def datagram_received(self, data, addr):
        if len(data) == 1:
            self.transport.sendto(self.count.to_bytes(8, sys.byteorder), addr)
            return
        self.peer = addr
        self.loop = asyncio.get_running_loop()
        self.data = self.settings.source[: self.settings.size] or bytes(self.settings.size)
        self.pump()

    def pump(self):
        data, peer, sendto = self.data, self.peer, self.transport.sendto
        for _ in range(DATAGRAMS_PER_TURN):
            sendto(data, peer)
        self.count += DATAGRAMS_PER_TURN
        if not self.paused:
            self.loop.call_soon(self.pump)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        if self.paused:
            self.paused = False
            self.pump()


UDP = {"echo": UdpEcho, "sink": UdpSink, "source": UdpSource}


def make_udp_socket():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE: for root
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(("127.0.0.1", 0))
    return sock


# ---- streams ----


async def stream_echo(settings, reader, writer):
    while data := await reader.read(CHUNK_MAX):
        writer.write(data)
        await writer.drain()


async def stream_split(settings, reader, writer):
    while data := await reader.read(CHUNK_MAX):
        writer.write(data[: settings.split])
        writer.write(data[settings.split :])
        await writer.drain()


async def stream_sink(settings, reader, writer):
    total = 0
    while data := await reader.read(CHUNK_MAX):
        total += len(data)
    writer.write(total.to_bytes(8, "big"))
    await writer.drain()


async def stream_source(settings, reader, writer):
    while True:
        for _ in range(WRITES_PER_TURN):
            writer.write(settings.source)
            await writer.drain()
        await asyncio.sleep(0)


STREAMS = {
    "echo": stream_echo,
    "split": stream_split,
    "sink": stream_sink,
    "source": stream_source,
}


def stream_callback(settings, role):
    handler = STREAMS[role]

    async def connected(reader, writer):
        try:
            await handler(settings, reader, writer)
        except ConnectionError:
            pass  # the client left
        finally:
            writer.close()

    return connected


# ---- loop.sock_* ----


async def sock_echo(settings, loop, conn):
    while data := await loop.sock_recv(conn, settings.chunk):
        await loop.sock_sendall(conn, data)


async def sock_sink(settings, loop, conn):
    total = 0
    while data := await loop.sock_recv(conn, settings.chunk):
        total += len(data)
    await loop.sock_sendall(conn, total.to_bytes(8, "big"))


async def sock_source(settings, loop, conn):
    while True:
        for _ in range(WRITES_PER_TURN):
            await loop.sock_sendall(conn, settings.source)
        await asyncio.sleep(0)


SOCKS = {"echo": sock_echo, "sink": sock_sink, "source": sock_source}


async def sock_connection(settings, role, loop, conn):
    with conn:
        try:
            await SOCKS[role](settings, loop, conn)
        except ConnectionError:
            pass  # the client left


def complain(task):
    """A handler that raised is a broken server: the runner shows the end of stderr."""
    if not task.cancelled() and task.exception() is not None:
        traceback.print_exception(task.exception())
        sys.stderr.flush()


async def sock_serve(settings, role, listener):
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    tasks = set()
    while True:
        conn, _ = await loop.sock_accept(listener)
        conn.setblocking(False)
        task = loop.create_task(sock_connection(settings, role, loop, conn))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(complain)


# ---- loop.add_reader ----


class ReaderEcho:
    """As a library with transports of its own: the loop says when a socket is ready, no more."""

    def __init__(self, settings, loop, conn):
        self.chunk = settings.chunk
        self.loop = loop
        self.conn = conn
        self.rest = b""
        loop.add_reader(conn, self.on_readable)

    def on_readable(self):
        try:
            data = self.conn.recv(self.chunk)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self.send(data)
        else:
            self.loop.remove_reader(self.conn)
            self.conn.close()

    def send(self, data):
        try:
            sent = self.conn.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.rest = data[sent:]
            self.loop.remove_reader(self.conn)
            self.loop.add_writer(self.conn, self.on_writable)

    def on_writable(self):
        self.loop.remove_writer(self.conn)
        data, self.rest = self.rest, b""
        self.loop.add_reader(self.conn, self.on_readable)
        self.send(data)


def serve_readers(settings, loop, listener):
    listener.setblocking(False)

    def on_connection():
        try:
            while True:
                conn, _ = listener.accept()
                conn.setblocking(False)
                ReaderEcho(settings, loop, conn)
        except BlockingIOError:
            pass

    loop.add_reader(listener, on_connection)
    return listener


# ---- the process ----


def make_listener(path):
    if path:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def tls_options(args):
    if not args.tls:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    return {"ssl": context}


async def start_server(args, settings, listener):
    """Starts serving; what it returns must stay referenced."""
    loop = asyncio.get_running_loop()
    if args.mode == "udp":
        factory = functools.partial(UDP[args.role], settings)
        transport, _ = await loop.create_datagram_endpoint(factory, sock=listener)
        return transport
    if args.mode == "sock":
        task = loop.create_task(sock_serve(settings, args.role, listener))
        task.add_done_callback(complain)
        return task
    if args.mode == "readers":
        return serve_readers(settings, loop, listener)
    if args.mode == "streams":
        callback = stream_callback(settings, args.role)
        start = asyncio.start_unix_server if args.unix else asyncio.start_server
        return await start(callback, sock=listener, backlog=4096, **tls_options(args))
    protocol = PROTOCOLS[args.mode, args.role]
    create = loop.create_unix_server if args.unix else loop.create_server
    factory = functools.partial(protocol, settings)
    return await create(factory, sock=listener, backlog=4096, **tls_options(args))


def say(what):
    print(json.dumps(what), flush=True)


def first_line(args, arm, loop, listener):
    module = sys.modules.get(arm.loop)
    return {
        "pid": os.getpid(),
        "port": 0 if args.unix else listener.getsockname()[1],
        "loop": arm.loop,
        "loop_version": getattr(module, "__version__", None) or sys.version.split()[0],
        "backend": str(getattr(loop, "backend", "")),
    }


def last_line(snapshots):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "minor_faults": usage.ru_minflt,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
        "stats": snapshots,
    }


async def serve(args, arm):
    loop = asyncio.get_running_loop()
    listener = make_udp_socket() if args.mode == "udp" else make_listener(args.unix)
    stop = asyncio.Event()
    snapshots = []
    stats = getattr(loop, "stats", dict)  # gyre's counters; other loops have none
    server = await start_server(args, Settings(args), listener)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: snapshots.append(dict(stats())))
    say(first_line(args, arm, loop, listener))
    await stop.wait()
    say(last_line(snapshots))
    # Without waiting for open connections: the client may still hold them.
    if args.mode == "sock":
        server.cancel()
    else:
        server.close()
    os._exit(0)


def serve_floor(args, arm):
    """Without a loop; a signal ends it."""
    from bench.net import floor

    if text := floor.reason(vars(args)):
        sys.exit(text)
    handlers = {"streams": STREAMS, "sock": SOCKS}.get(args.mode)
    handler = handlers[args.role] if handlers else PROTOCOLS[args.mode, args.role]
    listener = make_listener(args.unix)
    say(first_line(args, arm, None, listener))
    floor.serve(args.mode, handler, Settings(args), listener, **arm.options)


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", default="gyre", help="an arm: gyre, uvloop, asyncio, gyre@...")
    modes = ("proto", "buffered", "streams", "sock", "readers", "udp")
    parser.add_argument("--mode", choices=modes, default="proto")
    parser.add_argument("--role", choices=("echo", "split", "sink", "source"), default="echo")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message")
    parser.add_argument("--split", type=int, default=16, help="--role split: bytes of the header")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead of TCP")
    parser.add_argument("--tls", action="store_true", help="TLS; not with sock and readers")
    args = parser.parse_args(argv)
    if args.tls and args.mode in ("sock", "readers"):
        parser.error(f"--mode {args.mode} has no --tls")
    known = {
        "streams": STREAMS,
        "sock": SOCKS,
        "readers": {"echo"},
        "udp": UDP,
    }.get(args.mode) or {role for mode, role in PROTOCOLS if mode == args.mode}
    if args.role not in known:
        parser.error(f"--mode {args.mode} has no --role {args.role}")
    if args.role == "source" and args.size % 256 and args.mode != "udp":
        parser.error("--role source needs a --size that is a multiple of 256")
    return args


def main(argv=None):
    args = parse_arguments(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    arm = arms.parse_arm(args.loop)
    if arm.is_floor:
        serve_floor(args, arm)
    arms.run(arm, serve(args, arm))


if __name__ == "__main__":
    main()
