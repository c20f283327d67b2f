"""The benchmark tools: arithmetic, names, the load generator's honesty. No speed is asserted."""

import contextlib
import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from bench import (  # noqa: E402
    arms,
    build,
    calls,
    cells,
    expect,
    machine,
    measure,
    nursery,
    report,
    servers,
    stats,
)
from bench import run as runner  # noqa: E402
from bench.micro import workloads  # noqa: E402
from bench.net import floor  # noqa: E402

LOADGEN_OK, LOADGEN_NETWORK, LOADGEN_CONTENT = 0, 3, 4


# ---- arithmetic ----


def test_median():
    assert stats.median([3, 1, 2]) == 2
    assert stats.median([4, 1, 2, 3]) == 2.5
    with pytest.raises(ValueError):
        stats.median([])


def test_pairs_cancel_the_drift_of_the_machine():
    drift = [1.0, 0.7, 1.3, 0.5, 1.1]
    mine = [120 * factor for factor in drift]
    theirs = [100 * factor for factor in drift]
    compared = stats.compare(mine, theirs)
    assert compared.ratio == pytest.approx(1.2)
    assert compared.low == pytest.approx(1.2) and compared.high == pytest.approx(1.2)
    assert compared.pairs == 5
    # medians of the columns would be right too here; of an unpaired mixture they are not
    assert stats.median([120, 84, 60]) / stats.median([130, 100, 70]) != pytest.approx(1.2)


def test_a_missing_repetition_drops_its_pair_only():
    compared = stats.compare([100, None, 300, 0], [50, 1, 100, 5])
    assert compared.pairs == 2
    assert (compared.low, compared.high) == (2.0, 3.0)
    assert stats.compare([None], [1]) is None
    assert stats.compare([], []) is None


def test_less_is_better_turns_the_ratio_round():
    assert stats.compare([5.0], [10.0], higher_is_better=False).ratio == 2.0


@pytest.mark.parametrize(
    "ratio, verdict",
    [
        (0.969, stats.LOST),
        (0.97, stats.EQUAL),
        (1.0, stats.EQUAL),
        (1.03, stats.EQUAL),
        (1.031, stats.WON),
    ],
)
def test_verdict_bounds(ratio, verdict):
    assert stats.Comparison(ratio, ratio, ratio, 5).verdict == verdict


def test_a_cell_is_lost_only_twice():
    low = stats.Comparison(0.9, 0.8, 1.0, 5)
    fair = stats.Comparison(1.0, 0.9, 1.1, 5)
    assert stats.final_verdict(low) == stats.SUSPECT
    assert stats.final_verdict(low, fair) == stats.SUSPECT
    assert stats.final_verdict(low, low) == stats.LOST
    assert stats.final_verdict(fair, low) == stats.EQUAL
    assert stats.final_verdict(None) is None


def test_best_of_and_geometric_mean():
    assert stats.best_of([[1, 5, None], [3, 2, None]]) == [3, 5, None]
    assert stats.best_of([[1, 5], [3, 2]], higher_is_better=False) == [1, 2]
    assert stats.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert stats.geometric_mean([]) is None


# ---- names ----


def test_arms():
    arm = arms.parse_arm("gyre@GYRE_BACKEND=epoll,busy_poll=50")
    assert arm.environment == {"GYRE_BACKEND": "epoll"}
    assert arm.options == {"busy_poll": 50}
    assert arms.parse_arm("asyncio#2").loop == "asyncio"
    assert arms.parse_arm("c-epoll").is_c
    floor = arms.parse_arm("floor@spin_us=50,send=together")
    assert floor.options == {"spin_us": 50, "send": "together"}
    assert floor.is_limit and not floor.is_c and floor.module == "bench.net.floor"
    for wrong in ("trio", "gyre@", "gyre@busy_poll", "uvloop@busy_poll=1", ""):
        with pytest.raises(ValueError):
            arms.parse_arm(wrong)


