"""Programs of the differential tests that once told gyre from asyncio, each as small as it got."""

import asyncio
import contextlib

import pytest
import tcp_tools
from differential import World, compare, lines_of, trace_of
from differential_servers import Servers
from differential_sockets import Sockets
from differential_streams import Streams
from differential_transports import BIG, Transports

LAST_WORDS = [("connection_lost", 0, [("sendto", 10, "peer")] * 3, ("raise", "value"))]
CLOSE_AND_SEND = ("connection_made", 0, [("close",), *[("sendto", 70000, "peer")] * 4], None)
ANSWER_AND_ABORT = ("data_received", 0, [("write", 1, bytes), ("abort",)], None)
ANSWER_AND_RAISE = ("data_received", 0, [("write", 1, bytes)], ("raise", "value"))
END_AND_RAISE = ("eof_received", 0, [("write", 1, bytes)], ("raise", "base"))
SEND_AND_RAISE = ("error_received", 0, [("sendto", 1, "peer")] * 2, ("raise", "base"))
RECEIVE_SEND_AND_RAISE = (
    "datagram_received",
    0,
    [("sendto", 1, "none")] * 3,
    ("raise", "value"),
)
MUCH_AND_LITTLE = (
    "connection_made",
    0,
    [("limits", None, 0), ("writelines", [BIG, 1])],
    None,
)
RAISE_URG = ("signal", "raise", "urg", [], None)
STAY_OPEN = ("eof_received", 0, [], ("return", True))
TRANSPORTS = {
    "a write that fails, and an exception": [
        [("open", "unix", False, False, False, [END_AND_RAISE])],
        [],
        [("peer_close", 0)],
    ],
    "the reader of a full pipe leaves": [
        [("open", "wpipe", False, True, True, [])],
        [("peer_flow", 0, False), ("write", 0, BIG, bytes)],
        [("peer_eof", 0)],
    ],
    "a mark below zero": [
        [("open", "unix", False, False, False, [])],
        [("limits", 0, -1, None), ("limits", 0, -8, None), ("limits", 0, None, -1)],
    ],
    "writelines after write_eof": [
        [("open", "unix", False, False, False, [])],
        [("write_eof", 0), ("writelines", 0, []), ("writelines", 0, [1])],
        [("writelines_wrong", 0, "text")],
    ],
    "writelines of what is no bytes": [
        [("open", "unix", False, False, True, [])],
        [("writelines_wrong", 0, "text"), ("writelines_wrong", 0, 0.5)],
    ],
    "start_tls after write_eof": [
        [("open", "unix", False, False, False, [])],
        [("write_eof", 0)],
        [("start_tls", 0, False)],
    ],
    "TLS: get_buffer returns no buffer": [
        [("open", "tls", False, True, False, [("get_buffer", 0, [], ("return", 3))])],
    ],
    "TLS starts when the end was told": [
        [("open", "tcp", False, False, False, [STAY_OPEN])],
        [("peer_eof", 0)],
        [("start_tls", 0, False)],
    ],
    "reading is resumed when the end was told": [
        [("open", "unix", False, False, False, [STAY_OPEN])],
        [("peer_eof", 0)],
        [("pause", 0), ("peer_eof", 0)],
        [("callback", 0, "soon", [], None, False), ("resume", 0)],
    ],
    "the end was there when reading resumed": [
        [("open", "tcp", False, False, False, [])],
        [("pause", 0), ("peer_eof", 0)],
        [("callback", 0, "soon", [], None, False), ("resume", 0)],
    ],
    "data was there when reading resumed": [
        [("open", "unix", False, False, False, [])],
        [("pause", 0), ("peer_send", 0, 10)],
        [("callback", 0, "soon", [], None, False), ("resume", 0)],
    ],
    "what the first bytes scheduled, and more bytes": [
        [
            (
                "open",
                "tcp",
                False,
                True,
                False,
                [("data_received", 0, [("callback", "soon", [], None, False)], None)],
            )
        ],
        [("peer_send", 0, 5000)],
    ],
    "TLS: a reset behind data that is read in pieces": [
        [("open", "tcp", False, True, False, [])],
        [],
        [("start_tls", 0, False)],
        [("peer_send", 0, 5000), ("peer_reset", 0)],
    ],
    "data before a reset that a waiting send hears of": [
        [("open", "unix", False, False, False, [])],
        [("write", 0, BIG, bytes)],
        [("peer_send", 0, 1), ("peer_close", 0)],
    ],
    "the same over TLS": [
        [("open", "tls", False, False, False, [])],
        [("write", 0, BIG, bytes)],
        [("peer_send", 0, 1), ("peer_close", 0)],
    ],
    "TLS: an answer, and abort()": [
        [("open", "tls", False, False, False, [ANSWER_AND_ABORT])],
        [("peer_send", 0, 1)],
    ],
    "TLS: an answer at the end, and an exception": [
        [("open", "tls", False, False, False, [END_AND_RAISE])],
        [("peer_eof", 0)],
    ],
    "TLS: an answer, and an exception": [
        [("open", "tls", False, False, False, [ANSWER_AND_RAISE])],
        [("peer_send", 0, 1)],
    ],
    "write_eof after a reset": [
        [("open", "tcp", False, False, False, [])],
        [],
        [("write_eof", 0), ("peer_reset", 0)],
    ],
    "get_buffer returns a number": [
        [("open", "tcp", False, True, False, [("get_buffer", 0, [], ("return", 2))])],
        [("peer_send", 0, 1)],
    ],
    "TLS: get_buffer is interrupted": [
        [("open", "tls", False, True, False, [("get_buffer", 1, [], ("raise", "interrupt"))])],
        [("peer_send", 0, 10)],
        [("peer_send", 0, 300)],
    ],
    "TLS: much is written to a peer that left": [
        [("open", "tls", False, False, False, [])],
        [("peer_close", 0), ("write_much", 0)],
    ],
    "TLS: all of a write is given to the transport below": [
        [("open", "tls", False, False, True, [])],
        [("limits", 0, 10, None), ("write", 0, BIG, bytes)],
        [("write", 0, BIG, bytes), ("write", 0, 10, bytes)],
    ],
    "TLS: all of a writelines() is given to the transport below": [
        [("open", "tls", False, False, False, [MUCH_AND_LITTLE])],
    ],
    "datagrams beyond the mark after close": [
        [("open", "unix_dgram", False, False, False, [CLOSE_AND_SEND])],
    ],
    "datagrams from connection_lost": [
        [("open", "udp_any", False, False, True, LAST_WORDS)],
        [("close", 0)],
    ],
    "a reset that a waiting send is told alone": [
        [("open", "tcp", False, False, False, [])],
        *[[("write", 0, BIG, bytes)], [("peer_close", 0)]],
    ],
    "error_received sends to a peer that left, and raises": [
        [("open", "udp", False, False, False, [SEND_AND_RAISE])],
        [("peer_close", 0), ("sendto", 0, 1, "peer")],
    ],
    "data_received sends to a peer that left, and raises": [
        [("open", "unix_dgram", False, False, False, [RECEIVE_SEND_AND_RAISE])],
        [("peer_send", 0, 1), ("peer_close", 0)],
    ],
}
SOCKETS = {
    "sendall of nothing": [
        [("socket", "unconnected", False)],
        [("call", 0, "sendall", 0)],
    ],
}


