"""Random programs of tasks on streams: StreamReader and StreamWriter do on gyre what they do on
asyncio, with every wait cancelled, timed out, gathered, locked; differential_streams.py says how.
"""

import sys

import pytest
from differential import compare, examples
from differential_streams import FUTURES, Streams
from differential_transports import BIG
from hypothesis import given
from hypothesis import strategies as st

CONNECTIONS = 2
just = st.just


def op(name, *arguments):
    return st.tuples(just(name), *arguments)


conns = st.integers(0, CONNECTIONS - 1)
futures = st.integers(0, FUTURES - 1)
tasks = st.integers(0, 5)
counts = st.sampled_from([-1, -1, 0, 1, 2, 6, 17, 100, 5000])
data = st.one_of(
    st.lists(
        st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"--", b"-"]), min_size=1, max_size=12
    ).map(b"".join),
    st.sampled_from([b"x" * 100 + b"\n", b"y" * 3000]),
)
separators = [b"\n", b"\r\n", b"--", b"", bytearray(b"\n")]
if sys.version_info >= (3, 13):
    separators += [(b"\n", b"--"), (b"\r\n", b"\n"), ()]
reads = st.one_of(
    op("reader", conns, just("read"), counts),
    op("reader", conns, just("readexactly"), counts),
    op("reader", conns, just("readline")),
    op("reader", conns, just("readuntil"), st.sampled_from(separators)),
    op("reader", conns, just("__anext__")),
)
writer_methods = st.sampled_from(
    ["drain", "drain", "wait_closed", "close", "write_eof", "can_write_eof", "is_closing"]
)
SIMPLE = st.one_of(
    *[reads] * 5,
    op("write", conns, st.sampled_from([10, 5000, BIG])),
    op("write", conns, st.sampled_from([0, 10, 5000, BIG])),
    op("writelines", conns, st.lists(st.sampled_from([0, 10, 5000]), max_size=3)),
    op("writer", conns, writer_methods),
    op("writer", conns, writer_methods),
    op("look", conns),
    op("start_tls", conns),
    op("feed", conns, st.sampled_from(["eof", "error", b"fed\n"])),
    op("transport", conns, st.sampled_from(["pause_reading", "resume_reading", "abort"])),
    op("turn"),
    op("wait", futures),
    op("set", futures),
    op("event", st.booleans()),
    op("put"),
    op("get"),
    op("cancel", tasks),
    op("raise", st.sampled_from(["value", "os", "cancelled", "reset"])),
    op(
        "executor",
        st.sampled_from(["run_in_executor", "to_thread"]),
        st.sampled_from([None, None, "value", "os", "cancelled", "base", "exit"]),
    ),
)
BODY = st.recursive(
    st.lists(SIMPLE, max_size=4),
    lambda body: st.lists(
        st.one_of(
            SIMPLE,
            op("lock", body),
            op("timeout", body),
            op("wait_for", body),
            op("gather", st.lists(body, max_size=3), st.booleans()),
            op("group", st.lists(body, max_size=1)),  # it keeps its tasks in a set
            op("catch", body),
        ),
        max_size=4,
    ),
    max_leaves=8,
)
STEP = st.one_of(
    *[op("spawn", BODY)] * 5,
    op("cancel", tasks),
    *[op("peer_data", conns, data)] * 6,
    op("peer_eof", conns),
    op("peer_close", conns),
    op("peer_reset", conns),
    op("peer_take", conns, st.sampled_from([1, 5000, 250_000])),
    op("peer_flow", conns, st.booleans()),
)


def programs(*kinds):
    limits = st.sampled_from([2, 10, 64, 65536])
    opening = op("open_stream", st.sampled_from(kinds), limits, st.booleans(), BODY)
    return st.tuples(
        st.lists(opening, min_size=1, max_size=CONNECTIONS), st.lists(STEP, min_size=5, max_size=16)
    ).map(lambda parts: [[action] for action in parts[0] + parts[1]])


# Hypothesis says so of its own generator, on 3.14.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


@examples(60)
@given(programs("client", "accepted", "server"), st.booleans())
def test_plain(program, debug):
    compare(Streams, program, debug)


@examples(15)
@given(programs("tls"), st.booleans())
def test_tls(program, debug):
    compare(Streams, program, debug)
