"""The table of cells: every workload that is measured, by name.

A name is a path, `net.proto.c100.1K`: family, kind, connections, message size. `--only` takes a
prefix of whole parts (`net.proto`, `micro.task`) or a pattern (`net.*.c100.*`).
"""

import difflib
import fnmatch
from dataclasses import dataclass, field

SIZES = {
    "64B": 64,
    "1K": 1024,
    "16K": 16 * 1024,
    "64K": 64 * 1024,
    "128K": 128 * 1024,
    "256K": 256 * 1024,
    "1M": 1 << 20,
}


@dataclass(frozen=True)
class Metric:
    """What decides a cell, and how a person reads it."""

    key: str
    label: str
    higher_is_better: bool
    scale: float = 1.0


RATE = Metric("rate", "per second", True)
CPU = Metric("cpu_us", "us CPU", False)
RSS = Metric("rss_per_connection", "bytes", False)
RETAINED = Metric("retained", "bytes retained", False)
LATENESS = Metric("lateness_us", "us late", False)
P99 = Metric("p99_us", "us p99", False)


@dataclass(frozen=True)
class Cell:
    name: str
    family: str  # net, http, micro, files: who runs it
    title: str
    metric: Metric = RATE
    parameters: dict = field(default_factory=dict, hash=False)
    c_limit: bool = False  # the C echo servers can do this too
    quick: bool = False
    verdict: bool = True  # False: shown for what it says, neither won nor lost
    traced: bool = True  # count system calls
    repetitions_max: int | None = None  # for what takes long and hardly varies
    window_times: int = 1  # longer windows, for what flow control makes uneven

    @property
    def kind(self):
        """The table that the cell stands in: its first two parts."""
        return ".".join(self.name.split(".")[:2])


QUICK = {
    "net.proto.c1.64B",
    "net.proto.c10.64B",
    "net.proto.c100.1K",
    "net.proto.c100.16K",
    "net.proto.c1000.64B",
    "net.buffered.c100.1K",
    "net.streams.c100.1K",
    "net.sock.c100.1K",
    "tls.proto.c100.1K",
    "tls.streams.c100.16K",
}


CELL_FIELDS = ("metric", "c_limit", "verdict", "traced", "repetitions_max", "window_times")
ONE_WAY_TIMES = 4


def net_cell(name, title, *, connections, size, mode="proto", **more):
    fields = {key: more.pop(key) for key in CELL_FIELDS if key in more}
    parameters = {"connections": connections, "size": size, "mode": mode, **more}
    return Cell(name, "net", title, parameters=parameters, quick=name in QUICK, **fields)


def echo_cells():
    titles = {
        "proto": "TCP echo, Protocol",
        "buffered": "TCP echo, BufferedProtocol",
        "streams": "TCP echo, streams",
        "sock": "TCP echo, sock_recv and sock_sendall",
    }
    for mode, title in titles.items():
        for size in ("64B", "1K", "16K", "128K", "1M"):
            for connections in (1, 10, 100, 1000):
                if size == "1M" and connections == 1000:
                    continue  # more than the kernel's TCP memory on a small machine
                yield net_cell(
                    f"net.{mode}.c{connections}.{size}",
                    title,
                    mode=mode,
                    connections=connections,
                    size=SIZES[size],
                    c_limit=mode == "proto",
                )


def variant_cells():
    for connections, size in ((1, "64B"), (10, "64B"), (100, "1K"), (100, "16K")):
        yield net_cell(
            f"net.readers.c{connections}.{size}",
            "TCP echo, recv and send in add_reader callbacks",
            mode="readers",
            connections=connections,
            size=SIZES[size],
        )
    for mode in ("proto", "streams"):
        for connections, size in ((1, "64B"), (10, "64B"), (100, "1K"), (100, "16K")):
            yield net_cell(
                f"net.unix.{mode}.c{connections}.{size}",
                "UNIX socket echo",
                mode=mode,
                connections=connections,
                size=SIZES[size],
                unix=True,
                c_limit=mode == "proto",
            )
        for connections, size in ((10, "64B"), (100, "1K")):
            yield net_cell(
                f"net.pipeline.{mode}.c{connections}.{size}",
                "TCP echo, 16 messages in flight per connection",
                mode=mode,
                connections=connections,
                size=SIZES[size],
                depth=16,
                c_limit=mode == "proto",
            )
        for connections in (10, 100):
            yield net_cell(
                f"net.split.{mode}.c{connections}.1K",
                "TCP echo, the answer is written as a header of 16 bytes and a body",
                mode=mode,
                connections=connections,
                size=1024,
                role="split",
            )
            yield net_cell(
                f"net.splitin.{mode}.c{connections}.1K",
                "TCP echo, the request arrives as a header of 16 bytes and a body",
                mode=mode,
                connections=connections,
                size=1024,
                client_split=16,
            )