def test_cells_are_found_by_name():
    every = cells.all_cells()
    assert len({cell.name for cell in every}) == len(every)
    proto = cells.select(every, ["net.proto"])
    assert {cell.kind for cell in proto} == {"net.proto"}
    assert [cell.name for cell in cells.select(every, ["net.proto.c1.64B"])] == ["net.proto.c1.64B"]
    assert {cell.name.split(".")[1] for cell in cells.select(every, ["net.*.c10.1K"])} >= {
        "proto",
        "buffered",
        "streams",
        "sock",
    }
    assert {cell.family for cell in cells.select(every, ["micro.task"])} == {"micro"}
    assert {cell.family for cell in cells.select(every, quick=True)} == {
        "files",
        "http",
        "micro",
        "net",
    }


def test_a_cell_that_does_not_exist_is_answered_with_those_that_do():
    every = cells.all_cells()
    with pytest.raises(ValueError) as caught:
        cells.select(every, ["net.prot", "micro.task.wakeup"])
    text = str(caught.value)
    assert "called net.prot." in text and "Did you mean net.proto" in text
    assert all(f" {kind}" in text for kind in {cell.kind for cell in every})
    with pytest.raises(ValueError, match=r"net\.proto\.c10\.64B"):
        cells.select(every, ["net.proto.c10.64K"])


def test_the_table_of_strace():
    table = """
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 70.00    0.700000           7    100000           sendto
 30.00    0.300000           3    100002         2 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           5    200002         2 total
"""
    assert calls.parse_strace(table) == {"sendto": 100000, "recvfrom": 100002}


def test_counters_of_the_loop():
    notes = [{"enters": 10, "name": "x"}, {"enters": 110, "name": "x", "new": 5}]
    assert calls.counters_per_message(notes, 50) == {"enters": 2.0}
    assert calls.counters_per_message(notes[:1], 50) == {}
    assert calls.counters_per_message([{}, {}], 50) == {}


# ---- the load generator ----


@pytest.fixture(scope="module")
def loadgen():
    return build.build("loadgen")


def generate(loadgen, *options, duration_s=0.1):
    command = [str(loadgen), "--warmup", "0.05", "--duration", str(duration_s)]
    command += map(str, options)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def answer(loadgen, *options):
    """The report of a window in which something came back on each connection, however busy the
    machine is: the last one is long enough for all of them."""
    for duration_s in (0.1, 1, 10):
        result = generate(loadgen, *options, duration_s=duration_s)
        assert result.returncode == LOADGEN_OK, result.stderr
        report = json.loads(result.stdout)
        if report["mode"] == "idle" or (report["messages"] and not report["unserved"]):
            break
    return report


class Settings:
    warmup_s, duration_s, poll, slices = 0.05, 0.1, "busy", 1


def serving(spec="c-epoll", **parameters):
    parameters = {"mode": "proto", "size": 64, **parameters}
    return servers.Server(arms.parse_arm(spec), parameters, machine.Placement())


@pytest.mark.parametrize("program", ["c-epoll", "c-uring"])
@pytest.mark.parametrize(
    "connections, size, depth",
    [(1, 1, 1), (7, 64, 1), (3, 1000, 16), (2, 300_000, 2), (1, 2_000_000, 1)],
)
def test_every_byte_comes_back(loadgen, program, connections, size, depth):
    if program == "c-uring":
        needs_uring()
    with serving(program) as server:
        report = answer(
            loadgen, "--port", server.first["port"], "--connections", connections,
            "--size", size, "--depth", depth, "--verify", "all",
        )  # fmt: skip
    assert report["messages"] > 0
    in_flight = connections * depth
    assert abs(report["bytes_in"] / size - report["messages"]) <= in_flight + 1
    assert report["latency_us"]["count"] == report["messages"]


