"""dev_cli: the command line of ./dev."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence

import dev_build
import dev_debian
import dev_python
from dev_term import BUILD, ROOT, Stop, environment, say, tree_lock


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev",
        description="Builds, tests, measures and shows gyre. Each command first sets up what it"
        " needs: Debian packages (as root), a virtual environment in .venv, a build in build.",
    )
    sub = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return sub.add_parser(name, help=text, description=text)

    def version(p: argparse.ArgumentParser) -> None:
        p.add_argument(
            "--python", metavar="X.Y", help=f"the Python to use (default {dev_python.DEFAULT})"
        )

    p = command("demo", "a real ASGI application under load on asyncio, uvloop and gyre")
    p.add_argument("--quick", action="store_true", help="two short repetitions")
    version(p)

    p = command("test", "the tests; after --, arguments for pytest alone")
    p.add_argument("--all", action="store_true", help="every Python, ASan, valgrind, refleaks")
    p.add_argument(
        "--phase",
        metavar="TEXT",
        action="append",
        default=[],
        help="only phases that have this in their name; also twice, and with --all",
    )
    version(p)

    p = command("others", "CPython's asyncio tests on every other Python there is to be had")
    p.add_argument(
        "--limit", metavar="SECONDS", type=float, help="begin none when so much time has passed"
    )

    p = command("bench", "the benchmarks; every further argument goes to bench/run.py")
    version(p)

    p = command("lint", "format, types, warnings, static analysis and the rules of the tree")
    p.add_argument("--fix", action="store_true", help="format the files, then check")

    p = command("build", "build gyre and install it into .venv/<X.Y>")
    p.add_argument("--kind", choices=sorted(dev_build.KINDS), default="release")
    version(p)

    p = command("run", "a command in the environment: ./dev run python -m gyre doctor")
    p.add_argument("--kind", choices=sorted(dev_build.KINDS), default="release")
    version(p)

    p = command("clean", "remove build; with --all also .venv and the forky root")
    p.add_argument("--all", action="store_true")
    return parser


def main(argv: Sequence[str]) -> int:
    passes_rest = {"bench", "run"}
    args, rest = _parser().parse_known_args(list(argv))
    if rest and rest[0] == "--":
        rest = rest[1:]
    elif rest and args.command not in passes_rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    # So that a kill ends what was started too: phases run in sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _dispatch(args, rest)
    except Stop as exc:
        say(f"dev: {exc}")
        return 1
    except KeyboardInterrupt:
        say("\ndev: interrupted")
        return 130


def _dispatch(args: argparse.Namespace, rest: list[str]) -> int:
    if args.command == "run":
        with tree_lock():
            env = dev_build.ready(_version(args), (), args.kind)
        return _exec(env.path, rest or ["python"])
    if args.command == "bench":
        return _bench(args, rest)
    if args.command == "demo":
        return _demo(args)
    with tree_lock():
        if args.command == "test":
            import dev_test

            return dev_test.main(args.all, args.python, args.phase, rest)
        if args.command == "others":
            import dev_others

            return dev_others.main(args.limit)
        if args.command == "lint":
            import dev_lint

            return dev_lint.main(args.fix)
        if args.command == "build":
            env = dev_build.ready(_version(args), (), args.kind)
            say(f"gyre ({args.kind}) is in {env.path.relative_to(ROOT)}; try ./dev run python")
            return 0
    return _clean(args.all)


def _version(args: argparse.Namespace) -> str:
    return dev_python.check_version(args.python or dev_python.DEFAULT)


def _bench(args: argparse.Namespace, rest: list[str]) -> int:
    script = ROOT / "bench" / "run.py"
    if not script.exists():
        raise Stop("bench/run.py is not there yet.")
    with tree_lock():
        dev_debian.need(dev_debian.TO_BUILD)
        dev_debian.wish(dev_debian.TO_BENCH)
        env = dev_build.ready(_version(args), ("bench",), "release")
    return _exec(env.path, ["python", str(script), *rest])


def _demo(args: argparse.Namespace) -> int:
    with tree_lock():
        dev_debian.need(dev_debian.TO_DEMO)
        env = dev_build.ready(_version(args), ("demo",), "release")
    script = str(ROOT / "bench" / "http" / "run.py")
    return _exec(env.path, ["python", script, *(["--quick"] if args.quick else [])])


def _exec(venv: os.PathLike[str], argv: list[str]) -> int:
    """Becomes the command, with the environment's programs first on the path."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    env = environment({"VIRTUAL_ENV": str(venv)})
    env["PATH"] = f"{venv}/bin:{env['PATH']}"
    program = shutil.which(argv[0], path=env["PATH"])
    if program is None:
        raise Stop(f"there is no program {argv[0]}.")
    os.execve(program, argv, env)


def _clean(everything: bool) -> int:
    folders = [BUILD]
    if everything:
        import dev_forky

        folders.append(ROOT / ".venv")
        dev_forky.remove()
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
            say(f"removed {folder.relative_to(ROOT)}")
    return 0
