"""Random programs of sock_*() calls and readiness callbacks, and of everything at once: tasks,
streams, protocols and sockets on one loop do on gyre what they do on asyncio."""

import pytest
import test_differential_protocols as protocols
import test_differential_streams as streams
from differential import EXCEPTIONS, SIGNALS, World, compare, examples
from differential_sockets import MAKERS, Sockets
from differential_streams import Streams
from hypothesis import given
from hypothesis import strategies as st
from test_differential_streams import op

SOCKETS = 2
STREAMS = ("tcp", "unix", "tls", "rpipe", "wpipe")
DATAGRAMS = ("udp", "udp_any", "unix_dgram")
just = st.just
numbers = st.integers(0, SOCKETS - 1)
sizes = st.sampled_from([1, 10, 300, 5000])
makers = st.sampled_from(["stream", *MAKERS])
doings = st.sampled_from(
    ["take", "take", "look", "remove", "other", "replace", "raise", "base", "close"]
)

CALLS = [
    op("call", numbers, st.sampled_from(["recv", "recv_into"]), sizes),
    op("call", numbers, st.sampled_from(["recvfrom", "recvfrom_into"]), sizes),
    op(
        "call", numbers, st.sampled_from(["sendall", "sendto"]), st.sampled_from([0, 10, 1_000_000])
    ),
    op("call", numbers, just("sendfile"), st.sampled_from([0, 10, 1_000_000])),
    op("call", numbers, st.sampled_from(["accept", "connect"]), sizes),
    op("cancel_call", st.integers(0, 5)),
    op("blocking", numbers, st.booleans()),
]
READINESS = [
    *[op("add", numbers, st.booleans(), doings)] * 4,
    *[op("add", numbers, just(False), just("take"))] * 3,
    op("remove", numbers, st.booleans()),
    op("close_socket", numbers),
    op("dup", numbers, st.booleans()),
    op("new_file", numbers),
    op("add_wrong", st.sampled_from(["file", "closed", -1, "text", None]), st.booleans()),
]
raises = st.sampled_from([*[None] * 10, *sorted(EXCEPTIONS)])


def scheduled(actions):
    return st.one_of(
        *[op("call", WAYS, actions, raises, st.sampled_from([False, False, False, True]))] * 2,
        *[op("signal", just("add"), names, actions, raises)] * 2,
        op("signal", just("remove"), names, just([]), just(None)),
        *[op("signal", just("raise"), names, just([]), just(None))] * 3,
    )


# Not from another thread: asyncio reads that callback's byte and a signal's together, and looks the
# handler up a turn earlier.
WAYS = st.sampled_from(["soon", "soon", "later", "at"])
names = st.sampled_from(sorted(SIGNALS))
SCHEDULED = st.recursive(
    scheduled(just([])), lambda each: scheduled(st.lists(each, max_size=3)), max_leaves=6
)
PEER = [
    *[op("peer_sends", numbers, sizes)] * 8,
    op("peer_takes", numbers),
    op("peer_leaves", numbers, st.sampled_from(["eof", "close", "close"])),
]


def programs(actions, polled):
    opens = st.lists(st.tuples(op("socket", makers, polled)), min_size=1, max_size=SOCKETS)
    steps = st.lists(st.one_of(actions), max_size=2)
    return st.tuples(opens, st.lists(steps, min_size=5, max_size=16)).map(
        lambda parts: parts[0] + parts[1]
    )


class Mixed(Streams, Sockets):
    """Everything on one loop."""


def mixed():
    limits = st.sampled_from([2, 64, 65536])
    stream_kinds = st.sampled_from(["client", "accepted", "server"])
    opens = st.one_of(
        protocols.opening(STREAMS),
        protocols.opening(DATAGRAMS),
        op("open_stream", stream_kinds, limits, st.booleans(), streams.BODY),
        op("socket", makers, st.booleans()),
    )
    actions = st.one_of(
        protocols.outside(STREAMS),
        protocols.outside(DATAGRAMS),
        protocols.looks,
        streams.STEP,
        st.one_of(CALLS + PEER),
        st.one_of(READINESS + PEER),
        SCHEDULED,
    )
    return st.tuples(
        st.lists(st.tuples(opens), min_size=2, max_size=4),
        st.lists(st.tuples(actions), min_size=5, max_size=20),
    ).map(lambda parts: parts[0] + parts[1])


# Hypothesis says so of its own generator, on 3.14.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


@examples(30)
@given(programs(CALLS + PEER, just(False)), st.booleans())
def test_calls(program, debug):
    compare(Sockets, program, debug)


@examples(30)
@given(programs(READINESS + PEER, just(True)), st.booleans())
def test_readiness(program, debug):
    compare(Sockets, program, debug)


@examples(60)
@given(st.lists(st.lists(SCHEDULED, max_size=4), max_size=6), st.booleans())
def test_callbacks(program, debug):
    compare(World, program, debug)


@examples(40)
@given(mixed(), st.booleans())
def test_everything(program, debug):
    compare(Mixed, program, debug)