class Worlds(Transports):
    def op_write_much(self, number):
        if conn := self.of(number, "write"):
            conn.transport.write(bytes(BIG))


STREAMS = {
    "start_tls() and close() at once": [
        [
            (
                "open_stream",
                "server",
                2,
                False,
                [("gather", [[("start_tls", 0)], [("writer", 0, "close")]], False)],
            )
        ],
        [("spawn", [])],
    ],
    "drain() behind a write to a peer that left": [
        [("open_stream", "client", 2, False, [])],
        [("spawn", [])],
        [("peer_close", 0)],
        [("spawn", [("write", 0, 10), ("writer", 0, "drain")])],
    ],
    "a write to a peer that left, and abort()": [
        [("open_stream", "client", 2, False, [])],
        [("peer_close", 0)],
        [("spawn", [("write", 0, 10), ("transport", 0, "abort")])],
        [("spawn", [("reader", 0, "read", -1)])],
    ],
    "much is written to a peer that left, and abort()": [
        [("open_stream", "client", 2, False, [])],
        [("peer_close", 0)],
        [("spawn", [("write", 0, 5000), ("write", 0, BIG), ("transport", 0, "abort")])],
        [("spawn", [("reader", 0, "read", -1)])],
    ],
}


CALLBACKS = {
    "a signal before an exception and one after it": [
        [
            ("signal", "add", "urg", [("signal", "remove", "urg", [], None)], None),
            ("call", "soon", [RAISE_URG, ("call", "soon", [], "exit", False)], None, False),
            ("call", "soon", [("call", "later", [RAISE_URG], None, False)], None, False),
        ],
    ],
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks(name):
    compare(World, CALLBACKS[name])


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name):
    compare(Streams, STREAMS[name])


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("debug", [False, True])
def test_transports(name, debug):
    compare(Worlds, TRANSPORTS[name], debug)


