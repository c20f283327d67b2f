"""The clients of uvloop's public echo benchmark: processes of blocking Python sockets in lockstep.

    python -m bench.net.public_client --port 40123 --server-pid 123

Three of them by default, 1000 bytes a message, strict request and answer. They are slower than any
of the servers, so the figures say little; they are here because everybody's published ones were
made like this. Prints what bench/net/loadgen prints, as far as it can be known.
"""

import argparse
import json
import os
import select
import socket
import sys
import time


def ping_pong(address, size, begin_at, end_at, out):
    """One client: counts the messages whose answer came within the window."""
    message = bytes(size)
    latencies = []
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        now = time.monotonic()
        while now < end_at:
            sent = now
            sock.sendall(message)
            left = size
            while left:
                data = sock.recv(left)
                if not data:
                    raise ConnectionError("the server closed the connection")
                left -= len(data)
            now = time.monotonic()
            if begin_at <= sent and now <= end_at:
                latencies.append(now - sent)
    with os.fdopen(out, "w") as pipe:
        json.dump(latencies, pipe)


def start_client(*args):
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_fd)
            ping_pong(*args, write_fd)
            code = 0
        except OSError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(code)
    os.close(write_fd)
    return pid, read_fd


def cpu_s(pid):
    return time.clock_gettime((~pid << 3) | 2)


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def read_all(clients):
    latencies = []
    for pid, read_fd in clients:
        with os.fdopen(read_fd) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        if status != 0:
            sys.exit("a client failed")
        latencies += json.loads(text)
    return sorted(latencies)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--duration", type=float, default=0.5)
    parser.add_argument("--server-pid", type=int, required=True)
    args = parser.parse_args()
    begin_at = time.monotonic() + args.warmup
    end_at = begin_at + args.duration
    address = ("127.0.0.1", args.port)
    clients = [start_client(address, args.size, begin_at, end_at) for _ in range(args.clients)]
    # Nothing else to do until then; select() because it says so, whatever a signal does.
    select.select([], [], [], max(0.0, begin_at - time.monotonic()))
    cpu_before_s = cpu_s(args.server_pid)
    select.select([], [], [], max(0.0, end_at - time.monotonic()))
    spent_s = cpu_s(args.server_pid) - cpu_before_s
    latencies = read_all(clients)
    count = len(latencies)
    if count == 0:
        sys.exit("no message came back")

    def percentile(share):
        return latencies[min(count - 1, int(count * share))] * 1e6

    print(
        json.dumps(
            {
                "messages": count,
                "messages_per_s": count / args.duration,
                "latency_us": {
                    "p50": percentile(0.5),
                    "p99": percentile(0.99),
                    "p999": percentile(0.999),
                },
                "client": {"busy": 1.0},
                "server": {
                    "cpu_us_per_message": spent_s * 1e6 / count,
                    "utilisation": spent_s / args.duration,
                    "minor_faults": 0,
                    "rss_bytes": rss_bytes(args.server_pid),
                    "rss_bytes_per_connection": 0.0,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
