"""Sockets of nobody, opened at once under the numbers that others have just closed."""

import os
import socket


class Canaries:
    """Whoever closes a number twice, or reads or writes by a number that is not his any more, hits
    one of these."""

    def __init__(self):
        self.pairs = []

    def hatch(self, count=12):
        for _ in range(count):
            left, right = socket.socketpair()
            left.setblocking(False)
            right.setblocking(False)
            token = os.urandom(16)
            left.send(token)
            inodes = [os.fstat(sock.fileno()).st_ino for sock in (left, right)]
            self.pairs.append((left, right, token, inodes))

    def check(self):
        pairs, self.pairs = self.pairs, []
        for left, right, token, inodes in pairs:
            found = [os.fstat(sock.fileno()).st_ino for sock in (left, right)]
            assert found == inodes, "the number of an open socket is another file"
            assert right.recv(100) == token, "somebody else has read or written here"
            for sock in (left, right):
                try:
                    extra = sock.recv(100)
                except BlockingIOError:
                    pass
                else:
                    raise AssertionError(f"not ours: {extra!r}, or an end")
        for left, right, _, _ in pairs:
            left.close()
            right.close()
