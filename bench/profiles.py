"""Where the CPU time of a server goes, by `perf record` while it is under load.

One sample is as in bench/measure.py, a fresh process under the same load, with a profiler attached
for the length of the window. The samples are sorted by the file that the code lies in: the kernel,
Python, the loop's extension, the C library, OpenSSL. What the C library does for Python or OpenSSL
(their memory, their copies) is theirs: it is found by unwinding the stack. perf's own interrupts
cost a few percent, for every arm alike.
"""

import collections
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from bench import calls, machine
from bench.load import load_command
from bench.measure import sample_of
from bench.servers import MeasureError, Server, read_line

KERNEL, PYTHON, LOOP, LIBC, TLS, LOOK, OTHER = PARTS = (
    "kernel",
    "Python",
    "loop",
    "libc",
    "OpenSSL",
    "look and clock",
    "other",
)
FREQUENCY_HZ = 4000
PERF_S = 20.0
STACK_BYTES, STACK_FRAMES = 1024, 12  # from a function of the C library to who called it

# Where gyre looks for events before it sleeps: time in which it waits for the others. Most reads of
# the clock are made there too.
LOOK_SYMBOLS = re.compile(r"(look_until|uring_look|epoll_look)(\..*)?")  # .lto_priv.0
# The C library's entries to the kernel: a loop that costs nothing makes the same calls. The samples
# there are those of the instructions that enter and leave.
CALL_SYMBOLS = re.compile(
    r"(__GI_|__libc_|_)*(recv|send|recvfrom|sendto|recvmsg|sendmsg|read|write|close|accept4?|syscall"
    r"|epoll_wait|epoll_pwait2?|epoll_ctl|getsockname|getpeername|io_uring_enter2?)(64)?(@.*)?"
)
FILES = (
    (PYTHON, r"libpython[\d.]*\.so.*|python[\d.]*"),
    (LOOP, r"(_gyre|floor|floor_micro)\..*\.so|limit_\w+"),
    (LIBC, r"(libc|libm|libpthread|ld-linux|liburing)\b.*\.so.*"),
    (LOOK, r"\[vdso\]"),
    (TLS, r"lib(ssl|crypto)\.so.*"),
)


def part_of(path, symbol):
    """The part of the program that a sample fell into, by the file and the function."""
    name = path.rpartition("/")[2]
    for part, pattern in FILES:
        if re.fullmatch(pattern, name):
            if part == LOOP and LOOK_SYMBOLS.fullmatch(symbol):
                return LOOK
            return KERNEL if part == LIBC and CALL_SYMBOLS.fullmatch(symbol) else part
    if "/uvloop/" in path:
        return LOOP
    if "/lib-dynload/" in path:
        return PYTHON
    return KERNEL if name.startswith("[") and name != "[unknown]" else OTHER


def part_of_stack(frames):
    """The part that a sample counts for. frames: (file, function), the innermost first."""
    part = part_of(*frames[0])
    if part != LIBC:
        return part
    for path, symbol in frames[1:]:
        caller = part_of(path, symbol)
        if caller not in (LIBC, KERNEL):
            return LIBC if caller in (LOOP, LOOK) or path == "[unknown]" else caller
    return LIBC


def read_script(text):
    """Counter of parts from what `perf script -F ip,sym,dso` prints: an address, a function and a
    (file) in a line for each frame, and an empty line between samples."""
    parts = collections.Counter()
    for sample in re.split(r"\n\s*\n", text):
        lines = re.findall(r"^\s*[0-9a-f]+ (.*?) \(([^()]*)\)\s*$", sample, re.MULTILINE)
        frames = [(path, symbol) for symbol, path in lines]
        if frames:
            parts[part_of_stack(frames)] += 1
    return parts


class Recorder:
    """perf, attached to a process and switched off until `with recorder:` is entered."""

    def __init__(self, pid, stack):
        if shutil.which("perf") is None:
            raise MeasureError("perf is not installed")
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gyre-perf-")))
        pipes = [self.folder / "control", self.folder / "answer"]
        for each in pipes:
            os.mkfifo(each)
        self.control, self.answer = (
            stack.enter_context(open(os.open(each, os.O_RDWR), "wb", 0)) for each in pipes
        )
        command = ["perf", "record", "-q", "-B", "-N", "-e", "cpu-clock", "-F", str(FREQUENCY_HZ)]
        command += [
            "--call-graph",
            f"dwarf,{STACK_BYTES}",
            "-D",
            "-1",
            "--control",
            "fifo:" + ",".join(map(str, pipes)),
        ]
        self.process = subprocess.Popen(
            [*command, "-p", str(pid), "-o", str(self.folder / "data")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self.end)

    def ask(self, word):
        self.control.write(word + b"\n")
        ready, _, _ = select.select([self.answer.fileno()], [], [], PERF_S)
        if not ready or not os.read(self.answer.fileno(), 64).startswith(b"ack"):
            raise MeasureError(f"perf did not answer to {word.decode()}")

    def __enter__(self):
        self.ask(b"enable")

    def __exit__(self, *exc_info):
        if exc_info[0] is None:
            self.ask(b"disable")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PERF_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def parts(self):
        self.end()
        command = ["perf", "script", "-i", str(self.folder / "data"), "-F", "ip,sym,dso"]
        command += ["--no-inline", "--max-stack", str(STACK_FRAMES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return read_script(done.stdout)


# ---- one sample of each family: (figures, Counter of parts) ----


def net_profile(cell, arm, placement, settings):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(arm, cell.parameters, placement))
        recorder = Recorder(server.process.pid, stack)
        load = stack.enter_context(
            subprocess.Popen(
                [*load_command(cell, server, settings), "--hold"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=placement.on(placement.client),
            )
        )
        stack.callback(load.kill)
        calls.expect(load, "begin")
        with recorder:
            load.stdin.write("x")
            load.stdin.flush()
            calls.expect(load, "end")
        text, _ = load.communicate("x", timeout=PERF_S)
        return sample_of(json.loads(text)), recorder.parts()


def http_profile(cell, arm, placement, settings):
    from bench.http import sample

    where = cell.parameters
    args = Namespace(
        arm=arm.spec,
        server=where["server"],
        path=where["path"],
        connections=where["connections"],
        server_core=placement.server,
        client_core=placement.client,
    )
    port = free_port()
    child = sample.start(
        sample.server_command(args.server, args.arm, port), args.arm, args.server_core, port
    )
    with contextlib.ExitStack() as stack:
        stack.callback(child.wait)
        stack.callback(child.kill)
        recorder = Recorder(child.pid, stack)
        try:
            sample.warm_up(args, port)
            with recorder:
                figures = sample.under_wrk(args, port, child.pid, settings.duration_s)
        except sample.SampleError as error:
            raise MeasureError(str(error)) from None
        return figures, recorder.parts()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def micro_profile(cell, arm, placement, settings):
    command = [sys.executable, "-m", "bench.micro.steady", "--arm", arm.spec]
    command += ["--workload", cell.parameters["workload"], "--seconds", str(settings.duration_s)]
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=machine.ROOT,
                env={**os.environ, **arm.environment},
                preexec_fn=placement.on(placement.server),
            )
        )
        stack.callback(child.kill)
        recorder = Recorder(child.pid, stack)
        calls.expect(child, "ready")
        with recorder:
            child.stdin.write("go\n")
            child.stdin.flush()
            line = read_line(child.stdout, PERF_S + settings.duration_s)
        if not line:
            raise MeasureError("the workload ended without an answer")
        return json.loads(line), recorder.parts()


BY_FAMILY = {"net": net_profile, "http": http_profile, "micro": micro_profile}
