"""The loop family: pytest bench/micro --benchmark-group-by=group"""

import pytest

from bench.micro.workloads import WORKLOADS

LOOPS = [workload for workload in WORKLOADS.values() if workload.name.startswith("loop.")]


@pytest.mark.parametrize("workload", LOOPS, ids=lambda workload: workload.name)
def test_loop(measure, workload):
    measure(workload)
