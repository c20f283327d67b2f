"""Random programs of servers and the connections that others begin: gyre does what asyncio does."""

import pytest
import test_differential_protocols as protocols
from differential import compare, examples, lines_of, trace_of
from differential_servers import Servers
from hypothesis import given
from hypothesis import strategies as st
from test_differential_protocols import op

SERVERS = 2
DOINGS = ["close", "close", "wait_closed", "serve_forever", "start_serving", "look", "cancel"]
DOINGS += ["close_clients", "abort_clients"]

# Hypothesis says so of its own generator, on 3.14.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


def programs(*kinds):
    plans = protocols.plans(kinds)
    serve = op("serve", st.sampled_from(kinds), st.booleans(), st.booleans(), st.booleans(), plans)
    servers = st.integers(0, SERVERS - 1)
    dial = st.tuples(op("peer_dial", servers))
    doing = st.tuples(op("server", servers, st.sampled_from(DOINGS)))
    outside = st.lists(protocols.outside(kinds), max_size=3)
    looks = st.tuples(protocols.looks)
    steps = st.one_of(dial, dial, doing, doing, outside, outside, outside, looks)
    return st.tuples(
        st.lists(st.tuples(serve), min_size=1, max_size=SERVERS),
        st.lists(steps, min_size=5, max_size=16),
    ).map(lambda parts: parts[0] + parts[1])


@examples(40)
@given(programs("tcp", "unix"), st.booleans())
def test_plain(program, debug):
    compare(Servers, program, debug)


@examples(20)
@given(programs("tls"), st.booleans())
def test_tls(program, debug):
    compare(Servers, program, debug)


def test_programs_do_something():
    program = [[("serve", "unix", True, False, True, [])], [("peer_dial", 0)], [("write", 0, 10)]]
    assert "c0 peer: ('got', 10, 1164760902)" in lines_of(trace_of("gyre", Servers, program))
