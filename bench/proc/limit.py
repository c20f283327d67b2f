"""What a pipe can carry: the workload proc.pipe on each loop beside the same in C.

    python -m bench.proc.limit --reps 5

Each repetition runs everything once, one after the other; the shares are medians of ratios within a
repetition.
"""

import argparse
import json
import subprocess
import sys

from bench import build, stats

C_WAYS = ("pipe", "socket")


def c_block_us(program, way):
    result = subprocess.run([program, way], capture_output=True, text=True, check=True)
    return float(result.stdout)


def loops_block_us(arms, rep):
    command = [sys.executable, "-m", "bench.micro.paired", "--workload", "proc.pipe"]
    command += ["--arms", ";".join(arms), "--rep", str(rep)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    samples = json.loads(result.stdout)["samples"]
    return {arm: sample["wall_us"] for arm, sample in samples.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", default=["gyre", "uvloop"])
    parser.add_argument("--reps", type=int, default=5)
    args = parser.parse_args()
    program = build.build("limit_pipe")
    rows = []
    for rep in range(args.reps):
        row = {f"C, {way}": c_block_us(program, way) for way in C_WAYS}
        rows.append(row | loops_block_us(args.arms, rep))
    print(f"{'':12} us per 64 KiB   share of C with pipes")
    for name in rows[0]:
        block_us = stats.median([row[name] for row in rows])
        share = stats.median([row["C, pipe"] / row[name] for row in rows])
        print(f"{name:12} {block_us:13.1f}   {share:21.2f}")


if __name__ == "__main__":
    main()
