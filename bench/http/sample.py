"""One sample of an HTTP cell, as one line of JSON: `./dev bench` calls this once per arm and
repetition.

    python bench/http/sample.py --arm gyre --server httptools --path /plaintext --connections 64

A server of the arm (uvicorn on h11 or httptools, or aiohttp) under wrk on another core; with
--server client it is the other way round: an aiohttp client of the arm against a server that
answers every request with the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = "127.0.0.1"
START_LIMIT_S = 20
WARMUP_S = 0.3
ARM_VARIABLE = "GYRE_BENCH_ARM"


class SampleError(Exception):
    """No figure; the text says why."""


def server_command(kind: str, arm: str, port: int) -> list[str]:
    if kind == "aiohttp":
        return [sys.executable, str(HERE / "aiohttp_server.py"), arm, str(port)]
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE)]
    command += ["--host", HOST, "--port", str(port), "--loop", "loops:new_event_loop"]
    command += ["--http", kind, "--ws", "none", "--lifespan", "off", "--no-access-log"]
    return [*command, "--log-level", "warning", "--timeout-keep-alive", "60"]


def start(command: list[str], arm: str, core: int, port: int) -> subprocess.Popen[bytes]:
    import socket

    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, ARM_VARIABLE: arm, "PYTHONPATH": path},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise SampleError(f"the server ended with status {child.returncode}")
        try:
            socket.create_connection((HOST, port), 1).close()
            return child
        except OSError:
            time.sleep(0.01)  # another process: there is no event to wait for
    child.kill()
    raise SampleError(f"no answer after {START_LIMIT_S} s")


def cpu_s(pid: int) -> float:
    """The CPU clock of the process, its kernel workers included, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)


def wrk_on_its_core(args: argparse.Namespace, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {args.client_core}),
    )


def warm_up(args: argparse.Namespace, port: int) -> None:
    """As long as it needs: wrk knows whole seconds only, but an interrupt ends it at once."""
    command = ["wrk", "-t1", f"-c{min(args.connections, 64)}", "-d10s"]
    wrk = wrk_on_its_core(args, [*command, f"http://{HOST}:{port}{args.path}"])
    try:
        wrk.wait(WARMUP_S)
    except subprocess.TimeoutExpired:
        wrk.send_signal(signal.SIGINT)
    _, text = wrk.communicate(timeout=30)
    if wrk.returncode != 0:
        raise SampleError(f"wrk failed: {text.strip()[-200:]}")


def under_wrk(args: argparse.Namespace, port: int, pid: int, seconds: float) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += ["-s", str(HERE / "wrk.lua"), f"http://{HOST}:{port}{args.path}"]
    cpu_before_s, begin = cpu_s(pid), time.monotonic()
    wrk = wrk_on_its_core(args, command)
    stdout, stderr = wrk.communicate(timeout=60)
    spent_s, wall_s = cpu_s(pid) - cpu_before_s, time.monotonic() - begin
    lines = [line for line in stdout.splitlines() if line.startswith("JSON ")]
    if wrk.returncode != 0 or not lines:
        raise SampleError(f"wrk failed: {(stderr or stdout).strip()[-200:]}")
    got = json.loads(lines[0][5:])
    if got["errors"] or not got["requests"]:
        raise SampleError(f"{got['errors']} errors in {got['requests']} requests")
    return {
        "rate": got["requests"] / (got["duration_us"] / 1e6),
        "cpu_us": spent_s * 1e6 / got["requests"],
        "utilisation": spent_s / wall_s,
        "p50_us": got["p50_us"],
        "p99_us": got["p99_us"],
        "messages": got["requests"],
    }


def served(args: argparse.Namespace, port: int) -> dict[str, float]:
    command = server_command(args.server, args.arm, port)
    child = start(command, args.arm, args.server_core, port)
    try:
        warm_up(args, port)
        return under_wrk(args, port, child.pid, args.seconds)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


async def fetch_all(url: str, connections: int, seconds: float) -> dict[str, float]:
    import aiohttp

    done = 0
    latencies: list[float] = []
    counting = False
    ending = False

    async def fetch(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while not ending:
            begin = time.perf_counter()
            async with session.get(url) as response:
                body = await response.read()
            if len(body) != 13 or response.status != 200:
                raise SampleError(f"the answer was {response.status}, {body[:40]!r}")
            if counting:
                done += 1
                latencies.append(time.perf_counter() - begin)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        tasks = [asyncio.create_task(fetch(session)) for _ in range(connections)]
        await asyncio.sleep(WARMUP_S)
        counting, cpu_before_s, begin = True, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        counting, cpu, wall_s = False, time.process_time() - cpu_before_s, time.monotonic() - begin
        ending = True
        await asyncio.gather(*tasks)
    latencies.sort()
    return {
        "rate": done / wall_s,
        "cpu_us": cpu * 1e6 / done,
        "utilisation": cpu / wall_s,
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
        "messages": done,
    }


def fetched(args: argparse.Namespace, port: int) -> dict[str, float]:
    sys.path.append(str(ROOT))
    from bench import arms

    command = [sys.executable, str(HERE / "canned_server.py"), str(port)]
    child = start(command, args.arm, args.client_core, port)
    os.sched_setaffinity(0, {args.server_core})
    try:
        main = fetch_all(f"http://{HOST}:{port}/", args.connections, args.seconds)
        return arms.run(arms.parse_arm(args.arm), main)
    finally:
        child.kill()
        child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", required=True)
    parser.add_argument(
        "--server", choices=("h11", "httptools", "aiohttp", "client"), required=True
    )
    parser.add_argument("--path", default="/plaintext")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    args = parser.parse_args()
    from server import _free_port as free_port

    try:
        figures = (fetched if args.server == "client" else served)(args, free_port(HOST))
    except (SampleError, OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
