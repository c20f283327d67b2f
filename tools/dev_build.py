"""dev_build: builds of gyre and where they go.

The extension is built in build/<X.Y>-<kind> and installed (never editable) into a virtual
environment, which holds one kind at a time; a stamp there says which sources it was made of.  The
core library with its C tests is built by meson alone, in build/<X.Y>-core and its like.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import dev_debian
import dev_python
from dev_python import Venv
from dev_term import BUILD, ROOT, output, step

# kind -> meson options.  "release" is what users get.
KINDS: dict[str, tuple[str, ...]] = {
    "release": ("-Dbuildtype=release",),
    "checked": (
        "-Dbuildtype=debugoptimized",
        "-Dasserts=true",
        "-Dfault_injection=true",
        "-Dwerror=true",
    ),
    "asan": (
        "-Dbuildtype=debugoptimized",
        "-Dasserts=true",
        "-Dfault_injection=true",
        "-Dwerror=true",
        "-Db_sanitize=address,undefined",
        "-Db_lundef=false",
    ),
}

KINDS["dbg"] = KINDS["checked"]  # for a debug build of Python

# Kinds that do not go together with others, and have a virtual environment of their own.
APART = ("asan", "dbg")

CORE_KINDS: dict[str, tuple[str, ...]] = {
    "core": ("-Dbuildtype=debugoptimized", "-Db_sanitize=none"),
    "core-asan": ("-Dbuildtype=debugoptimized", "-Db_sanitize=address,undefined"),
}
CORE_OPTIONS = (
    "-Dpython=false",
    "-Dtests=true",
    "-Dasserts=true",
    "-Dfault_injection=true",
    "-Dwerror=true",
)


def sources_digest(*extra: str) -> str:
    """A hash over everything that a build of the extension depends on in this tree."""
    files = [ROOT / n for n in ("meson.build", "meson_options.txt", "pyproject.toml")]
    for folder in ("src", "python/gyre"):
        files += (p for p in (ROOT / folder).rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for path in sorted(p for p in files if "__pycache__" not in p.parts):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(data)}\n".encode())
        digest.update(data)
    for text in extra:
        digest.update(text.encode())
    return digest.hexdigest()


def install(env: Venv, kind: str) -> None:
    """Builds gyre and installs it into env, unless it is there, of this kind and these sources."""
    dev_debian.need(dev_debian.TO_BUILD)
    options = KINDS[kind]
    liburing = output(["pkg-config", "--modversion", "liburing"]) or ""
    compiler = os.environ.get("CC", "")
    wanted = sources_digest(kind, *options, liburing, compiler)
    stamp = env.path / ".gyre-installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    folder = BUILD / f"{env.version}-{kind}"
    _fresh_if_changed(folder, "\n".join((*options, str(env.path), compiler)))
    argv: list[str | Path] = [env.python, "-m", "pip", "install", "--disable-pip-version-check"]
    argv += ["--no-build-isolation", "--no-deps", "--force-reinstall", f"-Cbuild-dir={folder}"]
    argv += [f"-Csetup-args={option}" for option in options]
    title = f"build and install gyre ({kind}, Python {env.version})"
    step(title, [*argv, "."], env=_tools_path(env))
    stamp.write_text(wanted)


def _tools_path(env: Venv) -> dict[str, str]:
    """meson and ninja are those of the environment, whatever else the machine has."""
    return {"PATH": f"{env.path}/bin:{os.environ['PATH']}"}


def _fresh_if_changed(folder: Path, settings: str) -> bool:
    """Drops a build folder that was made with other settings; true if it has to be configured."""
    mark = folder / ".gyre-settings"
    if mark.exists() and mark.read_text() == settings:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(settings)
    return True


def ready(version: str, groups: tuple[str, ...], kind: str) -> Venv:
    """An environment with gyre of that kind and the packages of these groups."""
    flavour = kind if kind in APART else ""
    env = dev_python.venv(version, ("build", *groups), flavour)
    install(env, kind)
    return env


def core(version: str, kind: str) -> Path:
    """Builds the core library and its C tests; returns the build folder."""
    dev_debian.need(dev_debian.TO_BUILD)
    env = dev_python.venv(version, ("build",))
    return meson(env, f"{version}-{kind}", (*CORE_OPTIONS, *CORE_KINDS[kind]))


def meson(
    env: Venv, name: str, options: tuple[str, ...], extra_env: dict[str, str] | None = None
) -> Path:
    """Configures (once per set of options) and compiles build/<name>."""
    folder = BUILD / name
    program = env.program("meson")
    variables = _tools_path(env) | (extra_env or {})
    settings = "\n".join((*options, str(env.path), *sorted((extra_env or {}).values())))
    if _fresh_if_changed(folder, settings) or not (folder / "build.ninja").exists():
        step(f"configure build/{name}", [program, "setup", folder, *options], env=variables)
    step(f"compile build/{name}", [program, "compile", "-C", folder], env=variables)
    return folder
