"""Small sends of many connections leave together: nothing that looks may see it."""

import asyncio
import contextlib
import os
import socket

import pytest

PEERS = 24
ROUNDS = 4


class Server(asyncio.Protocol):
    """Answers each message; the other connections' answers of the turn may be held meanwhile."""

    def __init__(self, scene):
        self.scene = scene

    def connection_made(self, transport):
        self.transport = transport
        self.scene.servers.append(self)

    def data_received(self, data):
        self.transport.write(b"<" + data)
        self.transport.write(b">")
        self.scene.answered += 1
        self.scene.act(self)
        self.scene.before = self
        if self.scene.answered % PEERS == 0:
            self.scene.all_answered.set()

    def connection_lost(self, exc):
        self.scene.lost += 1


class Scene:
    def __init__(self, loop, act):
        self.loop = loop
        self.act = act
        self.servers = []
        self.before = None  # who answered in the callback before this one
        self.answered = 0
        self.lost = 0
        self.all_answered = asyncio.Event()

    async def ask_all(self):
        self.all_answered.clear()
        for client in self.clients:
            client.sendall(b"question")
        async with asyncio.timeout(10):
            await self.all_answered.wait()

    def answers(self):
        """Blocking: what is not on its way by now would hang."""
        return [client.recv(100) for client in self.clients]

    async def __aenter__(self):
        self.server = await self.loop.create_server(lambda: Server(self), "127.0.0.1", 0)
        address = self.server.sockets[0].getsockname()
        self.clients = [socket.create_connection(address, 10) for _ in range(PEERS)]
        async with asyncio.timeout(10):
            while len(self.servers) < PEERS:
                await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *exc):
        for client in self.clients:
            client.close()
        async with asyncio.timeout(10):
            while self.lost < PEERS:
                await asyncio.sleep(0.001)
        self.server.close()


def look_on(server):
    pass


def test_answers_leave_by_the_end_of_the_turn(loop, kind):
    async def main():
        async with Scene(loop, look_on) as scene:
            for _ in range(ROUNDS):
                await scene.ask_all()
                assert scene.answers() == [b"<question>"] * PEERS

    loop.run_until_complete(main())


@pytest.mark.only("gyre")
@pytest.mark.parametrize("send", ["adaptive", "immediate", "batched"])
def test_who_holds(new_loop, send):
    """What leaves together leaves by few calls, where the backend can and the policy says so.
    (Whether answers of several callbacks do depends on how quick they are: tests/core/test_hold.c.)
    """
    loop = new_loop(send=send)

    async def main():
        async with Scene(loop, look_on) as scene:
            for server in scene.servers:
                server.transport.write(b"news")
            await asyncio.sleep(0)
            assert scene.answers() == [b"news"] * PEERS

    loop.run_until_complete(main())
    held = PEERS if send == "adaptive" and loop.backend == "io_uring" else 0
    assert loop.stats()["sends_held"] == held


def size(server):
    for other in server.scene.servers:
        assert other.transport.get_write_buffer_size() == 0


def abort(server):
    if server.scene.before is not None:
        server.scene.before.transport.abort()


def close(server):
    if server.scene.before is not None:
        server.scene.before.transport.close()


def eof(server):
    if server.scene.before is not None:
        server.scene.before.transport.write_eof()


@pytest.mark.parametrize("act", [size, abort, close, eof], ids=lambda act: act.__name__)
def test_what_is_written_before_is_delivered(loop, act):
    async def main():
        async with Scene(loop, look_on) as scene:
            for _ in range(ROUNDS):
                await scene.ask_all()
                assert scene.answers() == [b"<question>"] * PEERS
            scene.before = None
            scene.act = act
            await scene.ask_all()
            assert scene.answers() == [b"<question>"] * PEERS

    loop.run_until_complete(main())


async def warm(loop):
    """A scene whose callbacks are known to be quick."""
    scene = await Scene(loop, look_on).__aenter__()
    for _ in range(ROUNDS):
        await scene.ask_all()
        assert scene.answers() == [b"<question>"] * PEERS
    scene.answered = 0
    return scene


def arrived(scene):
    """How many answers are there by now."""
    count = 0
    for client in scene.clients:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            count += client.recv(100) == b"<question>"
    return count


def test_stop_in_the_middle(loop):
    """What was written in callbacks of the last turn is on its way when the run has ended."""

    def stop(server):
        server.scene.loop.stop()

    scene = loop.run_until_complete(warm(loop))
    scene.act = stop
    for client in scene.clients:
        client.sendall(b"question")
    loop.run_forever()
    assert 1 <= scene.answered <= PEERS
    assert arrived(scene) == scene.answered
    loop.run_until_complete(scene.__aexit__())


def test_an_exception_in_the_middle(loop):
    """What ends the run leaves nothing unsent that callbacks before it have written."""

    def leave(server):
        if server.scene.answered == PEERS // 2:
            raise KeyboardInterrupt

    scene = loop.run_until_complete(warm(loop))
    scene.act = leave
    for client in scene.clients:
        client.sendall(b"question")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert scene.answered == PEERS // 2
    assert arrived(scene) == scene.answered
    loop.run_until_complete(scene.__aexit__())


def test_streams_answer_together(loop):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def ask(address, number):
        reader, writer = await asyncio.open_connection(*address)
        for turn in range(50):
            writer.write(b"line %d %d\n" % (number, turn))
            assert await reader.readline() == b"LINE %d %d\n" % (number, turn)
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        async with asyncio.timeout(30):
            await asyncio.gather(*(ask(address, number) for number in range(PEERS)))
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_fork_in_the_middle(loop):
    """The child has copies of what is held, and sends none of it."""

    def fork(server):
        if server.scene.answered % PEERS == PEERS // 2:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            assert os.waitpid(pid, 0) == (pid, 0)

    async def main():
        async with Scene(loop, look_on) as scene:
            for _ in range(ROUNDS):
                await scene.ask_all()
                assert scene.answers() == [b"<question>"] * PEERS
            scene.act = fork
            await scene.ask_all()
            assert scene.answers() == [b"<question>"] * PEERS
            for client in scene.clients:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(100)

    loop.run_until_complete(main())


def test_broadcast(loop):
    """One callback that writes to many connections."""

    async def main():
        async with Scene(loop, look_on) as scene:
            for number in range(ROUNDS):
                for server in scene.servers:
                    server.transport.write(b"news %d" % number)
                await asyncio.sleep(0)
                assert scene.answers() == [b"news %d" % number] * PEERS

    loop.run_until_complete(main())
