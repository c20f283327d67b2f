"""What the differential tests share: a world in which a program runs, and how two are compared.

A program is a list of steps, a step a list of actions, an action a tuple: the name of a method
`op_<name>` of the world and its arguments.  The world does a step in one callback of its loop and
then runs the loop until nothing happens any more; the other ends of connections are plain sockets
that only the program touches.  So the trace depends on the program and on the loop alone.

Quiet means: a byte through a socketpair was seen by the loop, several times in a row, with turns in
between.  What the kernel had for the loop before the byte is handled when the byte is.
"""

import asyncio
import contextlib
import contextvars
import difflib
import logging
import re
import select
import signal
import socket
import ssl

import hypothesis
from conftest import CERTS, make_loop

QUIET_ROUNDS = 3  # without an event
ROUNDS = 500  # what has not ended then never does
TURNS = 5
SIGNALS = {"urg": signal.SIGURG, "winch": signal.SIGWINCH}  # ignored where nobody handles them
SIGNALS_PER_STEP = 6
# Told when the garbage is collected, which is not at the same time.
GARBAGE = ("Task exception was never", "Future exception was never", "Task was destroyed")
SCRUBBED = re.compile(
    r"<[^<>]*(<[^<>]*>[^<>]*)*>|\bfd=\d+|0x[0-9a-f]+|\bfile descriptor \d+|1\', \d+"
)
# What a library or a protocol may raise, and what a loop must let through.
EXCEPTIONS = {
    "value": lambda: ValueError("planned"),
    "os": lambda: OSError(5, "planned"),
    "reset": lambda: ConnectionResetError(104, "planned"),
    "pipe": lambda: BrokenPipeError(32, "planned"),
    "cancelled": lambda: asyncio.CancelledError("planned"),
    "key": lambda: KeyError("planned"),
    "stop": lambda: StopIteration("planned"),
    "base": lambda: Unusual("planned"),
    "exit": lambda: SystemExit("planned"),
    "interrupt": lambda: KeyboardInterrupt("planned"),
}


class Unusual(BaseException):
    """Neither an Exception nor one that a loop lets through on purpose."""


