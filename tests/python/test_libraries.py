"""Libraries on a loop: those that look into it, and servers and clients that programs use."""

import asyncio
import contextlib
import sys

import pytest
from helpers import script


class TestOthers:
    def test_nest_asyncio(self, new, kind):
        """It patches BaseEventLoops to run inside themselves."""
        pytest.importorskip("nest_asyncio")
        done = script(
            f"""
            import asyncio, warnings
            warnings.simplefilter("ignore")
            import nest_asyncio
            loop = {new}
            asyncio.set_event_loop(loop)
            async def inner():
                await asyncio.sleep(0.001)
                return "inner"
            async def main():
                return loop.run_until_complete(inner()) + " and outer"
            try:
                nest_asyncio.apply(loop)
                print(loop.run_until_complete(main()))
            except (RuntimeError, ValueError) as exc:
                print(type(exc).__name__, exc)
            loop.close()
            """
        )
        assert done.returncode == 0, done.stderr
        if kind == "asyncio":
            assert done.stdout == "inner and outer\n"
        else:
            # Refused by apply() itself, before anything of the loop is replaced.
            assert done.stdout.startswith("RuntimeError ") and "nest_asyncio" in done.stdout
            assert len(done.stdout.splitlines()) == 1
            assert done.stderr == ""

    def test_anyio(self, new_loop):
        anyio = pytest.importorskip("anyio")

        async def main():
            results = []

            async def child(number):
                await anyio.sleep(0.001 * number)
                results.append(number)

            async with anyio.create_task_group() as group:
                for number in (3, 1, 2):
                    group.start_soon(child, number)
            assert results == [1, 2, 3]

            with anyio.move_on_after(0.005) as scope:
                await anyio.sleep(10)
            assert scope.cancelled_caught

            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.002):
                    await anyio.Event().wait()

            send, receive = anyio.create_memory_object_stream(1)
            async with anyio.create_task_group() as group, send, receive:
                group.start_soon(send.send, "item")
                assert await receive.receive() == "item"

            assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(child, 4)) is None
            assert 4 in results

            with pytest.raises(ExceptionGroup):
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 10)

                    async def fail():
                        raise LookupError

                    group.start_soon(fail)

            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            return "done"

        options = {"loop_factory": new_loop}
        assert anyio.run(main, backend_options=options) == "done"

    def test_anyio_tcp(self, new_loop):
        anyio = pytest.importorskip("anyio")

        async def main():
            async def serve(stream):
                async with stream:
                    await stream.send(await stream.receive())

            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, serve)
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"hello")
                    assert await stream.receive() == b"hello"
                group.cancel_scope.cancel()
            await listener.aclose()

        anyio.run(main, backend_options={"loop_factory": new_loop})


async def ask(port, path):
    """One HTTP request by hand; the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


class TestHTTP:
    def test_uvicorn(self, loop):
        """A server with its signal handlers, keep-alive, a streamed answer, and a clean end."""
        uvicorn = pytest.importorskip("uvicorn")
        lifespan = []

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                for name in ("startup", "shutdown"):
                    assert (await receive())["type"] == f"lifespan.{name}"
                    lifespan.append(name)
                    await send({"type": f"lifespan.{name}.complete"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for i in range(20):
                await asyncio.sleep(0)
                body = {"type": "http.response.body", "body": b"%d," % i * 1000}
                await send(body | {"more_body": i < 19})

        async def main():
            config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.001)
            port = server.servers[0].sockets[0].getsockname()[1]
            answers = await asyncio.gather(*(ask(port, f"/{n}") for n in range(20)))
            assert all(a.startswith(b"HTTP/1.1 200") and b"19,19," in a for a in answers)
            assert len({len(a) for a in answers}) == 1
            server.should_exit = True
            await serving

        loop.run_until_complete(main())
        assert lifespan == ["startup", "shutdown"]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_aiohttp(self, loop):
        """Server and client: JSON, a large body both ways, a websocket, a timeout."""
        if hasattr(sys, "gettotalrefcount"):
            pytest.skip("multidict's wheel crashes a debug build, on asyncio's loop too")
        aiohttp = pytest.importorskip("aiohttp")
        from aiohttp import web

        async def length(request):
            return web.json_response({"length": len(await request.read())})

        async def slow(request):
            await asyncio.sleep(0.1)

        async def echo(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(message.data)
            return socket

        async def main():
            app = web.Application(client_max_size=1 << 30)
            app.add_routes([web.post("/length", length), web.get("/slow", slow)])
            app.add_routes([web.get("/echo", echo)])
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with aiohttp.ClientSession() as session:
                for size in (0, 1, 100_000, 900_000):
                    async with session.post(f"{base}/length", data=b"x" * size) as answer:
                        assert await answer.json() == {"length": size}
                timeout = aiohttp.ClientTimeout(total=0.01)
                with pytest.raises(TimeoutError):
                    await session.get(f"{base}/slow", timeout=timeout)
                async with session.ws_connect(f"{base}/echo") as socket:
                    for size in (1, 70_000, 1_000_000):
                        await socket.send_bytes(b"y" * size)
                        assert len(await socket.receive_bytes()) == size
            await runner.cleanup()

        loop.run_until_complete(main())
