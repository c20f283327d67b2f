"""Private parts of asyncio's loops that programs and CPython's own tests reach for."""

import asyncio
import logging
import re
import socket
import sys

import pytest


def test_run_once_alone_is_one_turn(loop):
    calls = []

    def first():
        calls.append("first")
        loop.call_soon(calls.append, "second")

    loop.call_soon(first)
    loop._run_once()
    assert calls == ["first"]
    loop._run_once()
    assert calls == ["first", "second"]
    assert not loop.is_running()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the primitives are new in 3.13")
def test_run_forever_of_the_user_s_own(loop):
    turns = []

    def again():
        turns.append(len(turns))
        loop.call_soon(again)

    loop.call_soon(again)
    loop._run_forever_setup()
    try:
        assert asyncio.get_running_loop() is loop
        for _ in range(10):
            loop._run_once()
    finally:
        loop._run_forever_cleanup()
    assert turns == list(range(10))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is new in 3.13")
@pytest.mark.parametrize("bad", [None, "gone", "another"])
def test_the_file_of_a_unix_server(loop, tmp_path, bad):
    path = tmp_path / "socket"

    async def main():
        server = await loop.create_unix_server(asyncio.Protocol, path)
        assert path.exists()
        if bad:
            path.unlink()
        if bad == "another":
            path.write_text("not a socket")
        server.close()
        assert path.exists() == (bad == "another")
        server = await loop.create_unix_server(
            asyncio.Protocol, tmp_path / "kept", cleanup_socket=False
        )
        server.close()
        assert (tmp_path / "kept").exists()

    loop.run_until_complete(main())


def test_slow_callbacks_go_to_the_logger_of_base_events(loop, monkeypatch):
    lines = []

    class Logger(logging.Logger):
        def warning(self, text, *args):
            lines.append(text % args)

    monkeypatch.setattr("asyncio.base_events.logger", Logger("mine"))
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert re.fullmatch(r"Executing <Handle .*> took \d+\.\d{3} seconds", lines[0])


def test_repr_of_a_datagram_transport(loop):
    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), family=socket.AF_INET
        )
        fd = transport.get_extra_info("socket").fileno()
        rest = f"fd={fd} read=polling write=<idle, bufsize=0>"
        assert re.fullmatch(rf"<\w*DatagramTransport {rest}>", repr(transport))
        transport.close()
        rest = f"closing fd={fd} read=idle write=<idle, bufsize=0>"
        assert re.fullmatch(rf"<\w*DatagramTransport {rest}>", repr(transport))
        await asyncio.sleep(0)
        assert re.fullmatch(r"<\w*DatagramTransport closed fd=\d+>", repr(transport))

    loop.run_until_complete(main())
