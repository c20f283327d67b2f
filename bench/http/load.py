"""The load: wrk on a core of its own, and strace to count system calls."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from server import ECHO_BYTES, Server

HERE = Path(__file__).resolve().parent
RETRIES = 2


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    connections: int
    body_bytes: int = 0


CASES = (
    Case("plaintext", "/plaintext", 64),
    Case("json", "/json", 64),
    Case("10 KiB body", "/body", 64),
    Case("POST echo", "/echo", 64, ECHO_BYTES),
    Case("plaintext, 400 connections", "/plaintext", 400),
)


class LoadError(Exception):
    """wrk failed or met wrong answers: the figures would mean nothing."""


def wrk(server: Server, case: Case, duration_s: float, core: int | None) -> dict[str, float]:
    """Loads the server and returns one cell of the table."""
    argv = ["wrk", "-t1", f"-c{case.connections}", f"-d{max(1, round(duration_s))}s", "--latency"]
    argv += ["-s", str(HERE / "wrk.lua"), f"http://{server.host}:{server.port}{case.path}"]
    if core is not None:
        argv = ["taskset", "-c", str(core), *argv]
    env = {**os.environ, "BODY_BYTES": str(case.body_bytes)}
    cpu_before_s, begin = server.cpu_s(), time.monotonic()
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )
    cpu_s, wall_s = server.cpu_s() - cpu_before_s, time.monotonic() - begin
    match = re.search(r"^JSON (\{.*\})$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or match is None:
        text = (done.stderr or done.stdout).strip()
        raise LoadError(f"{server.arm.name}, {case.name}: wrk failed: {text[-300:]}")
    got = json.loads(match.group(1))
    if got["errors"] or not got["requests"]:
        raise LoadError(
            f"{server.arm.name}, {case.name}: {got['errors']} errors in {got['requests']} requests"
        )
    return {
        "requests_per_s": got["requests"] / (got["duration_us"] / 1e6),
        "p50_ms": got["p50_us"] / 1000,
        "p99_ms": got["p99_us"] / 1000,
        "cpu_us_per_request": cpu_s * 1e6 / got["requests"],
        "utilisation": cpu_s / wall_s,
        "requests": got["requests"],
    }


def wrk_again(
    server: Server, case: Case, duration_s: float, core: int | None, told: list[str]
) -> dict[str, float]:
    """As wrk(); a cell that fails is taken again, twice at most, and `told` says what there was.

    With 400 connections a loop may leave one of them without an answer for the two seconds after
    which wrk calls it an error: uvloop accepts one connection per turn.
    """
    for _ in range(RETRIES):
        try:
            return wrk(server, case, duration_s, core)
        except LoadError as exc:
            told.append(str(exc))
    return wrk(server, case, duration_s, core)


def system_calls(
    server: Server, case: Case, duration_s: float, core: int | None
) -> dict[str, float]:
    """System calls per request, by name and in total, from a run of its own under strace -c -f.

    Each traced call costs tens of microseconds, so only the counts of such a run are used.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as table:
        argv = ["strace", "-c", "-f", "-o", table.name, "-p", str(server.pid)]
        tracer = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline().decode().strip()
            if "attached" not in attached:
                raise LoadError(f"strace: {attached or 'it said nothing'}")
            cell = wrk(server, case, duration_s, core)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=20)
        counts = parse_strace(table.read())
    return {name: count / cell["requests"] for name, count in counts.items()}


def parse_strace(text: str) -> dict[str, int]:
    """The calls column of strace -c by name, most frequent first, 'total' included."""
    rows: dict[str, int] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*[\d.]+\s+[\d.]+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?(\w+)\s*$", line):
            rows[match.group(2)] = int(match.group(1))
    return dict(sorted(rows.items(), key=lambda row: -row[1]))
