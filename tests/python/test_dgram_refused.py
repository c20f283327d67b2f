"""A burst of datagrams that the kernel does not take as one send: they go one by one.

Nobody notices but the kernel: the same datagrams arrive, and what cannot be sent by itself is
reported as on asyncio's loop.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct

import pytest
from helpers import in_child
from tcp_tools import drive, spin
from test_dgram import closed, endpoint, name, plain
from test_dgram_life import calls, has

SO_NO_CHECK = 11  # a checksum is not made, which UDP_SEGMENT needs: EINVAL
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # not in pieces: EMSGSIZE
CLONE_NEWNET, SIOCSIFFLAGS, SIOCSIFMTU = 0x40000000, 0x8914, 0x8922


def in_a_network_of_its_own(function, mtu=1500):
    """function() in a child whose loopback takes packets of up to mtu bytes."""

    def work():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si12x", b"lo", mtu))
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", 1))
        function()

    libc = ctypes.CDLL(None, use_errno=True)

    def apart():
        if libc.unshare(CLONE_NEWNET) != 0:
            if ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC):
                os._exit(0)  # nothing to see without the right to make one
            raise OSError(ctypes.get_errno(), "unshare")
        work()

    in_child(apart)


@pytest.mark.parametrize("connected", [False, True])
def test_einval(loop, connected):
    async def main():
        right = await endpoint(loop)
        sock = plain()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        if connected:
            sock.connect(name(right))
        left = await endpoint(loop, sock=sock)
        to = [] if connected else [name(right)]
        for _ in range(2):
            expected = [b"%04d" % i for i in range(100)]
            before = calls(loop)[0] if hasattr(loop, "stats") else 0
            for data in expected:
                left.transport.sendto(data, *to)
            assert await right.count(100) == expected
            if hasattr(loop, "stats"):
                assert calls(loop)[0] - before >= 100  # each by itself, after all
            right.received.clear()
        assert left.errors == []
        assert left.transport.get_write_buffer_size() == 0
        await closed(left, right)

    drive(loop, main())


def test_datagrams_longer_than_a_packet(new_loop):
    """The network splits each of them; of several in one send it refuses to."""

    def child():
        loop = new_loop()

        async def main():
            left, right = await endpoint(loop), await endpoint(loop)
            for size in (2000, 1473, 1472, 100):
                expected = [(b"%04d" % i).ljust(size, b".") for i in range(10)]
                for data in expected:
                    left.transport.sendto(data, name(right))
                assert await right.count(10) == expected
                right.received.clear()
            assert left.errors == []
            await closed(left, right)

        drive(loop, main())
        loop.close()

    in_a_network_of_its_own(child)


def test_emsgsize(new_loop):
    """Datagrams that may not be split: each one is an error of its own, others get through."""

    def child():
        loop = new_loop()

        async def main():
            right = await endpoint(loop)
            sock = plain()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            left = await endpoint(loop, sock=sock)
            for i in range(5):
                left.transport.sendto(b"%d" % i + bytes(1999), name(right))
            for i in range(5):
                left.transport.sendto(b"%d" % i, name(right))
            assert await right.count(5) == [b"0", b"1", b"2", b"3", b"4"]
            await spin()
            assert [exc.errno for exc in left.errors] == [errno.EMSGSIZE] * 5
            assert not left.transport.is_closing()
            # What fits a packet leaves together all the same.
            expected = [b"%04d" % i for i in range(64)]
            before = calls(loop)[0] if hasattr(loop, "stats") else 0
            right.received.clear()
            for data in expected:
                left.transport.sendto(data, name(right))
            assert await right.count(64) == expected
            if hasattr(loop, "stats") and has("udp_gso"):
                assert calls(loop)[0] - before == 2
            await closed(left, right)

        drive(loop, main())
        loop.close()

    in_a_network_of_its_own(child)


@pytest.mark.only("gyre")
@pytest.mark.parametrize("count", [1, 2, 65, 66, 129, 200])
def test_how_many_leave_together(loop, count):
    """The first at once, the others by up to 64."""

    async def main():
        left, right = await endpoint(loop), await endpoint(loop)
        before = calls(loop)[0]
        expected = [b"%04d" % i for i in range(count)]
        for data in expected:
            left.transport.sendto(data, name(right))
        # The first has left before the callback ends, the 64 that fill a send too.
        assert calls(loop)[0] - before >= 1
        assert await right.count(count) == expected
        if has("udp_gso"):
            assert calls(loop)[0] - before == 1 + -(-(count - 1) // 64)
        await closed(left, right)

    drive(loop, main())


def test_the_first_of_a_callback_leaves_at_once(loop):
    async def main():
        left = await endpoint(loop)
        with plain() as receiver:
            receiver.setblocking(False)
            left.transport.sendto(b"first", receiver.getsockname())
            assert receiver.recv(10) == b"first"
            left.transport.sendto(b"later", receiver.getsockname())
            await asyncio.sleep(0)
            assert receiver.recv(10) == b"later"
        await closed(left)

    drive(loop, main())
