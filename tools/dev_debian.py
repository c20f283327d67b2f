"""dev_debian: the system packages that a command of the launcher needs.

What is there is found out by looking for the thing itself (a program, a pkg-config file), so that
other distributions work as well once their packages are installed by hand.  On Debian, as root,
what is missing is installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable

from dev_term import Stop, output, say, step


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _pkg_config(query: str) -> Callable[[], bool]:
    return lambda: output(["pkg-config", "--exists", query]) is not None


# Debian package -> how to see that what it brings is there.
PACKAGES: dict[str, Callable[[], bool]] = {
    "gcc": _program("gcc"),
    "libc6-dev": lambda: os.path.exists("/usr/include/stdio.h"),
    "pkg-config": _program("pkg-config"),
    "liburing-dev": _pkg_config("liburing >= 2.3"),
    "libssl-dev": _pkg_config("libssl"),
    "binutils": _program("nm"),
    "clang": _program("clang"),
    "clang-tidy": _program("clang-tidy"),
    "cppcheck": _program("cppcheck"),
    "valgrind": _program("valgrind"),
    "wrk": _program("wrk"),
    "strace": _program("strace"),
    "util-linux": _program("taskset"),
    "debootstrap": _program("debootstrap"),
}

TO_BUILD = ("gcc", "libc6-dev", "pkg-config", "liburing-dev")
TO_LINT = (*TO_BUILD, "binutils", "clang", "clang-tidy", "cppcheck")
TO_DEMO = (*TO_BUILD, "wrk", "strace", "util-linux")
TO_BENCH = ("strace", "libssl-dev", "wrk")  # beside TO_BUILD; what is missing is left out
TO_TEST_ALL = (*TO_BUILD, "valgrind")

# Another program may be installing: apt-get waits for it instead of failing.
APT_GET = ("apt-get", "-o", "DPkg::Lock::Timeout=300")

_updated = False


def need(packages: Iterable[str]) -> None:
    """Makes sure that these are there, or stops with the words that tell how to get them."""
    install([name for name in packages if not PACKAGES[name]()])


def wish(packages: Iterable[str]) -> None:
    """The same for what a command can do without: says so, and goes on."""
    try:
        need(packages)
    except Stop as exc:
        say(f"   {exc}\n   Going on without.")


def install(missing: list[str]) -> None:
    global _updated
    if not missing:
        return
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise Stop(
            f"missing: {names} (these are Debian's package names).\n"
            "     This is not Debian: install what your distribution calls them and run this again."
        )
    if os.geteuid() != 0:
        raise Stop(
            f"missing Debian packages: {names}.\n"
            f"     Installing them needs root: sudo apt-get install {names}"
        )
    say(f"   missing Debian packages: {names}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    if not _updated:
        step("apt-get update", [*APT_GET, "update"], env=env, hint="is the network reachable?")
        _updated = True
    step(
        f"apt-get install {names}",
        [*APT_GET, "install", "-y", "--no-install-recommends", *missing],
        env=env,
    )
    still = [name for name in missing if name in PACKAGES and not PACKAGES[name]()]
    if still:
        raise Stop(f"apt-get installed {' '.join(still)}, but what they should bring is not found.")