def bulk_cells():
    for role, modes, title in (
        ("sink", ("proto", "buffered", "streams", "sock"), "one way, client to server"),
        ("source", ("proto", "streams", "sock"), "one way, server to client"),
    ):
        for mode in modes:
            yield net_cell(
                f"net.{role}.{mode}.c4.64K",
                f"TCP {title}, with flow control",
                mode=mode,
                connections=4,
                size=SIZES["64K"],
                role=role,
                traced=False,
                window_times=ONE_WAY_TIMES,
            )


def udp_cells():
    for connections, depth, size in (
        (1, 1, 200),
        (10, 1, 200),
        (100, 1, 200),
        (10, 16, 200),
        (10, 1, 1200),
        (100, 1, 1200),
    ):
        suffix = f".d{depth}" if depth > 1 else ""
        yield net_cell(
            f"net.udp.echo.c{connections}.{size}B{suffix}",
            "UDP echo",
            mode="udp",
            connections=connections,
            size=size,
            depth=depth,
            c_limit=True,
        )
    for role, title in (("sink", "received"), ("source", "sent")):
        for size in (200, 1200):
            for gso in (False, True) if role == "sink" else (True,):
                how = ", the sender uses segmentation offload" if gso and role == "sink" else ""
                yield net_cell(
                    f"net.udp.{role}{'-gso' if gso and role == 'sink' else ''}.{size}B",
                    f"UDP one way: datagrams {title}{how}",
                    mode="udp",
                    connections=1,
                    size=size,
                    role=role,
                    gso=gso,
                    metric=RATE if gso else CPU,
                    traced=False,
                    window_times=ONE_WAY_TIMES,
                )


def connection_cells():
    for mode in ("proto", "streams"):
        yield net_cell(
            f"net.churn.{mode}.c20",
            "connect, one echo of 64 bytes, close; decided by server CPU per connection",
            mode=mode,
            connections=20,
            size=64,
            load="churn",
            metric=CPU,
            c_limit=mode == "proto",
        )
        yield net_cell(
            f"net.idle.{mode}.c10000",
            "memory of the server per idle connection",
            mode=mode,
            connections=10_000,
            size=64,
            load="idle",
            metric=RSS,
            traced=False,
        )


def burst_cells():
    for mode in ("proto", "streams", "sock"):
        yield net_cell(
            f"net.burst.{mode}.c1000.128K",
            "memory that the server keeps after 1000 connections echoed 128 KiB each and closed; "
            "up to 1 MiB counts as nothing",
            mode=mode,
            connections=1000,
            size=SIZES["128K"],
            load="burst",
            metric=RETAINED,
            traced=False,
        )


def tls_cells():
    titles = {
        "proto": "TLS echo, Protocol",
        "buffered": "TLS echo, BufferedProtocol",
        "streams": "TLS echo, streams",
    }
    for mode, title in titles.items():
        for connections, size in (
            (1, "1K"),
            (10, "1K"),
            (100, "1K"),
            (10, "16K"),
            (100, "16K"),
            (10, "256K"),
        ):
            yield net_cell(
                f"tls.{mode}.c{connections}.{size}",
                title,
                mode=mode,
                connections=connections,
                size=SIZES[size],
                tls=True,
            )
    for mode in ("proto", "streams"):
        yield net_cell(
            f"tls.handshake.{mode}.c20",
            "connect, full TLS handshake, one echo of 64 bytes, close; decided by server CPU",
            mode=mode,
            connections=20,
            size=64,
            load="churn",
            metric=CPU,
            tls=True,
        )
        connections = 10_000 if mode == "proto" else 2000
        yield net_cell(
            f"tls.idle.{mode}.c{connections}",
            "memory of the server per idle TLS connection",
            mode=mode,
            connections=connections,
            repetitions_max=2,  # 10,000 handshakes of each arm, and the bytes are the same
            size=64,
            load="idle",
            metric=RSS,
            traced=False,
            tls=True,
        )


