"""Arms of the pytest benchmarks: those that work here; set GYRE_BENCH_ARMS to choose others."""

import os

import pytest

from bench import arms


def wanted_arms():
    return os.environ.get("GYRE_BENCH_ARMS", "gyre;uvloop;asyncio").split(";")


def pytest_generate_tests(metafunc):
    if "arm" in metafunc.fixturenames:
        metafunc.parametrize("arm", wanted_arms())


@pytest.fixture(scope="session")
def usable():
    """{arm: why it cannot run, or None}"""
    return {spec: arms.missing(arms.parse_arm(spec)) for spec in wanted_arms()}


@pytest.fixture
def measure(request, arm, usable):
    """measure(workload) runs it under pytest-benchmark; a round is workload.count operations."""
    from bench.micro import workloads

    if usable[arm]:
        pytest.skip(usable[arm])
    benchmark = request.getfixturevalue("benchmark")
    contexts = []

    def run_workload(workload):
        context = workloads.Context(arms.parse_arm(arm))
        contexts.append(context)
        run = workload.make(context)
        benchmark.group = workload.name
        benchmark.extra_info["operations_per_round"] = workload.count
        result = benchmark.pedantic(run, (workload.count,), rounds=20, warmup_rounds=2)
        if workload.reports_lateness:
            benchmark.extra_info["lateness_us"] = sum(result) / len(result) * 1e6

    yield run_workload
    for context in contexts:
        context.close()
