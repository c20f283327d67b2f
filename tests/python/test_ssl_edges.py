"""TLS at its edges, on both loops; on gyre with each of the ways in which it can be done."""

import asyncio
import contextlib
import shutil
import ssl

import pytest
from conftest import CERTS
from tcp_tools import drive, spin
from tls_tools import Peer, Trace, connected, tcp_pair

pytestmark = pytest.mark.usefixtures("tls_code")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def connect(loop, peer, server_context, client_context):
    """connect(): (transport, protocol, Peer) with the handshake done; we are the server."""

    async def make(protocol=None):
        protocol = Trace(loop) if protocol is None else protocol
        pair = tcp_pair()
        peer.append(pair[1])
        transport, other = await connected(loop, protocol, server_context, client_context, pair)
        return transport, protocol, other

    return make


# ---- what goes wrong


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bad_record_ends_the_connection_without_a_word(loop, connect, client_context, version):
    """As asyncio has it: an abort, no alert."""
    client_context.maximum_version = version

    async def main():
        _, protocol, peer = await connect()
        if version is ssl.TLSVersion.TLSv1_3:
            await peer.more()  # session tickets
        record = bytearray(peer.encrypt(b"good"))
        record[-1] ^= 1
        await loop.sock_sendall(peer.sock, record)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC|RECORD_LAYER_FAILURE"):
            raise await protocol.lost
        assert await loop.sock_recv(peer.sock, 100) == b""

    drive(loop, main())


@pytest.mark.parametrize("when", ["handshake", "read", "write"])
def test_an_exception_of_the_message_callback(loop, connect, server_context, when):
    """The private hook for debuggers: what it raises comes out of the next call of OpenSSL."""
    reports, armed = [], when == "handshake"
    loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))

    def note(*args):
        if armed:
            raise LookupError(when)

    server_context._msg_callback = note

    async def main():
        nonlocal armed
        if when == "handshake":
            with pytest.raises((LookupError, ConnectionError)):
                await connect()
            await spin()
            return
        transport, protocol, peer = await connect()
        armed = True
        if when == "read":
            await peer.send(b"x")
        else:
            transport.write(b"x")
        with pytest.raises(LookupError, match=when):
            raise await protocol.lost

    try:
        drive(loop, main())
    finally:
        server_context._msg_callback = None
    assert {type(exc) for exc in reports} == {LookupError}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the command openssl is not here")
def test_renegotiation_is_refused(loop, server_context):
    """Of a TLS 1.2 client: the connection goes on as it was, or ends; no second handshake."""

    async def main():
        made = loop.create_future()

        class Protocol(Trace):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.set_result(self)

        server = await loop.create_server(
            lambda: Protocol(loop), "127.0.0.1", 0, ssl=server_context
        )
        port = server.sockets[0].getsockname()[1]
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        protocol = await made
        client.stdin.write(b"before\n")
        while not protocol.events:
            await asyncio.sleep(0.001)
        client.stdin.write(b"R\n")  # renegotiate
        said = b""
        while b"RENEGOTIATING" not in said:
            said += await client.stdout.read(1000)
        await client.stdout.read()  # s_client ends when it is refused
        await client.wait()
        await protocol.lost
        assert protocol.events[0] == b"before\n"
        assert [event for event in protocol.events[1:] if isinstance(event, bytes)] == []
        server.close()
        await server.wait_closed()

    drive(loop, main())


# ---- certificates of clients


@pytest.mark.parametrize("given", [True, False])
def test_client_certificates(loop, server_context, client_context, given):
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(CERTS / "localhost.crt")
    if given:
        client_context.load_cert_chain(CERTS / "localhost.crt", CERTS / "localhost.key")

    async def main():
        accepted = loop.create_future()

        async def answer(reader, writer):
            accepted.set_result(writer.get_extra_info("peercert"))
            writer.write(b"welcome")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
            )
            said = await reader.read()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        except OSError:
            said = None
        if given:
            assert said == b"welcome"
            assert ("commonName", "localhost") in (await accepted)["subject"][0]
        else:
            assert not said and not accepted.done()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())


# ---- time limits


@pytest.mark.parametrize("limit", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_of_nothing_is_refused(loop, peer, server_context, client_context, limit, value):
    async def main():
        for what in ("connect_accepted_socket", "create_connection", "start_tls"):
            ours, theirs = tcp_pair()
            peer.extend([ours, theirs])
            with pytest.raises(ValueError, match=f"{limit} should be a positive number"):
                if what == "connect_accepted_socket":
                    await loop.connect_accepted_socket(
                        asyncio.Protocol, ours, ssl=server_context, **{limit: value}
                    )
                elif what == "create_connection":
                    await loop.create_connection(
                        asyncio.Protocol,
                        sock=ours,
                        ssl=client_context,
                        server_hostname="localhost",
                        **{limit: value},
                    )
                else:
                    protocol = Trace(loop)
                    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)  # noqa: B023
                    try:
                        await loop.start_tls(transport, protocol, client_context, **{limit: value})
                    finally:
                        transport.abort()
                        await protocol.lost

    drive(loop, main())


def test_the_limits_and_marks_that_hold_by_default(loop, connect):
    async def main():
        transport, protocol, _ = await connect()
        assert transport._ssl_protocol._ssl_handshake_timeout == 60
        assert transport._ssl_protocol._ssl_shutdown_timeout == 30
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
        transport.abort()
        await protocol.lost
        await spin()

    drive(loop, main())


@pytest.mark.parametrize("talks", [True, False])
def test_close_does_not_wait_for_ever(loop, peer, server_context, client_context, talks):
    """The peer never says goodbye, and perhaps goes on sending: the protocol hears no more."""

    async def main():
        ours, theirs = tcp_pair()
        peer.append(theirs)
        other = Peer(loop, theirs, client_context)
        protocol = Trace(loop)
        shaking = loop.create_task(other.handshake())
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, ours, ssl=server_context, ssl_shutdown_timeout=0.2
        )
        await shaking
        await other.send(b"first")
        while not protocol.events:
            await asyncio.sleep(0)
        transport.close()
        if talks:
            with contextlib.suppress(OSError):
                for _ in range(50):
                    await other.send(b"x" * 10_000)
        exc = await protocol.lost
        assert protocol.events[0] == b"first"
        assert len(protocol.events) == 2
        return type(exc)

    started = loop.time()
    assert drive(loop, main()) in (type(None), TimeoutError, ConnectionAbortedError, ssl.SSLError)
    assert loop.time() - started < 5
