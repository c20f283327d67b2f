"""One repetition of one file workload with all arms in one process, in alternation.

    python -m bench.files.paired --workload read4k.hot.d16 --arms 'gyre;aiofiles;blocking' --rep 0

As bench/micro/paired.py; the figures are medians over the slices.  Prints JSON.
"""

import argparse
import asyncio
import gc
import json
import os
import time
from pathlib import Path

from bench import arms, stats
from bench.files import ways, workloads

SLICE_S = 0.05
CALIBRATION_S = 0.02
FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench" / "files"


class Subject:
    """One arm with its loop."""

    def __init__(self, arm, workload, place, quick):
        before = dict(os.environ)
        try:
            self.loop = arms.new_event_loop(arm)
        finally:
            os.environ.clear()  # the next arm's loop reads it too
            os.environ.update(before)
        self.way = ways.WAYS[arm.loop](self.loop)
        self.coroutine = workload.make(place, self.way)
        self.count = workload.count
        if workload.fixed:
            self.count = workload.quick_count if quick and workload.quick_count else self.count
            self.run(min(self.count, 500))
        else:
            self.calibrate()

    def run(self, count):
        return self.loop.run_until_complete(self.coroutine(count))

    def calibrate(self):
        while True:
            start = time.perf_counter()
            self.run(self.count)
            elapsed = time.perf_counter() - start
            if elapsed >= CALIBRATION_S:
                break
            self.count *= 2
        self.count = max(64, round(self.count * SLICE_S / elapsed / 64) * 64)

    def close(self):
        self.way.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def measure(workload, subject):
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = subject.run(subject.count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = subject.count
    sample = {"rate": count / wall, "wall_us": wall / count * 1e6, "cpu_us": cpu / count * 1e6}
    if workload.reports_lateness:
        late = sorted(result)
        sample["p99_us"] = late[int(len(late) * 0.99)] * 1e6
        sample["p50_us"] = late[len(late) // 2] * 1e6
    return sample


def repetition(workload, specs, rep, slices, quick, folder=FOLDER):
    place = workloads.Place(folder)
    if workload.name.startswith("small."):
        place.small_paths = place.small(workload.quick_count if quick else workload.count)
    subjects, errors, samples = {}, {}, {}
    for spec in specs:
        try:
            subjects[spec] = Subject(arms.parse_arm(spec), workload, place, quick)
        except Exception as error:  # one arm that cannot do it must not stop the others
            errors[spec] = f"{type(error).__name__}: {error}"
    # Ten thousand files are enough.
    turns = 1 if workload.quick_count else max(slices, 1 if quick else workload.slices_min)
    for turn in range(turns):
        order = list(subjects)
        if (turn + rep) % 2:
            order.reverse()
        for spec in order:
            samples.setdefault(spec, []).append(measure(workload, subjects[spec]))
    for subject in subjects.values():
        subject.close()
    return {spec: summary(taken) for spec, taken in samples.items()}, errors


def summary(slices):
    return {key: stats.median([sample[key] for sample in slices]) for key in slices[0]}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True, choices=workloads.WORKLOADS)
    parser.add_argument("--arms", default="gyre;aiofiles;anyio;threads;blocking")
    parser.add_argument("--rep", type=int, default=0)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    asyncio.set_event_loop(None)
    workload = workloads.WORKLOADS[args.workload]
    answer = repetition(workload, args.arms.split(";"), args.rep, args.slices, args.quick)
    print(json.dumps(dict(zip(("samples", "errors"), answer))))


if __name__ == "__main__":
    main()
