"""The load on one server: the load generator in C, or the public benchmark's clients."""

import json
import subprocess
import sys

from bench import build, machine
from bench.servers import MeasureError, last_words

# After a burst: the loops under test have done by then what they do when nothing comes.
BURST_REST_S = 0.5


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
    load = parameters.get("load")
    mode = {None: role if role in ("sink", "source") else "echo", "burst": "echo"}.get(load, load)
    program = "loadgen_tls" if parameters.get("tls") else "loadgen"
    command = [str(build.build(program)), *server.address()]
    command += ["--tls"] if parameters.get("tls") else []
    command += ["--udp"] if parameters["mode"] == "udp" else []
    command += ["--gso"] if parameters.get("gso") else []
    command += ["--mode", mode, "--connections", str(parameters["connections"])]
    command += ["--size", str(parameters["size"]), "--server-pid", str(server.process.pid)]
    command += ["--warmup", str(settings.warmup_s)]
    command += ["--duration", str(settings.duration_s * cell.window_times)]
    command += ["--poll", settings.poll]
    if load == "burst":
        command += ["--rest", str(BURST_REST_S)]
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
