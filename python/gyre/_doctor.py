"""python -m gyre doctor: which kernel interface a loop gets here, why, and what to do about it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import sys
from typing import Any

from . import _gyre
from ._file_call import THREADS_MAX
from ._seccomp import profile

__all__ = ["examine", "main"]

BACKENDS = ("auto", "io_uring", "epoll")
SECCOMP_MODES = {"0": "off", "1": "strict", "2": "filter"}
# Queues of one loop; Linux counts those of all loops of a user against RLIMIT_MEMLOCK.
RING_BYTES = 160 * 1024
FEW_RINGS = 4
FEW_DESCRIPTORS = 256
# Features that mean nothing to the other backend.
FOREIGN = {
    "io_uring": {"epoll_pwait2"},
    "epoll": {"abs_timer", "no_iowait", "no_sqarray", "ring_fd", "sync_cancel"},
}

Report = dict[str, Any]


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _status() -> dict[str, str]:
    """The fields of /proc/self/status."""
    lines = (_read("/proc/self/status") or "").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def _container() -> str | None:
    """What kind of container this seems to be; None: none that leaves a mark."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for path, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(path):
            return name
    return os.environ.get("container") or None


def _limit(which: int) -> dict[str, int | None]:
    """Soft and hard limit; None: unlimited."""
    soft, hard = (None if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(which))
    return {"soft": soft, "hard": hard}


def _backend(name: str) -> Report:
    found = _gyre.probe(name)
    names = sorted(found["features"].keys() - FOREIGN[name])
    enabled = found["features"] if found["enabled"] is None else found["enabled"]
    return {
        "usable": found["errno"] == 0,
        "errno": found["errno"],
        "stage": found["stage"],
        "explanation": found["explanation"],
        "features": {n: enabled[n] for n in names},
    }


def _choose(report: Report, asked: str) -> tuple[str | None, str]:
    """The backend that a loop would get, and why."""
    uring, epoll = report["io_uring"], report["epoll"]
    if asked not in BACKENDS:
        return None, f"GYRE_BACKEND is {asked!r}, which is none of {', '.join(BACKENDS)}."
    if _gyre.probe("epoll")["enabled"] is None:
        return None, f"GYRE_FEATURES is {os.environ['GYRE_FEATURES']!r}, which no loop accepts."
    source = "GYRE_BACKEND asks for it." if os.environ.get("GYRE_BACKEND") else "It works here."
    if uring is not None and uring["usable"]:
        return "io_uring", source
    if asked == "io_uring":
        return None, f"GYRE_BACKEND asks for io_uring. {uring['explanation']}"
    if not epoll["usable"]:
        return None, f"epoll could not be set up: {os.strerror(epoll['errno'])}."
    return "epoll", source if uring is None else uring["explanation"]


def _problems(report: Report) -> list[dict[str, str]]:
    found = []
    uring, limits = report["io_uring"], report["limits"]
    if report["asked"] not in BACKENDS:
        text = "Unset it, or set it to one of " + ", ".join(BACKENDS) + "."
        found.append({"problem": "GYRE_BACKEND is unknown", "remedy": text})
    if _gyre.probe("epoll")["enabled"] is None:
        names = ",".join(f"-{name}" for name in report["epoll"]["features"])
        text = f"Unset it, or switch off features by name, as in {names}."
        found.append({"problem": "GYRE_FEATURES cannot be read", "remedy": text})
    if not report["epoll"]["usable"]:
        text = "Raise RLIMIT_NOFILE (ulimit -n), and allow epoll and eventfd in the sandbox."
        found.append({"problem": "epoll is refused", "remedy": text})
    if uring is not None and not uring["usable"]:
        found.append({"problem": "io_uring is refused", "remedy": _remedy(report)})
    memlock = limits["memlock"]["soft"]
    if memlock is not None and memlock < FEW_RINGS * RING_BYTES and os.geteuid() != 0:
        text = f"locked memory for {memlock // RING_BYTES} loops on io_uring only"
        found.append({"problem": text, "remedy": "Raise RLIMIT_MEMLOCK (ulimit -l)."})
    nofile = limits["nofile"]["soft"]
    if nofile is not None and nofile < FEW_DESCRIPTORS:
        text = f"{nofile} open files at most"
        found.append({"problem": text, "remedy": "Raise RLIMIT_NOFILE (ulimit -n)."})
    return found


def _remedy(report: Report) -> str:
    text: str = report["io_uring"]["explanation"]
    if report["seccomp"]["mode"] != "filter":
        return text
    save = "python -m gyre doctor --seccomp-profile > gyre.json"
    if report["container"] == "kubernetes":
        return (
            f"{text} In Kubernetes: {save}, copy the file to /var/lib/kubelet/seccomp/ of the "
            "nodes, and set securityContext.seccompProfile of the container to "
            "{type: Localhost, localhostProfile: gyre.json}."
        )
    return f"{text} With Docker or Podman: {save}, then run --security-opt seccomp=gyre.json."