@pytest.mark.parametrize("spec", ["floor", "floor@spin_us=50", "floor@send=together"])
@pytest.mark.parametrize(
    "mode, unix, connections, size, depth",
    [
        ("proto", False, 7, 64, 1),
        ("proto", False, 3, 1000, 16),
        ("proto", False, 2, 300_000, 2),
        ("proto", True, 1, 2_000_000, 1),
        ("buffered", False, 2, 300_000, 2),
        ("buffered", True, 3, 1000, 16),
        ("streams", False, 2, 300_000, 2),
        ("streams", True, 3, 1000, 16),
        ("sock", False, 3, 1000, 16),
        ("sock", True, 1, 2_000_000, 1),
    ],
)
def test_every_byte_comes_back_from_the_floor(loadgen, spec, mode, unix, connections, size, depth):
    if "together" in spec:
        needs_uring()
    with serving(spec, mode=mode, unix=unix, size=size) as server:
        report = answer(
            loadgen, *server.address(), "--connections", connections, "--size", size,
            "--depth", depth, "--verify", "all", "--server-pid", server.process.pid,
        )  # fmt: skip
    assert report["messages"] > 0 and report["unserved"] == 0


@pytest.mark.parametrize("spec", ["floor", "floor@send=together"])
def test_two_writes_of_the_floor_keep_their_order(loadgen, spec):
    if "together" in spec:
        needs_uring()
    for size in (1000, 100_000):
        with serving(spec, role="split", size=size) as server:
            report = answer(
                loadgen, *server.address(), "--connections", 3, "--size", size, "--verify", "all"
            )
        assert report["messages"] > 0


def test_connections_of_the_floor_come_and_go(loadgen):
    needs_uring()
    for mode in ("proto", "buffered", "streams"):
        with serving("floor@send=together", mode=mode) as server:
            options = ("--mode", "churn", "--connections", 5)
            report = answer(loadgen, *server.address(), *options)
            assert report["messages"] > 0
            assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 20


def test_the_floor_says_what_it_cannot_do():
    with pytest.raises(servers.MeasureError, match="neither TLS nor UDP"):
        serving("floor", mode="udp").__enter__()
    with pytest.raises(servers.MeasureError, match="only echoes"):
        serving("floor", role="sink", size=65536).__enter__()
    assert floor.reason({"mode": "proto", "load": "idle"})
    names = ["net.proto.c1.64B", "net.sink.proto.c4.64K"]
    run = made_run(names, ("gyre", "floor", "c-epoll"), trace=True)
    assert run.specs_for(run.cells[0]) == ["gyre", "floor", "c-epoll"]
    assert run.specs_for(run.cells[1]) == ["gyre"]
    assert run.traced_specs(run.cells[0]) == ["gyre"]


def needs_uring():
    """These programs are made of io_uring; where the kernel refuses it there is nothing to test."""
    if b"io_uring" in (refusal := uring_refusal()):
        pytest.skip(f"the kernel refuses: {refusal.decode().strip()}")


