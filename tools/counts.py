"""counts: how many of gyre's own instructions each of ten hot paths executes, against a budget.

    python3 tools/counts.py                    counts and compares; 0 if every path keeps its budget
    python3 tools/counts.py --update           writes what was counted into tools/counts.txt
    python3 tools/counts.py --profile sleep0   the functions of one path, Python's and libc's too

Wall time on shared cores lies; callgrind counts.  Counted is what the extension executes itself, in
a release build on the reference Python and the epoll backend (callgrind knows no io_uring): not
what it calls in libpython or libc, which differ between machines.  A clock of our own
(counts_clock.c) makes each run execute the same instructions.  The compiler matters as well, so
the table names it; with another one the paths count as skipped.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import dev_build
import dev_debian
import dev_python
from dev_python import Venv
from dev_tally import Count
from dev_term import BUILD, ROOT, Arg, Stop, output, say, step

TABLE = ROOT / "tools" / "counts.txt"
PATHS = ROOT / "tools" / "counts_paths.py"
CLOCK = ROOT / "tools" / "counts_clock.c"
TOLERANCE = 0.02
OPERATIONS = 200  # as in counts_paths.py

Costs = Counter[tuple[str, str]]  # (object, function): instructions of its own


def read_dump(path: Path) -> Costs:
    """The self cost of each function in one file of callgrind's."""
    names: dict[tuple[str, str], str] = {}
    costs: Costs = Counter()
    ours = {"ob": "", "fn": ""}
    is_callee = False
    for line in path.read_text(errors="replace").splitlines():
        if match := re.match(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?$", line):
            of_callee, kind, number, name = match.groups()
            if name is not None:
                names[kind, number] = name
            if not of_callee:
                ours[kind] = names[kind, number]
        elif line.startswith("calls="):
            is_callee = True  # the next line is the inclusive cost of the call
        elif line[:1].isdigit() or line[:1] in "+-*":
            if not is_callee and len(numbers := line.split()) > 1:
                costs[ours["ob"].rpartition("/")[2], ours["fn"]] += int(numbers[1])
            is_callee = False
    return costs


def package(env: Venv) -> Path:
    """A folder with the package gyre in it, of the release build; no environment is touched."""
    folder = dev_build.meson(env, f"{env.version}-counts", ("-Dbuildtype=release",))
    target = BUILD / "counts"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "gyre", target / "gyre")
    for extension in (folder / "src" / "binding").glob("_gyre*.so"):
        shutil.copy2(extension, target / "gyre")
    return target


def clock() -> Path:
    """A library to preload: the clock that does not depend on the machine, CLOCK."""
    target = BUILD / "counts" / "clock.so"
    argv: list[Arg] = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O2", "-o", target, CLOCK]
    step("compile the clock", argv)
    return target