def examine() -> Report:
    """Everything that the doctor knows, ready for JSON."""
    asked = os.environ.get("GYRE_BACKEND") or "auto"
    status = _status()
    disabled = _read("/proc/sys/kernel/io_uring_disabled")
    group = _read("/proc/sys/kernel/io_uring_group")
    report: Report = {
        "gyre": _gyre.__version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "kernel": {"release": platform.release(), "machine": platform.machine()},
        "liburing": _gyre.LIBURING_VERSION,
        "asked": asked,
        # Asking is not harmless everywhere: who says epoll gets no call of io_uring.
        "io_uring": _backend("io_uring") if asked in ("auto", "io_uring") else None,
        "epoll": _backend("epoll"),
        "sysctl": {
            "kernel.io_uring_disabled": None if disabled is None else int(disabled),
            "kernel.io_uring_group": None if group is None else int(group),
        },
        "seccomp": {
            "mode": SECCOMP_MODES.get(status.get("Seccomp", ""), "unknown"),
            "filters": int(status.get("Seccomp_filters", 0)),
            "no_new_privs": status.get("NoNewPrivs") == "1",
        },
        "container": _container(),
        "limits": {
            "memlock": _limit(resource.RLIMIT_MEMLOCK),
            "nofile": _limit(resource.RLIMIT_NOFILE),
            "nproc": _limit(resource.RLIMIT_NPROC),  # the kernel's workers for file operations
        },
        # At most so many threads per loop for file operations that have to wait.
        "workers": {
            "io_uring": _gyre.URING_WORKERS_MAX,
            "epoll": _gyre.POOL_THREADS_MAX,
            "calls": THREADS_MAX,
        },
    }
    report["backend"], report["why"] = _choose(report, asked)
    report["problems"] = _problems(report)
    return report


def _features(found: Report | None) -> str:
    if found is None:
        return "not asked"
    if not found["usable"]:
        return f"refused at {found['stage']}: {os.strerror(found['errno'])}"
    return " ".join(f"{'+' if on else '-'}{name}" for name, on in found["features"].items())


def _range(limit: dict[str, int | None], unit: int = 1, name: str = "") -> str:
    soft, hard = (
        "unlimited" if n is None else f"{n // unit}{name}" for n in (limit["soft"], limit["hard"])
    )
    return soft if soft == hard else f"{soft}, can be raised to {hard}"


def _workers(report: Report) -> str:
    workers = report["workers"]
    if report["backend"] == "io_uring":
        ours = f"{workers['io_uring']} of the kernel for files, as many for all else"
    else:
        ours = f"{workers['epoll']} threads"
    return f"at most {ours}, {workers['calls']} for calls without an operation; per loop"


def _print(report: Report) -> None:
    python, kernel, seccomp = report["python"], report["kernel"], report["seccomp"]
    disabled = report["sysctl"]["kernel.io_uring_disabled"]
    group = report["sysctl"]["kernel.io_uring_group"]
    limits = report["limits"]
    filters = f", {seccomp['filters']} filters" if seccomp["filters"] else ""
    rows = [
        ("gyre", report["gyre"]),
        ("Python", f"{python['version']} ({python['implementation']})"),
        ("kernel", f"Linux {kernel['release']} on {kernel['machine']}"),
        ("liburing", report["liburing"]),
        ("backend", report["backend"] or "none"),
        ("why", report["why"]),
        ("io_uring", _features(report["io_uring"])),
        ("epoll", _features(report["epoll"])),
        ("io_uring_disabled", "no such sysctl" if disabled is None else str(disabled)),
        ("io_uring_group", "no such sysctl" if group is None else str(group)),
        ("seccomp", seccomp["mode"] + filters),
        ("container", report["container"] or "no sign of one"),
        ("locked memory", _range(limits["memlock"], 1024, " KiB")),
        ("open files", _range(limits["nofile"])),
        ("processes", _range(limits["nproc"])),
        ("file workers", _workers(report)),
    ]
    for name, value in rows:
        print(f"{name:<18} {value}")
    for item in report["problems"]:
        print(f"\nproblem: {item['problem']}\nremedy:  {item['remedy']}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gyre doctor",
        description="Which kernel interface a loop gets here, and why.  The exit status is 1 if "
        "it gets none.",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument(
        "--seccomp-profile",
        metavar="FILE",
        nargs="?",
        const="",
        help="print a seccomp profile that allows io_uring: FILE, the profile in use, with "
        "the calls added, or a short one of its own",
    )
    options = parser.parse_args(arguments)
    if options.seccomp_profile is not None:
        with contextlib.ExitStack() as stack:
            base = None
            if options.seccomp_profile:
                base = json.load(stack.enter_context(open(options.seccomp_profile, "rb")))
            print(json.dumps(profile(base), indent=2))
        return 0
    report = examine()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["backend"] is not None else 1
