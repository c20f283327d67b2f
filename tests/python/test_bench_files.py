"""The benchmark of files: that it does what it says.  No speed is asserted."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from bench import arms, cells  # noqa: E402
from bench import run as bench_run  # noqa: E402


def test_the_file_workloads_do_what_they_say(tmp_path, monkeypatch):
    """Every way of working with files, on every workload, a little of each."""
    from bench.files import ways, workloads

    monkeypatch.setattr(workloads, "FILE_BYTES", 2**20)
    place = workloads.Place(tmp_path)
    place.small_paths = place.small(20)
    for workload in workloads.WORKLOADS.values():
        for name in ("gyre", "threads", "blocking"):
            arm = arms.parse_arm(name)
            loop = arms.new_event_loop(arm)
            way = ways.WAYS[arm.loop](loop)
            run = workload.make(place, way)
            result = loop.run_until_complete(run(20 if workload.name != "send" else 2))
            if workload.reports_lateness:
                assert len(result) == 20
            way.close()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
    assert (tmp_path / "written").stat().st_size == 20 * 2**20


def test_file_arms_take_part_in_file_cells_alone():
    every = cells.all_cells()
    chosen = [cell for cell in every if cell.name in ("files.small.stat", "net.proto.c1.64B")]
    run = bench_run.Run(chosen, ["gyre", "uvloop", "aiofiles", "blocking"], None, None)
    assert run.specs_for(chosen[0]) != run.specs_for(chosen[1])
    by_name = {cell.name: run.specs_for(cell) for cell in chosen}
    assert by_name["files.small.stat"] == ["gyre", "aiofiles", "blocking"]
    assert by_name["net.proto.c1.64B"] == ["gyre", "uvloop"]
    assert arms.parse_arm("blocking").is_limit and not arms.parse_arm("threads").is_limit


def test_slices(monkeypatch, tmp_path):
    """A cell whose slices differ much takes more of them, and a quick run does not."""
    from bench.files import paired, workloads

    taken = []

    class Subject:
        def __init__(self, *args):
            pass

        def close(self):
            pass

    def measure(workload, subject):
        taken.append(workload.name)
        return {"rate": 1.0}

    monkeypatch.setattr(paired, "Subject", Subject)
    monkeypatch.setattr(paired, "measure", measure)
    write, read = (workloads.WORKLOADS[f"sequential.{name}"] for name in ("write", "read"))
    for workload, quick, expected in ((write, False, 25), (write, True, 3), (read, False, 3)):
        del taken[:]
        samples, errors = paired.repetition(workload, ["gyre"], 0, 3, quick, tmp_path)
        assert (samples, errors) == ({"gyre": {"rate": 1.0}}, {})
        assert len(taken) == expected
