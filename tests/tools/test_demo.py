"""The demo's own arithmetic and its application, without a server."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "http"))

import app  # noqa: E402
import load  # noqa: E402
import report  # noqa: E402

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.02    0.119020          14      8131           sendto
 30.50    0.059480          14      4066        65 recvfrom
  0.00    0.000000           0         1           getpid
------ ----------- ----------- --------- --------- ----------------
100.00    0.195047          14     12198        65 total
"""


def request(path, method="GET", parts=(b"",)):
    messages = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app.app({"type": "http", "path": path, "method": method}, receive, send))
    start, body = sent
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    return start["status"], body["body"]


def test_the_application_answers():
    assert request("/plaintext") == (200, app.PLAINTEXT)
    assert request("/body") == (200, app.BODY)
    assert len(app.BODY) >= 10 * 1024
    assert request("/echo", "POST", (b"one ", b"", b"two")) == (200, b"one two")
    assert request("/echo")[0] == 404
    assert request("/nowhere")[0] == 404
    assert b"Loop" in request("/loop")[1]


def test_system_calls_are_read_from_straces_table():
    counts = load.parse_strace(STRACE)
    assert counts == {"total": 12198, "sendto": 8131, "recvfrom": 4066, "getpid": 1}
    assert list(counts)[1] == "sendto"


def cell(rate, utilisation=1.0):
    return {
        "requests_per_s": rate,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "cpu_us_per_request": 1e6 / rate,
        "utilisation": utilisation,
    }


def run_of(**rates):
    case = load.CASES[0].name
    return {
        "arms": list(rates),
        "repetitions": 3,
        "duration_s": 1,
        "samples": {case: {arm: [cell(r) for r in found] for arm, found in rates.items()}},
        "system_calls": {arm: {"total": 3.0, "sendto": 2.0} for arm in rates},
        "system_calls_case": case,
    }


def test_ratios_pair_the_samples_of_one_repetition():
    """The machine got twice as slow in the third repetition: the ratio does not see it."""
    run = run_of(uvloop=[1000, 1100, 500], gyre=[1500, 1540, 700])
    case = load.CASES[0].name
    assert report.paired(run, case, "gyre", "uvloop", "requests_per_s") == (1.4, 1.4, 1.5)
    text = report.table(run, load.CASES)
    assert "x1.40 (1.40-1.50)" in text
    assert "1,500" in text
    assert "sendto 2.00" in text


def test_a_table_without_gyre_has_no_ratios():
    text = report.table(run_of(asyncio=[1000], uvloop=[1100]), load.CASES)
    assert "x1" not in text
    assert "uvloop" in text


def test_an_idle_server_is_told():
    run = run_of(gyre=[1000, 1000, 1000])
    assert report.idle_server(run) == []
    for sample in run["samples"][load.CASES[0].name]["gyre"]:
        sample["utilisation"] = 0.5
    assert report.idle_server(run)[1:] == [f"{load.CASES[0].name}: gyre 50%"]


def test_columns_of_figures_stand_to_the_right():
    text = report.grid([["name", "figure"], ["x", "1,234.5"], ["longer", "7"]])
    assert text.splitlines() == [
        "| name   |  figure |",
        "| ------ | ------: |",
        "| x      | 1,234.5 |",
        "| longer |       7 |",
    ]