def load_cells():
    """Latency at a given load, not as fast as it goes: says what the others cannot."""
    for rate in (20, 60, 100, 140, 180):
        yield net_cell(
            f"net.load.proto.c100.1K.r{rate}k",
            "TCP echo, 1 KiB, 100 connections, messages sent at a fixed rate",
            connections=100,
            size=1024,
            rate=rate * 1000,
            metric=P99,
            verdict=False,
            traced=False,
            c_limit=True,
        )


def public_cells():
    for mode in ("sock", "streams", "proto"):
        yield net_cell(
            f"net.public.{mode}",
            "uvloop's public echo benchmark: 3 blocking Python clients, 1000 bytes",
            mode=mode,
            connections=3,
            size=1000,
            load="public",
            traced=False,
        )


def http_cells():
    for server, title in (
        ("h11", "uvicorn with h11"),
        ("httptools", "uvicorn with httptools"),
        ("aiohttp", "aiohttp server"),
    ):
        for path, text in (("plaintext", "13 bytes"), ("body", "a body of 10 KiB")):
            for connections in (64, 400):
                if connections == 400 and path == "body":
                    continue
                yield Cell(
                    f"http.{server}.{path}.c{connections}",
                    "http",
                    f"{title}, {text}, keep-alive, under wrk",
                    parameters={
                        "server": server,
                        "path": f"/{path}",
                        "connections": connections,
                    },
                    quick=(server, connections) == ("httptools", 64) and path == "plaintext",
                    traced=False,
                )
    yield Cell(
        "http.client.c64",
        "http",
        "aiohttp client, 64 requests at a time",
        parameters={"server": "client", "path": "/", "connections": 64},
        traced=False,
    )


def micro_cells():
    import bench.proc.workloads  # noqa: F401 - adds its own
    from bench.micro import workloads

    for workload in workloads.WORKLOADS.values():
        yield Cell(
            workload.name if workload.name.startswith("proc.") else f"micro.{workload.name}",
            "micro",
            workload.title,
            metric=LATENESS if workload.reports_lateness else RATE,
            parameters={"workload": workload.name},
            quick=workload.quick,
            traced=False,
        )


def files_cells():
    from bench.files import workloads

    for workload in workloads.WORKLOADS.values():
        yield Cell(
            f"files.{workload.name}",
            "files",
            workload.title,
            metric=P99 if workload.reports_lateness else RATE,
            parameters={"workload": workload.name},
            quick=workload.quick,
            traced=False,
        )


def all_cells():
    cells = [
        *echo_cells(),
        *variant_cells(),
        *bulk_cells(),
        *udp_cells(),
        *connection_cells(),
        *burst_cells(),
        *tls_cells(),
        *load_cells(),
        *public_cells(),
        *http_cells(),
        *micro_cells(),
        *files_cells(),
    ]
    assert len({cell.name for cell in cells}) == len(cells)
    return cells


def matches(name, pattern):
    if any(character in pattern for character in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return name == pattern or name.startswith(pattern + ".")


def nothing_called(patterns, cells):
    """What to say about patterns that name nothing: names like them, and all tables."""
    names = [cell.name for cell in cells]
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    close = [each for pattern in patterns for each in close_names(pattern, kinds, names)]
    meant = f"Did you mean {' or '.join(dict.fromkeys(close))}?\n" if close else ""
    return (
        f"No cell is called {' or '.join(patterns)}. {meant}"
        f"The tables are: {' '.join(kinds)}.\n"
        "--list shows every cell; a pattern like 'net.*.c100.1K' names several."
    )


def close_names(pattern, kinds, names):
    # A table first: it has few parts, and whoever mistypes one wants all of it.
    known = kinds if pattern.count(".") < 2 else names
    return difflib.get_close_matches(pattern, known, n=3)


def select(cells, only=(), quick=False):
    """The cells that some pattern names; all without a pattern. An idle pattern is an error."""
    unused = [pattern for pattern in only if not any(matches(c.name, pattern) for c in cells)]
    if unused:
        raise ValueError(nothing_called(unused, cells))
    if only:
        cells = [cell for cell in cells if any(matches(cell.name, pattern) for pattern in only)]
    elif quick:
        cells = [cell for cell in cells if cell.quick]
    return cells