def test_much_is_written_and_closed_with_something_unread():
    """The peer is reset: how much of it has left by then is the kernel's."""
    program = [
        [("serve", "tcp", False, False, False, [])],
        [("server", 0, "serve_forever")],
        [("peer_dial", 0)],
        [("write", 0, BIG, bytes), ("peer_send", 0, 1), ("close", 0)],
    ]
    compare(Servers, program)


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets(name):
    compare(Sockets, SOCKETS[name])


# What gyre does on purpose where the programs keep away from asyncio: see docs/compat.md.


class Interrupted(tcp_tools.Quiet):
    ends = 0

    def eof_received(self):
        self.ends += 1
        raise KeyboardInterrupt


@pytest.mark.only("gyre")
def test_an_end_is_told_once(loop, connect):
    protocol = Interrupted(loop)
    _, _, peer = loop.run_until_complete(connect(protocol))
    peer.close()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(protocol.lost)
    assert loop.run_until_complete(protocol.lost) is None
    assert protocol.ends == 1


@pytest.mark.only("gyre")
def test_methods_after_the_end_do_nothing(loop, connect):
    async def main():
        transport, protocol, peer = await connect()
        peer.setblocking(False)
        transport.set_write_buffer_limits(10)
        transport.write(bytes(BIG))
        transport.close()  # asyncio calls connection_lost() from the write handler, and then
        while not protocol.lost.done():
            with contextlib.suppress(BlockingIOError):
                peer.recv(BIG)
            await asyncio.sleep(0)
        transport.abort()  # raises AttributeError here
        transport.write(b"ignored")
        transport.resume_reading()
        transport.close()
        assert transport.get_write_buffer_size() == 0

    tcp_tools.drive(loop, main())


def test_programs_do_something():
    """A program's trace is not empty, and tells one program from another."""
    program = [
        [("open", "unix", False, False, True, [("data_received", 0, [("close",)], None)])],
        [("write", 0, 10, bytes)],
        [("peer_send", 0, 5)],
    ]
    assert [*lines_of(trace_of("gyre", Transports, program))] == [
        "step 0",
        "c0: ('connection_made', 1)",
        "c0: ('open', 'done')",
        "step 1",
        "c0 peer: ('got', 10, 1164760902)",
        "step 2",
        "c0: ('data', 5, 1)",
        "c0: ('connection_lost', 1, None)",
        "c0 peer: ('end',)",
        "step end",
        "c0: ('left', True)",
    ]
    program = [
        [("open_stream", "client", 64, True, [("reader", 0, "readline")])],
        [("peer_data", 0, b"a line\n")],
    ]
    assert "tasks: ('t0', 'reader', b'a line\\n')" in lines_of(trace_of("gyre", Streams, program))
