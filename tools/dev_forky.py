"""dev_forky: Pythons newer than this machine has, from Debian forky in a folder of its own.

The folder is ~/.cache/gyre/forky-root: a Debian root that debootstrap fills once, shared by all
working trees.  A test run copies the tree into it and runs ./dev test there, under chroot, with
/proc, /dev/pts and /dev/shm mounted in a private mount namespace: they go away with the last
process and nothing is left to unmount, whatever happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import dev_debian
from dev_tally import Count
from dev_term import ROOT, Arg, Stop, say, step, stream
from tidy import Tree

VERSIONS = ("3.14", "3.15")
MIRROR = "http://deb.debian.org/debian"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gyre"
FORKY = CACHE / "forky-root"
LIMIT_S = 3600

TOOLS = ("ca-certificates", "gcc", "libc6-dev", "liburing-dev", "pkg-config")
OF_PYTHON = ("python{}", "python{}-dev", "python{}-venv", "libpython{}-testsuite")

# A mirror's snapshot may be older than its Release file allows; that is no reason not to test.
APT_CONF = 'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n'

INSIDE = """\
set -e
mount -t proc proc "$1/proc"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
mount -t tmpfs tmpfs "$1/dev/shm"
root=$1
shift
exec chroot "$root" "$@"
"""


def test(version: str, phases: Sequence[str], pytest_args: Sequence[str]) -> int:
    """./dev test --python X.Y for a Python that this machine does not have."""
    code, _ = test_counted(version, phases, pytest_args)
    return code


def test_counted(
    version: str, phases: Sequence[str], pytest_args: Sequence[str]
) -> tuple[int, Count]:
    set_up(version)
    tree = _copy_tree()
    inside = Path("/") / tree.relative_to(FORKY)
    argv: list[Arg] = [f"/usr/bin/python{version}", inside / "dev", "test"]
    argv += [f"--phase={phase}" for phase in phases]
    if pytest_args:
        argv += ["--", *pytest_args]
    closing = tree / "build" / "results" / "test.txt"
    closing.unlink(missing_ok=True)
    code = stream(_chrooted(argv), env=_environment(), limit_s=LIMIT_S)
    count = Count.of_closing_line(closing.read_text()) if closing.exists() else None
    return code, count or Count(failed=1, note=f"it ended with status {code} before it could count")


def set_up(version: str) -> None:
    """Stop if this machine cannot have that Python."""
    _need_root(version)
    with _one_at_a_time():
        _set_up(version)
        _trust_as_here()


def remove() -> None:
    if not FORKY.exists():
        return
    if _mounted():
        raise Stop(f"something is still mounted in {FORKY}: unmount it first.")
    shutil.rmtree(FORKY)
    say(f"removed {FORKY}")


def _need_root(version: str) -> None:
    if version not in VERSIONS:
        raise Stop(f"no Python {version} on this machine, and none in Debian forky either.")
    if os.geteuid() != 0:
        raise Stop(
            f"no Python {version} on this machine. A Debian forky root in {FORKY} would have it,\n"
            f"     and making and entering one needs root: sudo ./dev test --python {version}"
        )


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """The root is shared by all working trees of the user."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "forky.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _set_up(version: str) -> None:
    if not FORKY.exists():
        dev_debian.need(("debootstrap", "util-linux"))
        part = FORKY.with_suffix(".part")
        if part.exists():
            shutil.rmtree(part)  # an earlier attempt that was interrupted
        # forky's own script is sid's; older debootstraps do not know the name.
        step(
            "debootstrap Debian forky (once, about a minute)",
            ["debootstrap", "--variant=minbase", "forky", part, MIRROR, "sid"],
            hint="is the mirror reachable?",
        )
        (part / "etc" / "apt" / "apt.conf.d" / "99gyre").write_text(APT_CONF)
        part.rename(FORKY)
    packages = [*TOOLS, *(name.format(version) for name in OF_PYTHON)]
    missing = [name for name in packages if not _has(name)]
    if not missing:
        return
    for name in ("resolv.conf", "hosts"):
        with contextlib.suppress(OSError):
            shutil.copyfile(f"/etc/{name}", FORKY / "etc" / name)
    step("forky: apt-get update", _chrooted(["apt-get", "update"]), env=_environment())
    argv = ["apt-get", "install", "-y", *missing]
    step(f"forky: packages for Python {version}", _chrooted(argv), env=_environment())


def _trust_as_here() -> None:
    """The root trusts the authorities this machine trusts: a company's own index, say."""
    bundle = "etc/ssl/certs/ca-certificates.crt"
    if os.path.exists(f"/{bundle}"):
        shutil.copyfile(f"/{bundle}", FORKY / bundle)


def _has(package: str) -> bool:
    lists = FORKY / "var" / "lib" / "dpkg" / "info"
    return any((lists / f"{package}{suffix}.list").exists() for suffix in ("", ":amd64", ":arm64"))


def _chrooted(argv: Sequence[Arg]) -> list[Arg]:
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE, "inside"]
    return [*unshare, FORKY, *argv]


def _environment() -> dict[str, str]:
    """What the host's variables would get wrong inside."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "TMPDIR": "/tmp",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def _copy_tree() -> Path:
    """The files of this tree, in a folder of the root named after it; builds there are kept."""
    name = hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
    target = FORKY / "srv" / f"gyre-{name}"
    target.mkdir(parents=True, exist_ok=True)
    wanted = set(Tree(ROOT).paths)
    for path in Tree(target).paths:
        if path not in wanted:
            (target / path).unlink()
    for path in sorted(wanted):
        source, copy = ROOT / path, target / path
        if copy.exists() and filecmp.cmp(source, copy, shallow=False):
            continue  # its time stays, and what was built from it need not be built again
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    return target


def _mounted() -> bool:
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1].startswith(f"{FORKY}/") for line in mounts)
