"""Compiles the C programs of the benchmarks with cc, when a source is newer, and the floors, which
are modules of Python."""

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bench" / "net"
OUTPUT = ROOT / "build" / "bench"

FLAGS = (
    "-std=gnu11 -O2 -g -Wall -Wextra -Werror -Wshadow -Wswitch-enum -Wmissing-prototypes "
    "-Wvla -Wundef"
).split()

PROGRAMS = {
    "loadgen": (
        "loadgen.c",
        "load_stream.c",
        "load_churn.c",
        "load_udp.c",
        "window.c",
        "hist.c",
        "pattern.c",
        "net.c",
    ),
    "limit_epoll": ("limit_epoll.c", "limit.c"),
    "limit_uring": ("limit_uring.c", "limit.c"),
    "limit_pipe": ("limit_pipe.c",),
    "limit_write": ("limit_write.c",),
    "limit_chain": ("limit_chain.c",),
}
PROGRAMS["loadgen_tls"] = (*PROGRAMS["loadgen"], "load_tls.c")  # needs OpenSSL
DEFINES = {"loadgen_tls": ("-DLOAD_TLS",)}
LIBRARIES = {
    "floor": "liburing",
    "limit_uring": "liburing",
    "limit_write": "liburing",
    "limit_chain": "liburing",
    "loadgen_tls": "libssl libcrypto",
}
PACKAGES = {"libssl libcrypto": "libssl-dev"}
MODULES = {
    "floor": ("floor.c", "floor_flow.c", "floor_sends.c"),
    "floor_micro": ("../micro/floor.c",),
}
MODULE_FLAGS = ("-shared", "-fPIC", "-fvisibility=hidden")


class BuildError(Exception):
    pass


class MissingError(BuildError):
    """The machine lacks what is needed to build it; the text says what."""


def compiler():
    command = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(command[0]) is None:
        raise MissingError(f"no C compiler ({command[0]}): on Debian, apt install gcc")
    return command


def library_flags(name):
    result = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *name.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        package = PACKAGES.get(name, f"{name}-dev")
        raise MissingError(f"{name} was not found: on Debian, apt install pkg-config {package}")
    return result.stdout.split()


def build(name):
    """The path of the program, compiled if need be."""
    sources = [SOURCES / source for source in PROGRAMS[name]]
    return compiled(OUTPUT / name, sources, lambda: flags_of(name))


def flags_of(name):
    """(for the compiler, libraries) of a program."""
    libraries = library_flags(LIBRARIES[name]) if name in LIBRARIES else []
    return DEFINES.get(name, ()), libraries


def build_module(name):
    """The path of the extension module for this Python, compiled if need be."""
    target = OUTPUT / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [SOURCES / source for source in MODULES[name]]
    return compiled(target, sources, lambda: module_flags(name))


def module_flags(name):
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise MissingError(f"{include} has no Python.h: on Debian, apt install python3-dev")
    libraries = library_flags(LIBRARIES[name]) if name in LIBRARIES else []
    return (*MODULE_FLAGS, "-isystem", str(include)), libraries


def compiled(target, sources, flags_and_libraries):
    newest = max(path.stat().st_mtime for path in [*SOURCES.glob("*.h"), *sources])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    OUTPUT.mkdir(parents=True, exist_ok=True)
    flags, libraries = flags_and_libraries()
    partial = target.with_suffix(f".{os.getpid()}")
    command = [*compiler(), *FLAGS, *flags, "-o", str(partial), *map(str, sources), *libraries]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{result.stderr}")
    partial.replace(target)
    return target
