"""What is dropped without close() says so: the ResourceWarnings of streams and of subprocesses.

Those of loops, transports, pipes and TLS stand beside the tests of each.
"""

import asyncio
import contextlib
import gc
import sys
import warnings

import pytest
from helpers import echo, run_turns


@contextlib.contextmanager
def resource_warnings():
    """The texts of the ResourceWarnings until the end, garbage collected."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        gc.collect()
    found += [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]


async def some_turns():
    """For what was collected to be closed, which takes a turn or two."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_a_stream_writer(loop):
    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            with resource_warnings() as found:
                del reader, writer
                gc.collect()
                await some_turns()
            return found

    found = loop.run_until_complete(main())
    assert [text for text in found if text.startswith("unclosed <StreamWriter")]
    run_turns(loop, 5)


@pytest.mark.only("gyre")
def test_a_subprocess(new_loop):
    """asyncio's is in the hands of a child watcher, and not collected."""
    loop = new_loop()

    async def main():
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")
        return transport

    transport = loop.run_until_complete(main())
    process = transport.get_extra_info("subprocess")
    with resource_warnings() as found:
        loop.close()
        del transport
        gc.collect()
    process.kill()
    process.wait()
    assert [text for text in found if "SubprocessTransport" in text], found
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def test_nothing_to_say(loop):
    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
            await process.communicate(b"")
            writer.close()
            await writer.wait_closed()
            del reader, writer, process
            await some_turns()

    with resource_warnings() as found:
        loop.run_until_complete(main())
        run_turns(loop, 5)
    assert found == []
