"""gyre remembers what a drain() found in the __dict__ of writer and protocol: changes must show."""

import asyncio
import gc
import socket
import types

import pytest
from tcp_tools import connected, drive, end, spin

CHANGES_AFTERWARDS = {
    "paused": lambda scene: scene.protocol.pause_writing(),
    "lost": lambda scene: setattr(scene.protocol, "_connection_lost", True),
    "another helper": lambda scene: setattr(scene.protocol, "_drain_helper", scene.helper),
    "another transport": lambda scene: setattr(scene.writer, "_transport", scene.closing),
    "another protocol": lambda scene: setattr(scene.writer, "_protocol", scene.other),
    "another reader": lambda scene: setattr(scene.writer, "_reader", scene.broken),
    "an exception": lambda scene: scene.reader.set_exception(KeyError("mine")),
    "no transport": lambda scene: delattr(scene.writer, "_transport"),
    "no protocol": lambda scene: scene.writer.__dict__.pop("_protocol"),
    "no reader": lambda scene: setattr(scene.writer, "_reader", None),
    "a closing transport": lambda scene: scene.patch_transport(),
    "a class with a transport": lambda scene: scene.patch("_transport", scene.closing),
    "nothing": lambda scene: None,
}


class Changing:
    """A connection whose drain() has been called before, and what can be put in its way."""

    def __init__(self, loop, reader, writer, monkeypatch):
        self.reader = reader
        self.writer = writer
        self.transport = writer.transport
        self.protocol = writer.transport.get_protocol()
        self.monkeypatch = monkeypatch
        self.closing = types.SimpleNamespace(is_closing=lambda: self.called("closing") or True)
        self.other = types.SimpleNamespace(_drain_helper=self.helper)
        self.broken = asyncio.StreamReader(loop=loop)
        self.broken.set_exception(LookupError("another"))
        self.calls = []

    def called(self, name):
        self.calls.append(name)

    async def helper(self):
        self.called("helper")

    def call(self):
        self.called("is_closing")
        return False

    def patch_transport(self):
        self.monkeypatch.setattr(self.transport, "is_closing", self.call)

    def patch(self, name, value):
        data_descriptor = property(lambda writer: value)
        self.monkeypatch.setattr(asyncio.StreamWriter, name, data_descriptor, raising=False)


async def outcome_of(coroutine):
    """What it comes to, or where it waits."""
    task = asyncio.ensure_future(coroutine)
    await spin()
    waits = not task.done()
    task.cancel()
    try:
        return waits, await task
    except (Exception, asyncio.CancelledError) as exc:
        return waits, type(exc), str(exc)


@pytest.mark.only("gyre")
def test_what_changes_after_a_drain(new_loop, monkeypatch):
    def outcome(loop, change):
        async def main():
            ours, peer = socket.socketpair()
            ours.setblocking(False)
            with peer:
                reader, writer, _ = await connected(loop, (ours, peer))
                scene = Changing(loop, reader, writer, monkeypatch)
                for _ in range(3):
                    writer.write(b"x")
                    await writer.drain()
                change(scene)
                found = [await outcome_of(writer.drain()), await outcome_of(writer.drain())]
                monkeypatch.undo()
                writer._transport = scene.transport
                scene.transport.abort()
                await spin()
                return found, scene.calls

        try:
            return drive(loop, main())
        finally:
            gc.collect()  # the writer, before its loop is closed

    oracle = asyncio.new_event_loop()
    try:
        for name, change in CHANGES_AFTERWARDS.items():
            assert outcome(new_loop(), change) == outcome(oracle, change), name
    finally:
        oracle.close()


def test_data_received_is_changed_after_a_drain(loop, pair):
    calls = []

    async def main():
        reader, writer, peer = await connected(loop, pair)
        for _ in range(3):
            peer.send(b"ab")
            assert await reader.readexactly(2) == b"ab"
            writer.write(b"x")
            await writer.drain()
        writer.transport.get_protocol().data_received = calls.append
        peer.send(b"ab")
        while not calls:
            await spin()
        assert calls == [b"ab"]
        await end(writer)

    drive(loop, main())