@functools.cache
def uring_refusal():
    """What limit_uring says when it cannot start, or nothing."""
    process = subprocess.Popen(
        [str(build.build("limit_uring"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    line = process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=5)
    return b"" if line else errors


@pytest.mark.parametrize(
    "mode, role",
    [(mode, role) for mode in ("proto", "streams", "sock") for role in ("sink", "source")],
)
def test_one_way(loadgen, mode, role):
    with serving("asyncio", mode=mode, role=role, size=65536) as server:
        report = answer(
            loadgen, "--port", server.first["port"], "--mode", role, "--connections", 2,
            "--size", 65536,
        )  # fmt: skip
    assert report["messages"] > 0


@pytest.mark.parametrize("mode", ["proto", "buffered", "streams", "sock"])
def test_servers_echo(loadgen, mode, tmp_path):
    for unix in (False, True):
        with serving("asyncio", mode=mode, size=1000, unix=unix) as server:
            report = answer(
                loadgen, *server.address(), "--connections", 3, "--size", 1000, "--split", 7,
                "--verify", "all", "--server-pid", server.process.pid,
            )  # fmt: skip
        assert report["messages"] > 0
        assert 0 <= report["server"]["utilisation"] < 1.2


@pytest.mark.parametrize(
    ("spec", "role", "gso"),
    [
        ("c-epoll", "echo", False),
        ("gyre", "echo", False),
        ("gyre", "sink", True),
        ("gyre", "source", False),
    ],
)
def test_udp(loadgen, spec, role, gso):
    with serving(spec, mode="udp", role=role, size=200) as server:
        options = ["--udp", "--mode", role, "--size", 200, *(["--gso"] if gso else [])]
        options += ["--connections", 5, "--depth", 4] if role == "echo" else []
        report = answer(loadgen, *server.address(), *options, "--verify", "all")
    assert report["messages"] > 0


def test_churn_and_idle(loadgen):
    with serving() as server:
        port = server.first["port"]
        churn = answer(loadgen, "--port", port, "--mode", "churn", "--connections", 4)
        pid = server.process.pid
        idle = answer(
            loadgen, "--port", port, "--mode", "idle", "--connections", 50, "--server-pid", pid
        )
    assert churn["messages"] > 0
    assert idle["server"]["rss_bytes"] >= idle["server"]["rss_bytes_before"]


@pytest.fixture(scope="module")
def loadgen_tls():
    try:
        return build.build("loadgen_tls")
    except build.MissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("mode", ["proto", "buffered", "streams"])
@pytest.mark.parametrize("size", [1, 20_000, 300_000])
def test_tls_echo(loadgen_tls, mode, size):
    with serving("asyncio", mode=mode, size=size, tls=True) as server:
        report = answer(
            loadgen_tls, *server.address(), "--tls", "--connections", 3, "--size", size,
            "--depth", 2, "--verify", "all", "--duration", 0.1 if size < 100_000 else 1,
        )  # fmt: skip
    assert report["messages"] > 0


def test_tls_churn_and_idle(loadgen_tls):
    with serving("asyncio", tls=True) as server:
        address = [*server.address(), "--tls"]
        churn = answer(loadgen_tls, *address, "--mode", "churn", "--connections", 4)
        pid = server.process.pid
        idle = answer(
            loadgen_tls, *address, "--mode", "idle", "--connections", 20, "--server-pid", pid
        )
    assert churn["messages"] > 0
    assert idle["server"]["rss_bytes"] > idle["server"]["rss_bytes_before"]


def test_tls_needs_its_own_program(loadgen):
    assert generate(loadgen, "--port", 1, "--tls").returncode != LOADGEN_OK
    assert generate(loadgen, "--port", 1, "--tls", "--mode", "sink").returncode == 2


def test_a_fixed_rate_is_kept(loadgen):
    with serving() as server:
        report = answer(
            loadgen, "--port", server.first["port"], "--connections", 5, "--rate", 2000,
            "--duration", 0.5, "--poll", "block", "--histogram",
        )  # fmt: skip
    assert 0 < report["messages_per_s"] < 1.2 * 2000  # less on a machine that is busy
    histogram = report["histogram_us"]
    assert sum(count for _, count in histogram) == report["latency_us"]["count"]
    assert histogram[0][0] <= report["latency_us"]["p50"] <= histogram[-1][0]


def test_a_silent_server_is_a_failure(monkeypatch):
    silent = {"messages": 0, "server": {}, "client": {}}
    monkeypatch.setattr(measure, "run_load", lambda *args: silent)
    cell = cells.Cell("x", "net", "", parameters={"mode": "proto", "connections": 1, "size": 64})
    with pytest.raises(measure.MeasureError, match="no message"):
        measure.net_sample(cell, arms.parse_arm("c-epoll"), machine.Placement(), Settings)


class Liar:
    """A server that answers each connection with what `respond` makes of the first bytes."""

    def __init__(self, respond):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.respond = respond
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        conn, _ = self.listener.accept()
        with conn:
            data = conn.recv(65536)
            while data and (reply := self.respond(data)) is not None:
                conn.sendall(reply)
                data = conn.recv(65536)

    def __enter__(self):
        self.thread.start()
        return self.listener.getsockname()[1]

    def __exit__(self, *exc_info):
        self.thread.join(10)
        self.listener.close()


@pytest.mark.parametrize(
    "respond, code",
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), LOADGEN_CONTENT),
        (lambda data: data + data, LOADGEN_CONTENT),
        (lambda data: None, LOADGEN_NETWORK),
    ],
    ids=["a changed byte", "an echo twice", "a closed connection"],
)
def test_wrong_servers_are_found_out(loadgen, respond, code):
    with Liar(respond) as port:
        result = generate(loadgen, "--port", port)
    assert result.returncode == code, result.stderr


