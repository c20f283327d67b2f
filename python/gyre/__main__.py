"""python -m gyre: run a program on gyre's loop, or look at what this machine allows."""

from __future__ import annotations

import os
import sys

USAGE = """\
usage: python -m gyre SCRIPT [ARGUMENT ...]        run a program with gyre's loop as the default
       python -m gyre -m MODULE [ARGUMENT ...]     the same for a module
       python -m gyre doctor [--json]              what this kernel, sandbox and user allow
       python -m gyre doctor --seccomp-profile [FILE]
                                                   a seccomp profile that allows io_uring
"""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["-h" | "--help", *_]:
            print(USAGE, end="")
        case ["doctor", *options]:
            from ._doctor import main as doctor

            return doctor(options)
        case ["-m", name, *rest]:
            from ._program import run_module

            run_module(name, rest)
        case [script, *rest] if not script.startswith("-"):
            if not os.path.exists(script):
                print(f"python -m gyre: there is no file {script!r}", file=sys.stderr)
                return 2
            from ._program import run_script

            run_script(script, rest)
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
