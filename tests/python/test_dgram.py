"""Datagram transports: UDP and UNIX, sending, receiving, errors, flow control, on both loops."""

import array
import asyncio
import socket
import sys

import pytest
from helpers import run_until
from tcp_tools import drive, spin

HEADER = 8 if sys.version_info >= (3, 13) else 0  # counted per queued datagram
SENDS_EMPTY = sys.version_info >= (3, 13)


class Noting(asyncio.DatagramProtocol):
    """Notes everything; `lost` is done when the connection is lost."""

    def __init__(self, loop):
        self.loop = loop
        self.lost = loop.create_future()
        self.transport = None
        self.received = []
        self.errors = []
        self.calls = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.received.append((data, addr))

    def error_received(self, exc):
        self.errors.append(exc)

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    async def count(self, count):
        while len(self.received) < count:
            await asyncio.sleep(0)
        assert len(self.received) == count
        return [data for data, _ in self.received]


async def closed(*protocols):
    for protocol in protocols:
        protocol.transport.abort()
        await protocol.lost
    await spin(3)


async def endpoint(loop, protocol=None, **options):
    protocol = Noting(loop) if protocol is None else protocol
    if not options:
        options["local_addr"] = ("127.0.0.1", 0)
    await loop.create_datagram_endpoint(lambda: protocol, **options)
    return protocol


def name(protocol):
    return protocol.transport.get_extra_info("sockname")


