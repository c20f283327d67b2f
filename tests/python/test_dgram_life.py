"""Datagram transports: segmentation offload, and their end: loops, collector, forks, threads."""

import asyncio
import gc
import socket
import warnings
import weakref

import pytest
from helpers import in_child, in_thread, run_until
from tcp_tools import drive, spin
from test_dgram import Noting, closed, drained, endpoint, name, plain


def calls(loop):
    stats = loop.stats()
    return stats["send_calls"], stats["recv_calls"]


def has(feature):
    from gyre import _gyre

    return _gyre.probe("epoll")["features"][feature]


# ---- offload


@pytest.mark.only("gyre")
@pytest.mark.parametrize("offload", [True, False])
def test_a_burst_is_two_calls(new_loop, offload):
    loop = new_loop(udp_offload=offload)

    async def main():
        left, right = await endpoint(loop), await endpoint(loop)
        sends, receives = calls(loop)
        expected = [b"%04d" % i for i in range(60)]
        for data in expected:
            left.transport.sendto(data, name(right))
        assert await right.count(60) == expected
        assert {addr for _, addr in right.received} == {name(left)}
        sends, receives = calls(loop)[0] - sends, calls(loop)[1] - receives
        if offload and has("udp_gso"):
            assert sends == 2
            if has("udp_gro"):
                assert receives == 2
        else:
            assert sends == 60
        await closed(left, right)

    drive(loop, main())


def test_bursts_of_every_shape(loop):
    """Whatever the sizes, destinations and pauses are: all arrive, each whole, in order."""

    async def main():
        left = await endpoint(loop)
        rights = [await endpoint(loop) for _ in range(3)]
        expected = [[] for _ in rights]
        number = 0
        for sizes, targets in (
            ([10] * 70, [0]),
            ([10, 10, 5, 10, 10], [0]),
            ([5, 10, 20, 20, 10], [1]),
            ([10] * 12, [0, 1, 2]),
            ([10] * 12, [0, 0, 1, 1]),
            ([9000] * 10, [2]),
            ([40_000] * 3, [2]),
            ([1200] * 64, [1]),
            ([1], [0]),
        ):
            for i, size in enumerate(sizes):
                data = (b"%06d" % number).ljust(size, b".")[:size]
                number += 1
                target = targets[i % len(targets)]
                left.transport.sendto(data, name(rights[target]))
                expected[target].append(data)
            for right, wanted in zip(rights, expected, strict=True):
                await right.count(len(wanted))
        for right, wanted in zip(rights, expected, strict=True):
            assert [data for data, _ in right.received] == wanted
        assert left.errors == []
        await closed(left, *rights)

    drive(loop, main())


