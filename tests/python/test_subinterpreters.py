"""Loops in interpreters of their own: two with a GIL each, at once and again and again.

The program runs in a child, because a mistake here is a crash.  Each interpreter runs a loop with
tasks, timers, a TCP server and clients, and threads; none sees anything of the others.
"""

import sys

import pytest
from helpers import script

pytestmark = [
    pytest.mark.only("gyre"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="_asyncio itself has C globals in 3.11"),
]

# Two interpreters of 3.12.1 that do nothing but `import asyncio` at the same time leave the process
# with a broken heap: glibc aborts it when the main interpreter ends or works on.
HEAP_OF_3_12 = "3.12 breaks the heap when two interpreters import asyncio at once"

# What an interpreter does; the loops of two interpreters share the process and nothing else.
GUEST = """
import asyncio, gc, logging, sys, threading, weakref
import gyre

logging.getLogger("asyncio").setLevel(logging.ERROR)  # slow callbacks in debug mode

async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()

async def client(address, number):
    reader, writer = await asyncio.open_connection(*address)
    for i in range(10):
        data = b"%d-%d" % (number, i) * 100
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
    writer.close()
    await writer.wait_closed()

class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = asyncio.get_running_loop().create_future()
    def datagram_received(self, data, address):
        if not self.got.done():
            self.got.set_result(data)

async def datagram():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0))
    transport.sendto(b"datagram", transport.get_extra_info("sockname"))
    assert await protocol.got == b"datagram"
    transport.close()

async def from_thread():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    thread = threading.Thread(
        target=loop.call_soon_threadsafe, args=(future.set_result, "from a thread"))
    thread.start()
    assert await future == "from a thread"
    thread.join()

async def raises():
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return "late"

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client(address, n)) for n in range(4)]
        tasks.append(group.create_task(datagram()))
        tasks.append(group.create_task(asyncio.sleep(0.001)))
        tasks.append(group.create_task(from_thread()))
        late = group.create_task(raises())
        assert all(type(task) is gyre.Task for task in tasks)
        assert asyncio.all_tasks() >= {*tasks, late}
    assert late.result() == "late"
    server.close()
    await server.wait_closed()
    task = asyncio.create_task(asyncio.sleep(100))  # run() cancels it
    await asyncio.sleep(0)
    return weakref.ref(asyncio.get_running_loop())

for _ in range(3):
    gone = gyre.run(main())
    gc.collect()
    assert gone() is None
"""

# What is left open on purpose when the interpreter goes.
UNTIDY = """
import asyncio, warnings
import gyre
warnings.simplefilter("ignore")
loop = gyre.new_event_loop()
async def main():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    asyncio.create_task(asyncio.sleep(1000)).add_done_callback(print)
    return server, reader, writer
kept = loop.run_until_complete(main())
loop.call_soon(print)
loop.call_later(1000, print)
"""

# Each loop is inside of a callback that never gives up a GIL and waits for the other's mark:
# neither gets on unless both run at the same moment, with a GIL each.
TOGETHER = """
import asyncio, mmap, sys, time
import gyre

sys.setswitchinterval(1000)
marks = mmap.mmap(MARKS, 2)

def meet(met):
    marks[ME] = 1
    end = time.monotonic() + 20
    while not marks[1 - ME]:
        assert time.monotonic() < end, "the other loop does not run"
    met.set_result(None)

async def main():
    loop = asyncio.get_running_loop()
    assert type(loop) is gyre.Loop
    met = loop.create_future()
    loop.call_later(0.001, meet, met)
    await met

gyre.run(main())
"""

HOST = """
import faulthandler, os, sys, threading
faulthandler.enable()
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    def execute(number, code):
        failed = interpreters.exec(number, code)
        if failed is not None:
            raise RuntimeError(failed.errdisplay)
else:
    import _xxsubinterpreters as interpreters
    execute = interpreters.run_string

def guest(code):
    try:
        number = interpreters.create()
        try:
            execute(number, code)
        finally:
            interpreters.destroy(number)
    except BaseException as exc:
        mishaps.append(f"{type(exc).__name__}: {exc}")

def at_once(*codes):
    threads = [threading.Thread(target=guest, args=(code,)) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def count():
    return len(os.listdir("/proc/self/fd"))

mishaps = []
%s
assert mishaps == [], "\\n".join(mishaps)
print("fine", flush=True)
if sys.version_info < (3, 13):
    os._exit(0)  # HEAP_OF_3_12
"""


def run_host(body, **globals_):
    names = "".join(f"{name} = {value!r}\n" for name, value in globals_.items())
    done = script(names + HOST % body, timeout=55)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    return done.stderr


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_two_at_once_repeatedly(kind, debug):
    code = GUEST.replace("gyre.run(main())", f"gyre.run(main(), debug={debug})")
    stderr = run_host(
        """
at_once(GUEST, GUEST)  # what is loaded once is loaded now
before = count()
for _ in range(4):
    at_once(GUEST, GUEST)
assert count() == before, (before, count())
""",
        GUEST=code,
    )
    assert stderr == ""


def test_the_same_moment_in_two_loops(kind):
    run_host(
        """
marks = os.memfd_create("marks")
os.truncate(marks, 2)
at_once(*(f"ME, MARKS = {me}, {marks}" + TOGETHER for me in (0, 1)))
os.close(marks)
""",
        TOGETHER=TOGETHER,
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason=HEAP_OF_3_12)
def test_beside_the_main_interpreter(kind):
    """The main interpreter runs a loop, with signals and all, while the guests run theirs."""
    run_host(
        """
import asyncio, gyre, signal
async def main():
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, "signal")
    both = asyncio.to_thread(at_once, GUEST, GUEST)
    task = asyncio.create_task(both)
    while not task.done():
        await asyncio.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await got == "signal"
    assert len(asyncio.all_tasks()) == 1
gyre.run(main())
""",
        GUEST=GUEST,
    )


def test_an_interpreter_that_leaves_everything_open(kind):
    run_host(
        """
at_once(UNTIDY, UNTIDY)
before = count()
at_once(UNTIDY, GUEST, UNTIDY)
assert count() == before, (before, count())
""",
        GUEST=GUEST,
        UNTIDY=UNTIDY,
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_a_pool_of_interpreters(loop):
    """An executor whose workers are interpreters, each of which runs loops."""
    from concurrent.futures import InterpreterPoolExecutor

    async def main():
        with InterpreterPoolExecutor(2) as pool:
            calls = [loop.run_in_executor(pool, exec, GUEST, {}) for _ in range(4)]
            assert [await call for call in calls] == [None] * 4

    loop.run_until_complete(main())
