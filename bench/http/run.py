"""The demo: one ASGI application on asyncio, uvloop and gyre in turn, under load from wrk.

    python bench/http/run.py [--quick] [--repetitions N] [--seconds S] [--out FOLDER]

The loops run interleaved (A B C, then C B A, ...), the server on one core and wrk on another.
Writes a table (Markdown, JSON) and a plot (SVG, PNG) and says where.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import report
from load import CASES, Case, LoadError, system_calls, wrk, wrk_again
from server import ARMS, Arm, Server, ServerError, why_not

ROOT = Path(__file__).resolve().parents[2]
WARM_UP_S = 1


def main() -> int:
    args = arguments()
    folder: Path = args.out
    folder.mkdir(parents=True, exist_ok=True)
    arms, missing = available(folder / "http-check.log")
    if not arms:
        return 1
    cores = pin()
    stem = folder / f"http-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    run: report.Run = {
        "arms": [arm.name for arm in arms],
        "missing": missing,
        "repetitions": args.repetitions,
        "duration_s": args.seconds,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(cores),
        "samples": {case.name: {arm.name: [] for arm in arms} for case in CASES},
        "again": [],
        "system_calls": {},
        "system_calls_case": CASES[0].name,
    }
    try:
        measure(run, arms, args, cores, stem)
        count_calls(run, arms, args, cores, stem)
    except (ServerError, LoadError) as exc:
        print(f"\ndemo: {exc}", flush=True)
        return 1
    write(run, stem)
    return 1 if missing else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short repetitions")
    parser.add_argument("--repetitions", type=int, metavar="N", help="5 unless said")
    parser.add_argument("--seconds", type=int, metavar="S", help="of load per cell; 3 unless said")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="FOLDER")
    args = parser.parse_args()
    args.repetitions = args.repetitions or (2 if args.quick else 5)
    args.seconds = args.seconds or (1 if args.quick else 3)
    if args.repetitions < 1 or args.seconds < 1:
        parser.error("a run has at least one repetition of one second")
    return args


def available(log: Path) -> tuple[list[Arm], dict[str, str]]:
    """The loops that serve the application right; what does not is said, and fails the end."""
    found, missing = [], {}
    for arm in ARMS:
        reason = why_not(arm)
        if reason is None:
            try:
                with Server(arm, None, log):
                    found.append(arm)
            except ServerError as exc:
                reason = str(exc)
        if reason is not None:
            missing[arm.name] = reason.splitlines()[0]
            print(f"demo: {arm.name} is left out: {reason}", flush=True)
    log.unlink(missing_ok=True)
    return found, missing


def pin() -> tuple[int, int] | tuple[None, None]:
    """One core for the server and one for wrk; on a machine with one core they share it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("demo: there is one core only: server and wrk share it, expect half the rates")
        return None, None
    return cores[0], cores[1]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, distribution in {"gyre": "gyre-loop", "uvloop": "uvloop"}.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in ("uvicorn", "httptools"):
        found[name] = importlib.metadata.version(name)
    # wrk prints its version when it prints its help, and then says it failed.
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True)
    found["wrk"] = (done.stdout.split() + ["?", "?"])[1]
    return found


def machine(cores: tuple[int | None, int | None]) -> dict[str, object]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "kernel": platform.release(),
        "processor": model,
        "cores": os.cpu_count(),
        "server_core": cores[0],
        "client_core": cores[1],
        "congestion_control": congestion.read_text().strip() if congestion.exists() else "?",
    }


def measure(
    run: report.Run,
    arms: list[Arm],
    args: argparse.Namespace,
    cores: tuple[int | None, int | None],
    stem: Path,
) -> None:
    visits = args.repetitions * len(arms)
    each_s = len(CASES) * (args.seconds + 0.3) + WARM_UP_S + 1.5
    print(
        f"{' '.join(run['arms'])}: {args.repetitions} repetitions of {len(CASES)} cases,"
        f" about {visits * each_s / 60:.0f} min\n",
        flush=True,
    )
    print(
        f"{'':16}" + "".join(f"{short(case):>16}" for case in CASES) + "   requests/s", flush=True
    )
    for repetition in range(args.repetitions):
        order = arms if repetition % 2 == 0 else arms[::-1]
        for arm in order:
            print(f"{repetition + 1:3}/{args.repetitions}  {arm.name:9}", end="", flush=True)
            with Server(arm, cores[0], stem.with_suffix(".log")) as server:
                wrk(server, CASES[0], WARM_UP_S, cores[1])
                for case in CASES:
                    cell = wrk_again(server, case, args.seconds, cores[1], run["again"])
                    run["samples"][case.name][arm.name].append(cell)
                    print(f"{cell['requests_per_s']:16,.0f}", end="", flush=True)
            print(flush=True)


def short(case: Case) -> str:
    return case.name.replace("plaintext, ", "").replace("connections", "conn.")


def count_calls(
    run: report.Run,
    arms: list[Arm],
    args: argparse.Namespace,
    cores: tuple[int | None, int | None],
    stem: Path,
) -> None:
    print("\nsystem calls, under strace ...", flush=True)
    begin = time.monotonic()
    for arm in arms:
        with Server(arm, cores[0], stem.with_suffix(".log")) as server:
            try:
                counts = system_calls(server, CASES[0], args.seconds, cores[1])
            except (LoadError, OSError) as exc:
                print(f"not counted for {arm.name}: {exc}", flush=True)
                continue
        run["system_calls"][arm.name] = counts
    print(f"done in {time.monotonic() - begin:.0f} s\n", flush=True)


def write(run: report.Run, stem: Path) -> None:
    text = report.table(run, CASES)
    notes = report.idle_server(run)
    notes[1:] = [f"- {line}" for line in notes[1:]]
    notes += [f"- Taken again: {text}" for text in run["again"]]
    notes += [f"- {name} was left out: {reason}" for name, reason in run["missing"].items()]
    print(text)
    if notes:
        print("\n".join(notes) + "\n")
    paths = [stem.with_suffix(".md"), stem.with_suffix(".json")]
    title = f"# uvicorn under wrk, {run['date'][:10]}\n"
    about = "\n".join(f"- {k}: {v}" for k, v in {**run["versions"], **run["machine"]}.items())
    paths[0].write_text("\n".join([title, text, *notes, "", about]) + "\n")
    paths[1].write_text(json.dumps(run, indent=1) + "\n")
    import plot  # matplotlib takes a second to import: not before the measurements

    paths += plot.draw(run, CASES, stem)
    stem.with_suffix(".log").unlink(missing_ok=True)
    print("written:")
    for path in paths:
        print(f"  {os.path.relpath(path)}")


if __name__ == "__main__":
    sys.exit(main())
