"""The floor of the micro cells (floor.c): what no loop that calls Python can do without."""

import importlib.util
import sys

from bench import build

MODULE = "floor_micro"
CALLBACKS = ("loop.call_soon_fanout", "loop.call_soon_fanout_args")
TASKS = ("task.queue",)


def load():
    """The extension module, which a process has once; raises build.BuildError."""
    if MODULE not in sys.modules:
        spec = importlib.util.spec_from_file_location(MODULE, build.build_module(MODULE))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[MODULE] = module
    return sys.modules[MODULE]


def reason(parameters):
    """Why a micro cell is not for the floor, or None."""
    if parameters["workload"] not in CALLBACKS + TASKS:
        return "the floor has callbacks, and tasks that wait for futures"
    if parameters["workload"] in TASKS and sys.version_info >= (3, 14):
        return "from Python 3.14 on asyncio keeps its books elsewhere"
    return None


def new_event_loop(future="bare"):
    """`future`: "bare" or "whole", which has what a program can see of asyncio's."""
    return load().Loop(whole_futures={"bare": False, "whole": True}[future])
