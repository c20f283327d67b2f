"""Arms: what is compared. An arm is a loop, perhaps with options or environment variables.

gyre   uvloop   asyncio                 the loops
c-epoll   c-uring                       the C echo servers, network cells only
floor   floor@spin_us=50                less than any loop (bench/net/floor.c, bench/micro/floor.c)
floor@future=whole                      with futures as asyncio's are to see, micro cells only
aiofiles   anyio   threads   blocking   other ways to work with files, on asyncio; files cells only
gyre@GYRE_BACKEND=epoll                 upper case: an environment variable
gyre@busy_poll=50                       lower case: an argument of gyre.new_event_loop
gyre@GYRE_BACKEND=epoll,busy_poll=50    both
asyncio#2                               the same again: the noise between equal arms
"""

import asyncio
import importlib
import os
import re
from dataclasses import dataclass, field

LOOPS = ("gyre", "uvloop", "asyncio")
C_LIMITS = ("c-epoll", "c-uring")
FLOOR = "floor"
FILES = ("aiofiles", "anyio", "threads", "blocking")
ALL = (*LOOPS, *C_LIMITS, FLOOR, *FILES)


@dataclass(frozen=True)
class Arm:
    spec: str
    loop: str
    environment: dict = field(default_factory=dict, hash=False)
    options: dict = field(default_factory=dict, hash=False)

    @property
    def is_c(self):
        return self.loop in C_LIMITS

    @property
    def is_floor(self):
        return self.loop == FLOOR

    @property
    def module(self):
        """What its processes import."""
        return "bench.net.floor" if self.is_floor else self.loop

    @property
    def is_files(self):
        return self.loop in FILES

    @property
    def is_limit(self):
        """Shown beside the others, and not what gyre is judged against."""
        return self.is_c or self.is_floor or self.loop == "blocking"


def parse_value(text):
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_arm(spec):
    match = re.fullmatch(r"([a-z][a-z-]*)(?:#\d+)?(?:@(.+))?", spec)
    if match is None or match[1] not in ALL:
        names = ", ".join(ALL)
        raise ValueError(f"{spec!r} is not an arm: it starts with one of {names}")
    environment, options = {}, {}
    for item in filter(None, (match[2] or "").split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{spec!r}: {item!r} is not NAME=value")
        if name.isupper():
            environment[name] = value
        else:
            options[name] = parse_value(value)
    if options and match[1] not in ("gyre", FLOOR):
        raise ValueError(f"{spec!r}: only gyre's loop and the floor take options")
    return Arm(spec, match[1], environment, options)


def new_event_loop(arm):
    """A loop for this arm. Its environment stays set: gyre reads it when the loop is made."""
    os.environ.update(arm.environment)
    if arm.loop == "gyre":
        import gyre

        return gyre.new_event_loop(**arm.options)
    if arm.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if arm.is_floor:
        from bench.micro import floor

        return floor.new_event_loop(arm.options.get("future", "bare"))
    if arm.loop in ("aiofiles", "anyio"):
        importlib.import_module(arm.loop)
    if arm.loop == "asyncio" or arm.is_files:
        return asyncio.new_event_loop()
    raise ValueError(f"{arm.spec} is not a Python loop")


def run(arm, main):
    """asyncio.run(main) on the arm's loop."""
    with asyncio.Runner(loop_factory=lambda: new_event_loop(arm)) as runner:
        return runner.run(main)


def missing(arm):
    """Why this arm cannot run here, or None."""
    if arm.is_c:
        return None
    try:
        loop = new_event_loop(arm)
    except Exception as error:  # whatever it is, the table says it
        return f"{type(error).__name__}: {error}"
    finally:
        for name in arm.environment:
            os.environ.pop(name, None)
    loop.close()
    return None
