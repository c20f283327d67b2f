"""What the tests of TLS share: a peer whose every ciphertext byte the test sends by hand."""

import asyncio
import socket
import ssl


class Peer:
    """The other end of a TLS connection: an SSLObject between two BIOs, and a raw socket."""

    def __init__(self, loop, sock, context, *, server_side=False, server_hostname="localhost"):
        self.loop = loop
        self.sock = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_hostname,
        )

    async def flush(self, cut=None):
        """Sends what there is; cut(): how many bytes the next piece has."""
        data = self.outgoing.read()
        while data:
            size = cut() if cut else len(data)
            await self.loop.sock_sendall(self.sock, data[:size])
            data = data[size:]
            if cut:
                await asyncio.sleep(0)

    async def more(self):
        """Takes what the socket has; False at its end."""
        data = await self.loop.sock_recv(self.sock, 1 << 16)
        self.incoming.write(data)
        return bool(data)

    async def call(self, function, *args):
        """function(*args) of the SSLObject with as many reads as it wants."""
        while True:
            try:
                return function(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self.more():
                    raise ConnectionResetError("the end of the stream") from None

    async def handshake(self):
        await self.call(self.object.do_handshake)
        await self.flush()

    def encrypt(self, data):
        """The records of data, not sent yet."""
        self.object.write(data)
        return self.outgoing.read()

    async def send(self, data, cut=None):
        if data:
            self.object.write(data)
        await self.flush(cut)

    async def receive(self, count):
        """Exactly count bytes of plaintext."""
        parts = bytearray()
        while len(parts) < count:
            part = await self.call(self.object.read, count - len(parts))
            if not part:
                raise ConnectionResetError("close_notify")
            parts += part
        return bytes(parts)

    async def rest(self):
        """All plaintext up to close_notify."""
        parts = bytearray()
        while part := await self.call(self.object.read, 1 << 16):
            parts += part
        return bytes(parts)

    async def raw_end(self):
        """Reads the socket to its end."""
        try:
            while await self.more():
                pass
        except ConnectionResetError:
            pass


class Trace(asyncio.Protocol):
    """Notes what happens to it."""

    def __init__(self, loop):
        self.events = []
        self.made = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data):
        if self.events and isinstance(self.events[-1], bytes):
            self.events[-1] += data
        else:
            self.events.append(data)

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(("lost", type(exc)))
        self.lost.set_result(exc)


class BufferedTrace(Trace, asyncio.BufferedProtocol):
    """The same with a buffer of `room` bytes."""

    def __init__(self, loop, room=1000):
        super().__init__(loop)
        self.buffer = bytearray(room)
        self.hints = []

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(bytes(self.buffer[:nbytes]))


def tcp_pair():
    """(ours, peer's): a connection of sockets that do not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def connected(loop, protocol, server_context, client_context, theirs=None):
    """A server's side over `protocol`, with the handshake done: (transport, Peer)."""
    ours, theirs = tcp_pair() if theirs is None else theirs
    peer = Peer(loop, theirs, client_context)
    shaking = loop.create_task(peer.handshake())
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours, ssl=server_context)
    await shaking
    return transport, peer
