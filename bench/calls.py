"""System calls per message, counted by strace in a short run of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from bench.load import load_command
from bench.servers import MeasureError, Server, read_line


def parse_strace(text):
    """{system call: number} of a table that `strace -c` wrote."""
    calls = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5 or not re.fullmatch(r"\d+\.\d+", fields[0]) or fields[-1] == "total":
            continue
        calls[fields[-1]] = int(fields[3])
    return calls


def expect(process, word):
    line = read_line(process.stdout, 30.0)
    if line is None or line.strip() != word:
        raise MeasureError(f"the load generator said {line!r} and not {word}")


def attach_strace(pid, output):
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-o", output, "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    line = read_line(tracer.stderr, 5.0)
    if line is None or "attached" not in line:
        tracer.kill()
        tracer.wait()
        raise MeasureError(f"strace: {(line or 'no answer').strip()}")
    return tracer


def counted_run(command, placement, pid, output):
    """Runs the load with nothing in flight while strace comes and goes; the load's report."""
    load = subprocess.Popen(
        [*command, "--hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=placement.on(placement.client),
    )
    tracer = None
    try:
        expect(load, "begin")
        os.kill(pid, signal.SIGUSR1)  # the server notes its counters; an idle server, at once
        tracer = attach_strace(pid, output)
        load.stdin.write("x")
        load.stdin.flush()
        expect(load, "end")
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        os.kill(pid, signal.SIGUSR1)
        text, _ = load.communicate("x", timeout=10)
        return json.loads(text)
    finally:
        for process in (load, tracer):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        if tracer is not None:
            tracer.stderr.close()
        load.stdin.close()
        load.stdout.close()


def counters_per_message(snapshots, messages):
    """What the loop's own counters grew by between the first and the last note."""
    if len(snapshots) < 2:
        return {}
    first, last = snapshots[0], snapshots[-1]
    grown = {
        name: (value - first[name]) / messages
        for name, value in last.items()
        if isinstance(value, int) and isinstance(first.get(name), int)
    }
    return {name: share for name, share in grown.items() if abs(share) >= 0.001}


def net_system_calls(cell, arm, placement, settings, nurseries=None):
    """System calls per message by name, from a short run of its own under strace -c.

    A traced server is slower, so more messages are ready per turn: what a turn costs (epoll_wait,
    io_uring_enter) counts a little too low with many connections, the same for every arm."""
    if shutil.which("strace") is None:
        raise MeasureError("strace is not installed")
    with tempfile.TemporaryDirectory(prefix="gyre-bench-") as directory:
        output = str(Path(directory) / "strace")
        with Server(arm, cell.parameters, placement, nurseries) as server:
            command = load_command(cell, server, settings)
            report = counted_run(command, placement, server.process.pid, output)
        calls = parse_strace(Path(output).read_text())
    messages = report["messages"]
    if not messages:
        raise MeasureError("no message came through under strace")
    per_message = {name: count / messages for name, count in calls.items()}
    return {
        "total": sum(per_message.values()),
        "calls": {name: share for name, share in per_message.items() if share >= 0.001},
        "messages": messages,
        "counters": counters_per_message(server.last.get("stats") or [], messages),
    }
