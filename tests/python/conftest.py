"""Fixtures shared by the Python tests: every test runs on asyncio's own loop and on gyre's.

asyncio is the oracle.  A test asks for `new_loop` (a factory) or `loop` (one loop) and asserts what
asyncio does; it passes on "asyncio" first.  `--loops gyre` runs one side only.

After each test the counters must balance: descriptors, threads, operations in flight, and nothing
may have been swallowed (unraisable exceptions, errors that asyncio logged).  A test that provokes
such an error takes it out of `unraisable` or `asyncio_log`, which is also how it asserts it.
"""

import asyncio
import gc
import logging
import os
import pathlib
import signal
import socket
import ssl
import sys
import threading
import time
import traceback

import hypothesis
import pytest
import tcp_tools

LOOPS = ("asyncio", "gyre")
# gyre's own code that calls OpenSSL itself, the same where it cannot, asyncio's classes.
TLS_CODES = {"asyncio": ("asyncio",), "gyre": ("native", "calls", "asyncio")}
CERTS = pathlib.Path(__file__).parent / "certs"

# The same few examples in every run; --hypothesis-profile=deep: many, and others each time.
hypothesis.settings.register_profile(
    "daily",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "deep",
    hypothesis.settings.get_profile("daily"),
    derandomize=False,
    max_examples=1000,
    print_blob=True,
)
hypothesis.settings.load_profile("daily")


def pytest_addoption(parser):
    parser.addoption(
        "--loops",
        default=",".join(LOOPS),
        help="comma-separated loops to run the tests on (default: %(default)s)",
    )


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--loops").split(",")
        marker = metafunc.definition.get_closest_marker("only")
        if marker is not None:
            wanted = [kind for kind in wanted if kind in marker.args]
        if "tls_code" in metafunc.fixturenames:
            pairs = [(kind, code) for kind in wanted for code in TLS_CODES[kind]]
            metafunc.parametrize("kind, tls_code", pairs, indirect=["tls_code"])
        else:
            metafunc.parametrize("kind", wanted)


def pytest_configure(config):
    config.addinivalue_line("markers", "only(kind): run on this loop alone, for what others lack")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in the background like this, and children would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    # The tests collect garbage often: what the collection of the tests made is not worth a look.
    gc.collect()
    gc.freeze()


def make_loop(kind, **options):
    """A new loop of this kind, not registered anywhere."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    import gyre

    return gyre.Loop(**options)


def descriptors():
    """The open descriptors of this process: {number: what it is}."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listdir itself had open
            pass
    return found


def eventually(condition, timeout=5.0):
    """True as soon as condition() is; for what another thread or the kernel ends by itself."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        gc.collect()
        time.sleep(0.001)
    return True


class Taken(list):
    """A list of mishaps; a test takes those that it expected."""

    def take(self):
        found = list(self)
        self.clear()
        return found


class AsyncioLog(logging.Handler):
    """What asyncio logs, at every level; errors that no test takes fail it."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = Taken()

    def emit(self, record):
        # The text as it is now: reprs in the arguments change later.
        record.msg, record.args = record.getMessage(), None
        self.records.append(record)

    def take(self, level=logging.WARNING):
        """The records at this level or above, removed."""
        found = [record for record in self.records if record.levelno >= level]
        self.records[:] = [record for record in self.records if record.levelno < level]
        return found

    def messages(self, level=logging.WARNING):
        """The texts of the records at this level or above, which are removed."""
        return [record.getMessage() for record in self.take(level)]


@pytest.fixture
def asyncio_log():
    logger = logging.getLogger("asyncio")
    handler = AsyncioLog()
    old_level = logger.level
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(old_level)


@pytest.fixture
def unraisable(monkeypatch):
    found = Taken()

    def on_unraisable(args):
        found.append((args.err_msg, args.exc_value, repr(args.object)))

    def on_thread(args):
        found.append((f"in thread {args.thread}", args.exc_value, ""))

    monkeypatch.setattr(sys, "unraisablehook", on_unraisable)
    monkeypatch.setattr(threading, "excepthook", on_thread)
    return found


def complaints_of(asyncio_log, unraisable, threads_before, fds_before):
    complaints = []
    for record in asyncio_log.take(logging.ERROR):
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        complaints.append(f"asyncio logged an error: {text}")
    for message, exc, what in unraisable.take():
        text = "".join(traceback.format_exception(exc)) if exc is not None else ""
        complaints.append(f"unraisable: {message} {what} {text}")
    extra = [t for t in threading.enumerate() if t not in threads_before and t.is_alive()]
    if extra and not eventually(lambda: not any(t.is_alive() for t in extra)):
        complaints.append(f"threads left behind: {extra}")
    if descriptors() != fds_before:
        # Descriptors of garbage, and those that the kernel closes a moment later, may take time.
        eventually(lambda: descriptors() == fds_before, timeout=2.0)
        now = descriptors()
        leaked = {fd: what for fd, what in now.items() if fds_before.get(fd) != what}
        lost = {fd: what for fd, what in fds_before.items() if fd not in now}
        if leaked:
            complaints.append(f"descriptors left open: {leaked}")
        if lost:
            complaints.append(f"descriptors of others closed: {lost}")
    return complaints


@pytest.fixture(autouse=True)
def balanced(asyncio_log, unraisable):
    """What a test opened is closed when it ends, and nothing went wrong unseen."""
    threads_before = threading.enumerate()
    fds_before = descriptors()
    yield
    gc.collect()
    complaints = complaints_of(asyncio_log, unraisable, threads_before, fds_before)
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def new_loop(kind, balanced):
    """Makes loops that the test need not close; a closed loop has nothing in flight."""
    loops = []

    def factory(**options):
        loop = make_loop(kind, **options)
        loops.append(loop)
        return loop

    yield factory
    for loop in loops:
        if not loop.is_closed():
            finish(loop)


def finish(loop):
    """Ends what still runs on the loop, as asyncio.run() does, and closes it."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        in_flight = ops_in_flight(loop)
    finally:
        loop.close()
    assert in_flight == 0, f"{in_flight} operations in flight after the run"


def ops_in_flight(loop):
    """How many operations the kernel holds for this loop; after a run there are none."""
    return loop.stats()["ops_in_flight"] if hasattr(loop, "stats") else 0


@pytest.fixture
def loop(new_loop):
    return new_loop()


@pytest.fixture
def new(kind):
    """The expression that makes a loop in a script."""
    return {
        "asyncio": "__import__('asyncio').SelectorEventLoop()",
        "gyre": "__import__('gyre').new_event_loop()",
    }[kind]


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def peer():
    """A place for the peers of a test, which are closed at its end."""
    socks = []
    yield socks
    for sock in socks:
        sock.close()


@pytest.fixture
def connect(loop, peer):
    """Makes (transport, protocol, peer's socket)."""

    async def make(protocol=None):
        ours, theirs = tcp_tools.pair()
        peer.append(theirs)
        protocol = tcp_tools.Quiet(loop) if protocol is None else protocol
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        return transport, protocol, theirs

    return make


@pytest.fixture
def tls_code(request, kind, monkeypatch):
    """Which of TLS_CODES a test of TLS runs on."""
    if kind == "gyre":
        monkeypatch.setattr("gyre._tls.implementation", request.param)
    return request.param


@pytest.fixture
def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.crt", CERTS / "localhost.key")
    return context


@pytest.fixture
def client_context():
    return ssl.create_default_context(cafile=str(CERTS / "localhost.crt"))