def plain(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(5)
    return sock


async def drained(receiver, count):
    """What a socket of the test's receives; a burst leaves only when the callback ends."""
    receiver.setblocking(False)
    got = []
    while len(got) < count:
        try:
            got.append(receiver.recv(1 << 18))
        except BlockingIOError:
            await asyncio.sleep(0)
    return got


# ---- sending and receiving


def test_there_and_back(loop):
    async def main():
        left, right = await endpoint(loop), await endpoint(loop)
        left.transport.sendto(b"question", name(right))
        assert await right.count(1) == [b"question"]
        assert right.received[0][1] == name(left)
        right.transport.sendto(b"answer", right.received[0][1])
        assert await left.count(1) == [b"answer"]
        await closed(left, right)

    drive(loop, main())


@pytest.mark.parametrize("size", [1, 200, 1200, 9000, 65507])
def test_sizes(loop, size):
    async def main():
        left, right = await endpoint(loop), await endpoint(loop)
        data = bytes(i % 251 for i in range(size))
        for kind in (bytes, bytearray, memoryview):
            left.transport.sendto(kind(data), name(right))
            await right.count(1)
            assert right.received.pop()[0] == data
        assert left.errors == []
        await closed(left, right)

    drive(loop, main())


def test_empty_datagrams(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        sock.sendto(b"", name(protocol))
        assert await protocol.count(1) == [b""]
        protocol.transport.sendto(b"", sock.getsockname())
        protocol.transport.sendto(b"x", sock.getsockname())
        assert sock.recv(10) == (b"" if SENDS_EMPTY else b"x")
        await closed(protocol)

    drive(loop, main())


def test_connected(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop, remote_addr=sock.getsockname())
        transport = protocol.transport
        assert transport.get_extra_info("peername") == sock.getsockname()
        transport.sendto(b"one")
        transport.sendto(b"two", None)
        transport.sendto(b"three", sock.getsockname())
        transport.sendto(data=b"four", addr=None)
        assert await drained(sock, 4) == [b"one", b"two", b"three", b"four"]
        with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127.0.0.1', "):
            transport.sendto(b"x", ("127.0.0.1", 9))
        sock.sendto(b"back", name(protocol))
        assert await protocol.count(1) == [b"back"]
        assert protocol.received[0][1] == sock.getsockname()
        await closed(protocol)

    drive(loop, main())


def test_connected_socket_of_the_user(loop, peer):
    """No remote_addr: the address is not looked at."""
    peer.append(sock := plain())
    ours = plain()
    ours.connect(sock.getsockname())

    async def main():
        protocol = await endpoint(loop, sock=ours)
        protocol.transport.sendto(b"one")
        protocol.transport.sendto(b"two", ("127.0.0.1", 9))
        assert await drained(sock, 2) == [b"one", b"two"]
        await closed(protocol)

    drive(loop, main())


def test_broadcast(loop):
    async def main():
        protocol = await endpoint(loop, remote_addr=("127.255.255.255", 9), allow_broadcast=True)
        transport = protocol.transport
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        transport.sendto(b"x")
        with pytest.raises(ValueError, match="Invalid address"):
            transport.sendto(b"x", ("127.0.0.1", 9))
        assert protocol.errors == []
        await closed(protocol)

    drive(loop, main())


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6(loop):
    async def main():
        left, right = [await endpoint(loop, local_addr=("::1", 0)) for _ in range(2)]
        for address in (name(right), name(right)[:2]):
            left.transport.sendto(b"x", address)
            await right.count(1)
            assert right.received.pop() == (b"x", name(left))
        await closed(left, right)

    drive(loop, main())


def test_names_are_looked_up(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        for i in range(3):
            protocol.transport.sendto(b"%d" % i, ("localhost", sock.getsockname()[1]))
            protocol.transport.sendto(b"-", sock.getsockname())
            assert await drained(sock, 2) == [b"%d" % i, b"-"]
        protocol.transport.sendto(b"x", ("no.such.host.invalid", 9))
        (exc,) = protocol.errors
        assert isinstance(exc, socket.gaierror)
        await closed(protocol)

    drive(loop, main())


def test_many_peers(loop, peer):
    """More than any table of theirs holds; each answer finds its way."""
    peer += (socks := [plain() for _ in range(200)])

    async def main():
        protocol = await endpoint(loop)
        for _turn in range(3):
            for i, sock in enumerate(socks):
                sock.sendto(b"%d" % i, name(protocol))
                if i % 50 == 49:
                    await spin(3)
            await protocol.count(200)
            for data, addr in protocol.received:
                protocol.transport.sendto(data + b"!", addr)
            for i, sock in enumerate(socks):
                assert await drained(sock, 1) == [b"%d!" % i]
            assert {addr for _, addr in protocol.received} == {s.getsockname() for s in socks}
            protocol.received.clear()
        await closed(protocol)

    drive(loop, main())


# ---- UNIX


@pytest.mark.parametrize("kind_of_name", ["path", "abstract"])
def test_unix(loop, tmp_path, kind_of_name):
    names = [str(tmp_path / part) for part in ("left", "right")]
    if kind_of_name == "abstract":
        names = [f"\0{part}" for part in names]

    async def main():
        left, right = [
            await endpoint(loop, family=socket.AF_UNIX, local_addr=part) for part in names
        ]
        expected = names if kind_of_name == "path" else [part.encode() for part in names]
        assert [name(left), name(right)] == expected
        left.transport.sendto(b"question", name(right))
        await right.count(1)
        assert right.received == [(b"question", name(left))]
        right.transport.sendto(b"answer", right.received[0][1])
        assert await left.count(1) == [b"answer"]
        await closed(left, right)

    drive(loop, main())


def test_unix_without_a_name(loop, tmp_path):
    path = str(tmp_path / "server")

    async def main():
        server = await endpoint(loop, family=socket.AF_UNIX, local_addr=path)
        client = await endpoint(loop, family=socket.AF_UNIX, remote_addr=path)
        assert client.transport.get_extra_info("peername") == path
        client.transport.sendto(b"x")
        await server.count(1)
        assert server.received == [(b"x", None)]
        await closed(client, server)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_unix_pair(loop):
    """asyncio's transport fails here: it sends by address because the peer's name is empty."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def main():
        ours, theirs = await endpoint(loop, sock=left), await endpoint(loop, sock=right)
        ours.transport.sendto(b"x")
        assert await theirs.count(1) == [b"x"]
        await closed(ours, theirs)

    drive(loop, main())


def full_pair(loop, tmp_path):
    """(transport's protocol, receiver): the receiver is a plain socket that nobody reads."""
    receiver = plain(socket.AF_UNIX, str(tmp_path / "receiver"))
    receiver.setblocking(False)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.connect(str(tmp_path / "receiver"))
    return ours, receiver


# ---- flow control


def test_a_full_socket_keeps_the_order(loop, peer, tmp_path):
    ours, receiver = full_pair(loop, tmp_path)
    peer.append(receiver)

    async def main():
        protocol = await endpoint(loop, sock=ours)
        for i in range(1000):
            protocol.transport.sendto(b"%04d" % i)
        queued = protocol.transport.get_write_buffer_size()
        assert 0 < queued < 4000 + HEADER * 1000
        assert queued % (4 + HEADER) == 0
        assert await drained(receiver, 1000) == [b"%04d" % i for i in range(1000)]
        await spin()
        assert protocol.errors == []
        await closed(protocol)

    drive(loop, main())


def test_what_is_queued_does_not_change(loop, peer, tmp_path):
    ours, receiver = full_pair(loop, tmp_path)
    peer.append(receiver)

    async def main():
        protocol = await endpoint(loop, sock=ours)
        data = bytearray(b"before")
        for _ in range(500):
            protocol.transport.sendto(data)
        data[:] = b"after!"
        data.clear()
        assert set(await drained(receiver, 500)) == {b"before"}
        await closed(protocol)

    drive(loop, main())


def test_pause_and_resume(loop, peer, tmp_path):
    ours, receiver = full_pair(loop, tmp_path)
    peer.append(receiver)

    async def main():
        protocol = await endpoint(loop, sock=ours)
        transport = protocol.transport
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000, low=500)
        sent = 0
        while not protocol.calls:
            transport.sendto(b"x" * 100)
            sent += 1
        assert protocol.calls == ["pause"]
        assert 1000 < transport.get_write_buffer_size() <= 1000 + 100 + HEADER
        assert len(await drained(receiver, sent)) == sent
        await spin()
        if not HEADER or hasattr(loop, "stats"):  # asyncio's size never gets back to 0 since 3.13
            assert protocol.calls == ["pause", "resume"]
            assert transport.get_write_buffer_size() == 0
        await closed(protocol)

    drive(loop, main())


def test_close_sends_what_is_queued(loop, peer, tmp_path):
    ours, receiver = full_pair(loop, tmp_path)
    peer.append(receiver)

    async def main():
        protocol = await endpoint(loop, sock=ours)
        for i in range(300):
            protocol.transport.sendto(b"%d" % i)
        protocol.transport.close()
        assert protocol.transport.is_closing()
        await spin()
        assert not protocol.lost.done()
        protocol.transport.sendto(b"last")  # goes on until the buffer is empty
        assert await drained(receiver, 301) == [b"%d" % i for i in range(300)] + [b"last"]
        assert await protocol.lost is None

    drive(loop, main())


def test_abort_drops_what_is_queued(loop, peer, tmp_path):
    ours, receiver = full_pair(loop, tmp_path)
    peer.append(receiver)

    async def main():
        protocol = await endpoint(loop, sock=ours)
        for i in range(300):
            protocol.transport.sendto(b"%d" % i)
        protocol.transport.abort()
        assert await protocol.lost is None
        await spin()
        count = 0
        with pytest.raises(BlockingIOError):
            while receiver.recv(10):
                count += 1
        assert 0 < count < 300

    drive(loop, main())


# ---- pauses of reading


def test_pause_reading(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        transport = protocol.transport
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        for i in range(5):
            sock.sendto(b"%d" % i, name(protocol))
        await spin()
        assert protocol.received == []
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.count(5) == [b"%d" % i for i in range(5)]
        await closed(protocol)

    drive(loop, main())


def test_pause_in_datagram_received(loop, peer):
    peer.append(sock := plain())

    class Slow(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def main():
        protocol = await endpoint(loop, Slow(loop))
        for i in range(5):
            sock.sendto(b"%d" % i, name(protocol))
        for i in range(1, 6):
            assert await protocol.count(i) == [b"%d" % j for j in range(i)]
            await spin()
            assert len(protocol.received) == i
            protocol.transport.resume_reading()
        await closed(protocol)

    drive(loop, main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_close_in_datagram_received(loop, peer, method):
    peer.append(sock := plain())

    class Once(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            getattr(self.transport, method)()

    async def main():
        protocol = await endpoint(loop, Once(loop))
        for _ in range(5):
            sock.sendto(b"x", name(protocol))
        assert await protocol.lost is None
        assert len(protocol.received) == 1

    drive(loop, main())


# ---- errors


def test_refused(loop):
    """ICMP's answer is told, to a sender as to a receiver, and nothing ends."""
    gone = plain()
    address = gone.getsockname()
    gone.close()

    async def main():
        protocol = await endpoint(loop, remote_addr=address)
        protocol.transport.sendto(b"x")
        while not protocol.errors:
            await asyncio.sleep(0)
        protocol.transport.sendto(b"y")
        protocol.transport.sendto(b"z")
        while len(protocol.errors) < 2:
            await asyncio.sleep(0)
        assert {type(exc) for exc in protocol.errors} == {ConnectionRefusedError}
        assert not protocol.transport.is_closing()
        await closed(protocol)

    drive(loop, main())


def test_too_long(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        protocol.transport.sendto(b"x" * 70_000, sock.getsockname())
        (exc,) = protocol.errors  # told before sendto() returned
        assert isinstance(exc, OSError)
        assert "Message too long" in str(exc)
        protocol.transport.sendto(b"x", sock.getsockname())
        assert sock.recv(10) == b"x"
        await closed(protocol)

    drive(loop, main())


def test_error_received_raises(loop, peer):
    peer.append(sock := plain())

    class Strict(Noting):
        def error_received(self, exc):
            raise LookupError("of the protocol") from exc

    async def main():
        protocol = await endpoint(loop, Strict(loop))
        with pytest.raises(LookupError):
            protocol.transport.sendto(b"x" * 70_000, sock.getsockname())
        assert not protocol.transport.is_closing()
        await closed(protocol)

    drive(loop, main())


@pytest.mark.parametrize("address", [None, 5, "text", ("127.0.0.1",), ("127.0.0.1", 70_000)])
def test_a_bad_address_ends_the_transport(loop, address):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        protocol = await endpoint(loop)
        protocol.transport.sendto(b"x", address)
        exc = await protocol.lost
        assert isinstance(exc, TypeError | OverflowError)
        (context,) = contexts
        assert context["message"] == "Fatal write error on datagram transport"
        assert context["exception"] is exc
        assert context["protocol"] is protocol
        assert context["transport"] is protocol.transport

    drive(loop, main())


def test_bad_arguments(loop):
    async def main():
        protocol = await endpoint(loop)
        transport = protocol.transport
        for data in ("text", 5, None, [b"x"], array.array("b", b"x")):
            with pytest.raises(
                TypeError, match="^data argument must be a bytes-like object, not '.*'$"
            ):
                transport.sendto(data, ("127.0.0.1", 9))
        for args, kwargs in ([(), {}], [(b"x", None, 1), {}], [(b"x",), {"address": None}]):
            with pytest.raises(TypeError):
                transport.sendto(*args, **kwargs)
        await closed(protocol)

    drive(loop, main())


def test_datagram_received_raises(loop, peer):
    """Reported; the transport goes on."""
    peer.append(sock := plain())
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Picky(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"bad":
                raise LookupError("of the protocol")

    async def main():
        protocol = await endpoint(loop, Picky(loop))
        for data in (b"bad", b"good", b"bad", b"good"):
            sock.sendto(data, name(protocol))
        await protocol.count(4)
        await spin()
        assert [type(context["exception"]) for context in contexts] == [LookupError] * 2
        assert all(c["message"].startswith("Exception in callback") for c in contexts)
        await closed(protocol)

    drive(loop, main())


@pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_leave_the_loop(loop, peer, exc_type):
    """What was not yet delivered is, by the next run."""
    peer.append(sock := plain())

    class Leaving(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"leave":
                raise exc_type

    protocol = drive(loop, endpoint(loop, Leaving(loop)))
    for data in (b"leave", b"stay", b"stay"):
        sock.sendto(data, name(protocol))
    with pytest.raises(exc_type):
        loop.run_forever()
    run_until(loop, lambda: len(protocol.received) == 3)
    drive(loop, closed(protocol))


# ---- after the end


def test_sendto_after_close(loop, peer, asyncio_log):
    """Counted, and logged from the fifth on; only a transport with remote_addr does so."""
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop, remote_addr=sock.getsockname())
        protocol.transport.close()
        for _ in range(7):
            protocol.transport.sendto(b"x")
        assert asyncio_log.messages() == ["socket.send() raised exception."] * 3
        await protocol.lost
        protocol.transport.sendto(b"x")
        assert asyncio_log.messages() == ["socket.send() raised exception."]
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(10)

    drive(loop, main())


def test_unconnected_sendto_right_after_close(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        protocol.transport.close()
        protocol.transport.sendto(b"x", sock.getsockname())
        assert sock.recv(10) == b"x"
        await protocol.lost

    drive(loop, main())


def test_close_twice(loop):
    async def main():
        protocol = await endpoint(loop)
        protocol.transport.close()
        protocol.transport.close()
        protocol.transport.abort()
        assert await protocol.lost is None
        await spin()
        protocol.transport.abort()
        protocol.transport.close()

    drive(loop, main())


def test_close_sends_the_datagrams_of_the_callback(loop, peer):
    peer.append(sock := plain())

    async def main():
        for method in ("close", "abort"):
            protocol = await endpoint(loop)
            for i in range(5):
                protocol.transport.sendto(b"%d" % i, sock.getsockname())
            getattr(protocol.transport, method)()
            await protocol.lost
            assert [sock.recv(10) for _ in range(5)] == [b"%d" % i for i in range(5)]

    drive(loop, main())


# ---- the rest of the interface


def test_types_and_info(loop, peer):
    async def main():
        protocol = await endpoint(loop)
        transport = protocol.transport
        if hasattr(loop, "stats") or sys.version_info >= (3, 12):
            assert isinstance(transport, asyncio.DatagramTransport)
        assert isinstance(transport, asyncio.BaseTransport)
        assert transport.get_extra_info("peername") is None
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname() == name(protocol)
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.get_protocol() is protocol
        transport.set_protocol(other := Noting(loop))
        assert transport.get_protocol() is other
        transport.sendto(b"x", name(protocol))
        assert await other.count(1) == [b"x"]
        transport.set_protocol(protocol)
        address = name(protocol)
        await closed(protocol)
        assert name(protocol) == address
        assert transport.get_protocol() is None

    drive(loop, main())


def test_unbound_socket_has_the_name_of_its_birth(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop, family=socket.AF_INET)
        protocol.transport.sendto(b"x", sock.getsockname())
        assert name(protocol) == ("0.0.0.0", 0)
        await closed(protocol)

    drive(loop, main())


def test_descriptor_belongs_to_the_transport(loop):
    async def main():
        protocol = await endpoint(loop)
        fd = protocol.transport.get_extra_info("socket").fileno()
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(fd, print)
        await closed(protocol)

    drive(loop, main())


def test_contexts(loop, peer):
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")
    peer.append(sock := plain())
    seen = []

    class Looking(Noting):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            seen.append(variable.get())

    async def main():
        variable.set("of the maker")
        protocol = await endpoint(loop, Looking(loop))
        variable.set("later")
        sock.sendto(b"x", name(protocol))
        await protocol.count(1)
        assert seen == ["of the maker"] * 2
        await closed(protocol)

    drive(loop, main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="needs netlink")
def test_a_family_of_the_socket_module(loop):
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    sock.bind((0, 0))
    message = b"\x10\0\0\0\0\0\5\0\1\0\0\0\0\0\0\0"  # no type, an acknowledge wanted

    async def main():
        protocol = await endpoint(loop, sock=sock)
        for _ in range(3):
            protocol.transport.sendto(message, (0, 0))
        await protocol.count(3)
        assert [addr for _, addr in protocol.received] == [(0, 0)] * 3
        await closed(protocol)

    drive(loop, main())
