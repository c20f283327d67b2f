"""Libraries that look into a loop: nest_asyncio and AnyIO."""

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
