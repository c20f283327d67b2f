"""asyncio.Server over gyre's listeners, and the days when accepting does not work."""

import asyncio
import errno
import gc
import os
import resource
import socket
import sys

import pytest

LIMIT = 10.0


def drive(loop, coro):
    async def limited():
        async with asyncio.timeout(LIMIT):
            return await coro

    return loop.run_until_complete(limited())


class Kept(asyncio.Protocol):
    def __init__(self, loop):
        self.lost = loop.create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def address_of(server):
    return server.sockets[0].getsockname()


def test_server(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(Kept(loop))
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        assert server.is_serving()
        assert server.get_loop() is loop
        assert isinstance(server.sockets, tuple)
        address = address_of(server)
        peers = [socket.create_connection(address) for _ in range(3)]
        await until(lambda: len(protocols) == 3)
        server.close()
        assert server.sockets == ()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        for peer in peers:
            peer.close()
        await server.wait_closed()
        await asyncio.gather(*(protocol.lost for protocol in protocols))
        server.close()

    drive(loop, main())


def test_no_delay_on_both_sides(loop):
    async def main():
        protocol = Kept(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        transport, client = await loop.create_connection(lambda: Kept(loop), *address_of(server))
        await until(lambda: protocol.transport)
        for each in (transport, protocol.transport):
            sock = each.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        await client.lost
        await protocol.lost
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_port_is_free_at_once(loop):
    async def main():
        port = 0
        for _ in range(20):
            server = await loop.create_server(
                lambda: Kept(loop), "127.0.0.1", port, reuse_address=False
            )
            port = address_of(server)[1]
            await asyncio.sleep(0)
            server.close()
            await server.wait_closed()

    drive(loop, main())


def test_wait_closed_waits_for_connections(loop):
    async def main():
        protocol = Kept(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        with socket.create_connection(address_of(server)):
            await until(lambda: protocol.transport)
            server.close()
            waiting = asyncio.create_task(server.wait_closed())
            await asyncio.sleep(0.01)
            # since 3.12 it waits for them
            assert waiting.done() == (sys.version_info < (3, 12))
            protocol.transport.close()
            await protocol.lost
            await waiting

    drive(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_of_a_server(loop, method):
    async def main():
        protocols = []

        def factory():
            protocols.append(Kept(loop))
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        peers = [socket.create_connection(address_of(server)) for _ in range(3)]
        await until(lambda: len(protocols) == 3 and all(p.transport for p in protocols))
        if method == "abort_clients":
            protocols[0].transport.write(b"x" * 10_000_000)
        server.close()
        getattr(server, method)()
        await server.wait_closed()
        assert [await protocol.lost for protocol in protocols] == [None] * 3
        for peer in peers:
            peer.close()

    drive(loop, main())


def test_start_serving_later(loop):
    async def main():
        protocol = Kept(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, start_serving=False)
        assert not server.is_serving()
        await server.start_serving()
        await server.start_serving()
        with socket.create_connection(address_of(server)):
            await until(lambda: protocol.transport)
        await protocol.lost
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_serve_forever(loop):
    async def main():
        server = await loop.create_server(lambda: Kept(loop), "127.0.0.1", 0)
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert server.sockets == ()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    drive(loop, main())


def test_async_with(loop):
    async def main():
        async with await loop.create_server(lambda: Kept(loop), "127.0.0.1", 0) as server:
            assert server.is_serving()
        assert not server.is_serving()

    drive(loop, main())


def test_several_addresses_and_a_given_socket(loop):
    async def main():
        hosts = ["127.0.0.1", "127.0.0.2"]
        protocols = []

        def factory():
            protocols.append(Kept(loop))
            return protocols[-1]

        server = await loop.create_server(factory, hosts, 0)
        given = socket.create_server(("127.0.0.1", 0))
        second = await loop.create_server(factory, sock=given)
        addresses = [sock.getsockname() for sock in server.sockets + second.sockets]
        assert len(addresses) == 3
        for address in addresses:
            socket.create_connection(address).close()
        await until(lambda: len(protocols) == 3)
        await asyncio.gather(*(protocol.lost for protocol in protocols))
        for each in (server, second):
            each.close()
            await each.wait_closed()
        assert given.fileno() == -1

    drive(loop, main())


def test_protocol_closes_the_server(loop):
    async def main():
        class Closes(Kept):
            def connection_made(self, transport):
                super().connection_made(transport)
                server.close()

        protocol = Closes(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        with socket.create_connection(address_of(server)):
            await until(lambda: protocol.transport)
        await protocol.lost
        await server.wait_closed()

    drive(loop, main())


def test_factory_closes_the_server(loop, kind, unraisable):
    """asyncio's Server takes no connection then: it is dropped."""

    async def main():
        def factory():
            server.close()
            return asyncio.Protocol()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(address_of(server)) as peer:
            await until(lambda: not server.is_serving())
            await asyncio.sleep(0.01)
            gc.collect()
            peer.settimeout(LIMIT)
            assert peer.recv(1) == b""
        await server.wait_closed()

    drive(loop, main())
    if kind == "asyncio":  # leaves it to the collector
        gc.collect()
        unraisable.take()


@pytest.mark.parametrize("product", [None, object()], ids=["none", "object"])
def test_factory_of_what_is_no_protocol(loop, kind, unraisable, product):
    """gyre closes the connection at once, asyncio leaves it to the collector."""

    async def main():
        server = await loop.create_server(lambda: product, "127.0.0.1", 0)
        with socket.create_connection(address_of(server)) as peer:
            peer.setblocking(False)
            if kind == "asyncio":
                await asyncio.sleep(0.01)
                gc.collect()
            assert await loop.sock_recv(peer, 1) == b""
        server.close()
        if kind != "asyncio":  # 3.12 counts the connection for ever
            await server.wait_closed()

    drive(loop, main())
    if kind == "asyncio":
        unraisable.take()


def test_many_at_once(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(Kept(loop))
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=500)
        peers = [socket.create_connection(address_of(server)) for _ in range(300)]
        await until(lambda: len(protocols) == 300)
        for peer in peers:
            peer.close()
        await asyncio.gather(*(protocol.lost for protocol in protocols))
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_connections_between_the_runs(loop):
    """What is accepted while the loop rests is there in the next run."""
    protocols = []

    def factory():
        protocols.append(Kept(loop))
        return protocols[-1]

    server = drive(loop, loop.create_server(factory, "127.0.0.1", 0))
    drive(loop, asyncio.sleep(0))
    peers = [socket.create_connection(address_of(server)) for _ in range(5)]
    drive(loop, until(lambda: len(protocols) == 5))
    for peer in peers:
        peer.close()

    async def end():
        await asyncio.gather(*(protocol.lost for protocol in protocols))
        server.close()
        await server.wait_closed()

    drive(loop, end())


def test_loop_closed_while_serving(new_loop):
    loop = new_loop()
    server = drive(loop, loop.create_server(lambda: Kept(loop), "127.0.0.1", 0))
    loop.close()
    sockets = server.sockets
    assert sockets[0].fileno() >= 0  # the Server's, as ever
    server.close()
    assert sockets[0].fileno() == -1


@pytest.mark.only("gyre")
def test_loop_collected_while_serving():
    import weakref

    import gyre

    loop = gyre.Loop()
    server = drive(loop, loop.create_server(lambda: Kept(None), "127.0.0.1", 0))
    address = address_of(server)
    alive = weakref.ref(loop), weakref.ref(server)
    with pytest.warns(ResourceWarning):
        del loop, server
        gc.collect()
    assert [ref() for ref in alive] == [None, None]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_out_of_descriptors(loop, kind):
    """EMFILE: said once, accepting rests for a second, then goes on."""
    reports = []

    def on_report(loop, context):
        if kind == "asyncio" and isinstance(context["exception"], ValueError):
            return  # one of its hundred tries of a second later comes after close()
        reports.append((context["message"], context["exception"].errno))
        assert isinstance(context["socket"], asyncio.trsock.TransportSocket)

    loop.set_exception_handler(on_report)
    protocol = Kept(loop)

    async def until_seconds(condition, seconds):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def main():
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        await asyncio.sleep(0.001)  # the loop has all that it needs itself
        with socket.socket() as peer:
            fillers = []
            try:
                with pytest.raises(OSError):
                    while True:
                        fillers.append(os.dup(0))
                peer.connect(address_of(server))
                await asyncio.sleep(0.1)
                assert protocol.transport is None
            finally:
                for filler in fillers:
                    os.close(filler)
            assert set(reports) == {("socket.accept() out of system resource", errno.EMFILE)}
            await until_seconds(lambda: protocol.transport, 3)
        await protocol.lost
        server.close()
        await server.wait_closed()
        if kind == "gyre":  # asyncio tries the whole backlog before it rests
            assert len(reports) == 1

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Before the accept is armed: the kernel notes the limit then.
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        drive(loop, main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.only("gyre")
def test_listening_descriptor_closed_under_us(loop):
    async def main():
        server = await loop.create_server(lambda: Kept(loop), "127.0.0.1", 0)
        await asyncio.sleep(0.01)
        fd = server.sockets[0].fileno()
        os.close(fd)
        strangers = socket.socketpair()
        assert fd in [stranger.fileno() for stranger in strangers]
        await asyncio.sleep(0.01)
        server._sockets[0].detach()
        server.close()
        await server.wait_closed()
        strangers[0].send(b"unharmed")
        assert strangers[1].recv(10) == b"unharmed"
        for stranger in strangers:
            stranger.close()

    drive(loop, main())


def test_create_connection_to_a_given_socket(loop):
    async def main():
        server_side = Kept(loop)
        server = await loop.create_server(lambda: server_side, "127.0.0.1", 0)
        sock = socket.create_connection(address_of(server))
        transport, protocol = await loop.create_connection(lambda: Kept(loop), sock=sock)
        assert transport.get_extra_info("socket").fileno() == sock.fileno()
        transport.close()
        await protocol.lost
        await server_side.lost
        server.close()
        await server.wait_closed()

    drive(loop, main())


def test_cancelled_create_connection(loop):
    """At every await point there is: nothing is left behind."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        for steps in range(8):
            task = asyncio.create_task(
                loop.create_connection(asyncio.Protocol, *address_of(server))
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
                transport.close()
            except asyncio.CancelledError:
                pass
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    drive(loop, main())
    gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
@pytest.mark.parametrize("cleanup", [True, False])
def test_path_of_a_unix_server(loop, tmp_path, cleanup):
    async def main():
        path = tmp_path / "sock"
        server = await loop.create_unix_server(lambda: Kept(loop), path, cleanup_socket=cleanup)
        assert path.exists()
        server.close()
        assert path.exists() != cleanup
        await server.wait_closed()

    drive(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
def test_path_of_a_unix_server_that_was_replaced(loop, tmp_path):
    """Somebody else's socket under the same path stays."""

    async def main():
        path = tmp_path / "sock"
        server = await loop.create_unix_server(lambda: Kept(loop), path)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            server.close()
            assert path.exists()
            await server.wait_closed()

    drive(loop, main())
