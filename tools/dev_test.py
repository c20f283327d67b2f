"""dev_test: ./dev test, phase by phase."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree
from collections.abc import Sequence
from pathlib import Path

import counts
import dev_build
import dev_debian
import dev_forky
import dev_python
from dev_python import Venv
from dev_tally import Count, Tally
from dev_term import BUILD, ROOT, Arg, Stop, output, stream

# The first is always tested; the others as soon as a build has them.
BACKENDS = ("io_uring", "epoll")

PYTEST_LIMIT_S = 1200
PYTEST_SLOW_LIMIT_S = 3600  # under ASan, and with each test repeated
CONFORMANCE_LIMIT_S = 1800
CORE_LIMIT_S = 900
VALGRIND_SLOWER = 20

# Random tests with many examples; the limits of a single test are for the usual few.
DEEP = (
    "tests/python/test_differential_tasks.py",
    "tests/python/test_differential_protocols.py",
    "tests/python/test_differential_servers.py",
    "tests/python/test_differential_streams.py",
    "tests/python/test_differential_mixed.py",
    "tests/python/test_differential_processes.py",
    "--hypothesis-profile=deep",
    "--timeout=900",
    "-o",
    "faulthandler_timeout=1000",
)

ASAN = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def main(
    every: bool, version: str | None, phases: Sequence[str], pytest_args: Sequence[str]
) -> int:
    if version is not None:
        dev_python.check_version(version)
        if dev_python.find(version) is None:
            return dev_forky.test(version, phases, pytest_args)
    tally = Tally("test", phases)
    default = version or dev_python.DEFAULT
    if pytest_args:
        for backend in BACKENDS:
            title = f"pytest, {backend}, Python {default}"
            tally.phase(title, _pytest, default, "checked", backend, pytest_args)
        return tally.close()
    _core(tally, default)
    _python(tally, default)
    tally.phase("instructions of hot paths", counts.run, default)
    if every:
        for other in dev_python.present():
            if other != default:
                _python(tally, other)
        for newer in dev_forky.VERSIONS:
            if dev_python.find(newer) is None:
                tally.phase(f"Python {newer}, in Debian forky", forky, newer)
        _deep(tally, default)
    return tally.close()


def _core(tally: Tally, version: str) -> None:
    for kind in dev_build.CORE_KINDS:
        tally.phase(f"C tests, {kind}", _meson_test, version, kind)


def _python(tally: Tally, version: str) -> None:
    tally.phase(f"tests of the tools, Python {version}", _tools, version)
    for backend in BACKENDS:
        title = f"pytest, {backend}, Python {version}"
        tally.phase(title, _pytest, version, "checked", backend, ["tests/python"])
    for backend in BACKENDS:
        tally.phase(conformance_title(backend, version), conformance, version, backend)


def _deep(tally: Tally, version: str) -> None:
    """What only --all runs: minutes each, and they find other things than the daily phases."""
    for backend in BACKENDS:
        for kind in ("release", "asan"):
            title = f"pytest, {backend}, Python {version}, {kind} build"
            tally.phase(title, _pytest, version, kind, backend, ["tests/python"])
        title = f"random programs, {backend}, Python {version}, many"
        tally.phase(title, _pytest, version, "checked", backend, DEEP)
        title = f"reference leaks, {backend}, debug build of Python {version}"
        tally.phase(title, _refleak, version, backend)
        tally.phase(f"stress, {backend}, Python {version}", _stress, version, backend)
    tally.phase("C tests under valgrind", _valgrind, version)


def _meson_test(version: str, kind: str, *args: str, times_slower: int = 1) -> Count:
    folder = dev_build.core(version, kind)
    env = dev_python.venv(version, ("build",))
    return run_meson_test(env, folder, args, times_slower)


def run_meson_test(
    env: Venv, folder: Path, args: Sequence[str] = (), times_slower: int = 1
) -> Count:
    # Its name has the wrapper's in it, as in testlog-valgrind.json.
    for old in (folder / "meson-logs").glob("testlog*.json"):
        old.unlink()
    argv: list[Arg] = [
        env.program("meson"),
        "test",
        "-C",
        folder,
        "--no-rebuild",
        "--print-errorlogs",
        *args,
    ]
    variables = ASAN | {"GYRE_TEST_SLOWER": str(times_slower)}
    limit_s = CORE_LIMIT_S if times_slower == 1 else PYTEST_SLOW_LIMIT_S
    code = stream(argv, env=variables, limit_s=limit_s)
    logs = sorted((folder / "meson-logs").glob("testlog*.json"))
    if not logs:
        if code == 0:
            return Count.missing("no C test is defined yet")
        return Count.of_exit(code)
    count = Count()
    for line in logs[0].read_text().splitlines():
        result = json.loads(line)["result"]
        if result in ("OK", "EXPECTEDFAIL"):
            count.passed += 1
        elif result == "SKIP":
            count.skipped += 1
        else:
            count.failed += 1
    if code != 0 and count.failed == 0:
        count.failed, count.note = 1, f"meson test ended with status {code}"
    if count.passed + count.failed == 0:
        count.failed, count.note = 1, "every C test was skipped"
    return count


def _valgrind(version: str) -> Count:
    dev_debian.need(dev_debian.TO_TEST_ALL)
    wrap = "valgrind --error-exitcode=99 --quiet --leak-check=full --errors-for-leak-kinds=definite"
    suppressions = ROOT / "tools" / "valgrind.supp"
    if suppressions.exists():
        wrap += f" --suppressions={suppressions}"
    patience = f"--timeout-multiplier={VALGRIND_SLOWER}"
    return _meson_test(version, "core", f"--wrap={wrap}", patience, times_slower=VALGRIND_SLOWER)


def _tools(version: str) -> Count:
    env = dev_build.ready(version, ("test",), "checked")
    return run_pytest(env, ["tests/tools"], {}, "tools")


def _pytest(version: str, kind: str, backend: str, args: Sequence[str]) -> Count:
    env = dev_build.ready(version, ("test",), kind)
    variables = {"GYRE_BACKEND": backend}
    if kind == "asan":
        library = output(["gcc", "-print-file-name=libasan.so"])
        if not library or not os.path.isabs(library):
            raise Stop("gcc has no libasan.so: install the libasan package of its version.")
        # Python itself leaves memory to the end of the process: leaks are the refleak run's part.
        variables |= ASAN | {
            "LD_PRELOAD": os.path.realpath(library),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": ASAN["ASAN_OPTIONS"] + ":detect_leaks=0",
        }
    if not _has_backend(env, backend, variables):
        return Count.missing(f"gyre has no {backend} backend yet")
    return run_pytest(env, args, variables, f"pytest-{version}-{kind}-{backend}")


def _has_backend(env: Venv, backend: str, variables: dict[str, str]) -> bool:
    """A refused io_uring is for the tests to fail on, not a reason to leave them out."""
    ask = f"import gyre; gyre.new_event_loop(backend={backend!r}).close()"
    return backend == BACKENDS[0] or output([env.python, "-c", ask], variables) is not None


def _stress(version: str, backend: str) -> Count:
    env = dev_build.ready(version, ("test",), "checked")
    variables = {"GYRE_BACKEND": backend, "GYRE_STRESS": "4"}
    if not _has_backend(env, backend, variables):
        return Count.missing(f"gyre has no {backend} backend yet")
    return run_pytest(env, ["tests/stress"], variables, f"stress-{version}-{backend}")


def _refleak(version: str, backend: str) -> Count:
    env = dev_build.ready(version, ("test",), "dbg")
    args = ["-p", "refleak", "--timeout=600", "-k", "not asyncio", "tests/python"]
    variables = {
        "GYRE_BACKEND": backend,
        "PYTHONPATH": str(ROOT / "tools"),
        # A debug build shows what others ignore, and some tests look at what a child prints.
        "PYTHONWARNINGS": "ignore::ResourceWarning",
    }
    if not _has_backend(env, backend, variables):
        return Count.missing(f"gyre has no {backend} backend yet")
    return run_pytest(env, args, variables, f"refleak-{version}-{backend}")


def run_pytest(env: Venv, args: Sequence[str], variables: dict[str, str], name: str) -> Count:
    folders = [a for a in args if a.startswith("tests/") and (ROOT / a).is_dir()]
    if folders and not any(next((ROOT / f).rglob("test_*.py"), None) for f in folders):
        return Count.missing(f"nothing in {' '.join(folders)} yet")
    results = BUILD / "results"
    results.mkdir(parents=True, exist_ok=True)
    report = results / f"{name}.xml"
    report.unlink(missing_ok=True)
    argv: list[Arg] = [env.python, "-m", "pytest", f"--junitxml={report}", *args]
    slow = env.path.name != env.version
    limit_s = PYTEST_SLOW_LIMIT_S if slow else PYTEST_LIMIT_S
    code = stream(argv, env=variables, limit_s=limit_s)
    if code == 5:
        return Count(failed=1, note="pytest collected no test")
    if not report.exists():
        return Count.of_exit(code, f"pytest died with exit status {code}")
    count = Count()
    for suite in xml.etree.ElementTree.parse(report).iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        count.failed += failed
        count.skipped += skipped
        count.passed += max(0, int(suite.get("tests", 0)) - failed - skipped)
    if code != 0 and count.failed == 0:
        count.failed, count.note = 1, f"pytest ended with status {code}"
    return count


def conformance_title(backend: str, version: str) -> str:
    return f"conformance, {backend}, Python {version}"


def conformance(version: str, backend: str) -> Count:
    script = ROOT / "tests" / "conformance" / "run.py"
    if not script.exists():
        return Count.missing("tests/conformance/run.py is not there yet")
    env = dev_build.ready(version, ("test",), "checked")
    return run_conformance(env, script, backend)


def run_conformance(env: Venv, script: Path, backend: str) -> Count:
    """run.py prints a closing line of its own: N passed, M failed, K skipped."""
    text = BUILD / "results" / f"conformance-{backend}.out"
    text.parent.mkdir(parents=True, exist_ok=True)
    variables = {"GYRE_BACKEND": backend}
    code = stream([env.python, script], env=variables, limit_s=CONFORMANCE_LIMIT_S, tee=text)
    count = Count.of_closing_line(text.read_text(errors="replace"))
    if count is None:
        return Count(failed=1, note=f"no closing line, exit status {code}")
    if code != 0 and count.failed == 0:
        count.failed, count.note = 1, f"exit status {code}"
    return count


def forky(version: str, phases: Sequence[str] = ()) -> Count:
    code, count = dev_forky.test_counted(version, phases, ())
    if code != 0 and count.failed == 0:
        count.failed, count.note = 1, f"exit status {code}"
    return count
