"""The floor: the handlers of bench.net.server on what is less than any loop (floor.c).

The same classes and coroutines as on the loops, without a loop: there is no server object, no
transport but one object in C, no task. Ended by a signal, without a last line.
"""

import asyncio
import functools
import importlib.util
import sys

from bench import build

PROTOCOL, BUFFERED, COROUTINE = range(3)  # what floor.serve() calls its kinds
MODES = ("proto", "buffered", "streams", "sock")
ROLES = ("echo", "split")  # what needs no end of the stream and no flow control


def load():
    """The extension module; raises build.BuildError."""
    path = build.build_module("floor")
    spec = importlib.util.spec_from_file_location("floor", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reason(parameters):
    """Why a network cell is not for the floor, or None."""
    if parameters.get("tls") or parameters["mode"] not in MODES:
        return "the floor has neither TLS nor UDP nor readers"
    if parameters.get("role", "echo") not in ROLES:
        return "the floor only echoes"
    if parameters.get("load") not in (None, "churn"):
        return "the floor is not for this load"
    if parameters.get("load") and parameters["mode"] in ("streams", "sock"):
        return "a connection of the floor makes no reader, writer, socket or task"
    return None


def served(mode, handler, settings):
    """(what makes it, its kind), as floor.serve() wants them."""
    if mode == "streams":  # one object is reader and writer
        return lambda flow: handler(settings, flow, flow), COROUTINE
    if mode == "sock":  # ... or loop and socket
        return lambda flow: handler(settings, flow, flow), COROUTINE
    kind = BUFFERED if issubclass(handler, asyncio.BufferedProtocol) else PROTOCOL
    return functools.partial(handler, settings), kind


def serve(mode, handler, settings, listener, spin_us=0, send="immediate"):
    """Serves until the process is ended. `spin_us`: looks so long before it sleeps; `send`:
    "together" holds small sends, up to 32, for one call into io_uring."""
    module = sys.modules.get("floor") or load()
    make, kind = served(mode, handler, settings)
    listener.setblocking(False)
    module.serve(listener.fileno(), make, kind, spin_us, send == "together")
