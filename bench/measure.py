"""Takes one sample: one cell, one arm, one repetition.

A network sample starts a fresh server on its core and the load generator on the other. A micro
repetition runs all arms in one fresh process. Both return plain dicts of numbers.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bench import arms, machine
from bench.load import load_command, run_load
from bench.nursery import NurseryError
from bench.servers import START_TIMEOUT_S, MeasureError, Server, last_words

SERVER_LIMITED = 0.95
CLIENT_LIMITED = 0.95
MEMORY_LOADS = ("idle", "burst")
MEMORY_WINDOW_S = 0.5
CONNECTION_TIMEOUT_S = 0.02  # a TLS handshake takes 1 ms, three at once on two cores more
PROCESS_TIMEOUT_S = 120


def limited_by(report):
    """Who set the pace. Neither is busy all the time: the way between them did."""
    if report["server"]["utilisation"] >= SERVER_LIMITED:
        return "server"
    return "client" if report["client"]["busy"] >= CLIENT_LIMITED else "latency"


# Less than this is no memory that a burst left behind: code that was used for the first time, and
# half-empty pages of the heap.
RETAINED_FLOOR = 1 << 20


def retained_of(server):
    """What a burst left behind, while its connections rest and after they have closed."""
    if "rss_bytes_closed" not in server:
        return {}
    before = server["rss_bytes_before"]
    return {
        "retained": max(RETAINED_FLOOR, server["rss_bytes_closed"] - before),
        "retained_closed": server["rss_bytes_closed"] - before,
        "retained_resting": server["rss_bytes_resting"] - before,
        "burst_bytes": server["rss_bytes"] - before,
    }


def sample_of(report):
    server, latency = report["server"], report["latency_us"]
    messages = max(1, report["messages"])
    return {
        **retained_of(server),
        "rate": report["messages_per_s"],
        "cpu_us": server["cpu_us_per_message"],
        "utilisation": server["utilisation"],
        "client_busy": report["client"]["busy"],
        "limited_by": limited_by(report),
        "p50_us": latency["p50"],
        "p99_us": latency["p99"],
        "p999_us": latency["p999"],
        "unserved": report.get("unserved", 0),
        "faults": server["minor_faults"] / messages,
        "rss_bytes": server["rss_bytes"],
        "rss_per_connection": server["rss_bytes_per_connection"],
        "messages": report["messages"],
    }


def memory_settings(settings):
    """Of a cell about memory: nothing is timed, so all arms run at once, and clients that wait
    leave the cores to the servers."""
    return replace(settings, poll="block", duration_s=max(MEMORY_WINDOW_S, settings.duration_s))


def net_sample(cell, arm, placement, settings, nurseries=None):
    limit_s = START_TIMEOUT_S + settings.warmup_s + settings.duration_s * cell.window_times + 20
    limit_s += CONNECTION_TIMEOUT_S * cell.parameters["connections"]
    with Server(arm, cell.parameters, placement, nurseries) as server:
        try:
            report = run_load(load_command(cell, server, settings), placement, server, limit_s)
        except subprocess.TimeoutExpired:
            raise MeasureError("the load generator did not end") from None
        if report["messages"] == 0 and cell.parameters.get("load") != "idle":
            raise MeasureError(f"no message came back: {last_words(server.process)}")
    return {**sample_of(report), "loop_version": server.first.get("loop_version")}


# ---- all arms in one process ----


def together(module, arguments, core, placement, nurseries):
    """What module.main(arguments) prints, as text; its last words are the error."""
    modules = (module, *TOGETHER[module])
    with contextlib.ExitStack() as stack:
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        if nurseries is None:
            child = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=stdout,
                stderr=stderr,
                cwd=machine.ROOT,
                preexec_fn=placement.on(core),
            )
        else:
            child = nurseries.get(modules, {}).start(module, arguments, core, stdout, stderr)
        try:
            child.wait(PROCESS_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise MeasureError("the process did not end") from None
        stdout.seek(0)
        text = stdout.read()
        if not text:
            child.stderr = stderr
            raise MeasureError(last_words(child) or "the process ended without an answer")
    return text


# What a nursery of these imports besides.
TOGETHER = {
    "bench.micro.paired": ("gyre", "uvloop"),
    "bench.files.paired": ("gyre", "aiofiles", "anyio"),
}


def in_one_process(cell, specs, rep, placement, settings, nurseries=None):
    """({arm: sample}, {arm: error}) of all arms at once, of a micro or a files cell."""
    from bench.micro import workloads

    arguments = ["--workload", cell.parameters["workload"], "--arms", ";".join(specs)]
    arguments += ["--rep", str(rep)]
    if cell.family == "files":  # threads and kernel workers want both cores
        module, core = "bench.files.paired", None
        arguments += ["--quick"] if settings.quick else []
    else:
        workload = workloads.WORKLOADS[cell.parameters["workload"]]
        module, core = "bench.micro.paired", placement.server if workload.pinned else None
        arguments += ["--slices", str(settings.slices)]
    try:
        answer = json.loads(together(module, arguments, core, placement, nurseries))
    except (MeasureError, NurseryError) as error:
        return {}, dict.fromkeys(specs, str(error))
    return answer["samples"], answer["errors"]


# ---- http ----


def http_sample(cell, arm, placement, settings, nurseries=None):
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


def at_once(cell, specs, bench):
    """All arms of a cell about memory at the same time, on any core. Their servers are started
    anew: what a fork has mapped already would be missing in the growth."""
    placement, settings = bench[0].anywhere(), memory_settings(bench[1])
    with ThreadPoolExecutor(len(specs)) as pool:
        futures = {
            spec: pool.submit(net_sample, cell, arms.parse_arm(spec), placement, settings)
            for spec in specs
        }
    samples, errors = {}, {}
    for spec, future in futures.items():
        try:
            samples[spec] = future.result()
        except MeasureError as error:
            errors[spec] = str(error)
    return samples, errors


def repetition(cell, specs, rep, bench, on_sample=lambda spec: None):
    """One repetition of a cell: ({arm: sample}, {arm: error}). The order turns on odd ones.

    `bench` is (placement, settings) or (placement, settings, nurseries)."""
    order = list(specs) if rep % 2 == 0 else list(reversed(specs))
    if not order:
        return {}, {}
    if cell.family in ("micro", "files"):
        on_sample(" ".join(order))
        return in_one_process(cell, order, rep, *bench)
    if cell.parameters.get("load") in MEMORY_LOADS:
        on_sample(" ".join(order))
        return at_once(cell, order, bench)
    one_sample = http_sample if cell.family == "http" else net_sample
    samples, errors = {}, {}
    for spec in order:
        on_sample(spec)
        try:
            samples[spec] = one_sample(cell, arms.parse_arm(spec), *bench)
        except MeasureError as error:
            errors[spec] = str(error)
    return samples, errors
