"""dev_lint: ./dev lint, each check a phase that passes or fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dev_build
import dev_debian
import dev_python
import tidy
import tidy_c
from dev_python import Venv
from dev_tally import Count, Tally
from dev_term import BUILD, ROOT, Arg, output, say, step, stream
from tidy import Finding, Tree

# Two builds that see different code: what users get, and what tests get.
BUILDS = {
    "gcc": ("-Dbuildtype=release", "-Dwerror=true"),
    "clang": (
        "-Dbuildtype=debugoptimized",
        "-Dtests=true",
        "-Dasserts=true",
        "-Dfault_injection=true",
        "-Dwerror=true",
    ),
}
EXPORTS = ["PyInit__gyre"]
LIMIT_S = 600


def main(fix: bool) -> int:
    dev_debian.need(dev_debian.TO_LINT)
    env = dev_python.venv(dev_python.DEFAULT, ("build", "test", "lint"))
    tree = Tree(ROOT)
    c_files = [p for f in ("src", "tests", "bench", "tools") for p in tree.select(f, ".c", ".h")]
    python_files = ["dev", *tree.select("", ".py", ".pyi")]
    if fix:
        step("clang-format", [env.program("clang-format"), "-i", *c_files])
        step("ruff format", [env.program("ruff"), "format", "-q", *python_files])
        step(
            "ruff check --fix",
            [env.program("ruff"), "check", "-q", "--fix", "--exit-zero", *python_files],
        )
    tally = Tally("lint")
    own = sorted(p.name for p in (ROOT / "tools").glob("*.py"))

    def check(name: str, *argv: str | Path, cwd: Path = ROOT) -> None:
        tally.phase(name, _run, argv, cwd)

    tally.phase("tidy", _tidy)
    check("ruff check", env.program("ruff"), "check", "--quiet", *python_files)
    check("ruff format", env.program("ruff"), "format", "--quiet", "--diff", *python_files)
    check("clang-format", env.program("clang-format"), "--dry-run", "-Werror", *c_files)
    check("mypy gyre", env.python, "-m", "mypy", "--strict", "python/gyre")
    check("mypy tools", env.python, "-m", "mypy", "--strict", *own, cwd=ROOT / "tools")
    tally.phase("headers compile alone", _headers, env, tree)
    for compiler in BUILDS:
        tally.phase(f"{compiler} -Werror", _compile, env, compiler)
    tally.phase("exported symbols", _exported, env)
    tally.phase("clang-tidy", _clang_tidy, env, tree)
    tally.phase("cppcheck", _cppcheck)
    return tally.close()


def _run(argv: Sequence[Arg], cwd: Path) -> Count:
    return Count.of_exit(stream(argv, cwd=cwd, limit_s=LIMIT_S))


def _tidy() -> Count:
    return Count.of_exit(tidy.main([]))


def _report(findings: list[Finding]) -> Count:
    for finding in findings:
        say(f"{finding.path}:{finding.line}: {finding.text}")
    return Count.of_exit(1 if findings else 0, f"{len(findings)} findings")


def _headers(env: Venv, tree: Tree) -> Count:
    python = output([env.python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"])
    flags = ["-Isrc/core", "-Isrc/binding", f"-I{python}", "-DGY_ASSERTS=1"]
    headers = [p for f in ("src", "tests", "bench", "tools") for p in tree.select(f, ".h")]
    return _report(tidy_c.headers_alone(ROOT, headers, flags))


def _build_name(env: Venv, compiler: str) -> str:
    return f"{env.version}-lint-{compiler}"


def _compile(env: Venv, compiler: str) -> Count:
    dev_build.meson(env, _build_name(env, compiler), BUILDS[compiler], {"CC": compiler})
    return Count(passed=1)


def _exported(env: Venv) -> Count:
    folder = BUILD / _build_name(env, "gcc") / "src" / "binding"
    libraries = sorted(folder.glob("_gyre*.so"))
    if len(libraries) != 1:
        return Count(failed=1, note=f"{len(libraries)} extensions in {folder.relative_to(ROOT)}")
    return _report(tidy_c.exported(libraries[0], EXPORTS))


def _clang_tidy(env: Venv, tree: Tree) -> Count:
    """Seconds per file, so a file that passed is not looked at again until something changes."""
    commands = BUILD / _build_name(env, "clang")
    if not (commands / "compile_commands.json").exists():
        return Count(failed=1, note="the clang build did not get that far")
    shared = hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    for header in tree.select("src", ".h"):
        shared.update((ROOT / header).read_bytes())
    marks = BUILD / "clang-tidy"
    marks.mkdir(exist_ok=True)
    todo: list[tuple[str, Path]] = []
    failed = 0
    built = {
        os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
        for entry in json.loads((commands / "compile_commands.json").read_text())
    }
    sources = tree.select("src", ".c")
    for path in sources:
        if path not in built:
            failed += 1
            say(f"{path}: is in no meson.build")
            continue
        digest = shared.copy()
        digest.update(path.encode() + (ROOT / path).read_bytes())
        mark = marks / digest.hexdigest()
        if not mark.exists():
            todo.append((path, mark))
    say(f"{len(todo)} of {len(sources)} files to look at")

    def look(item: tuple[str, Path]) -> tuple[bool, str]:
        path, mark = item
        argv = ["clang-tidy", "--quiet", "--warnings-as-errors=*", "-p", str(commands), path]
        done = subprocess.run(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode == 0:
            mark.touch()
        # The analyzer tells the whole way to an error in notes: hundreds of lines.
        lines = (done.stdout + done.stderr).splitlines()
        errors = [line for line in lines if " error: " in line]
        return done.returncode == 0, "\n".join(errors or lines)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for (path, _), (good, text) in zip(todo, pool.map(look, todo)):
            if not good:
                failed += 1
                say(f"{path}:\n{text}")
    if failed:
        say(f"the way to an error: clang-tidy -p {commands.relative_to(ROOT)} FILE")
    return Count.of_exit(1 if failed else 0, f"{failed} files")


def _cppcheck() -> Count:
    cache = BUILD / "cppcheck"
    cache.mkdir(exist_ok=True)
    argv = ["cppcheck", "--quiet", "--error-exitcode=1", "--std=c11", "--inline-suppr", "-j2"]
    argv += ["--enable=warning,performance,portability", f"--cppcheck-build-dir={cache}"]
    argv += ["--suppressions-list=tools/cppcheck.txt", "--template=gcc", "-Isrc/core"]
    argv += ["-DGY_ASSERTS=1", "-DGY_FAULTS=1", '-DGPY_VERSION="x"', "src"]
    return Count.of_exit(stream(argv, limit_s=LIMIT_S))
