"""One repetition of one workload with all arms in one process, in alternation.

    python -m bench.micro.paired --workload task.wakeup --arms 'gyre;uvloop;asyncio' --rep 0

Each arm runs `--slices` slices of equal length; slices of the arms alternate, the order turned
round on every second pass, and an arm's value is the median of its slices. Prints JSON.
"""

import argparse
import asyncio
import gc
import json
import time

from bench import arms, stats
from bench.micro import workloads
from bench.proc import workloads as _proc  # noqa: F401 - adds its own

SLICE_S = 0.02
CALIBRATION_S = 0.01


def calibrate(workload, run):
    """How many operations last a slice; the first runs also warm up."""
    count = workload.group
    while True:
        start = time.perf_counter()
        run(count)
        elapsed = time.perf_counter() - start
        if elapsed >= CALIBRATION_S or count >= 10_000_000:
            break
        count *= 2
    for _ in range(2):  # a stall of the machine would make all slices too short
        start = time.perf_counter()
        run(count)
        elapsed = min(elapsed, time.perf_counter() - start)
    wanted = max(1, round(count * SLICE_S / max(elapsed, 1e-9) / workload.group))
    return wanted * workload.group


def measure(workload, run, count):
    gc.collect()  # the garbage of the other arms is theirs
    cpu, wall = time.process_time(), time.perf_counter()
    result = run(count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sample = {"rate": count / wall, "wall_us": wall / count * 1e6, "cpu_us": cpu / count * 1e6}
    if workload.reports_lateness:
        late = sorted(result)
        sample["lateness_us"] = sum(late) / len(late) * 1e6
        sample["lateness_max_us"] = late[-1] * 1e6
    return sample


def prepare(workload, arm):
    """(context, run, count), or the text of what went wrong."""
    try:
        context = workloads.Context(arm)
        run = workload.make(context)
        fixed = workload.fixed or workload.reports_lateness
        count = workload.count if fixed else calibrate(workload, run)
    except Exception as error:  # one arm that cannot do it must not stop the others
        return f"{type(error).__name__}: {error}"
    return context, run, count


def summary(slices):
    return {key: stats.median([sample[key] for sample in slices]) for key in slices[0]}


def repetition(workload, specs, rep, slices):
    ready, errors, samples = {}, {}, {}
    for spec in specs:
        prepared = prepare(workload, arms.parse_arm(spec))
        if isinstance(prepared, str):
            errors[spec] = prepared
        else:
            ready[spec] = prepared
            samples[spec] = []
    for turn in range(slices):
        order = list(ready)
        if (turn + rep) % 2:
            order.reverse()
        for spec in order:
            _, run, count = ready[spec]
            samples[spec].append(measure(workload, run, count))
    for context, _, _ in ready.values():
        context.close()
    return {spec: summary(taken) for spec, taken in samples.items()}, errors


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True, choices=workloads.WORKLOADS)
    parser.add_argument("--arms", default="gyre;uvloop;asyncio")
    parser.add_argument("--rep", type=int, default=0)
    parser.add_argument("--slices", type=int, default=5)
    args = parser.parse_args(argv)
    asyncio.set_event_loop(None)
    workload = workloads.WORKLOADS[args.workload]
    samples, errors = repetition(workload, args.arms.split(";"), args.rep, args.slices)
    print(json.dumps({"samples": samples, "errors": errors}))


if __name__ == "__main__":
    main()
