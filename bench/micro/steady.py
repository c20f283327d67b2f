"""One workload on one loop for a while, for a profiler to look at.

    python -m bench.micro.steady --workload task.wakeup --arm gyre --seconds 1

Says "ready" when it has warmed up, waits for a line, and answers with its figures as JSON.
"""

import argparse
import asyncio
import json
import sys
import time

from bench import arms
from bench.micro import paired, workloads


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True, choices=workloads.WORKLOADS)
    parser.add_argument("--arm", default="gyre")
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args(argv)
    asyncio.set_event_loop(None)
    prepared = paired.prepare(workloads.WORKLOADS[args.workload], arms.parse_arm(args.arm))
    if isinstance(prepared, str):
        sys.exit(prepared)
    context, run, count = prepared
    print("ready", flush=True)
    sys.stdin.readline()
    done, cpu, begin = 0, time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < args.seconds:
        run(count)
        done += count
    cpu = time.process_time() - cpu
    figures = {"rate": done / elapsed, "cpu_us": cpu / done * 1e6, "utilisation": cpu / elapsed}
    print(json.dumps(figures), flush=True)
    context.close()


if __name__ == "__main__":
    main()