def test_pause_in_the_middle_of_a_burst(loop):
    class Slow(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if len(self.received) % 3 == 0:
                self.transport.pause_reading()

    async def main():
        left, right = await endpoint(loop), await endpoint(loop, Slow(loop))
        expected = [b"%04d" % i for i in range(20)]
        for data in expected:
            left.transport.sendto(data, name(right))
        for count in range(3, 20, 3):
            await right.count(count)
            await spin()
            assert len(right.received) == count
            right.transport.resume_reading()
        assert await right.count(20) == expected
        await closed(left, right)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_errors_of_a_burst(loop):
    """Told after the callback; each error costs one datagram."""
    gone = plain()
    address = gone.getsockname()
    gone.close()

    async def main():
        protocol = await endpoint(loop, remote_addr=address)
        for _ in range(10):
            protocol.transport.sendto(b"x")
        while not protocol.errors:
            await asyncio.sleep(0)
        await spin()
        assert {type(exc) for exc in protocol.errors} == {ConnectionRefusedError}
        assert protocol.transport.get_write_buffer_size() == 0
        await closed(protocol)

    drive(loop, main())


def test_close_in_error_received_of_a_burst(loop):
    """What it has to wait for is sent by the very flush that tells the error."""
    gone = [plain() for _ in range(2)]
    addresses = [sock.getsockname() for sock in gone]
    for sock in gone:
        sock.close()

    class Closing(Noting):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.close()

    async def main():
        sock = plain()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: a refusal is an error of the next
        protocol = await endpoint(loop, Closing(loop), sock=sock)
        for _ in range(3):
            protocol.transport.sendto(b"xx", addresses[0])
        protocol.transport.sendto(b"x", addresses[1])  # not of the burst: it goes first
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.errors

    drive(loop, main())


@pytest.mark.parametrize("connected", [False, True])
def test_abort_in_error_received_of_a_burst(loop, peer, connected):
    """What sendto() took before is sent; with remote_addr, nothing after the error."""
    gone = plain()
    address = gone.getsockname()
    peer.append(alive := plain())

    class Aborting(Noting):
        def error_received(self, exc):
            super().error_received(exc)
            if len(self.errors) == 1:
                gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                gone.bind(address)  # hears what is sent from now on
                peer.append(gone)
            self.transport.abort()

    async def main():
        if connected:
            protocol = await endpoint(loop, Aborting(loop), remote_addr=address)
        else:
            sock = plain()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
            protocol = await endpoint(loop, Aborting(loop), sock=sock)
        gone.close()
        to = [] if connected else [address]
        for i in range(5):
            protocol.transport.sendto(b"%d" % i, *to)
        if not connected:
            protocol.transport.sendto(b"other", alive.getsockname())
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert {type(exc) for exc in protocol.errors} == {ConnectionRefusedError}
        if not connected:
            assert alive.recv(10) == b"other"
        heard = []
        peer[-1].setblocking(False)
        try:
            while True:
                heard.append(peer[-1].recv(10))
        except BlockingIOError:
            pass
        return heard

    # The second told of the first, and was not sent itself.
    assert drive(loop, main()) == ([] if connected else [b"2", b"3", b"4"])


def test_error_received_inside_of_sendto(loop, peer):
    """By a task, or by a callback of the same protocol: neither notices."""
    gone = plain()
    address = gone.getsockname()
    gone.close()
    peer.append(other := plain())

    class Sending(Noting):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            send(self.transport)

    def send(transport):
        for _ in range(3):
            transport.sendto(b"xx", address)
        transport.sendto(b"x", other.getsockname())  # not of the burst: it goes first

    async def main():
        sock = plain()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: a refusal is an error of the next
        protocol = await endpoint(loop, Sending(loop), sock=sock)
        send(protocol.transport)
        assert asyncio.current_task() in asyncio.all_tasks()
        assert protocol.errors
        await spin()
        protocol.errors.clear()
        other.sendto(b"go", name(protocol))
        await protocol.count(1)
        await spin()
        assert {type(exc) for exc in protocol.errors} == {ConnectionRefusedError}
        await closed(protocol)

    drive(loop, main())


@pytest.mark.only("gyre")
def test_an_error_handler_that_sends(loop):
    """Neither the stack nor the turn goes on without end."""
    gone = plain()
    address = gone.getsockname()
    gone.close()

    class Stubborn(Noting):
        def error_received(self, exc):
            super().error_received(exc)
            if len(self.errors) < 3000:
                for _ in range(3):
                    self.transport.sendto(b"x")

    async def main():
        protocol = await endpoint(loop, Stubborn(loop), remote_addr=address)
        for _ in range(3):
            protocol.transport.sendto(b"x")
        for _ in range(200):
            await asyncio.sleep(0)
        await closed(protocol)

    loop.set_exception_handler(lambda *_: None)  # RecursionError, as on asyncio
    drive(loop, main())


def test_held_datagrams_count_as_sent(loop, peer):
    peer.append(sock := plain())

    async def main():
        protocol = await endpoint(loop)
        protocol.transport.set_write_buffer_limits(high=0)
        for _ in range(10):
            protocol.transport.sendto(b"x" * 100, sock.getsockname())
        assert protocol.transport.get_write_buffer_size() == 0
        assert protocol.calls == []
        assert len(await drained(sock, 10)) == 10
        await closed(protocol)

    drive(loop, main())


# ---- ends


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("sends", [False, True])
def test_the_descriptor_is_closed_with_the_endpoint(loop, how, sends):
    """connection_lost() comes in the next turn, and right after it the port is free: who binds it
    again need not wait."""

    async def main():
        protocol = await endpoint(loop)
        address = name(protocol)
        ours = protocol.transport.get_extra_info("socket")
        again = asyncio.DatagramProtocol()
        for _ in range(5):
            if sends:
                protocol.transport.sendto(b"x", address)
            getattr(protocol.transport, how)()
            assert ours.fileno() != -1
            await asyncio.sleep(0)
            assert ours.fileno() == -1
            sock = plain(address=address)
            transport, _ = await loop.create_datagram_endpoint(lambda: again, sock=sock)
            protocol.transport, ours = transport, transport.get_extra_info("socket")
        transport.close()

    drive(loop, main())


@pytest.mark.only("gyre")
def test_closed_inside_of_a_callback(loop):
    """By the private method, inside of what looks at the socket again."""

    async def main():
        class Leaving(Noting):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport._call_connection_lost(None)

        protocol = await endpoint(loop, Leaving(loop))
        ours = protocol.transport.get_extra_info("socket")
        protocol.transport.sendto(b"one", name(protocol))
        assert await protocol.lost is None
        protocol.transport = None
        while ours.fileno() != -1:
            await asyncio.sleep(0)
        assert [data for data, _ in protocol.received] == [b"one"]

    drive(loop, main())


def test_closed_with_the_loop(new_loop):
    loop = new_loop()

    async def main():
        protocol = await endpoint(loop)
        protocol.transport.sendto(b"x", name(protocol))
        return protocol

    protocol = loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ref = weakref.ref(protocol)
        del protocol
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    caught.clear()  # a warning names the transport; from 3.15 on the reference sees that it lives
    gc.collect()
    assert ref() is None


def test_used_after_the_loop_is_closed(new_loop, peer, kind):
    """gyre's close() has closed the descriptor: nothing is lost without a word."""
    peer.append(sock := plain())
    loop = new_loop()
    protocol = drive(loop, endpoint(loop))
    transport = protocol.transport
    transport.pause_reading()
    loop.close()
    if kind == "gyre":
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.sendto(b"x", sock.getsockname())
    else:
        transport.sendto(b"x", sock.getsockname())
    for call in (transport.resume_reading, transport.close):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del protocol, transport, call
        gc.collect()


def test_resource_warning(loop):
    protocol = drive(loop, endpoint(loop))
    transport = protocol.transport
    protocol.transport.pause_reading()
    drive(loop, spin())
    text = repr(transport)
    assert "closed" not in text
    drive(loop, closed(protocol))
    assert " closed fd=" in repr(transport)


@pytest.mark.only("gyre")
def test_a_loop_and_its_transports_are_collected_together():
    import gyre

    loop = gyre.Loop()
    protocol = drive(loop, endpoint(loop))
    refs = [weakref.ref(loop), weakref.ref(protocol.transport)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop, protocol
        gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_runs_in_other_threads(loop, peer):
    peer.append(sock := plain())
    protocol = drive(loop, endpoint(loop))
    for i in range(3):
        sock.sendto(b"%d" % i, name(protocol))
        in_thread(lambda: run_until(loop, lambda: len(protocol.received) == i + 1))  # noqa: B023
    in_thread(lambda: drive(loop, closed(protocol)))


@pytest.mark.only("gyre")
def test_a_forked_child_leaves_the_socket_alone(loop, peer):
    peer.append(sock := plain())
    protocol = drive(loop, endpoint(loop))

    def child():
        transport = protocol.transport
        transport.abort()
        with pytest.raises(RuntimeError):
            loop.run_until_complete(spin())

    in_child(child)
    sock.sendto(b"x", name(protocol))
    run_until(loop, lambda: protocol.received)
    drive(loop, closed(protocol))


@pytest.mark.only("gyre")
def test_socket_closed_by_somebody_else(loop, peer):
    """Its number may be a stranger's (with whom asyncio goes on): that is not touched."""
    ours = plain()

    async def main():
        protocol = await endpoint(loop, sock=ours)
        number = ours.fileno()
        ours.close()
        stranger = plain()
        peer.append(stranger)
        assert stranger.fileno() == number
        protocol.transport.sendto(b"x", stranger.getsockname())
        await spin()
        protocol.transport.abort()
        await protocol.lost
        await spin()
        assert stranger.fileno() == number
        stranger.getsockname()  # still open

    drive(loop, main())


@pytest.mark.parametrize("error", ["refused", "none"])
def test_connection_made_that_raises(loop, error, asyncio_log):
    class Broken(Noting):
        def connection_made(self, transport):
            super().connection_made(transport)
            if error == "refused":
                raise LookupError("of the protocol")

    async def main():
        protocol = await endpoint(loop, Broken(loop))
        await closed(protocol)

    drive(loop, main())
    assert len(asyncio_log.messages()) == (error == "refused")


def test_many_endpoints(loop):
    """Nothing is left behind (the fixture counts descriptors and operations)."""

    async def main():
        for _ in range(50):
            left, right = await endpoint(loop), await endpoint(loop)
            left.transport.sendto(b"x", name(right))
            await right.count(1)
            left.transport.close()
            right.transport.abort()
            await left.lost
            await right.lost

    drive(loop, main())


def test_socket_of_the_wrong_kind(loop):
    async def main():
        with socket.socket() as stream, pytest.raises(ValueError, match="ocket was expected"):
            await endpoint(loop, sock=stream)

    drive(loop, main())
