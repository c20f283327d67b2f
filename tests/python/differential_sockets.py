"""The sockets half of a differential world: sock_*() calls, add_reader() and add_writer().

A socket is either for calls or for readiness: on asyncio the ones displace the others.  At most one
call per direction waits: there gyre lets the second wait too, and asyncio forgets the first.
"""

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import zlib

from differential import Unusual, World, pattern, told

NOTED_CALLS = 2  # of a callback per step; one that is always ready is called by chance


def stream():
    return socket.socketpair()


def datagrams():
    """Two UNIX datagram sockets with names of the kernel's choice."""
    left, right = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind("")
    right.connect(left.getsockname())
    return left, right


def udp():
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
    right.connect(left.getsockname())
    return left, right


def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, None


def unconnected():
    """Ours is to be connected: the peer listens."""
    return socket.socket(), socket.create_server(("127.0.0.1", 0))


MAKERS = {f.__name__: f for f in (stream, datagrams, udp, listener, unconnected)}


class Thing:
    """One socket of the program's."""

    def __init__(self, number, kind, polled):
        self.label = f"s{number}"
        self.kind = kind
        self.polled = polled
        self.sock, self.peer = MAKERS[kind]()
        for sock in (self.sock, self.peer):
            if sock is not None:
                sock.setblocking(False)
        self.sent = self.peer_sent = self.peer_got = self.crc = 0
        self.waiting = {}  # direction -> task
        self.rival = None  # the direction whose callback removes the other
        self.calls = {}  # direction -> (step, count)

    def close(self):
        for sock in (self.sock, self.peer):
            if sock is not None:
                sock.close()


class Planned(Exception):
    """What a callback raises; its argument is the callback's trace."""


class PlannedUnusual(Unusual):
    """The same."""


