"""The streams half of a differential world: tasks that use streams and wait for each other.

A task's body is a list of operations `do_<name>`, some of which have bodies of their own.  What
each returned or raised is noted in one trace for all tasks: asyncio promises their order.
"""

import asyncio
import collections
import concurrent.futures
import contextvars
import functools
import socket
import threading

from differential import EXCEPTIONS, ssl_context, told
from differential_transports import Conn, TlsEnd, Transports, is_over, stream_pair

FUTURES = 2
VARIABLE = contextvars.ContextVar("VARIABLE", default="nothing")


class Lockstep(concurrent.futures.ThreadPoolExecutor):
    """Does one thing at a time, in another thread, when the world tells it to."""

    def __init__(self):
        super().__init__(1)
        self.jobs = collections.deque()

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        self.jobs.append((future, functools.partial(function, *args, **kwargs)))
        return future

    def do_one(self):
        """False if there is nothing to do."""
        if not self.jobs:
            return False
        thread = threading.Thread(target=self.work, args=self.jobs.popleft())
        thread.start()
        thread.join()
        return True

    def work(self, future, function):
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as exc:
                future.set_exception(exc)


def made(task):
    """A key for the order of tasks: Task-1000 was made after Task-999."""
    return len(task.get_name()), task.get_name()


class Streams(Transports):
    def __init__(self, loop):
        super().__init__(loop)
        self.tasks = []
        self.servers = []
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.lock = asyncio.Lock()
        self.event = asyncio.Event()
        self.queue = asyncio.Queue(1)
        self.executor = Lockstep()
        loop.set_default_executor(self.executor)

    # ---- opening

    def op_open_stream(self, kind, limit, flow, body):
        conn = Conn(self, len(self.conns), kind, [], flow)
        conn.reader = conn.writer = None
        conn.starting = False  # TLS, and what is written now would come between
        self.conns.append(conn)
        self.watch(conn, "open", self.connect(conn, limit, body))

    async def connect(self, conn, limit, body):
        def serve(reader, writer):
            self.adopt(conn, reader, writer)
            if conn.number % 2:  # a callback or a coroutine function
                self.spawn(body)
                return None
            return self.run(f"server{conn.number}", body)

        if conn.kind == "server":
            server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=limit)
            self.servers.append(server)
            conn.peer = socket.create_connection(server.sockets[0].getsockname())
            # Else a second small piece waits for an acknowledgement, up to 40 ms: whether it is
            # there at the end, unread, which makes a reset of it, would be by chance.
            conn.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conn.peer.setblocking(False)
            self.closing.append(conn.peer)
            return
        ours, conn.peer = stream_pair("tls")
        self.closing += (ours, conn.peer)
        if conn.kind == "accepted":
            reader = asyncio.StreamReader(limit=limit, loop=self.loop)
            protocol = asyncio.StreamReaderProtocol(reader, serve, loop=self.loop)
            await self.loop.connect_accepted_socket(lambda: protocol, ours)
            return
        options = {}
        if conn.kind == "tls":
            conn.peer = TlsEnd(conn.peer, True)
            options = {"ssl": ssl_context(False), "server_hostname": "localhost"}
        self.adopt(conn, *await asyncio.open_connection(sock=ours, limit=limit, **options))
        self.spawn(body)

    def adopt(self, conn, reader, writer):
        conn.reader, conn.writer, conn.transport = reader, writer, writer.transport

    def stream(self, number):
        conn = self.conns[number % len(self.conns)] if self.conns else None
        return conn if conn is not None and getattr(conn, "reader", None) is not None else None

    # ---- tasks

    def op_spawn(self, body):
        self.spawn(body)

    def spawn(self, body):
        name = f"t{len(self.tasks)}"
        task = self.loop.create_task(self.run(name, body), name=name)
        self.tasks.append(task)
        return task

    def op_cancel(self, number):
        if number < len(self.tasks):
            return self.tasks[number].cancel(f"at {number}")

    async def run(self, name, body):
        try:
            await self.each(name, body)
        except BaseException as exc:
            self.note("tasks", name, "ends", told(exc))
            raise
        self.note("tasks", name, "ends")

    async def each(self, name, body):
        for operation, *args in body:
            try:
                result = await getattr(self, "do_" + operation)(name, *args)
            except BaseException as exc:
                self.note("tasks", name, operation, "raised", told(exc))
                raise
            self.note("tasks", name, operation, result)

    # ---- what tasks do: what it returns is noted

    async def do_reader(self, name, number, method, *args):
        if conn := self.stream(number):
            return await getattr(conn.reader, method)(*args)

    async def do_look(self, name, number):
        if (conn := self.stream(number)) and not self.is_held(conn):
            reader = conn.reader
            return reader.at_eof(), told(reader.exception()), conn.writer.is_closing()

    async def do_feed(self, name, number, what):
        if conn := self.stream(number):
            if what == "eof":
                conn.reader.feed_eof()
            elif what == "error":
                conn.reader.set_exception(OSError("made up"))
            else:
                conn.reader.feed_data(what)

    async def do_write(self, name, number, size):
        if (conn := self.stream(number)) and not conn.starting:
            if not is_over(conn.transport):
                conn.writer.write(self.next_bytes(conn, size))

    async def do_writelines(self, name, number, sizes):
        if (conn := self.stream(number)) and not conn.starting:
            conn.writer.writelines(self.next_lines(conn, sizes))

    async def do_writer(self, name, number, method):
        """drain, wait_closed; write_eof, close, can_write_eof, is_closing."""
        conn = self.stream(number)
        if conn is None or (conn.starting and method == "write_eof"):
            return None
        if method not in ("is_closing", "drain") or not self.is_held(conn):
            result = getattr(conn.writer, method)()
            return await result if asyncio.iscoroutine(result) else result

    async def do_transport(self, name, number, method):
        """Behind the back of the streams."""
        if conn := self.stream(number):
            conn.unclean |= method == "abort"
            if not is_over(conn.transport):
                getattr(conn.transport, method)()

    async def do_turn(self, name):
        await asyncio.sleep(0)

    async def do_wait(self, name, number):
        return await self.futures[number]

    async def do_set(self, name, number):
        if not self.futures[number].done():
            self.futures[number].set_result(number)
        self.futures[number] = self.loop.create_future()

    async def do_event(self, name, wait):
        if wait:
            return await self.event.wait()
        self.event.set()
        self.event.clear()

    async def do_put(self, name):
        await self.queue.put(name)

    async def do_get(self, name):
        return await self.queue.get()

    async def do_lock(self, name, body):
        async with self.lock:
            await self.each(name, body)

    async def do_timeout(self, name, body):
        async with asyncio.timeout(0):
            await self.each(name, body)

    async def do_wait_for(self, name, body):
        await asyncio.wait_for(self.run(name + "'", body), 0)

    async def do_gather(self, name, bodies, return_exceptions):
        runs = [self.run(f"{name}.{number}", body) for number, body in enumerate(bodies)]
        found = await asyncio.gather(*runs, return_exceptions=return_exceptions)
        return [told(each) for each in found]

    async def do_group(self, name, bodies):
        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(bodies):
                group.create_task(self.run(f"{name}.{number}", body))

    async def do_catch(self, name, body):
        try:
            await self.each(name, body)
        except (Exception, asyncio.CancelledError) as exc:
            return told(exc)

    async def do_cancel(self, name, number):
        return self.op_cancel(number)

    async def do_raise(self, name, key):
        raise EXCEPTIONS[key]()

    async def do_executor(self, name, how, ending):
        """A function in another thread, and what it returns or raises."""

        def function():
            if ending is not None:
                raise EXCEPTIONS[ending]()
            return VARIABLE.get()

        VARIABLE.set(name)
        if how == "to_thread":
            return await asyncio.to_thread(function)
        return await self.loop.run_in_executor(None, function)

    def pump(self):
        return any([super().pump(), self.executor.do_one()])

    async def do_start_tls(self, name, number):
        conn = self.stream(number)
        if conn is None or conn.kind == "tls" or isinstance(conn.peer, TlsEnd) or conn.big:
            return None
        if conn.peer.fileno() < 0 or conn.peer_over or is_over(conn.transport):
            return None
        # What was written in this step may still be on its way, and what was received belongs to
        # the handshake on gyre, and on asyncio since 3.14.
        if conn.wrote is self.step or conn.reader._buffer:
            return "not now"
        server_side = conn.kind != "client"
        self.drain_peer(conn)
        conn.peer = TlsEnd(conn.peer, not server_side)
        conn.starting = True
        start = conn.writer.start_tls
        if asyncio.StreamWriter.start_tls.__kwdefaults__ and not server_side:
            start = functools.partial(start, server_hostname="localhost")
        try:
            await start(ssl_context(server_side))
        except BaseException:
            conn.unclean = True
            if conn.writer._transport is None:  # of a connection that was lost: asyncio stumbles
                conn.writer._transport = conn.transport  # over that, and its __del__ once more
            raise
        finally:
            conn.starting = False
        conn.transport = conn.writer.transport
        conn.below = getattr(conn.transport, "_ssl_protocol", None)

    # ---- the end

    def op_peer_data(self, number, data):
        if conn := self.peer_of(number):
            try:
                conn.peer.send(data)
            except OSError:
                pass

    def finish(self):
        super().finish()
        self.end_tasks()
        for conn in self.conns:
            if conn := self.stream(conn.number):
                buffered = bytes(conn.reader._buffer)
                self.note(conn.label, "buffer", buffered, conn.reader._eof, conn.reader._paused)
        for server in self.servers:
            server.close()
        self.settle()

    def end_tasks(self):
        """Cancels what still runs; a program may swallow that, but not for ever."""
        for _ in range(20):
            rest = asyncio.all_tasks(self.loop)
            if not rest:
                break
            for task in sorted(rest, key=made):
                task.cancel("over")
            self.settle()
        self.note("tasks", "left", len(asyncio.all_tasks(self.loop)))
