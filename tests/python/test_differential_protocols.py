"""Random programs of transports and protocols: gyre tells a protocol what asyncio tells it.

hypothesis makes up connections of every kind, what their protocols do in their callbacks, and what
is done to either end; differential_transports.py says what it means.
"""

from differential import EXCEPTIONS, compare, examples
from differential_transports import BIG, DATAGRAMS, Transports
from hypothesis import given
from hypothesis import strategies as st

CONNECTIONS = 2
numbers = st.integers(0, CONNECTIONS - 1)
just = st.just


def op(name, *arguments):
    return st.tuples(just(name), *arguments)


sizes = st.sampled_from([0, 1, 10, 300, 5000, BIG, BIG])
small = st.sampled_from([1, 10, 300, 5000])
keys = st.sampled_from(
    ["peername", "sockname", "socket", "ssl_object", "sslcontext", "cipher", "pipe", "none"]
)
high = st.sampled_from([None, 0, 10, 5000, 100_000, -1])
low = st.sampled_from([None, None, 0, 10, 5000])

# On its own transport, in a callback or from outside: without and with the connection's number.
BOTH = [
    ("close",),
    ("abort",),
    ("limits", high, low),
    ("set_protocol", st.booleans()),
    ("look", keys),
]
STREAM = [
    *BOTH,
    ("write", sizes, st.sampled_from([bytes, bytes, bytearray, memoryview])),
    ("write", sizes, just(bytes)),
    ("write", sizes, just(bytes)),
    ("writelines", st.lists(sizes, max_size=4)),
    ("write_wrong", st.sampled_from(["text", None, 7])),
    ("writelines_wrong", st.sampled_from(["text", 0.5, 7])),  # 3.14.8 skips what is false
    ("write_eof",),
    ("pause",),
    ("resume",),
    ("resume",),
]
DATAGRAM = [
    *BOTH,
    *[("sendto", st.sampled_from([0, 1, 300, 5000, 70_000]), st.sampled_from(["peer", "none"]))]
    * 6,
    ("sendto", just(10), just("wrong")),
    ("write_wrong", st.sampled_from(["text", None, 7])),
]
PEER = [
    *[("peer_send", small)] * 8,
    ("peer_eof",),
    ("peer_close",),
    ("peer_reset",),
    *[("peer_take", st.sampled_from([1, 100, 5000, 250_000]))] * 2,
    *[("peer_flow", st.booleans())] * 2,
]
files = op(
    "sendfile",
    numbers,
    st.sampled_from([0, 300, 5000, BIG, 3 * BIG]),
    st.sampled_from([0, 10, 5000]),
    st.sampled_from([None, None, 0, 1, 5000, 4 * BIG]),
)
looks = st.one_of(
    op("buffered", numbers),
    op("start_tls", numbers, st.booleans()),
    op("can_write_eof", numbers),
    files,
)
STREAM_CALLBACKS = [
    "connection_made",
    "data_received",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
    "get_buffer",
]
DATAGRAM_CALLBACKS = [
    "connection_made",
    "connection_lost",
    "pause_writing",
    "resume_writing",
    "datagram_received",
    "datagram_received",
    "error_received",
]
endings = st.one_of(
    st.none(),
    st.tuples(just("raise"), st.sampled_from(sorted(EXCEPTIONS))),
    st.tuples(just("return"), st.sampled_from([True, False, None, 0, 1, 2, 3, "text"])),
)


def own(kinds):
    """With callbacks of the loop's, which do the same."""
    own = DATAGRAM if DATAGRAMS.issuperset(kinds) else STREAM
    actions = st.lists(st.one_of([op(*each) for each in own]), max_size=3)
    how = st.sampled_from(["soon", "soon", "later", "at", "threadsafe"])
    raises = st.sampled_from([*[None] * 10, *sorted(EXCEPTIONS)])
    cancelled = st.sampled_from([False, False, False, True])
    return [*own, *[("callback", how, actions, raises, cancelled)] * 2]


def plans(kinds):
    callbacks = DATAGRAM_CALLBACKS if DATAGRAMS.issuperset(kinds) else STREAM_CALLBACKS
    actions = st.one_of([op(*each) for each in own(kinds)])
    return st.lists(
        st.tuples(
            st.sampled_from(callbacks),
            st.integers(0, 1),
            st.lists(actions, max_size=3),
            endings,
        ),
        max_size=3,
    )


def opening(kinds):
    return op(
        "open", st.sampled_from(kinds), st.booleans(), st.booleans(), st.booleans(), plans(kinds)
    )


def outside(kinds):
    """Of each step one or more, the other ends first."""
    each = [op(name, numbers, *rest) for name, *rest in own(kinds)]
    peer = [op(name, numbers, *rest) for name, *rest in PEER]
    return st.one_of(st.one_of(each), st.one_of(peer), st.one_of(each + peer))


def programs(*kinds):
    step = st.lists(outside(kinds), max_size=3)
    steps = st.one_of(*[step] * 7, st.tuples(looks))
    opens = st.lists(st.tuples(opening(kinds)), min_size=1, max_size=CONNECTIONS)
    return st.tuples(opens, st.lists(steps, min_size=4, max_size=16)).map(
        lambda parts: parts[0] + parts[1]
    )


@examples(60)
@given(programs("tcp", "unix"), st.booleans())
def test_streams(program, debug):
    compare(Transports, program, debug)


@examples(30)
@given(programs("tls"), st.booleans())
def test_tls(program, debug):
    compare(Transports, program, debug)


@examples(30)
@given(programs("rpipe", "wpipe"), st.booleans())
def test_pipes(program, debug):
    compare(Transports, program, debug)


@examples(30)
@given(programs("udp", "udp_any", "unix_dgram"), st.booleans())
def test_datagrams(program, debug):
    compare(Transports, program, debug)