class Sockets(World):
    def __init__(self, loop):
        super().__init__(loop)
        self.things = []
        self.calls = []

    def on_exception(self, loop, context):
        exc = context.get("exception")
        if isinstance(exc, (Planned, PlannedUnusual)):
            self.note(exc.args[0], "reported", sorted(set(context) - {"source_traceback"}))
        else:
            super().on_exception(loop, context)

    def op_socket(self, kind, polled):
        self.things.append(Thing(len(self.things), kind, polled))
        self.closing.append(self.things[-1])

    def thing(self, number, polled):
        """The nearest one that is for this."""
        things = [thing for thing in self.things if thing.polled == polled]
        return things[number % len(things)] if things else None

    def any_thing(self, number):
        return self.things[number % len(self.things)] if self.things else None

    # ---- calls

    def op_call(self, number, method, size):
        """loop.sock_<method>() in a task."""
        thing = self.thing(number, False)
        direction = method in ("sendall", "sendfile", "sendto", "connect")
        if thing is None or thing.waiting.get(direction) is not None:
            return
        if thing.sock.fileno() < 0:
            return
        task = self.loop.create_task(self.call(thing, direction, method, size))
        thing.waiting[direction] = task
        self.calls.append(task)

    async def call(self, thing, direction, method, size):
        """What receives and what sends has a trace each: both may end by one event."""
        label = thing.label + (" sends" if direction else " receives")
        try:
            result = await getattr(self, "call_" + method)(thing, size)
        except (Exception, asyncio.CancelledError) as exc:
            self.note(label, method, "raised", told(exc))
        else:
            self.note(label, method, result)
        finally:
            thing.waiting[direction] = None

    async def call_recv(self, thing, size):
        data = await self.loop.sock_recv(thing.sock, size)
        return len(data), zlib.crc32(data)

    async def call_recv_into(self, thing, size):
        memory = bytearray(size)
        return await self.loop.sock_recv_into(thing.sock, memory), zlib.crc32(memory)

    async def call_recvfrom(self, thing, size):
        data, address = await self.loop.sock_recvfrom(thing.sock, size)
        return len(data), zlib.crc32(data), type(address).__name__

    async def call_recvfrom_into(self, thing, size):
        memory = bytearray(size)
        count, address = await self.loop.sock_recvfrom_into(thing.sock, memory)
        return count, zlib.crc32(memory), type(address).__name__

    async def call_sendall(self, thing, size):
        data = pattern(thing.sent, size)
        thing.sent += size
        return await self.loop.sock_sendall(thing.sock, data)

    async def call_sendfile(self, thing, size):
        with tempfile.TemporaryFile() as file:
            file.write(pattern(thing.sent, size))
            file.flush()
            thing.sent += size
            sent = await self.loop.sock_sendfile(thing.sock, file, fallback=False)
            return sent, file.tell()

    async def call_sendto(self, thing, size):
        if thing.kind not in ("datagrams", "udp"):
            return None
        data = pattern(thing.sent, size)
        thing.sent += size
        return await self.loop.sock_sendto(thing.sock, data, thing.peer.getsockname())

    async def call_accept(self, thing, size):
        sock, address = await self.loop.sock_accept(thing.sock)
        self.closing.append(sock)
        return sock.gettimeout(), address[0]

    async def call_connect(self, thing, size):
        if thing.kind != "unconnected":
            return None
        address = thing.peer.getsockname() if thing.peer.fileno() >= 0 else ("127.0.0.1", 1)
        return await self.loop.sock_connect(thing.sock, address)

    def op_cancel_call(self, number):
        if number < len(self.calls):
            return self.calls[number].cancel()

    def op_blocking(self, number, on):
        """In debug mode a call refuses it; else the loop might wait for ever."""
        if self.loop.get_debug() and (thing := self.thing(number, False)):
            if thing.sock.fileno() >= 0 and not any(thing.waiting.values()):
                thing.sock.setblocking(on)

    # ---- readiness

    def op_add(self, number, writer, does):
        if (thing := self.thing(number, True)) and thing.sock.fileno() >= 0:
            # Of two that remove each other the first one stays, which is not promised either: nor
            # is whether one is called in the turn in which it is added, before the other.
            if does in ("other", "close", "take") and thing.rival not in (None, writer):
                does = "look"
            elif does in ("other", "close"):
                thing.rival = writer
            self.add(thing, writer, does)

    def add(self, thing, writer, does):
        add = self.loop.add_writer if writer else self.loop.add_reader
        what = thing.sock if does != "look" else thing.sock.fileno()
        add(what, self.ready, thing, writer, does)

    def ready(self, thing, writer, does):
        label = thing.label + (" writable" if writer else " readable")
        step, count = thing.calls.get(writer, (None, 0))
        count = count + 1 if step is self.step else 1
        thing.calls[writer] = (self.step, count)
        if does == "take" and not writer:
            return self.take(thing, label)
        if count <= NOTED_CALLS:
            self.note(label, does)
        if does == "remove":
            self.remove(thing, writer)
        elif does == "other":
            self.remove_other(thing, writer)
        elif does == "replace":
            self.add(thing, writer, "remove")
        elif does == "raise" and count <= NOTED_CALLS:
            raise Planned(label)
        elif does == "base" and count == 1:
            raise PlannedUnusual(label)
        elif does == "close":
            self.remove(thing, writer)
            self.remove_other(thing, writer)
            thing.sock.close()
        return None

    def take(self, thing, label):
        """Level-triggered: nobody is called for nothing, and everybody until there is nothing."""
        try:
            if thing.kind == "listener":
                sock, _ = thing.sock.accept()
                sock.close()
                self.count(label, "accepted", 1)
                return
            data = thing.sock.recv(100)
        except OSError as exc:
            self.note(label, told(exc))
            self.remove(thing, False)
            return
        self.count(label, "got", len(data))
        if not data:
            self.note(label, "end")
            self.remove(thing, False)

    def remove(self, thing, writer):
        remove = self.loop.remove_writer if writer else self.loop.remove_reader
        return remove(thing.sock)

    def remove_other(self, thing, writer):
        """Not called from now on; whether it was in this turn, before this one, is by chance."""
        self.step.pop(thing.label + (" readable" if writer else " writable"), None)
        self.remove(thing, not writer)

    def op_remove(self, number, writer):
        if (thing := self.thing(number, True)) and thing.sock.fileno() >= 0:
            return self.remove(thing, writer)

    def op_close_socket(self, number):
        """Removed first: what asyncio makes of a closed descriptor depends on its number."""
        if (thing := self.thing(number, True)) and thing.sock.fileno() >= 0:
            self.remove(thing, False)
            self.remove(thing, True)
            thing.sock.close()

    def op_dup(self, number, close):
        """Another descriptor of the same socket, which goes on in place of the first or after it.

        dup2() closes the number and uses it again at once.
        """
        if (thing := self.thing(number, True)) and thing.sock.fileno() >= 0:
            found = self.remove(thing, False), self.remove(thing, True)
            copy = thing.sock.dup()
            copy.setblocking(False)
            if close:
                os.dup2(copy.fileno(), thing.sock.fileno())
                copy.close()
            else:
                self.closing.append(thing.sock)
                thing.sock = copy
            return found

    def op_new_file(self, number):
        """The number is another socket's from now on."""
        if (thing := self.thing(number, True)) and thing.kind == "stream":
            if thing.sock.fileno() >= 0 and thing.peer.fileno() >= 0:
                self.remove(thing, False)
                self.remove(thing, True)
                ours, theirs = socket.socketpair()
                os.dup2(ours.fileno(), thing.sock.fileno())
                os.dup2(theirs.fileno(), thing.peer.fileno())
                thing.sock.setblocking(False)
                thing.peer.setblocking(False)
                ours.close()
                theirs.close()

    def op_add_wrong(self, what, writer):
        add = self.loop.add_writer if writer else self.loop.add_reader
        if what == "file":
            with tempfile.TemporaryFile() as file:
                add(file, print)
        elif what == "closed":
            sock = socket.socket()
            sock.close()
            add(sock, print)
        else:
            add(what, print)

    # ---- the other ends

    def op_peer_sends(self, number, size):
        thing = self.any_thing(number)
        if thing is None or thing.peer is None or thing.kind == "unconnected":
            if thing is not None and thing.kind == "listener" and thing.sock.fileno() >= 0:
                client = socket.socket()
                self.closing.append(client)
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect(thing.sock.getsockname())
            return
        if thing.peer.fileno() >= 0:
            with contextlib.suppress(OSError):
                thing.peer_sent += thing.peer.send(pattern(thing.peer_sent, size))

    def op_peer_takes(self, number):
        thing = self.any_thing(number)
        if thing is None or thing.kind in ("unconnected", "listener") or thing.peer.fileno() < 0:
            return
        self.taking = thing

    def op_peer_leaves(self, number, how):
        thing = self.any_thing(number)
        if thing is None or thing.peer is None or thing.peer.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            if how == "eof":
                thing.peer.shutdown(socket.SHUT_WR)
                return
        thing.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        thing.peer.close()

    taking = None

    def pump(self):
        more = super().pump()
        thing = self.taking
        if thing is None:
            return more
        try:
            data = thing.peer.recv(1 << 20)
        except OSError:
            data = b""
        thing.peer_got += len(data)
        thing.crc = zlib.crc32(data, thing.crc)
        if not data:
            self.note(thing.label, "peer got", thing.peer_got, thing.crc)
            self.taking = None
        return True

    def finish(self):
        super().finish()
        for call in self.calls:
            call.cancel()
        self.settle()
        for thing in self.things:
            if thing.polled and thing.sock.fileno() >= 0:
                self.note(thing.label, "had", self.remove(thing, False), self.remove(thing, True))