def echo_once(conn):
    """False if the client has left, with or without having read all."""
    try:
        data = conn.recv(65536)
        conn.sendall(data)
    except ConnectionError:
        return False
    return data != b""


class Accepting(Liar):
    """Accepts one connection at a time, and notes how many others had something to say before the
    last one was there."""

    def __init__(self, connections):
        super().__init__(None)
        self.connections = connections
        self.early = 0

    def serve(self):
        found = []
        with contextlib.ExitStack() as stack:
            for _ in range(self.connections):
                found.append(stack.enter_context(self.listener.accept()[0]))
                if len(found) > 1:
                    self.early += len(select.select(found[:-1], [], [], 0)[0])
                found[-1].sendall(found[-1].recv(65536))
            while found:
                for conn in select.select(found, [], [])[0]:
                    if not echo_once(conn):
                        found.remove(conn)


def test_every_connection_is_accepted_before_the_load_begins(loadgen):
    server = Accepting(50)
    with server as port:
        report = answer(loadgen, "--port", port, "--connections", 50, "--warmup", 0)
    assert server.early == 0
    assert report["messages"] > 0 and report["unserved"] == 0


def test_wrong_options_are_refused(loadgen):
    for options in (["--port", "0"], ["--port", "80", "--size", "x"], [], ["--port", "80", "--a"]):
        assert generate(loadgen, *options).returncode == 2


def process_cpu_s(pid):
    """The CPU clock of another process; its id is the inverted pid times 8, plus 2."""
    return time.clock_gettime((~pid << 3) | 2)


def test_cpu_time_agrees_with_the_servers_own_account(loadgen):
    with serving("asyncio") as server:
        before = process_cpu_s(server.process.pid)
        report = answer(
            loadgen, "--port", server.first["port"], "--connections", 10, "--warmup", 0,
            "--duration", 0.5, "--server-pid", server.process.pid,
        )  # fmt: skip
        whole = process_cpu_s(server.process.pid)
    assert report["server"]["cpu_s"] == pytest.approx(whole - before, abs=0.05)
    # rusage at its very end, which adds no more than the ending itself
    assert server.last["cpu_s"] == pytest.approx(whole, abs=0.05)
    ticks = report["server"]["user_ticks"] + report["server"]["system_ticks"]
    assert ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(report["server"]["cpu_s"], abs=0.05)


def test_system_calls_are_counted_exactly():
    cell = cells.Cell("x", "net", "", parameters={"mode": "proto", "connections": 4, "size": 64})
    try:
        counted = calls.net_system_calls(
            cell, arms.parse_arm("asyncio"), machine.Placement(), Settings
        )
    except measure.MeasureError as error:
        pytest.skip(str(error))  # no strace, or not allowed to trace
    assert counted["counters"] == {}  # asyncio keeps none
    # A SIGUSR1 writes a byte to asyncio's own socket, which it reads until there is no more: two
    # calls.  Whoever handles the signal writes another byte, to wake the loop: two more.
    # On a busy machine there may be no more than a hundred messages.
    messages = counted["messages"]
    assert counted["calls"]["sendto"] == pytest.approx(1, abs=max(0.01, 2 / messages))
    assert counted["calls"]["recvfrom"] == pytest.approx(1, abs=max(0.01, 4 / messages))


