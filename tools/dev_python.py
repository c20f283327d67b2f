"""dev_python: the Python interpreters on this machine and their virtual environments.

An environment is .venv/<X.Y>, or .venv/<X.Y>-<flavour> where a build must not meet the others.
It gets the packages of tools/requirements-*.txt by group, and remembers in a file which version of
each list it has.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dev_debian
from dev_term import ROOT, Stop, output, step

OLDEST, NEWEST = 11, 15
DEFAULT = f"3.{sys.version_info[1]}"


@dataclass(frozen=True)
class Venv:
    version: str  # "3.11"
    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    def program(self, name: str) -> Path:
        return self.path / "bin" / name


def check_version(version: str) -> str:
    parts = version.split(".")
    if len(parts) != 2 or parts[0] != "3" or not parts[1].isdigit():
        raise Stop(f"'{version}' is no Python version; say it as 3.{OLDEST}.")
    if int(parts[1]) < OLDEST:
        raise Stop(f"gyre needs Python 3.{OLDEST} or newer, not {version}.")
    return version


@functools.cache
def find(version: str) -> str | None:
    """The path of an interpreter of that version, or None."""
    candidates: list[str] = []
    if version == DEFAULT:
        candidates.append(getattr(sys, "_base_executable", "") or sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    releases = [p for p in pyenv.glob(f"{version}.*") if p.name.split(".")[-1].isdigit()]
    releases.sort(key=lambda p: int(p.name.split(".")[-1]), reverse=True)
    candidates += [str(p / "bin" / "python") for p in releases]
    candidates += [f"/usr/local/bin/python{version}", f"/usr/bin/python{version}"]
    candidates.append(shutil.which(f"python{version}") or "")
    # A pyenv shim exists for versions that are not switched on: only running it tells.
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in candidates:
        if path and os.path.exists(path) and output([path, "-c", ask]) == version:
            return path
    return None


def present() -> list[str]:
    """Every version gyre supports that this machine has."""
    return [v for v in (f"3.{n}" for n in range(OLDEST, NEWEST + 1)) if find(v)]


def _need_headers(python: str, version: str) -> None:
    """Debian splits its own Python: the headers and venv are packages of their own."""
    ask = (
        "import sysconfig, os, importlib.util as u;"
        "print(int(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))),"
        " int(u.find_spec('ensurepip') is not None))"
    )
    have = (output([python, "-c", ask]) or "0 0").split()
    missing = [
        name
        for name, there in zip((f"python{version}-dev", f"python{version}-venv"), have)
        if there == "0"
    ]
    if not missing:
        return
    if not os.path.realpath(python).startswith("/usr/bin/"):
        raise Stop(f"{python} has no Python.h or no ensurepip: reinstall it with its headers.")
    dev_debian.install(missing)


def _debug_build(version: str) -> str:
    """The interpreter of that version that counts references; Debian has it for its own Python."""
    python = f"/usr/bin/python{version}-dbg"
    if not os.path.exists(python):
        dev_debian.install([f"python{version}-{part}" for part in ("dbg", "dev", "venv")])
    return python


def venv(version: str, groups: Sequence[str], flavour: str = "") -> Venv:
    """The environment, made if it is missing, with the packages of these groups.

    Flavour dbg is that of a debug build of Python.
    """
    if flavour == "dbg":
        python: str | None = _debug_build(version)
    else:
        python = find(version)
    if python is None:
        raise Stop(f"no Python {version} on this machine (there is {', '.join(present())}).")
    if flavour != "dbg":
        _need_headers(python, version)
    name = f"{version}-{flavour}" if flavour else version
    env = Venv(version, ROOT / ".venv" / name)
    if env.python.exists() and output([env.python, "-c", "import pip"]) is None:
        shutil.rmtree(env.path)  # its interpreter was removed or upgraded under it
    if not env.python.exists():
        step(f"virtual environment .venv/{name}", [python, "-m", "venv", env.path])
    for group in groups:
        _packages(env, group)
    return env


def _packages(env: Venv, group: str) -> None:
    wanted = ROOT / "tools" / f"requirements-{group}.txt"
    mark = env.path / f".gyre-{group}"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    step(
        f"packages for {group} in {env.path.relative_to(ROOT)}",
        [env.python, "-m", "pip", "install", "--disable-pip-version-check", "-r", wanted],
        hint="is the package index reachable?",
    )
    mark.write_text(digest)
