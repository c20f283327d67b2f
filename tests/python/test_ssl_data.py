"""The data path of TLS: every byte, every order of events, as asyncio has them.

The peer (tls_tools.Peer) makes each record by hand, so that it can be cut anywhere.
"""

import asyncio
import gc
import logging
import random
import socket
import ssl
import struct
import weakref

import pytest
import tcp_tools
import tls_tools
from tcp_tools import drive, spin

pytestmark = pytest.mark.usefixtures("tls_code")


@pytest.fixture
def connect(loop, server_context, client_context):
    """Makes (transport, protocol, Peer); closes the peer's socket at the end."""
    peers = []

    async def make(protocol=None):
        protocol = tls_tools.Trace(loop) if protocol is None else protocol
        transport, peer = await tls_tools.connected(loop, protocol, server_context, client_context)
        peers.append(peer)
        return transport, protocol, peer

    yield make
    for peer in peers:
        peer.sock.close()


async def over(transport, protocol):
    transport.abort()
    await protocol.lost
    await spin(3)


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


# ---- bytes --------------------------------------------------------------------------------------


def reply_in_pieces(rng, transport, data):
    """Writes data in one of the ways in which data can be written."""
    way = rng.randrange(6)
    middle = rng.randrange(len(data) + 1)
    if way == 0:
        transport.write(data)
    elif way == 1:
        transport.write(bytearray(data[:middle]))
        transport.write(memoryview(data)[middle:])
    elif way == 2:
        transport.writelines([data[:middle], b"", data[middle:]])
    elif way == 3:
        transport.writelines(part for part in (data[:middle], bytearray(data[middle:])))
    elif way == 4:
        for start in range(0, len(data), 1 + len(data) // 5):
            transport.write(data[start : start + 1 + len(data) // 5])
    else:
        mutable = bytearray(data)
        transport.write(mutable)
        mutable[:] = bytes(len(mutable))  # what was written is what leaves


class RandomEcho(tls_tools.Trace):
    def __init__(self, loop, rng):
        super().__init__(loop)
        self.loop = loop
        self.rng = rng

    def data_received(self, data):
        data = bytes(data)
        if self.rng.random() < 0.2:
            self.loop.call_soon(reply_in_order, self, data)
            self.late = [*getattr(self, "late", ()), data]
        elif getattr(self, "late", ()):
            self.late.append(data)
        else:
            reply_in_pieces(self.rng, self.transport, data)


def reply_in_order(protocol, data):
    late, protocol.late = getattr(protocol, "late", []), []
    for part in late:
        reply_in_pieces(protocol.rng, protocol.transport, part)


class RandomBufferedEcho(RandomEcho, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        assert sizehint >= 0
        self.buffer = bytearray(self.rng.choice((1, 7, 1000, 20_000, 300_000)))
        # asyncio loses what it reads into slices of a bytearray, which are copies
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        self.data_received(self.buffer[:nbytes])


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_echo_in_random_pieces(loop, connect, buffered, seed):
    rng = random.Random(seed)
    size_max = 400_000 if seed % 2 else 5_000
    data = rng.randbytes(rng.randrange(1, size_max))

    def cut():
        return rng.choice((1, 5, 100, 3_000, 17_000, 100_000))

    async def main():
        kind = RandomBufferedEcho if buffered else RandomEcho
        transport, protocol, peer = await connect(kind(loop, rng))

        async def send():
            start = 0
            while start < len(data):
                size = rng.choice((1, 100, 16_384, 16_385, 200_000))
                await peer.send(data[start : start + size], cut if rng.random() < 0.5 else None)
                start += size

        sending = loop.create_task(send())
        # a second BIO pair is not needed: reading does not disturb what is being sent
        assert await peer.receive(len(data)) == data
        await sending
        await over(transport, protocol)

    drive(loop, main())


def test_records_of_one_read_are_one_call(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        calls = []
        protocol.data_received = lambda data: calls.append(data)
        records = b"".join(peer.encrypt(bytes([65 + i]) * (i + 1)) for i in range(5))
        await loop.sock_sendall(peer.sock, records)
        await until(lambda: calls)
        assert calls == [b"ABBCCCDDDDEEEEE"]
        half = peer.encrypt(b"x" * 1000)
        await loop.sock_sendall(peer.sock, half[:500])
        await spin()
        await loop.sock_sendall(peer.sock, half[500:])
        await until(lambda: len(calls) > 1)
        assert calls[1:] == [b"x" * 1000]
        await over(transport, protocol)

    drive(loop, main())


def test_a_full_buffer_is_filled_again(loop, connect):
    async def main():
        protocol = tls_tools.BufferedTrace(loop, 100)
        transport, protocol, peer = await connect(protocol)
        calls = []
        protocol.buffer_updated = calls.append
        protocol.transport.set_protocol(protocol)  # buffer_updated is looked up there
        await peer.send(b"y" * 250)
        await until(lambda: sum(calls) == 250)
        assert calls == [100, 100, 50]
        assert all(hint >= 0 for hint in protocol.hints)
        await over(transport, protocol)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_a_bytearray_of_several_records(loop, connect, tls_code):
    """asyncio reads what follows the first record into a slice, which is a copy: it is lost."""

    async def main():
        protocol = tls_tools.BufferedTrace(loop, 200_000)
        transport, protocol, peer = await connect(protocol)
        data = random.Random(1).randbytes(100_000)
        await peer.send(data)
        await until(lambda: protocol.events and len(protocol.events[0]) == len(data))
        assert protocol.events[0] == data or tls_code == "asyncio"
        await over(transport, protocol)

    drive(loop, main())


def test_replies_of_one_call_leave_together(loop, connect):
    """Several small writes, and one that is held while a callback runs, keep their order."""

    async def main():
        transport, protocol, peer = await connect()

        def reply(data):
            for i in range(10):
                transport.write(b"%d" % i)
            assert transport.get_write_buffer_size() == 0
            transport.write(b"z" * 100_000)
            transport.write(b"end")

        protocol.data_received = reply
        await peer.send(b"?")
        assert await peer.receive(100_013) == b"0123456789" + b"z" * 100_000 + b"end"
        await over(transport, protocol)

    drive(loop, main())


@pytest.mark.parametrize("paused", [False, True])
def test_connections_that_write_by_turns(loop, connect, paused):
    """Records of one connection that wait for the end of a callback stay whole and in order when
    others make records meanwhile, also where a full socket keeps everything back."""

    async def main():
        one, two = await connect(), await connect()
        filler = b""

        def reply(data):
            one[0].write(b"1")
            two[0].write(b"2" * 16_384)
            one[0].write(b"3" * 16_384)
            two[0].write(b"4")
            one[0].write(b"5" * 100)
            two[0].writelines([b"6", b"7" * 5000])
            one[0].write(b"8")

        one[1].data_received = reply
        if paused:
            two[0].set_write_buffer_limits(high=100_000)
            while two[1].events != ["pause"]:
                two[0].write(b"x" * 16_384)
                filler += b"x" * 16_384
        await one[2].send(b"?")
        whole = b"1" + b"3" * 16_384 + b"5" * 100 + b"8"
        assert await one[2].receive(len(whole)) == whole
        whole = filler + b"2" * 16_384 + b"467" + b"7" * 4999
        assert await two[2].receive(len(whole)) == whole
        await over(*one[:2])
        await over(*two[:2])

    drive(loop, main())


@pytest.mark.parametrize("size", [10, 16_384, 200_000])
def test_a_write_that_meets_a_reset(loop, connect, size):
    async def main():
        transport, protocol, peer = await connect()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()  # a reset, which has come before anybody looks
        transport.write(b"x" * size)
        transport.write(b"y" * size)
        assert type(await protocol.lost) is ConnectionResetError
        assert transport.is_closing()

    drive(loop, main())


# ---- the protocol is changed --------------------------------------------------------------------


def test_set_protocol(loop, connect):
    async def main():
        transport, first, peer = await connect()
        second = tls_tools.BufferedTrace(loop, 7)
        third = tls_tools.Trace(loop)
        await peer.send(b"one")
        await until(lambda: first.events)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        await peer.send(b"two, and more than seven")
        await until(lambda: second.events == [b"two, and more than seven"])
        transport.set_protocol(third)
        await peer.send(b"three")
        await until(lambda: third.events)
        assert (first.events, third.events) == ([b"one"], [b"three"])
        await over(transport, third)

    drive(loop, main())


def test_set_protocol_inside(loop, connect):
    async def main():
        transport, first, peer = await connect()
        second = tls_tools.Trace(loop)

        def switch(data):
            first.events.append(data)
            transport.set_protocol(second)

        first.data_received = switch
        await peer.send(b"one")
        await until(lambda: first.events)
        await peer.send(b"two")
        await until(lambda: second.events)
        assert (first.events, second.events) == ([b"one"], [b"two"])
        await over(transport, second)

    drive(loop, main())


# ---- ends ---------------------------------------------------------------------------------------


def test_close_notify(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        peer.object.write(b"bye")
        with pytest.raises(ssl.SSLWantReadError):
            peer.object.unwrap()
        await peer.flush()
        await peer.call(peer.object.unwrap)
        assert await protocol.lost is None
        assert protocol.events == [b"bye", "eof", ("lost", type(None))]
        assert transport.is_closing()

    drive(loop, main())


@pytest.mark.parametrize("paused", [False, True])
def test_end_without_close_notify(loop, connect, paused):
    async def main():
        transport, protocol, peer = await connect()
        if paused:
            transport.pause_reading()
        await peer.send(b"bye")
        peer.sock.shutdown(1)
        if paused:
            await spin()
            assert protocol.events == []
            transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.events == [b"bye", "eof", ("lost", type(None))]
        await peer.raw_end()

    drive(loop, main())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("damage", ["record", "header", "alert"])
def test_damage(loop, connect, damage, debug, asyncio_log):
    """The reason is OpenSSL's, in the words of the ssl module."""
    loop.set_debug(debug)
    loop.slow_callback_duration = 10
    asyncio_log.setLevel(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)

    async def main():
        transport, protocol, peer = await connect()
        record = bytearray(peer.encrypt(b"fine") + peer.encrypt(b"damaged"))
        if damage == "record":
            record[-1] ^= 1
        elif damage == "header":
            record += b"GET / HTTP/1.0\r\n\r\n"
        else:
            record += b"\x15\x03\x03\x00\x02\x02\x28"
        await loop.sock_sendall(peer.sock, record)
        exc = await protocol.lost
        assert isinstance(exc, ssl.SSLError)
        reason = {
            "record": "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
            "header": "WRONG_VERSION_NUMBER",
            "alert": "SSLV3_ALERT_HANDSHAKE_FAILURE",
        }[damage]
        if damage != "alert":
            assert exc.library == "SSL"
            assert exc.reason in (reason, "RECORD_LAYER_FAILURE")  # OpenSSL's word from 3.4 on
        assert protocol.events == [("lost", type(exc))]
        await peer.raw_end()

    drive(loop, main())
    texts = [record.getMessage() for record in asyncio_log.take(logging.DEBUG)]
    assert any("Fatal error on SSL protocol" in text for text in texts) == debug


class Odd(Exception):
    pass


def test_exception_of_the_protocol(loop, connect):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main():
        transport, protocol, peer = await connect()

        def fail(data):
            transport.write(b"written before")
            raise Odd(data)

        protocol.data_received = fail
        await peer.send(b"?")
        assert await peer.receive(14) == b"written before"
        assert type(await protocol.lost) is Odd
        await peer.raw_end()

    drive(loop, main())
    assert [report["message"] for report in reports] == ["Fatal error on SSL protocol"]
    assert type(reports[0]["exception"]) is Odd


def test_interrupt_in_the_protocol(loop, connect):
    async def main():
        transport, protocol, peer = await connect()

        def interrupt(data):
            raise KeyboardInterrupt

        protocol.data_received = interrupt
        ends.append((transport, protocol))
        await peer.send(b"?")
        await asyncio.sleep(tcp_tools.LIMIT)

    ends = []
    with pytest.raises(KeyboardInterrupt):
        drive(loop, main())
    drive(loop, over(*ends[0]))


@pytest.mark.parametrize("buffer", [b"read-only", 5, bytearray()])
def test_unusable_buffers(loop, connect, buffer):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))

    async def main():
        protocol = tls_tools.BufferedTrace(loop)
        transport, protocol, peer = await connect(protocol)
        protocol.buffer = buffer
        await peer.send(b"?")
        exc = await protocol.lost
        if buffer == bytearray():  # taken for the end of the stream, before which there is data
            assert exc.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
        else:
            assert type(exc) is TypeError
        await peer.raw_end()

    drive(loop, main())
    assert reports == ([] if buffer == bytearray() else ["Fatal error on SSL protocol"])


def test_close_sends_what_was_written(loop, connect):
    async def main():
        transport, protocol, peer = await connect()

        def reply(data):
            transport.write(b"a")
            transport.write(b"b" * 300_000)
            transport.close()
            transport.write(b"too late")

        protocol.data_received = reply
        await peer.send(b"?")
        assert await peer.rest() == b"a" + b"b" * 300_000
        await peer.call(peer.object.unwrap)
        await peer.flush()
        assert await protocol.lost is None

    drive(loop, main())


def test_writes_after_the_end(loop, connect, asyncio_log):
    async def main():
        transport, protocol, peer = await connect()
        transport.abort()
        await protocol.lost
        for _ in range(7):
            transport.write(b"x")
        transport.writelines([b"y"])
        await peer.raw_end()

    drive(loop, main())
    assert set(asyncio_log.messages()) == {"SSL connection is closed"}


def test_abort_inside(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        protocol.data_received = lambda data: transport.abort()
        await peer.send(b"?")
        assert await protocol.lost is None
        await peer.raw_end()

    drive(loop, main())


def test_true_from_eof_received(loop, connect, asyncio_log):
    async def main():
        transport, protocol, peer = await connect()
        protocol.eof_received = lambda: True
        peer.sock.shutdown(1)
        assert await protocol.lost is None
        await peer.raw_end()

    drive(loop, main())
    assert asyncio_log.messages() == [
        "returning true from eof_received() has no effect when using ssl"
    ]


# ---- flow control -------------------------------------------------------------------------------


def test_pause_reading(loop, connect):
    """What comes meanwhile is kept, up to the mark; then the socket below is not read any more."""

    async def main():
        transport, protocol, peer = await connect()
        transport.set_read_buffer_limits(high=50_000)
        transport.pause_reading()
        assert not transport.is_reading()
        total = 3_000_000
        sending = loop.create_task(peer.send(b"x" * total))
        await until(lambda: transport.get_read_buffer_size() >= 50_000)
        await spin()
        assert protocol.events == []
        assert transport.get_read_buffer_size() < 700_000
        transport.resume_reading()
        assert transport.is_reading()
        await until(lambda: protocol.events and len(protocol.events[0]) == total)
        await sending
        assert transport.get_read_buffer_size() == 0
        await over(transport, protocol)

    drive(loop, main())


def test_pause_inside(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        seen = []

        def pause(data):
            seen.append(data)
            transport.pause_reading()

        protocol.data_received = pause
        await peer.send(b"one")
        await until(lambda: seen)
        await peer.send(b"two")
        await peer.send(b"three")
        await until(lambda: transport.get_read_buffer_size() > 45)
        assert seen == [b"one"]
        transport.resume_reading()
        await until(lambda: len(seen) > 1)
        assert seen == [b"one", b"twothree"]
        await over(transport, protocol)

    drive(loop, main())


def test_pause_writing(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        transport.set_write_buffer_limits(high=200_000, low=50_000)
        assert transport.get_write_buffer_limits() == (50_000, 200_000)
        data = bytes(range(256)) * 400
        written = 0
        while protocol.events != ["pause"]:
            transport.write(data)
            written += len(data)
        assert transport.get_write_buffer_size() >= 200_000
        for _ in range(3):
            transport.write(data)
            written += len(data)
        assert await peer.receive(written) == data * (written // len(data))
        await until(lambda: protocol.events == ["pause", "resume"])
        assert transport.get_write_buffer_size() == 0
        await over(transport, protocol)

    drive(loop, main())


def test_a_mark_of_zero(loop, connect):
    """asyncio pauses at the mark, not above it, and at once."""

    async def main():
        transport, protocol, peer = await connect()
        transport.set_write_buffer_limits(high=0)
        assert protocol.events == ["pause"]
        protocol.data_received = lambda data: transport.write(data)
        await peer.send(b"x")
        assert await peer.receive(1) == b"x"
        assert protocol.events[:3] == ["pause", "resume", "pause"][: len(protocol.events)]
        await over(transport, protocol)

    drive(loop, main())


# ---- the transport ------------------------------------------------------------------------------


def test_wrong_data(loop, connect):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(type(context["exception"])))

    async def main():
        transport, protocol, peer = await connect()
        with pytest.raises(TypeError, match="data: expecting a bytes-like instance, got str"):
            transport.write("text")
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert not transport.can_write_eof()
        transport.write(b"")
        transport.write(memoryview(b""))
        transport.write(data=b"named")
        transport.writelines(list_of_data=[b"!"])
        assert await peer.receive(6) == b"named!"
        transport.writelines(["text"])
        assert type(await protocol.lost) is TypeError
        await peer.raw_end()

    drive(loop, main())
    assert reports == [TypeError]


def test_wide_memoryviews(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        transport.write(memoryview(b"0123456789abcdef")[::2])
        exc = await protocol.lost
        assert type(exc) is BufferError or exc is None
        await peer.raw_end()

    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(type(context["exception"])))
    drive(loop, main())
    assert reports == [BufferError]


def test_extra_info(loop, connect, server_context):
    async def main():
        transport, protocol, peer = await connect()
        assert type(transport.get_extra_info("ssl_object")) is ssl.SSLObject
        assert transport.get_extra_info("sslcontext") is server_context
        assert transport.get_extra_info("cipher") == transport.get_extra_info("ssl_object").cipher()
        assert transport.get_extra_info("peercert") is None
        assert transport.get_extra_info("compression", "?") is None
        assert transport.get_extra_info("socket").fileno() >= 0
        assert transport.get_extra_info("sockname") == peer.sock.getpeername()
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport._ssl_protocol._extra["ssl_object"].version() == peer.object.version()
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport._ssl_protocol, asyncio.sslproto.SSLProtocol)
        await over(transport, protocol)

    drive(loop, main())


def test_unclosed(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        type(transport).__del__  # noqa: B018
        with pytest.warns(
            ResourceWarning, match="unclosed transport <asyncio._SSLProtocolTransport"
        ):
            transport.__del__()
        transport._closed = False
        await over(transport, protocol)

    drive(loop, main())


# ---- contexts -----------------------------------------------------------------------------------


def test_contexts_of_the_users_own(loop, server_context, client_context):
    """What overrides wrap_bio() or names its own SSLObject is asked."""
    wrapped = []

    class Object(ssl.SSLObject):
        def read(self, *args):
            wrapped.append("read")
            return super().read(*args)

    class Context(ssl.SSLContext):
        def wrap_bio(self, *args, **kwargs):
            wrapped.append("wrap_bio")
            return super().wrap_bio(*args, **kwargs)

    async def main(context):
        context.load_cert_chain(tls_certificate(), tls_certificate("key"))
        transport, peer = await tls_tools.connected(
            loop, protocol := tls_tools.Trace(loop), context, client_context
        )
        await peer.send(b"x")
        await until(lambda: protocol.events)
        await over(transport, protocol)
        peer.sock.close()

    drive(loop, main(Context(ssl.PROTOCOL_TLS_SERVER)))
    assert wrapped == ["wrap_bio"]
    wrapped.clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Object
    drive(loop, main(context))
    assert "read" in wrapped


def tls_certificate(kind="crt"):
    import conftest

    return conftest.CERTS / f"localhost.{kind}"


def test_callbacks_of_the_context(loop, connect, server_context, client_context, tmp_path):
    names = []
    server_context.sni_callback = lambda obj, name, context: names.append(name)
    server_context.keylog_filename = tmp_path / "keys"
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client_context.set_alpn_protocols(["http/1.1"])

    async def main():
        transport, protocol, peer = await connect()
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await over(transport, protocol)

    drive(loop, main())
    server_context.keylog_filename = None
    assert names == ["localhost"]
    assert "TRAFFIC_SECRET" in (tmp_path / "keys").read_text()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(loop, connect, client_context, version):
    client_context.minimum_version = client_context.maximum_version = version

    async def main():
        transport, protocol, peer = await connect()
        assert peer.object.version() == version.name.replace("_", ".")
        protocol.data_received = lambda data: transport.write(data)
        await peer.send(b"x" * 100_000)
        assert await peer.receive(100_000) == b"x" * 100_000
        await over(transport, protocol)

    drive(loop, main())


# ---- TLS in TLS, start_tls ----------------------------------------------------------------------


def test_tls_in_tls(loop, server_context, client_context):
    async def main():
        ours, theirs = tls_tools.tcp_pair()
        servers, clients = tls_tools.Trace(loop), tls_tools.Trace(loop)
        serving = loop.create_task(
            loop.connect_accepted_socket(lambda: servers, ours, ssl=server_context)
        )
        client, _ = await loop.create_connection(
            lambda: clients, sock=theirs, ssl=client_context, server_hostname="localhost"
        )
        server, _ = await serving
        inner_server, inner_client = await asyncio.gather(
            loop.start_tls(server, servers, server_context, server_side=True),
            loop.start_tls(client, clients, client_context, server_hostname="localhost"),
        )
        servers.data_received = lambda data: inner_server.write(data)
        data = random.Random(5).randbytes(300_000)
        inner_client.write(data)
        await until(lambda: clients.events == [data])
        inner_client.close()
        await clients.lost
        await servers.lost
        await spin()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_start_tls_with_a_record_in_the_reader(loop, server_context, client_context):
    """The client's first record came with its last line: from 3.14 on asyncio does it, too."""

    async def main():
        done = loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            while not reader._buffer:
                await asyncio.sleep(0)
            await writer.start_tls(server_context)
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            done.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        sock = tcp_tools.socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        peer = tls_tools.Peer(loop, sock, client_context)
        with pytest.raises(ssl.SSLWantReadError):
            peer.object.do_handshake()
        await loop.sock_sendall(sock, b"STARTTLS\n" + peer.outgoing.read())
        await peer.handshake()
        await peer.send(b"secret\n")
        assert await peer.receive(7) == b"secret\n"
        await done
        assert await peer.rest() == b""
        await peer.call(peer.object.unwrap)
        await peer.flush()
        await peer.raw_end()
        sock.close()
        server.close()
        await server.wait_closed()
        await spin()

    drive(loop, main())


def test_start_tls_keeps_the_callback(loop, server_context, client_context):
    """connection_made() is not called again: nothing may wait for it in the protocol."""

    async def main():
        kept = loop.create_future()

        async def serve(reader, writer):
            protocol = writer.transport.get_protocol()
            await writer.start_tls(server_context)
            kept.set_result(protocol._client_connected_cb)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await writer.start_tls(client_context, server_hostname="localhost")
        assert await kept is serve
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await spin()

    drive(loop, main())


# ---- which code it was --------------------------------------------------------------------------


def test_the_ssl_object_outlives_its_connection(loop, connect):
    """Its MemoryBIOs are still what it reads and writes."""

    async def main():
        transport, protocol, peer = await connect()
        ssl_object = transport.get_extra_info("ssl_object")
        gone = weakref.ref(transport._ssl_protocol)
        outgoing = transport._ssl_protocol._outgoing
        transport.write(b"early")
        assert await peer.receive(5) == b"early"
        await over(transport, protocol)
        del transport, protocol.transport
        gc.collect()
        assert gone() is None
        with pytest.raises(ssl.SSLWantReadError):
            ssl_object.read(10)
        assert ssl_object.write(b"late") == 4 and outgoing.pending > 4
        peer.incoming.write(outgoing.read())
        assert peer.object.read(10) == b"late"
        assert ssl_object.version() == peer.object.version()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_openssl_is_called_directly(loop, connect, tls_code):
    async def main():
        transport, protocol, peer = await connect()
        kinds = {"native": True, "calls": False}
        if tls_code == "asyncio":
            assert type(transport).__module__ == "asyncio.sslproto"
        else:
            assert transport._ssl_protocol._is_direct() == kinds[tls_code]
        await over(transport, protocol)

    drive(loop, main())