def test_memory_after_a_burst(loadgen):
    with serving("asyncio", size=1000) as server:
        report = answer(
            loadgen, "--port", server.first["port"], "--connections", 20, "--size", 1000,
            "--rest", 0.01, "--server-pid", server.process.pid,
        )  # fmt: skip
    assert report["messages"] >= 20
    figures = measure.sample_of(report)
    assert figures["retained"] >= max(measure.RETAINED_FLOOR, figures["retained_closed"])
    grown = report["server"]["rss_bytes"] - report["server"]["rss_bytes_before"]
    assert figures["burst_bytes"] == grown
    assert generate(loadgen, "--port", 1, "--rest", 1, "--mode", "churn").returncode == 2


def test_cells_about_memory_run_all_arms_at_once(monkeypatch):
    together = threading.Barrier(3)

    def sample(cell, arm, placement, settings, nurseries=None):
        together.wait(30)
        assert placement.server is None and settings.poll == "block"
        if arm.loop == "uvloop":
            raise measure.MeasureError("no")
        return {"retained": 1}

    monkeypatch.setattr(measure, "net_sample", sample)
    cell = next(c for c in cells.all_cells() if c.name == "net.burst.proto.c1000.128K")
    samples, errors = measure.repetition(
        cell, ["gyre", "uvloop", "asyncio"], 0, (machine.Placement(), made_settings())
    )
    assert set(samples) == {"gyre", "asyncio"} and errors == {"uvloop": "no"}


# ---- nurseries ----


@pytest.mark.parametrize("spec", ["asyncio", "floor"])
def test_a_nursery_starts_servers(loadgen, spec):
    arm, placement = arms.parse_arm(spec), machine.Placement()
    pids = set()
    with nursery.Nurseries() as nurseries:
        for _ in range(2):
            server = servers.Server(arm, {"mode": "proto", "size": 64}, placement, nurseries)
            with server:
                assert server.first["pid"] == server.process.pid
                pids.add(server.process.pid)
                assert os.sched_getaffinity(server.process.pid) == {placement.server}
                report = answer(loadgen, *server.address(), "--server-pid", server.process.pid)
                assert report["messages"] > 0
            assert server.process.poll() == 0
            assert server.last.get("stats", []) == []
        assert len(nurseries.made) == 1
    assert len(pids) == 2


def test_what_a_nursery_cannot_start_is_an_error_with_words(tmp_path):
    with nursery.Nurseries() as nurseries, pytest.raises(nursery.NurseryError, match="nowhere"):
        nurseries.get(("bench.nowhere",), {})
    with nursery.Nurseries() as nurseries, open(tmp_path / "errors", "w+") as errors:
        child = nurseries.get(("json", "bench.nowhere"), {}).start(
            "bench.nowhere", [], None, errors, errors
        )
        child.wait(30)
        child.stderr = errors
        assert "nowhere" in servers.last_words(child)
        starter = nurseries.get(("json", "bench.nowhere"), {})
        starter.process.kill()
        with pytest.raises(nursery.NurseryError):
            starter.start("json", [], None, errors, errors)


def test_a_micro_repetition_of_a_nursery():
    cell = next(c for c in cells.all_cells() if c.name == "micro.loop.call_soon_chain")
    with nursery.Nurseries() as nurseries:
        bench = (machine.Placement(), made_settings(slices=1), nurseries)
        samples, errors = measure.repetition(cell, ["asyncio", "asyncio#2"], 0, bench)
    assert not errors
    assert all(sample["rate"] > 0 for sample in samples.values())


# ---- the runner ----


def made_settings(**changes):
    fields = {
        "repetitions": 2, "warmup_s": 0.0, "duration_s": 0.05, "poll": "busy", "slices": 1,
        "trace": False, "confirm": True,
    }  # fmt: skip
    return runner.Settings(**{**fields, **changes})


