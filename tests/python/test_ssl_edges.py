"""TLS at its edges, on both loops; on gyre with each of the ways in which it can be done."""

import ssl

import pytest
from tcp_tools import drive, spin
from tls_tools import Trace, connected, tcp_pair

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
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
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
