"""Takes one sample: one cell, one arm, one repetition.

A network sample starts a fresh server on its core and the load generator on the other. A micro
repetition runs all arms in one fresh process. Both return plain dicts of numbers.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import arms, build, machine

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
SERVER_LIMITED = 0.95
CLIENT_LIMITED = 0.95
LIMIT_PROGRAMS = {"c-epoll": "limit_epoll", "c-uring": "limit_uring"}


class MeasureError(Exception):
    """One arm cannot do one cell; the text goes into the report."""


def read_line(stream, timeout_s):
    ready, _, _ = select.select([stream], [], [], timeout_s)
    return stream.readline() if ready else None


def last_words(process):
    """The end of a failed child's stderr: its last lines that are not empty."""
    process.stderr.seek(0)
    lines = [line for line in process.stderr.read().splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-400:]


class Server:
    """A server process of one arm, as a context manager."""

    def __init__(self, arm, parameters, placement):
        self.arm = arm
        self.parameters = parameters
        self.placement = placement
        self.directory = None
        self.process = None
        self.last = {}

    def command(self):
        parameters = self.parameters
        if self.arm.is_c:
            if parameters.get("role", "echo") != "echo":
                raise MeasureError("the C servers only echo")
            command = [str(build.build(LIMIT_PROGRAMS[self.arm.loop]))]
            if parameters["mode"] == "udp":
                if self.arm.loop != "c-epoll":
                    raise MeasureError("the C server on io_uring has no UDP")
                command.append("--udp")
        else:
            command = [sys.executable, "-m", "bench.net.server", "--loop", self.arm.spec]
            command += ["--mode", parameters["mode"], "--size", str(parameters["size"])]
            command += ["--role", parameters.get("role", "echo")]
            command += ["--tls"] if parameters.get("tls") else []
        if parameters.get("unix"):
            self.directory = tempfile.TemporaryDirectory(prefix="gyre-bench-")
            self.path = str(Path(self.directory.name) / "socket")
            command += ["--unix", self.path]
        return command

    def address(self):
        if self.parameters.get("unix"):
            return ["--unix", self.path]
        return ["--port", str(self.first["port"])]

    def __enter__(self):
        errors = tempfile.TemporaryFile("w+")  # not a pipe: nobody reads while it runs
        self.process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=machine.ROOT,
            env={**os.environ, **self.arm.environment},
            preexec_fn=self.placement.on(self.placement.server),
        )
        self.process.stderr = errors
        line = read_line(self.process.stdout, START_TIMEOUT_S)
        if not line:
            self.process.kill()
            self.process.wait()
            text = last_words(self.process)
            self.release()
            raise MeasureError(f"the server did not start: {text}")
        self.first = json.loads(line)
        return self

    def release(self):
        self.process.stdout.close()
        self.process.stderr.close()
        if self.directory is not None:
            self.directory.cleanup()

    def __exit__(self, *exc_info):
        process = self.process
        process.terminate()
        line = None if self.arm.is_c else read_line(process.stdout, STOP_TIMEOUT_S)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.last = json.loads(line) if line else {}
        self.release()


def public_command(cell, server, settings):
    command = [sys.executable, "-m", "bench.net.public_client", *server.address()]
    command += ["--size", str(cell.parameters["size"]), "--server-pid", str(server.process.pid)]
    command += ["--clients", str(cell.parameters["connections"])]
    return [*command, "--warmup", str(settings.warmup_s), "--duration", str(settings.duration_s)]


def load_command(cell, server, settings):
    parameters = cell.parameters
    if parameters.get("load") == "public":
        return public_command(cell, server, settings)
    role = parameters.get("role", "echo")
    mode = parameters.get("load") or (role if role in ("sink", "source") else "echo")
    program = "loadgen_tls" if parameters.get("tls") else "loadgen"
    command = [str(build.build(program)), *server.address()]
    command += ["--tls"] if parameters.get("tls") else []
    command += ["--udp"] if parameters["mode"] == "udp" else []
    command += ["--gso"] if parameters.get("gso") else []
    command += ["--mode", mode, "--connections", str(parameters["connections"])]
    command += ["--size", str(parameters["size"]), "--server-pid", str(server.process.pid)]
    command += ["--warmup", str(settings.warmup_s), "--duration", str(settings.duration_s)]
    command += ["--poll", settings.poll]
    for name, option in (("depth", "--depth"), ("client_split", "--split"), ("rate", "--rate")):
        if name in parameters:
            command += [option, str(parameters[name])]
    return command


def run_load(command, placement, server, timeout_s):
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=machine.ROOT,
        preexec_fn=placement.on(placement.client),
    )
    if result.returncode != 0:
        text = result.stderr.strip()[-300:]
        if server.process.poll() is not None:
            text += f"; the server died: {last_words(server.process)}"
        raise MeasureError(text)
    return json.loads(result.stdout)


