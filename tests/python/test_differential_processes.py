"""Random programs of subprocesses: gyre tells their protocols what asyncio tells them."""

import pytest
from differential import compare, examples, lines_of, trace_of
from differential_processes import KILLED_BY, Processes
from hypothesis import given
from hypothesis import strategies as st
from test_differential_streams import op

just = st.just
numbers = st.integers(0, 1)
STARTS = op("start", st.sampled_from(["exec", "exec", "shell", "missing"]), st.booleans())
STEPS = [
    *[op("write", numbers, st.sampled_from([0, 1, 300, 4000]))] * 6,
    op("close_pipe", numbers, st.sampled_from(["close", "write_eof", "abort"])),
    op("signal_child", numbers, st.sampled_from([*KILLED_BY, 0, "kill", "terminate", "close"])),
    *[op("look", numbers)] * 2,
    op("communicate", st.sampled_from([0, 1, 100_000]), st.booleans()),
    op("run", st.sampled_from([0, 3]), st.sampled_from([0, 10, 200_000])),
]
PROGRAMS = st.tuples(
    st.lists(st.tuples(STARTS), min_size=1, max_size=2),
    st.lists(st.lists(st.one_of(STEPS), max_size=3), min_size=2, max_size=8),
).map(lambda parts: parts[0] + parts[1])

# Hypothesis says so of its own generator, on 3.14.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


@examples(20)
@given(PROGRAMS, st.booleans())
def test_processes(program, debug):
    compare(Processes, program, debug)


def test_programs_do_something():
    program = [[("start", "exec", True)], [("write", 0, 10)], [("close_pipe", 0, "close")]]
    assert [*lines_of(trace_of("gyre", Processes, program))] == [
        "step 0",
        "p0: ('connection_made', 'int')",
        "p0 start: ('done', None)",
        "step 1",
        "p0 says: ('data', 10, 1)",
        "step 2",
        "p0: ('exited', 0)",
        "p0: ('connection_lost', None, 1164760902)",
        "p0 pipe 0: ('lost', None)",
        "p0 pipe 1: ('lost', None)",
        "step end",
    ]
