"""Every public method takes what asyncio's takes on this Python: names, kinds, defaults."""

import asyncio
import inspect
import os
import socket
from asyncio import base_events, futures, selector_events, sslproto, tasks, unix_events

import gyre
import pytest


def parameters(function):
    """(name, kind, default) of each parameter but self; None where C tells inspect nothing."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    found = [(p.name, p.kind.description, p.default) for p in signature.parameters.values()]
    return found[1:] if found and found[0][0] == "self" else found


def public_methods(cls):
    for name in dir(cls):
        if not name.startswith("_"):
            member = inspect.getattr_static(cls, name)
            if not isinstance(member, type) and callable(getattr(cls, name)):
                yield name


def differences(ours, theirs):
    different = {}
    for name in public_methods(theirs):
        method = getattr(theirs, name)
        expected = parameters(method)
        found = getattr(ours, name, None)
        if found is None:
            different[name] = "missing"
        elif expected is not None and parameters(found) != expected:
            different[name] = (parameters(found), expected)
        elif inspect.iscoroutinefunction(found) != inspect.iscoroutinefunction(method):
            different[name] = "a coroutine function on one side only"
    return different


class ChildProtocol(asyncio.SubprocessProtocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connect_by_tls(loop, server_context, client_context):
    """Both ends of a connection, and the server that took it."""
    accepted = loop.create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport)

    server = await loop.create_server(Accepting, "127.0.0.1", 0, ssl=server_context)
    client, _ = await loop.create_connection(
        asyncio.Protocol,
        *server.sockets[0].getsockname(),
        ssl=client_context,
        server_hostname="localhost",
    )
    return client, await accepted, server


@pytest.fixture
def types(new_loop, server_context, client_context):
    """The types of what a gyre loop makes, each with the one that it stands in for."""
    loop = new_loop()

    async def main():
        left, right = socket.socketpair()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        with right:
            stream, _ = await loop.create_connection(asyncio.Protocol, sock=left)
            datagram, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            reading, writing = os.pipe()
            reader, _ = await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb", 0))
            writer, _ = await loop.connect_write_pipe(asyncio.Protocol, open(writing, "wb", 0))
            child, ended = await loop.subprocess_exec(ChildProtocol, "cat")
            child_in, child_out = child.get_pipe_transport(0), child.get_pipe_transport(1)
            child_in.close()
            await ended.lost
            child.close()
            client, accepted, tls_server = await connect_by_tls(
                loop, server_context, client_context
            )
            client.abort()
            accepted.abort()
            tls_server.close()
            writer.close()
            reader.close()
            await asyncio.sleep(0)
            stream.close()
            datagram.close()
            server.close()
        timer = loop.call_later(1000, print)
        timer.cancel()
        return {
            "Loop": (type(loop), asyncio.SelectorEventLoop),
            "BaseEventLoop": (type(loop), base_events.BaseEventLoop),
            "AbstractEventLoop": (type(loop), asyncio.AbstractEventLoop),
            "Future": (type(loop.create_future()), asyncio.Future),
            "Task": (type(asyncio.current_task()), asyncio.Task),
            # In Python: it tells also where asyncio's C does not.
            "PyFuture": (type(loop.create_future()), futures._PyFuture),
            "PyTask": (type(asyncio.current_task()), tasks._PyTask),
            "Handle": (type(loop.call_soon(int)), asyncio.Handle),
            "TimerHandle": (type(timer), asyncio.TimerHandle),
            "Server": (type(server), base_events.Server),
            "AbstractServer": (type(server), asyncio.AbstractServer),
            "stream": (type(stream), selector_events._SelectorSocketTransport),
            "Transport": (type(stream), asyncio.Transport),
            "read pipe": (type(reader), unix_events._UnixReadPipeTransport),
            "write pipe": (type(writer), unix_events._UnixWritePipeTransport),
            "datagram": (type(datagram), selector_events._SelectorDatagramTransport),
            "DatagramTransport": (type(datagram), asyncio.DatagramTransport),
            "subprocess": (type(child), unix_events._UnixSubprocessTransport),
            "pipe to a child": (type(child_in), unix_events._UnixWritePipeTransport),
            "pipe from a child": (type(child_out), unix_events._UnixReadPipeTransport),
            "TLS client": (type(client), sslproto._SSLProtocolTransport),
            "TLS server": (type(accepted), sslproto._SSLProtocolTransport),
        }

    return loop.run_until_complete(main())


# asyncio's abstract loop has stated some methods with other parameters than its loops take.
OF_ASYNCIOS_OWN_LOOPS = differences(asyncio.SelectorEventLoop, asyncio.AbstractEventLoop)
OF_ASYNCIOS_OWN_TRANSPORTS = differences(
    selector_events._SelectorSocketTransport, asyncio.Transport
)
EXCEPTIONS = {
    "AbstractEventLoop": OF_ASYNCIOS_OWN_LOOPS,
    "BaseEventLoop": differences(asyncio.SelectorEventLoop, base_events.BaseEventLoop),
    "Transport": OF_ASYNCIOS_OWN_TRANSPORTS,
    "DatagramTransport": differences(
        selector_events._SelectorDatagramTransport, asyncio.DatagramTransport
    ),
    "AbstractServer": differences(base_events.Server, asyncio.AbstractServer),
    # The C classes are what users have.  Of this one some do not tell that fn has no name.
    "PyFuture": differences(asyncio.Future, futures._PyFuture).keys() | {"add_done_callback"},
    "PyTask": differences(asyncio.Task, tasks._PyTask).keys() | {"add_done_callback"},
}


@pytest.mark.only("gyre")
def test_methods(types):
    found = {}
    for what, (ours, theirs) in types.items():
        different = differences(ours, theirs)
        for name in EXCEPTIONS.get(what, ()):
            different.pop(name, None)
        if different:
            found[what] = different
    assert found == {}


@pytest.mark.only("gyre")
def test_add_done_callback(types):
    for what in ("PyFuture", "PyTask"):
        ours, theirs = ([p[0] for p in parameters(t.add_done_callback)] for t in types[what])
        assert ours == theirs


@pytest.mark.only("gyre")
def test_every_public_method_has_a_signature(types):
    without = {
        f"{ours.__name__}.{name}"
        for ours, _ in types.values()
        for name in public_methods(ours)
        if parameters(getattr(ours, name)) is None
    }
    assert without == set()


@pytest.mark.only("gyre")
def test_the_types_are_ours(types):
    plain = ("Loop", "Future", "Task", "Handle", "TimerHandle")
    pipes = ("read pipe", "write pipe", "pipe to a child", "pipe from a child", "subprocess")
    for what in (*plain, *pipes, "stream", "datagram", "TLS client", "TLS server"):
        assert types[what][0] is not types[what][1]
        assert types[what][0].__module__.startswith("gyre")


@pytest.mark.only("gyre")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(gyre.Future, asyncio.Future), (gyre.Task, asyncio.Task), (gyre.run, asyncio.run)],
    ids=["Future", "Task", "run"],
)
def test_constructors(ours, theirs, kind):
    expected = parameters(theirs)
    if expected is None:
        pytest.skip("this Python does not say")
    names = [name for name, _, _ in parameters(ours)]
    assert names[: len(expected)] == [name for name, _, _ in expected]


def test_leading_arguments_by_name(loop):
    calls = []

    async def main():
        loop.call_soon(callback=lambda: calls.append("soon"))
        loop.call_soon_threadsafe(callback=lambda: calls.append("threadsafe"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert calls == ["soon", "threadsafe"]
        first = loop.call_later(delay=0, callback=lambda: calls.append("later"))
        second = loop.call_later(0, callback=lambda: calls.append("later too"))
        third = loop.call_at(callback=lambda: calls.append("at"), when=loop.time())
        assert first.when() <= second.when() <= third.when()
        await asyncio.sleep(0.01)
        assert calls[2:] == ["later", "later too", "at"]
        with pytest.raises(TypeError, match="multiple values"):
            loop.call_later(0, delay=1)
        with pytest.raises(TypeError, match="missing 1 required"):
            loop.call_later(delay=1)
        with pytest.raises(TypeError, match="unexpected keyword"):
            loop.call_soon(print, callbacks=1)

    loop.run_until_complete(main())


def test_readers_by_name(loop):
    left, right = socket.socketpair()
    left.setblocking(False)
    with left, right:
        loop.add_reader(callback=loop.stop, fd=left)
        loop.add_writer(fd=right, callback=int)
        assert loop.remove_writer(fd=right) is True
        right.send(b"x")
        loop.run_forever()
        assert loop.remove_reader(fd=left) is True
        with pytest.raises(TypeError, match="missing 1 required"):
            loop.remove_reader()
        with pytest.raises(TypeError, match="unexpected keyword"):
            loop.remove_reader(file=left)
        with pytest.raises(TypeError, match="2 positional arguments but 3 were given"):
            loop.remove_reader(left, right)


def test_transport_methods_by_name(loop):
    async def main():
        left, right = socket.socketpair()
        right.setblocking(False)
        with right:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
            transport.write(data=b"one")
            transport.writelines(list_of_data=[b"two", b"three"])
            received = b""
            while len(received) < 11:
                received += await loop.sock_recv(right, 100)
            assert received == b"onetwothree"
            other = asyncio.Protocol()
            transport.set_protocol(protocol=other)
            assert transport.get_protocol() is other
            assert transport.get_extra_info(default=3, name="nothing") == 3
            with pytest.raises(TypeError, match="unexpected keyword"):
                transport.write(bytes=b"")
            transport.close()

    loop.run_until_complete(main())