def limited_by(report):
    """Who set the pace. Neither is busy all the time: the way between them did."""
    if report["server"]["utilisation"] >= SERVER_LIMITED:
        return "server"
    return "client" if report["client"]["busy"] >= CLIENT_LIMITED else "latency"


def sample_of(report):
    server, latency = report["server"], report["latency_us"]
    messages = max(1, report["messages"])
    return {
        "rate": report["messages_per_s"],
        "cpu_us": server["cpu_us_per_message"],
        "utilisation": server["utilisation"],
        "client_busy": report["client"]["busy"],
        "limited_by": limited_by(report),
        "p50_us": latency["p50"],
        "p99_us": latency["p99"],
        "p999_us": latency["p999"],
        "faults": server["minor_faults"] / messages,
        "rss_bytes": server["rss_bytes"],
        "rss_per_connection": server["rss_bytes_per_connection"],
        "messages": report["messages"],
    }


def net_sample(cell, arm, placement, settings):
    limit_s = START_TIMEOUT_S + settings.warmup_s + settings.duration_s + 20
    with Server(arm, cell.parameters, placement) as server:
        try:
            report = run_load(load_command(cell, server, settings), placement, server, limit_s)
        except subprocess.TimeoutExpired:
            raise MeasureError("the load generator did not end") from None
        if report["messages"] == 0 and cell.parameters.get("load") != "idle":
            raise MeasureError(f"no message came back: {last_words(server.process)}")
    return {**sample_of(report), "loop_version": server.first.get("loop_version")}


# ---- system calls ----


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


def net_system_calls(cell, arm, placement, settings):
    """System calls per message by name, from a short run of its own under strace -c.

    A traced server is slower, so more messages are ready per turn: what a turn costs (epoll_wait,
    io_uring_enter) counts a little too low with many connections, the same for every arm."""
    if shutil.which("strace") is None:
        raise MeasureError("strace is not installed")
    with tempfile.TemporaryDirectory(prefix="gyre-bench-") as directory:
        output = str(Path(directory) / "strace")
        with Server(arm, cell.parameters, placement) as server:
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


# ---- micro ----


def micro_repetition(cell, specs, rep, placement, settings):
    """({arm: sample}, {arm: error}) of all arms at once."""
    from bench.micro import workloads

    workload = workloads.WORKLOADS[cell.parameters["workload"]]
    command = [sys.executable, "-m", "bench.micro.paired", "--workload", workload.name]
    command += ["--arms", ";".join(specs), "--rep", str(rep), "--slices", str(settings.slices)]
    return in_one_process(command, specs, placement.server if workload.pinned else None, placement)


def files_repetition(cell, specs, rep, placement, settings):
    """The same for files; threads and kernel workers want both cores."""
    command = [sys.executable, "-m", "bench.files.paired", "--arms", ";".join(specs)]
    command += ["--workload", cell.parameters["workload"], "--rep", str(rep)]
    command += ["--quick"] if settings.quick else []
    return in_one_process(command, specs, None, placement)


def in_one_process(command, specs, core, placement):
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=machine.ROOT,
        timeout=120,
        check=False,
        preexec_fn=placement.on(core),
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        return {}, dict.fromkeys(specs, lines[-1][-300:])
    answer = json.loads(result.stdout)
    return answer["samples"], answer["errors"]


# ---- http ----


def http_sample(cell, arm, placement, settings):
    parameters = cell.parameters
    command = [sys.executable, str(machine.ROOT / "bench" / "http" / "sample.py")]
    command += ["--arm", arm.spec, "--server", parameters["server"], "--path", parameters["path"]]
    command += ["--connections", str(parameters["connections"])]
    command += ["--seconds", str(max(1.0, settings.duration_s))]
    command += ["--server-core", str(placement.server), "--client-core", str(placement.client)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **arm.environment},
            preexec_fn=placement.on(None),
        )
    except subprocess.TimeoutExpired:
        raise MeasureError("the sample did not end") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise MeasureError(lines[-1][-300:])
    return json.loads(done.stdout)


# ---- what the runner calls ----


def repetition(cell, specs, rep, placement, settings, on_sample=lambda spec: None):
    """One repetition of a cell: ({arm: sample}, {arm: error}). The order turns on odd ones."""
    order = list(specs) if rep % 2 == 0 else list(reversed(specs))
    if not order:
        return {}, {}
    if cell.family == "micro":
        on_sample(" ".join(order))
        return micro_repetition(cell, order, rep, placement, settings)
    if cell.family == "files":
        on_sample(" ".join(order))
        return files_repetition(cell, order, rep, placement, settings)
    one_sample = http_sample if cell.family == "http" else net_sample
    samples, errors = {}, {}
    for spec in order:
        on_sample(spec)
        try:
            samples[spec] = one_sample(cell, arms.parse_arm(spec), placement, settings)
        except MeasureError as error:
            errors[spec] = str(error)
    return samples, errors