def measure(env: Venv, folder: Path) -> dict[str, Costs]:
    """Per path: what OPERATIONS operations cost, by function; folder is package()'s."""
    variables = {"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
    variables["LD_PRELOAD"] = str(clock())
    names = (output([env.python, PATHS, "--list"], variables) or "").split()
    if not names:
        raise Stop("tools/counts_paths.py lists no paths")
    with tempfile.TemporaryDirectory() as scratch:
        dump = Path(scratch) / "callgrind.out"
        argv: list[Arg] = ["valgrind", "-q", "--tool=callgrind", "--dump-before=getppid"]
        argv += [f"--callgrind-out-file={dump}", env.python, PATHS]
        if shutil.which("setarch"):
            argv = ["setarch", "-R", *argv]  # the same addresses each time
        step("count the instructions of hot paths", argv, env=variables)
        found: dict[str, Costs] = {}
        for i, name in enumerate(names):
            # Each path calls getppid() four times; what lies between the calls is in these files.
            once, twice = (read_dump(dump.with_name(f"{dump.name}.{4 * i + n}")) for n in (2, 4))
            twice.subtract(once)
            found[name] = twice
    return found


def own(costs: Costs) -> float:
    """Instructions of the extension per operation."""
    return sum(n for (where, _), n in costs.items() if where.startswith("_gyre")) / OPERATIONS


def compiler() -> str:
    version = output([os.environ.get("CC", "cc"), "--version"]) or "none"
    match = re.search(r"\b(\d+)\.\d+", version)
    kind = "clang" if "clang" in version else "gcc"
    return f"{kind} {match[1]}" if match else "unknown"


def read_table() -> tuple[str, dict[str, float]]:
    made_with, budgets = "", {}
    for line in TABLE.read_text().splitlines():
        if match := re.match(r"# compiler: (.+)", line):
            made_with = match[1]
        elif line and not line.startswith("#"):
            name, budget = line.split()
            budgets[name] = float(budget)
    return made_with, budgets


def write_table(counts: dict[str, float]) -> None:
    lines = [
        "# Instructions of gyre's extension per operation; see tools/counts.py, which writes this.",
        f"# compiler: {compiler()}",
        *(f"{name:22}{count:10.1f}" for name, count in counts.items()),
    ]
    TABLE.write_text("\n".join(lines) + "\n")


def compare(counts: dict[str, float], budgets: dict[str, float]) -> Count:
    """Prints a line per path; a path is passed, or it failed."""
    result = Count()
    improved = False
    for name in sorted(counts.keys() | budgets.keys()):
        budget, count = budgets.get(name), counts.get(name)
        if budget is None or count is None:
            what = "has no budget" if budget is None else "is not there any more"
            say(f"   {name:22} {what}: python3 tools/counts.py --update")
            result.failed += 1
            continue
        change = count / budget - 1
        verdict = "ok"
        if change > TOLERANCE:
            verdict = "TOO MANY"
            result.failed += 1
        else:
            result.passed += 1
            improved |= change < -TOLERANCE
        say(f"   {name:22}{count:10.1f}  budget {budget:10.1f}  {change:+7.1%}  {verdict}")
    if result.failed:
        result.note = f"{result.failed} paths execute more than their budget"
        say("   See where: python3 tools/counts.py --profile NAME, here and on an older commit.")
        say("   If it has to be: python3 tools/counts.py --update, and say why in the commit.")
    if improved:
        say("   Better than the budget: lower it by python3 tools/counts.py --update")
    return result


def run(version: str) -> Count:
    """For ./dev test."""
    made_with, budgets = read_table()
    reason = ""
    if shutil.which("valgrind") is None:
        reason = "there is no valgrind: on Debian, apt install valgrind"
    elif version != dev_python.DEFAULT:
        reason = f"the budgets are for Python {dev_python.DEFAULT}"
    elif compiler() != made_with:
        reason = f"the budgets are for {made_with}, this is {compiler()}"
    if reason:
        say(f"skipped: {reason}")
        return Count(skipped=max(1, len(budgets)), note=reason)
    env = dev_python.venv(version, ("build",))
    counts = {name: own(costs) for name, costs in measure(env, package(env)).items()}
    return compare(counts, budgets)


def profile(costs: Costs) -> None:
    say(f"   {sum(costs.values()) / OPERATIONS:10.1f}  all, {own(costs):.1f} of them gyre's")
    for (where, function), count in costs.most_common(50):
        if count:
            say(f"   {count / OPERATIONS:10.1f}  {where:40} {function}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--update", action="store_true", help="write the table")
    parser.add_argument("--profile", metavar="PATH", help="one path, function by function")
    args = parser.parse_args()
    try:
        if not args.update and not args.profile:
            count = run(dev_python.DEFAULT)
            say(str(count))
            return 1 if count.failed else 0
        dev_debian.need([*dev_debian.TO_BUILD, "valgrind"])
        env = dev_python.venv(dev_python.DEFAULT, ("build",))
        counts = measure(env, package(env))
        if args.profile:
            profile(counts[args.profile])
        if args.update:
            write_table({name: own(costs) for name, costs in counts.items()})
            say(TABLE.read_text())
        return 0
    except (Stop, KeyError) as exc:
        say(f"counts: {exc}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
