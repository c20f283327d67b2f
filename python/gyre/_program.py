"""python -m gyre script.py: an unmodified program with gyre's loop as asyncio's default."""

from __future__ import annotations

import asyncio
import io
import os
import runpy
import sys
import types
from asyncio import events
from importlib.machinery import SourceFileLoader

from .loop import new_event_loop

__all__ = ["run_module", "run_script", "use_by_default"]


def use_by_default() -> None:
    """What asks asyncio for a new loop, asyncio.run() first of all, gets gyre's from now on."""
    if sys.version_info < (3, 16):
        from ._policy import set_policy

        set_policy()
    else:
        events.new_event_loop = asyncio.new_event_loop = new_event_loop


def run_script(path: str, arguments: list[str]) -> None:
    """Run a file as `python path arguments...` does: as __main__, its folder first in sys.path."""
    sys.argv = [path, *arguments]
    if os.path.isdir(path) or not path.endswith((".py", ".pyw")) and _is_archive(path):
        use_by_default()
        runpy.run_path(path, run_name="__main__")
        return
    with io.open_code(os.path.abspath(path)) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    # Not runpy: the program's module must stay __main__ until the interpreter ends.
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__dict__["__builtins__"] = __builtins__
    module.__dict__["__cached__"] = None
    sys.modules["__main__"] = module
    use_by_default()
    exec(code, module.__dict__)


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module as `python -m name arguments...` does."""
    sys.argv = [name, *arguments]
    use_by_default()
    runpy.run_module(name, run_name="__main__", alter_sys=True)
