"""The task family: pytest bench/micro --benchmark-group-by=group"""

import pytest

from bench.micro.workloads import WORKLOADS

TASKS = [workload for workload in WORKLOADS.values() if workload.name.startswith("task.")]


@pytest.mark.parametrize("workload", TASKS, ids=lambda workload: workload.name)
def test_task(measure, workload):
    measure(workload)