def made_run(names, specs=("gyre", "uvloop", "asyncio"), **changes):
    chosen = cells.select(cells.all_cells(), names)
    return runner.Run(chosen, list(specs), made_settings(**changes), machine.Placement())


def test_stolen_time_is_seen():
    assert not runner.was_disturbed((10, 1000), (10, 1300))
    assert not runner.was_disturbed((10, 1000), (12, 1010))  # one tick or two happen
    assert not runner.was_disturbed((10, 1000), (13, 1300))
    assert runner.was_disturbed((10, 1000), (14, 1300))


def test_a_disturbed_repetition_is_taken_again_and_counted(monkeypatch):
    stolen = iter([0, 0, 0, 90, 90, 90] + [100 * turn for turn in range(100)])
    monkeypatch.setattr(machine, "cpu_steal_ticks", lambda: (next(stolen), 0))
    run = made_run(["net.proto"])
    counter = iter(range(100))

    def take():
        return next(counter), {}

    assert run.undisturbed(take)[0] == 0
    assert run.disturbed == {"repetitions": 1, "taken_again": 0, "kept": 0}
    assert run.undisturbed(take)[0] == 2
    assert run.disturbed == {"repetitions": 2, "taken_again": 1, "kept": 0}
    # a host that never stops is not waited for
    assert run.undisturbed(take)[0] == 2 + 1 + runner.RETAKES_MAX
    assert run.disturbed["kept"] == 1
    for _ in range(10):
        run.undisturbed(take)
    allowed = runner.RETAKES_SHARE * 2 * len(run.cells)
    assert run.disturbed["taken_again"] <= allowed + 1


def test_a_failure_has_a_second_chance(monkeypatch):
    monkeypatch.setattr(machine, "cpu_steal_ticks", lambda: (0, 0))
    run = made_run(["net.proto"])
    once = iter([({}, {"gyre": "no message came back"}), ({"gyre": {}}, {})])
    assert run.undisturbed(lambda: next(once)) == ({"gyre": {}}, {})
    always = iter([({}, {"gyre": str(turn)}) for turn in range(3)])
    assert run.undisturbed(lambda: next(always))[1] == {"gyre": "1"}
    assert run.disturbed == {"repetitions": 2, "taken_again": 2, "kept": 0}


def test_only_what_was_lost_is_measured_again(monkeypatch):
    asked = []

    def repetition(cell, specs, rep, bench, say):
        asked.append(tuple(specs))
        rates = {"gyre": 90.0, "uvloop": 100.0, "asyncio": 50.0}
        return {spec: {"rate": rates[spec]} for spec in specs}, {}

    monkeypatch.setattr(measure, "repetition", repetition)
    monkeypatch.setattr(machine, "cpu_steal_ticks", lambda: (0, 0))
    monkeypatch.setattr(runner.Run, "wanted_nurseries", lambda self, chosen: [])
    run = made_run(["net.proto.c1.64B"])
    run.run()
    assert asked == [("gyre", "uvloop", "asyncio")] * 2 + [("gyre", "uvloop")] * 2
    judged = report.judge(run.results["net.proto.c1.64B"], run.specs)
    assert judged["uvloop"]["verdict"] == stats.LOST
    assert judged["asyncio"]["verdict"] == stats.WON
    assert run.results["net.proto.c1.64B"]["seconds"] > 0


def test_cells_that_lack_a_program_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(runner.shutil, "which", lambda name: None)
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: name != "aiohttp" or None)
    run = made_run(["http", "net.proto.c1"], trace=True)
    run.probe_cells()
    assert {cell.kind for cell in run.cells} == {"net.proto"}
    assert set(run.results) == {cell.name for cell in run.cells}
    assert len(run.skipped["wrk is not installed"]) == 9
    assert run.skipped["aiohttp is not installed"] == ["http.client.c64"]
    assert len(run.skipped["no system calls are counted: strace is not installed"]) == 5
    assert not run.settings.trace


