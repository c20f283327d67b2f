"""gyre.Loop(busy_poll=): looking for events before sleeping changes nothing but the time."""

import asyncio
import threading

import gyre
import pytest

pytestmark = pytest.mark.only("gyre")


@pytest.mark.parametrize(
    "value, error",
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (1e9, ValueError),
        ("50", TypeError),
        (1j, TypeError),
    ],
)
def test_bad_values(value, error):
    with pytest.raises(error, match="busy_poll"):
        gyre.new_event_loop(busy_poll=value)


def test_zero_never_looks(new_loop):
    loop = new_loop(busy_poll=0)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert loop.stats()["waits"] > 0
    assert loop.stats()["spins"] == 0


def test_a_number_looks_before_each_sleep(new_loop):
    loop = new_loop(busy_poll=20)
    loop.run_until_complete(asyncio.sleep(0.01))
    stats = loop.stats()
    assert stats["spins"] == stats["waits"] > 0
    assert stats["spin_ns"] >= 20_000


def test_an_idle_loop_sleeps(new_loop):
    loop = new_loop()
    for _ in range(20):
        loop.run_until_complete(asyncio.sleep(0.002))
    assert loop.stats()["spins"] == 0


@pytest.mark.parametrize("busy_poll", [0, 1, 1000, None])
def test_wakeups_from_another_thread(new_loop, busy_poll):
    loop = new_loop(busy_poll=busy_poll)

    async def ping(times):
        replies = asyncio.Queue()

        def thread():
            for number in range(times):
                seen = threading.Event()
                loop.call_soon_threadsafe(lambda n=number, s=seen: (replies.put_nowait(n), s.set()))
                assert seen.wait(10)

        runner = threading.Thread(target=thread)
        runner.start()
        got = [await replies.get() for _ in range(times)]
        runner.join()
        return got

    assert loop.run_until_complete(ping(200)) == list(range(200))


@pytest.mark.parametrize("busy_poll", [0, 100, None])
def test_echo(new_loop, busy_poll):
    loop = new_loop(busy_poll=busy_poll)

    async def serve(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for number in range(300):
            writer.write(b"%5d" % number)
            assert await reader.readexactly(5) == b"%5d" % number
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_timer_within_the_look_is_not_early(new_loop):
    loop = new_loop(busy_poll=1000)

    async def main():
        for _ in range(200):
            when = loop.time() + 0.0002
            done = loop.create_future()
            loop.call_at(when, done.set_result, None)
            await done
            assert loop.time() >= when

    loop.run_until_complete(main())
