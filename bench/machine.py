"""The machine: pinning, priority, and what a result has to say about where it was taken."""

import contextlib
import copy
import ctypes
import datetime
import os
import platform
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent():
    """Of a child, before it runs: it ends when its parent does."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Placement:
    """Which core is whose. With one core alone everything shares it, and the report says so."""

    def __init__(self, server=None, client=None):
        cores = sorted(os.sched_getaffinity(0))
        self.server = cores[0] if server is None else server
        self.client = cores[1 % len(cores)] if client is None else client
        unknown = {self.server, self.client} - set(cores)
        if unknown:
            raise ValueError(f"this process may not use core {unknown.pop()}")
        self.shared = self.server == self.client

    def anywhere(self):
        """The same without pinning, for what is not timed."""
        other = copy.copy(self)
        other.server = other.client = None
        return other

    def on(self, core):
        """A preexec_fn: pins the child, and ends it when the runner ends."""

        def child():
            if core is not None:
                os.sched_setaffinity(0, {core})
            end_with_parent()

        return child


@contextlib.contextmanager
def priority():
    """Puts this session ahead of others. With autogroup scheduling, nice alone does nothing.

    Yields what was done, for the report."""
    path = Path("/proc/self/autogroup")
    try:
        before = path.read_text().rsplit(maxsplit=1)[-1]
        path.write_text("-20")
    except (OSError, IndexError) as error:
        yield f"no ({error})" if not isinstance(error, FileNotFoundError) else "no autogroup here"
        return
    try:
        yield "autogroup -20"
    finally:
        with contextlib.suppress(OSError):
            path.write_text(before)


def first_match(path, pattern):
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1].strip() if match else None


def version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def git_commit():
    """The commit of the tree, with a plus sign when it has changes; None outside of git."""
    run = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run)
    if commit.returncode != 0:
        return None
    changes = subprocess.run(["git", "status", "--porcelain", "-uno"], **run)
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def cpu_steal_ticks():
    """(stolen, all) clock ticks of all cores since boot: what the host took away."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0, 0
    ticks = [int(field) for field in fields]
    return (ticks[7] if len(ticks) > 7 else 0), sum(ticks[:8])


def describe(placement, priority_text):
    congestion = first_match("/proc/sys/net/ipv4/tcp_congestion_control", r"(.*)")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gyre": version("gyre-loop"),
        "commit": git_commit(),
        "uvloop": version("uvloop"),
        "python": platform.python_version(),
        "python_build": " ".join([*platform.python_build(), platform.python_compiler()]),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(first_match("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0) // 1024,
        "hypervisor": "hypervisor" in (first_match("/proc/cpuinfo", r"^flags\s*:\s*(.*)$") or ""),
        "governor": first_match("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", r"(.*)"),
        "congestion_default": congestion,
        "server_core": placement.server,
        "client_core": placement.client,
        "priority": priority_text,
        "load_before": round(os.getloadavg()[0], 2),
    }


def warnings(environment):
    """What makes the figures doubtful, in sentences."""
    found = []
    if environment["load_before"] > 0.3:
        found.append(
            f"The machine was not idle (load {environment['load_before']} before the start)."
        )
    if environment["server_core"] == environment["client_core"]:
        found.append("Server and client share one core: the figures describe both together.")
    if environment.get("steal_percent", 0) > 1:
        found.append(f"The host took {environment['steal_percent']:.1f} % of the CPU time away.")
    if environment["governor"] not in (None, "performance"):
        found.append(f"The frequency governor is {environment['governor']}.")
    if environment["commit"] and environment["commit"].endswith("+"):
        found.append("The tree had uncommitted changes.")
    return found