def test_the_expected_time_counts_arms_and_windows():
    cell = next(c for c in cells.all_cells() if c.name == "net.proto.c10.64B")
    short, long = expect.Lengths(0.1, 0.2), expect.Lengths(0.1, 1.2)
    assert expect.repetition_s(cell, 3, long) - expect.repetition_s(
        cell, 3, short
    ) == pytest.approx(3)
    one_way = next(c for c in cells.all_cells() if c.name == "net.sink.proto.c4.64K")
    longer = expect.repetition_s(one_way, 3, long) - expect.repetition_s(one_way, 3, short)
    assert longer == pytest.approx(3 * one_way.window_times) and one_way.window_times > 1
    whole = runner.Run(
        cells.all_cells(), ["gyre", "uvloop", "asyncio"], made_settings(), machine.Placement()
    )
    assert whole.expected_s() > 1
    assert all(whole.cell_s(cell) > 0 for cell in whole.cells)


# ---- micro ----


@pytest.mark.parametrize("name", workloads.WORKLOADS)
@pytest.mark.parametrize("spec", ["asyncio", "gyre"])
def test_workloads_run(spec, name):
    arm = arms.parse_arm(spec)
    if arms.missing(arm):
        pytest.skip(arms.missing(arm))
    workload = workloads.WORKLOADS[name]
    assert workload.count % workload.group == 0
    context = workloads.Context(arm)
    try:
        run = workload.make(context)
        result = run(workload.group)
        run(2 * workload.group)  # once more: nothing is left over from the first
    finally:
        context.close()
    if workload.reports_lateness:
        assert len(result) == workload.group


def test_paired_alternates_its_arms(monkeypatch):
    from bench.micro import paired

    order = []
    real = paired.measure

    def measured(workload, run, count):
        order.append(id(run))
        return real(workload, run, count)

    monkeypatch.setattr(paired, "measure", measured)
    workload = workloads.WORKLOADS["loop.call_soon_chain"]
    samples, errors = paired.repetition(workload, ["asyncio", "asyncio#2"], 0, 3)
    assert set(samples) == {"asyncio", "asyncio#2"} and not errors
    first, second = order[0], order[1]
    assert order == [first, second, second, first, first, second]


def test_repetitions_turn_round(monkeypatch):
    order = []

    def sample(cell, arm, placement, settings):
        order.append(arm.spec)
        return {"rate": 1.0}

    monkeypatch.setattr(measure, "net_sample", sample)
    cell = cells.Cell("x", "net", "")
    for rep in range(2):
        measure.repetition(cell, ["gyre", "uvloop", "c-epoll"], rep, (None, Settings))
    assert order == ["gyre", "uvloop", "c-epoll", "c-epoll", "uvloop", "gyre"]


# ---- the clients of the public benchmark, HTTP ----


def public_clients(server, *options):
    command = [sys.executable, "-m", "bench.net.public_client", *server.address(), *options]
    command += ["--warmup", "0.05", "--duration", "1", "--server-pid", str(server.process.pid)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_public_clients_count_what_came_back():
    with serving("asyncio", mode="streams", size=1000) as server:
        done = public_clients(server)
    assert done.returncode == 0, done.stderr
    figures = measure.sample_of(json.loads(done.stdout))
    assert figures["messages"] > 0
    assert figures["rate"] == pytest.approx(figures["messages"])
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]


def test_public_clients_without_a_server_fail():
    with serving("asyncio") as server, socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
        unused.close()
        done = public_clients(server, "--port", str(port))
    assert done.returncode != 0
    assert "refused" in done.stderr


def test_an_http_sample_that_fails_says_why():
    cell = next(c for c in cells.all_cells() if c.name == "http.h11.plaintext.c64")
    with pytest.raises(measure.MeasureError, match=r"ended with status|No module|wrk"):
        measure.http_sample(
            cell, arms.parse_arm("gyre@GYRE_BACKEND=none"), machine.Placement(), Settings
        )
