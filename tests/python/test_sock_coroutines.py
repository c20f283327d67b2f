"""sock_recv(), sock_recv_into() and sock_sendall(), which gyre has as coroutines in C: what one
sees of them, and the calls that are not the plain one."""

import asyncio
import collections.abc
import gc
import inspect
import socket
import ssl
import types
import warnings

import pytest
from tcp_tools import drive, spin

METHODS = ("sock_recv", "sock_recv_into", "sock_sendall")
BIG = 10_000_000


def argument(method):
    return {"sock_recv": 5, "sock_recv_into": bytearray(5), "sock_sendall": b"data"}[method]


def waiting_argument(method):
    """So that the call has to wait."""
    return {"sock_recv": 5, "sock_recv_into": bytearray(5), "sock_sendall": bytes(BIG)}[method]


def call(loop, method, sock):
    return getattr(loop, method)(sock, argument(method))


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def test_they_are_coroutine_functions(loop, method, pair):
    for function in (getattr(loop, method), getattr(type(loop), method)):
        assert inspect.iscoroutinefunction(function)
        assert function.__name__ == method
        assert function.__doc__
    assert inspect.ismethod(getattr(loop, method))
    assert getattr(loop, method).__self__ is loop
    coro = call(loop, method, pair[0])
    assert asyncio.iscoroutine(coro) and inspect.iscoroutine(coro)
    assert isinstance(coro, types.CoroutineType) and isinstance(coro, collections.abc.Coroutine)
    assert coro.__name__ == method and coro.__qualname__.endswith("." + method)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
    assert coro.cr_frame is not None and coro.cr_code.co_name == method
    coro.close()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert coro.cr_frame is None


def test_nothing_happens_before_the_first_step(loop, method, pair):
    left, right = pair
    right.send(b"data")
    coro = call(loop, method, left)
    assert left.recv(10, socket.MSG_PEEK) == b"data"
    with pytest.raises(BlockingIOError):
        right.recv(10)
    with pytest.raises(LookupError):
        coro.throw(LookupError())
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    assert left.recv(10) == b"data"


def test_one_that_is_never_awaited(loop, method, pair):
    with pytest.warns(RuntimeWarning, match=f"{method}' was never awaited"):
        call(loop, method, pair[0])
        gc.collect()


def test_who_waits_can_be_looked_at(loop, method, pair):
    left, right = pair

    async def main():
        task = loop.create_task(getattr(loop, method)(left, waiting_argument(method)))
        await spin()
        coro = task.get_coro()
        assert not task.done() and not coro.cr_running
        assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
        assert coro.cr_await is not None
        (frame,) = task.get_stack()
        assert frame.f_code.co_name == method
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert coro.cr_await is None and coro.cr_frame is None
        while method == "sock_sendall" and len(right.recv(65536)) == 65536:
            pass
        right.send(b"later")
        assert await loop.sock_recv(left, 10) == b"later"

    drive(loop, main())


@pytest.mark.only("gyre")
@pytest.mark.parametrize("how", ["close", "drop", "throw"])
def test_one_that_ends_while_it_waits(loop, method, pair, how):
    """The socket is as if it had not been; asyncio goes on unless its future is cancelled."""
    left, right = pair

    async def main():
        if method == "sock_sendall":
            with pytest.raises(BlockingIOError):
                while True:
                    left.send(bytes(65536))
        coro = getattr(loop, method)(left, argument(method))
        coro.send(None)
        if how == "close":
            coro.close()
        elif how == "throw":
            with pytest.raises(LookupError):
                coro.throw(LookupError())
        del coro
        gc.collect()
        right.send(b"for another")
        await spin()
        assert await loop.sock_recv(left, 100) == b"for another"
        if method == "sock_sendall":
            with pytest.raises(BlockingIOError):
                while True:
                    assert not right.recv(65536).strip(b"\0")
            await spin()
            with pytest.raises(BlockingIOError):
                right.recv(1)

    drive(loop, main())


def test_by_keyword(loop, pair):
    left, right = pair

    async def main():
        await loop.sock_sendall(sock=right, data=b"1234")
        assert await loop.sock_recv(left, n=1) == b"1"
        assert await loop.sock_recv(n=1, sock=left) == b"2"
        room = bytearray(4)
        assert await loop.sock_recv_into(left, buf=room) == 2
        assert room == b"34\0\0"

    drive(loop, main())


