"""gyre.Loop(receive=, send=): every way of receiving and sending carries the same bytes."""

import asyncio
import random

import gyre
import pytest

POLICIES = {
    "poll": {"receive": "poll"},
    "immediate": {"send": "immediate"},
    "adaptive": {"send": "adaptive"},
    "multishot": {"receive": "multishot"},
    "batched": {"send": "batched"},
    "multishot, batched": {"receive": "multishot", "send": "batched"},
}
pytestmark = pytest.mark.only("gyre")


@pytest.fixture(params=POLICIES)
def policy_loop(request, new_loop):
    return new_loop(**POLICIES[request.param])


class Sink(asyncio.Protocol):
    """Collects; pauses after every `pause_every` calls for one turn of the loop."""

    def __init__(self, loop, pause_every=0):
        self.loop = loop
        self.pause_every = pause_every
        self.received = bytearray()
        self.calls = 0
        self.paused = False
        self.finished = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert not self.paused, "data while paused"
        assert type(data) is bytes
        self.received += data
        self.calls += 1
        if self.pause_every and self.calls % self.pause_every == 0:
            self.transport.pause_reading()
            self.paused = True
            self.loop.call_soon(self.go_on)

    def go_on(self):
        self.paused = False
        self.transport.resume_reading()

    def connection_lost(self, exc):
        self.finished.set_result(exc)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, loop):
        self.memory = bytearray(1000)
        self.received = bytearray()
        self.finished = loop.create_future()

    def get_buffer(self, sizehint):
        return self.memory

    def buffer_updated(self, nbytes):
        self.received += self.memory[:nbytes]

    def connection_lost(self, exc):
        self.finished.set_result(exc)


def payload(seed, count):
    """Messages of very different sizes, most of them small."""
    rng = random.Random(seed)
    sizes = [rng.choice((1, 7, 64, 1000, 16384, 16385, 70_000)) for _ in range(count)]
    return [rng.randbytes(size) for size in sizes]


async def send_all(address, messages):
    reader, writer = await asyncio.open_connection(*address)
    for message in messages:
        writer.write(message)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("pause_every", (0, 1, 3))
def test_every_byte_in_order(policy_loop, pause_every):
    loop = policy_loop

    async def main():
        protocols = []

        def factory():
            protocols.append(Sink(loop, pause_every))
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        batches = [payload(seed, 40) for seed in range(8)]
        await asyncio.gather(*(send_all(address, batch) for batch in batches))
        while len(protocols) < len(batches):
            await asyncio.sleep(0.01)
        assert [await p.finished for p in protocols] == [None] * len(batches)
        expected = sorted(b"".join(batch) for batch in batches)
        assert sorted(bytes(p.received) for p in protocols) == expected
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert loop.stats()["buffers_leased"] == 0


def test_buffered_protocol(policy_loop):
    loop = policy_loop

    async def main():
        protocol = Buffered(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        messages = payload(1, 30)
        await send_all(server.sockets[0].getsockname(), messages)
        assert await protocol.finished is None
        assert bytes(protocol.received) == b"".join(messages)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_bytes_that_land_between_two_runs_are_kept(policy_loop):
    """The receive is cancelled when a run ends; the next run goes on where it was."""
    loop = policy_loop
    protocol = Sink(loop)
    server = loop.run_until_complete(loop.create_server(lambda: protocol, "127.0.0.1", 0))

    async def connect():
        return await asyncio.open_connection(*server.sockets[0].getsockname())

    reader, writer = loop.run_until_complete(connect())
    for number in range(20):
        writer.write(b"%d " % number)  # leaves at once: no callback is running
        loop.run_until_complete(asyncio.sleep(0))
    writer.close()
    assert loop.run_until_complete(protocol.finished) is None
    assert protocol.received == b"".join(b"%d " % number for number in range(20))
    server.close()
    loop.run_until_complete(server.wait_closed())


@pytest.mark.parametrize(
    "value, error", (("fast", ValueError), (1, TypeError), (b"poll", TypeError))
)
@pytest.mark.parametrize("option", ["receive", "send"])
def test_bad_values(value, error, option):
    with pytest.raises(error, match=option):
        gyre.Loop(**{option: value})


@pytest.mark.parametrize("policy", ["adaptive", "immediate", "batched", None])
def test_who_sends(new_loop, policy):
    """A short answer leaves by a call of its own, or by an operation of the ring."""
    loop = new_loop(send=policy)

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            before = loop.stats()
            for number in range(10):
                writer.write(b"%d" % number)
                assert await reader.readexactly(1) == b"%d" % number
            after = loop.stats()
            writer.close()
            await writer.wait_closed()
        server.close()
        return {name: after[name] - before[name] for name in ("send_calls", "send_ops")}

    done = loop.run_until_complete(main())
    assert done == {
        "send_calls": 0 if policy == "batched" else 20,
        "send_ops": 20 if policy == "batched" else 0,
    }