def examples(count):
    """Settings for this many examples, or in the same proportion more of them in a deep run."""
    daily = hypothesis.settings.get_profile("daily").max_examples
    return hypothesis.settings(
        max_examples=count * max(1, hypothesis.settings().max_examples // daily)
    )


def scrub(text):
    """A text without what names objects, types of the loop and descriptors."""
    return SCRUBBED.sub("<>", text)


def told(exc):
    """An exception as it may be compared."""
    if exc is None:
        return None
    if isinstance(exc, BaseExceptionGroup):
        return (type(exc).__name__, *sorted(map(blurred, map(told, exc.exceptions)), key=repr))
    if isinstance(exc, ssl.SSLError):  # the text has a line number of OpenSSL's caller
        return (type(exc).__name__, exc.reason)
    more = [str(exc.partial)] if isinstance(exc, asyncio.IncompleteReadError) else []
    return (type(exc).__name__, scrub(str(exc)), *more)


def blurred(event):
    """An event in which EPIPE is ECONNRESET.

    A loop that both reads and writes when the peer leaves is told one or the other, by what it
    does first; a write pipe of asyncio's may have seen POLLERR and make an error of its own.
    """
    if isinstance(event, tuple):
        if event and event[0] in ("BrokenPipeError", "ConnectionResetError"):
            return ("ConnectionError",)
        return tuple(map(blurred, event))
    return [*map(blurred, event)] if isinstance(event, list) else event


class Log(logging.Handler):
    def __init__(self, world):
        super().__init__(logging.WARNING)
        self.world = world

    def emit(self, record):
        self.world.note("loop", "log", record.levelname, scrub(record.getMessage()))


class World:
    """A loop, what happened on it, and the way to do a program's steps."""

    def __init__(self, loop):
        self.loop = loop
        self.trace = []
        self.step = {}
        self.events = 0
        self.torn = False  # a peer left while much was on its way to it
        self.over = False
        self.calls_made = self.signals_raised = 0
        self.closing = []  # what to close at the end
        loop.set_exception_handler(self.on_exception)
        self.bell, self.rope = socket.socketpair()
        self.bell.setblocking(False)
        loop.add_reader(self.bell, self.on_bell)

    # ---- the trace: of each step, what happened to each thing, in order.  Which one of two
    # descriptors that are ready at once comes first asyncio does not promise.

    def begin(self, name):
        self.step = {}
        self.signals_raised = 0
        self.trace.append((name, self.step))

    def note(self, label, *event):
        self.events += 1
        self.step.setdefault(label, []).append(blurred(event) if self.torn else event)

    def count(self, label, name, count, *rest):
        """An event with a number: adjacent ones are one, however the number was cut."""
        self.events += 1
        events = self.step.setdefault(label, [])
        if events and events[-1][0] == name and events[-1][2:] == rest:
            count += events.pop()[1]
        events.append((name, count, *rest))

    def label_of(self, context):
        """Whose trace a report belongs to."""
        return "loop"

    def on_exception(self, loop, context):
        if context["message"].startswith(GARBAGE):
            return
        # Where asyncio has a handle gyre may call a transport without one.
        keys = sorted(set(context) - {"handle", "source_traceback", "message", "exception"})
        message = context["message"]
        exc = told(context.get("exception"))
        if message.startswith("Exception in callback"):  # the rest names methods of the loop
            self.note("loop", "handler", exc)
        else:
            self.note(self.label_of(context), "handler", scrub(message), exc, *keys)

    # ---- turns

    def on_bell(self):
        with contextlib.suppress(BlockingIOError):  # after a KeyboardInterrupt: it is told twice
            self.bell.recv(100)
        self.left = TURNS
        self.turn()

    def turn(self):
        if self.over:  # one of a round that an exception has ended
            return
        self.left -= 1
        if self.left > 0:
            self.loop.call_soon(self.turn)
        else:
            self.loop.stop()

    def round(self):
        self.rope.send(b"!")
        self.left = TURNS
        while self.left > 0:
            try:
                self.loop.run_forever()
            except BaseException as exc:  # what a loop lets through ends the run, not the world
                self.note("loop", "raised", told(exc))
                if isinstance(exc, AssertionError):
                    raise

    def pump(self):
        """What the other ends do by themselves; True if there was something."""
        return False

    def settle(self):
        quiet = 0
        for _ in range(ROUNDS):
            before = self.events
            self.round()
            if self.pump() or self.events != before:
                quiet = 0
            else:
                quiet += 1
            if quiet == QUIET_ROUNDS:
                break

    # ---- programs

    def schedule(self, how, callback, *args):
        """The handle of a callback of the next turn."""
        if how == "later":
            return self.loop.call_later(0, callback, *args)
        if how == "at":
            context = contextvars.Context()
            return self.loop.call_at(self.loop.time(), callback, *args, context=context)
        if how == "threadsafe":
            return self.loop.call_soon_threadsafe(callback, *args)
        return self.loop.call_soon(callback, *args)

    def op_call(self, how, actions, raises, cancelled):
        """A callback that does more, and may raise: of all of them and of signals, in order."""
        self.calls_made += 1
        handle = self.schedule(how, self.called, f"call {self.calls_made}", actions, raises)
        if cancelled:
            handle.cancel()
        return handle.cancelled()

    def called(self, what, actions, raises):
        self.note("calls", what)
        for action in actions:
            self.act("calls", action)
        if raises is not None:
            raise EXCEPTIONS[raises]()

    def op_signal(self, what, name, actions, raises):
        number = SIGNALS[name]
        if what == "add":
            self.calls_made += 1
            args = f"{name} {self.calls_made}", actions, raises
            self.loop.add_signal_handler(number, self.called, *args)
        elif what == "remove":
            return self.loop.remove_signal_handler(number)
        elif self.signals_raised < SIGNALS_PER_STEP:  # handlers, too, raise them
            self.signals_raised += 1
            signal.raise_signal(number)
        return None

    def act(self, label, action):
        """One action: what it returns or raises is noted."""
        name, *args = action
        try:
            result = getattr(self, "op_" + name)(*args)
        except (Exception, asyncio.CancelledError) as exc:
            self.note(label, name, *args, "raised", told(exc))
        else:
            if result is not None:
                self.note(label, name, *args, result)

    def play(self, program):
        for number, step in enumerate(program):
            self.begin(number)
            self.loop.call_soon(self.do_step, step)
            self.settle()
        self.begin("end")
        self.finish()
        self.over = True

    def do_step(self, step):
        """The other ends act first: what is written in a callback may leave at its end."""
        for action in sorted(step, key=lambda action: not action[0].startswith("peer_")):
            self.act("step", action)

    def finish(self):
        """Ends what still is; may note."""
        removed = [*map(self.loop.remove_signal_handler, SIGNALS.values())]
        if self.calls_made:
            self.note("calls", "removed", removed)

    def close(self):
        self.loop.remove_reader(self.bell)
        for thing in (self.bell, self.rope, *self.closing):
            thing.close()


def trace_of(kind, make_world, program, debug=False):
    """What a program leaves on a new loop."""
    loop = make_loop(kind)
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    logger = logging.getLogger("asyncio")
    world = make_world(loop)
    log = Log(world)
    logger.addHandler(log)
    try:
        world.play(program)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        return world.trace
    finally:
        logger.removeHandler(log)
        world.close()
        loop.close()


def lines_of(trace):
    for name, step in trace:
        yield f"step {name}"
        for label, events in sorted(step.items()):
            for event in events:
                yield f"{label}: {event}"


def script(program):
    return "".join(f"    {step!r},\n" for step in program if step)


def compare(make_world, program, debug=False):
    """Fails with a short script of the program and the difference of the traces."""
    expected = [*lines_of(trace_of("asyncio", make_world, program, debug))]
    found = [*lines_of(trace_of("gyre", make_world, program, debug))]
    if expected != found:
        difference = difflib.ndiff(expected, found)
        report = "\n".join(line for line in difference if not line.startswith("?"))
        raise AssertionError(
            f"\nprogram = [\n{script(program)}]  # debug={debug}\n- asyncio, + gyre\n{report}"
        )


# ---- sockets


def pattern(offset, count):
    """The bytes of a stream at this offset: each place knows its number."""
    first = offset % 251
    return (bytes(range(251)) * (count // 251 + 2))[first : first + count]


def readable(sock):
    return bool(select.select([sock], [], [], 0)[0])


_contexts = {}


def ssl_context(server_side):
    """One context per side for all programs: making one costs more than running a program."""
    if server_side not in _contexts:
        if server_side:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTS / "localhost.crt", CERTS / "localhost.key")
        else:
            context = ssl.create_default_context(cafile=str(CERTS / "localhost.crt"))
        _contexts[server_side] = context
    return _contexts[server_side]