def test_wrong_arguments(loop, method, pair):
    function = getattr(loop, method)
    for args, kwargs in (
        ((), {}),
        ((pair[0],), {}),
        ((pair[0], 1, 2), {}),
        ((pair[0], 1), {"x": 1}),
    ):
        with pytest.raises(TypeError, match=method):
            function(*args, **kwargs)
    with pytest.raises(TypeError):
        drive(loop, function(pair[0], object()))
    with pytest.raises((AttributeError, TypeError)):
        drive(loop, function(object(), argument(method)))


def test_debug_mode_that_begins_before_the_first_step(loop, method, pair):
    coro = call(loop, method, pair[0])
    pair[0].setblocking(True)
    loop.set_debug(True)
    try:
        with pytest.raises(ValueError, match="must be non-blocking"):
            drive(loop, coro)
    finally:
        loop.set_debug(False)


def test_a_socket_with_methods_of_its_own(loop, method, pair):
    class Socket(socket.socket):
        calls = []

        def recv(self, *args):
            self.calls.append("sock_recv")
            return super().recv(*args)

        def recv_into(self, *args):
            self.calls.append("sock_recv_into")
            return super().recv_into(*args)

        def send(self, *args):
            self.calls.append("sock_sendall")
            return super().send(*args)

    left, right = pair
    with Socket(fileno=left.detach()) as sock:
        right.send(b"12345")
        drive(loop, call(loop, method, sock))
        assert Socket.calls == [method]


def test_an_ssl_socket(loop, method, pair):
    context = ssl.create_default_context()
    with context.wrap_socket(pair[0], server_hostname="x", do_handshake_on_connect=False) as sock:
        with pytest.raises(TypeError, match="SSLSocket"):
            drive(loop, call(loop, method, sock))


@pytest.mark.only("gyre")
def test_a_closed_loop(new_loop, method, pair):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        call(loop, method, pair[0]).send(None)


def test_a_loop_of_another_class(kind, pair):
    if kind == "gyre":
        import gyre

        base = gyre.Loop
    else:
        base = asyncio.SelectorEventLoop

    class Loop(base):
        async def sock_recv(self, sock, n):
            return b"<" + await super().sock_recv(sock, n) + b">"

    loop = Loop()
    try:
        pair[1].send(b"data")
        assert drive(loop, loop.sock_recv(pair[0], 10)) == b"<data>"
    finally:
        loop.close()


def test_another_function_in_the_place_of_one(loop, pair, monkeypatch):
    async def sock_recv(self, sock, n):
        return "another"

    monkeypatch.setattr(type(loop), "sock_recv", sock_recv)
    assert drive(loop, loop.sock_recv(pair[0], 10)) == "another"


def test_what_was_received_stays(loop, pair):
    """gyre uses the memory of a receive again, but not what it has given away."""
    left, right = pair
    sizes = [1, 300, 4096, 4097, 5000, 64, 8000, 2, 8192]

    async def main():
        found = []
        for number, size in enumerate(sizes):
            for wait in (False, True):
                data = bytes([number]) * size
                if wait:
                    task = loop.create_task(loop.sock_recv(left, 8192))
                    await spin(3)
                    right.send(data)
                    found.append((data, await task))
                else:
                    right.send(data)
                    found.append((data, await loop.sock_recv(left, 8192)))
        for data, received in found:
            assert type(received) is bytes and received == data
            assert hash(received) == hash(data)

    drive(loop, main())


def test_many_wait_for_different_sizes(loop):
    """One buffer is kept between them, and each gets what it asked for."""
    pairs = [socket.socketpair() for _ in range(8)]

    async def main():
        for left, _ in pairs:
            left.setblocking(False)
        sizes = [1000, 1000, 5000, 5000, 70000, 70000, 300_000, 10]
        for turn in range(20):
            tasks = [
                loop.create_task(loop.sock_recv(left, size))
                for (left, _), size in zip(pairs, sizes, strict=True)
            ]
            await spin(3)
            for number, (_, right) in enumerate(pairs):
                right.send(bytes([turn, number]) * 4)
            for number, task in enumerate(tasks):
                assert await task == bytes([turn, number]) * 4

    try:
        drive(loop, main())
    finally:
        for left, right in pairs:
            left.close()
            right.close()


@pytest.mark.only("gyre")
def test_a_short_cut_is_for_a_function_that_has_one():
    from gyre import _gyre

    async def sock_other(self, sock):
        pass

    with pytest.raises(ValueError, match="sock_other"):
        _gyre._sock_method(sock_other)
    with pytest.raises(AttributeError):
        _gyre._sock_method(1)


def test_no_warning_is_left(loop, method, pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair[1].send(b"12345")
        drive(loop, call(loop, method, pair[0]))
        gc.collect()
