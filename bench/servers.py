"""The server of one sample: a process of its own, by a nursery or started anew, or a C program."""

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import build, machine, nursery

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
LIMIT_PROGRAMS = {"c-epoll": "limit_epoll", "c-uring": "limit_uring"}
SERVER_MODULE = "bench.net.server"


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

    def __init__(self, arm, parameters, placement, nurseries=None):
        self.arm = arm
        self.parameters = parameters
        self.placement = placement
        self.nurseries = nurseries  # None: a new Python each time
        self.directory = None
        self.process = None
        self.last = {}

    def program(self):
        """(path of a C server or None, its arguments or those of bench.net.server)."""
        parameters = self.parameters
        if self.arm.is_c:
            if parameters.get("role", "echo") != "echo":
                raise MeasureError("the C servers only echo")
            program = str(build.build(LIMIT_PROGRAMS[self.arm.loop]))
            if parameters["mode"] != "udp":
                return program, []
            if self.arm.loop != "c-epoll":
                raise MeasureError("the C server on io_uring has no UDP")
            return program, ["--udp"]
        arguments = ["--loop", self.arm.spec, "--mode", parameters["mode"]]
        arguments += ["--size", str(parameters["size"]), "--role", parameters.get("role", "echo")]
        arguments += ["--tls"] if parameters.get("tls") else []
        return None, arguments

    def address(self):
        if self.parameters.get("unix"):
            return ["--unix", self.path]
        return ["--port", str(self.first["port"])]

    def start(self, program, arguments, errors):
        core = self.placement.server
        if program is None and self.nurseries is not None:
            read_end, write_end = os.pipe()
            with open(write_end, "wb", 0) as stdout:
                modules = (SERVER_MODULE, self.arm.module)
                starter = self.nurseries.get(modules, self.arm.environment)
                child = starter.start(SERVER_MODULE, arguments, core, stdout, errors)
            child.stdout = open(read_end, closefd=True)
            return child
        command = [program] if program else [sys.executable, "-m", SERVER_MODULE]
        return subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=machine.ROOT,
            env={**os.environ, **self.arm.environment},
            preexec_fn=self.placement.on(core),
        )

    def __enter__(self):
        program, arguments = self.program()
        if self.parameters.get("unix"):
            self.directory = tempfile.TemporaryDirectory(prefix="gyre-bench-")
            self.path = str(Path(self.directory.name) / "socket")
            arguments += ["--unix", self.path]
        errors = tempfile.TemporaryFile("w+")  # not a pipe: nobody reads while it runs
        try:
            self.process = self.start(program, arguments, errors)
        except nursery.NurseryError as error:
            raise MeasureError(str(error)) from None
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
