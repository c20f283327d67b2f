"""Private parts of asyncio's loops that programs and CPython's own tests reach for."""

import asyncio
import logging
import re
import socket


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
