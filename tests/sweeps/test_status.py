"""`python -m sweeps status`: what it tells of a folder, and how its work grows."""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from made_sweeps import (
    START,
    failed_sample,
    fake_squeue,
    made_cell,
    made_event,
    made_sample,
    made_settings,
    seconds_after,
    write_events,
    write_job,
    write_run,
    write_sweep,
)
from sweeps.commands import status
from sweeps.folder import FolderError
from sweeps.overview import overview


def call(*words):
    parser = argparse.ArgumentParser()
    status.add_parser(parser.add_subparsers())
    args = parser.parse_args(["status", *map(str, words)])
    return args.run(args)


def after(seconds):
    return START + timedelta(seconds=seconds)


def statuses(folder, **more):
    return {view.label: view.status for view in overview(folder, **more).cells}


def test_every_status_a_cell_can_have(tmp_path):
    names = ["done", "running", "failed", "lost", "waiting", "half"]
    cells = {name: made_cell(n, name) for n, name in enumerate(names)}
    folder = write_sweep(tmp_path / "s", list(cells.values()))
    events = [made_event("start", cells[name]["id"]) for name in ("done", "failed")]
    events += [made_event(name, cells[name]["id"], at=after(9)) for name in ("done", "failed")]
    events += [made_event("done", cells["half"]["id"], "1-of-2")]
    write_events(folder, "0a", events)
    write_events(folder, "0b", [made_event("start", cells["running"]["id"])])
    write_events(folder, "0c", [made_event("start", cells["lost"]["id"])])
    folder.alive("0b", 0).touch()
    folder.alive("0c", 0).touch()
    os.utime(folder.alive("0c", 0), (time.time() - 61,) * 2)
    view = overview(folder)
    assert {cell.label: cell.status for cell in view.cells} == {**{name: name for name in names}, "half": "waiting"}
    assert view.counts == {"done": 1, "running": 1, "queued": 0, "failed": 1, "lost": 1, "waiting": 2}
    assert [(f.label, f.shard, f.error, f.events) for f in view.failed] == [
        ("failed", "1-of-1", "ValueError: it broke", "events/0a.0.jsonl")
    ]
    assert view.failed[0].trace.startswith("Traceback")


def test_shards_that_end_at_different_times_make_a_cell_whole(tmp_path):
    cell = made_cell(1)
    folder = write_sweep(tmp_path / "s", [cell])
    write_events(folder, "0a", [made_event("failed", cell["id"], "1-of-2")])
    write_events(folder, "0b", [made_event("done", cell["id"], "2-of-2", after(1))])
    assert statuses(folder) == {"random": "failed"}
    # The first half was cut anew, and its quarters are done: what failed before is no matter.
    write_events(folder, "0c", [made_event("done", cell["id"], "1-of-4", after(2))])
    assert statuses(folder) == {"random": "failed"}
    write_events(folder, "0c", [made_event("done", cell["id"], "2-of-4", after(3))])
    view = overview(folder)
    assert view.counts["done"] == 1 and view.failed == [] and view.samples == 30


def test_a_document_that_lies_in_two_finished_shards_counts_once(tmp_path):
    cell = made_cell(1)
    folder = write_sweep(tmp_path / "s", [cell])
    write_events(folder, "0a", [made_event("done", cell["id"], shard) for shard in ("1-of-2", "2-of-2", "2-of-4")])
    assert overview(folder).samples == 20


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Put a queue on PATH."""

    def install(script):
        monkeypatch.setenv("PATH", f"{fake_squeue(tmp_path / 'bin', script)}:{os.environ['PATH']}")

    return install


def submit(folder, *rows):
    lines = [{"executor": "slurm", "pid": None, "host": "node", "time": seconds_after(0), **row} for row in rows]
    (folder.path / "submitted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_cells_of_a_pending_job_are_queued(tmp_path, squeue):
    cells = [made_cell(n, f"cell {n}") for n in range(4)]
    folder = write_sweep(tmp_path / "s", cells)
    write_job(folder, "0a", cells[:1])
    write_job(folder, "0b", cells[1:2], (1, 2))
    write_job(folder, "0c", cells[2:3])
    submit(folder, {"job": "0a", "slurm": "7_0"}, {"job": "0b", "slurm": "7_1"}, {"job": "0c", "slurm": "7_2"})
    # Lost on a node that died, and requeued: the queue knows better than the alive file.
    write_events(folder, "0a", [made_event("start", cells[0]["id"])])
    # The half that the queue has is done already.
    write_events(folder, "0b", [made_event("done", cells[1]["id"], "2-of-2")])
    squeue("printf '7_0 PENDING Resources\\n7_1 PENDING PartitionTimeLimit\\n7_2 RUNNING None\\n9 PENDING Priority\\n'")
    expected = {"cell 0": "queued", "cell 1": "waiting", "cell 2": "waiting", "cell 3": "waiting"}
    assert statuses(folder) == expected
    assert overview(folder).waits == {"Resources": 1, "PartitionTimeLimit": 1}
    squeue("")
    assert statuses(folder)["cell 0"] == "lost"


def test_a_queue_that_does_not_answer_is_no_obstacle(tmp_path, squeue):
    folder = write_sweep(tmp_path / "s", [made_cell(1)])
    write_job(folder, "0a", [made_cell(1)])
    submit(folder, {"job": "0a", "slurm": "7_0"})
    squeue("exit 1")
    assert statuses(folder) == {"random": "waiting"}


def test_samples_rate_and_time_left(tmp_path):
    cells = [made_cell(n, f"cell {n}") for n in range(3)]
    folder = write_sweep(tmp_path / "s", cells)
    # Done: 100 samples between second 0 and 100. Running since second 100: 20 of 100 samples by second 120.
    run = write_run(folder.runs("1-of-1"), made_settings(0), [made_sample(0, 0.01)], asked=range(100))
    told = json.loads((run / "run.json").read_text())
    told["attempts"][0]["computed"] = 100
    (run / "run.json").write_text(json.dumps(told))
    counts = {"documents": 100, "asked": 100, "answered": 98, "failed": 2, "missing": 0}
    done = {"runs": [f"runs/{run.name}"], "counts": counts, "reasons": {"truncated": 1, "quarantined": 1}}
    done |= {"metrics": {"accuracy,none": 0.5}}
    write_events(folder, "0a", [made_event("start", cells[0]["id"])])
    write_events(folder, "0a", [made_event("done", cells[0]["id"], at=after(100), **done)])
    write_events(folder, "0a", [made_event("start", cells[1]["id"], at=after(100))])
    rows = [made_sample(n, 0.01, written=seconds_after(101 + n)) for n in range(20)]
    write_run(
        folder.runs("1-of-1"), made_settings(1), rows, asked=range(100), state="running", started=seconds_after(100)
    )
    # A run that an earlier call left behind: no cell of this call is at it.
    write_run(folder.runs("1-of-1"), made_settings(2), rows, state="running", started=seconds_after(-1000))
    folder.alive("0a", 0).touch()
    view = overview(folder, now=after(120))
    assert (view.samples, view.expected) == (120, 300)
    assert view.rate == pytest.approx(1.0)
    assert view.seconds_left == pytest.approx(180)
    assert view.unanswered == {"truncated": 1, "quarantined": 1}
    assert [cell.metrics for cell in view.cells] == [{"accuracy,none": 0.5}, None, None]
    # Half an hour later nothing has come: no rate, and no time left that would be a guess.
    assert (overview(folder, now=after(1920)).rate, overview(folder, now=after(1920)).seconds_left) == (None, None)


def test_the_rate_is_that_of_the_last_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.progress._STEP", 2**13)  # the file is read in several blocks
    cell = made_cell(0)
    folder = write_sweep(tmp_path / "s", [cell])
    write_events(folder, "0a", [made_event("start", cell["id"])])
    # One a second for five minutes, then one every ten seconds for ten.
    times = [*range(300), *range(300, 900, 10)]
    rows = [made_sample(n, 0.01, written=seconds_after(second)) for n, second in enumerate(times)]
    write_run(folder.runs("1-of-1"), made_settings(0), rows, asked=range(9999), state="running")
    view = overview(folder, now=after(900))
    assert view.samples == 360
    assert view.rate == pytest.approx(0.1)


def test_the_size_of_a_task_comes_from_what_ran_and_its_limit(tmp_path):
    task = made_cell(0)["task"]
    cells = [made_cell(0, task={**task, "limit": 4}), made_cell(1, task={**task, "name": "other"})]
    folder = write_sweep(tmp_path / "s", cells)
    assert overview(folder).expected is None
    write_events(folder, "0a", [made_event("done", cell["id"], "1-of-2") for cell in cells])  # of 10 documents
    assert overview(folder).expected == 14


def test_cells_of_earlier_calls_are_counted_apart(tmp_path, capsys):
    cells = [made_cell(n) for n in range(3)]
    folder = write_sweep(tmp_path / "s", cells, grid=[cells[2]["id"]])
    write_events(folder, "0a", [made_event("done", cells[0]["id"])])
    view = overview(folder)
    assert [cell.id for cell in view.cells] == [cells[2]["id"]]
    assert (view.older, view.samples) == ({"done": 1, "unfinished": 1}, 0)
    call(folder.path)
    assert "earlier calls, with other settings or code: 1 done, 1 unfinished" in capsys.readouterr().out


def test_the_grid_has_a_symbol_for_every_cell(tmp_path, capsys):
    cells = [made_cell(10 * n + k, f"row {n}", r) for n in range(2) for k, r in enumerate((0.25, 0.1))]
    cells.append(made_cell(99, "row 1", 0.1))  # another seed in the same place
    folder = write_sweep(tmp_path / "s", cells)
    write_events(folder, "0a", [made_event("done", cells[0]["id"]), made_event("failed", cells[3]["id"])])
    assert call(folder.path) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["weights,", "made_up"]
    assert lines[3:6] == [["r=0.25", "r=0.1"], ["row", "0", "✓", "·"], ["row", "1", "·", "✗·"]]
    assert " ".join(lines[7]) == "5 cells: ✓ 1 done ✗ 1 failed · 3 waiting"
    told = " ".join(word for line in lines for word in line)
    assert "ValueError: it broke" in told and "Traceback" not in told
    assert f"python -m sweeps retry {folder.path} --failed" in told
    call(folder.path, "--failed")
    assert "Traceback" in capsys.readouterr().out


def test_a_big_grid_is_counted(tmp_path, capsys):
    cells = [made_cell(n, f"row {n}") for n in range(100)]
    folder = write_sweep(tmp_path / "s", cells)
    write_events(folder, "0a", [made_event("done", cell["id"]) for cell in cells[:30]])
    call(folder.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["weights", "made_up", "30", "0", "0", "0", "0", "70"]


def test_json_has_all_of_it(tmp_path, capsys):
    folder = write_sweep(tmp_path / "s", [made_cell(1)])
    call(folder.path, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["waiting"] == 1
    assert told["cells"][0]["id"] == made_cell(1)["id"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watching_ends_with_the_last_open_cell(tmp_path, monkeypatch, capsys, form):
    folder = write_sweep(tmp_path / "s", [made_cell(1)])
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        write_events(folder, "0a", [made_event("done", made_cell(1)["id"])])

    monkeypatch.setattr("sweeps.commands.status.time.sleep", sleep)
    call(folder.path, "--watch", "2", *form)
    assert len(slept) == 1 and slept[0] >= 2
    assert ("1 done" if not form else '"done": 1') in capsys.readouterr().out


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(FolderError, match=r"holds no sweep.*start one with"):
        call(tmp_path)
    write_sweep(tmp_path / "s", [], schema=99)
    with pytest.raises(FolderError, match=r"schema 99, expected 1"):
        call(tmp_path / "s")


def test_a_torn_last_line_and_half_made_runs_are_no_obstacle(tmp_path):
    cell = made_cell(1)
    folder = write_sweep(tmp_path / "s", [cell])
    write_events(folder, "0a", [made_event("start", cell["id"])])
    with open(folder.events("0a", 0), "a") as file:
        file.write('{"event": "do')
    (folder.runs("1-of-4") / "0123").mkdir(parents=True)
    run = write_run(folder.runs("1-of-1"), made_settings(1), [made_sample(0, 0.01)], state="running")
    (run / "samples.jsonl").unlink()
    assert statuses(folder) == {"random": "lost"}
    assert overview(folder).samples == 0


def test_commands_load_neither_torch_nor_lmms_eval(tmp_path):
    cell = made_cell(1)
    folder = write_sweep(tmp_path / "s", [cell])
    run = write_run(folder.runs("1-of-1"), made_settings(1), [made_sample(0, 0.01), failed_sample(1)])
    write_events(folder, "0a", [made_event("done", cell["id"], run=f"runs/{run.name}")])
    calls = [
        ["status"],
        ["collect"],
        ["retry", "--cells", cell["id"]],
        ["clean", "--stale", "--logs", "--code", "--yes"],
    ]
    code = f"""if True:
        import argparse, sys
        from sweeps.commands import clean, collect, retry, status
        parser = argparse.ArgumentParser()
        commands = parser.add_subparsers()
        for module in (clean, collect, retry, status):
            module.add_parser(commands)
        for name, *rest in {calls}:
            args = parser.parse_args([name, {str(folder.path)!r}, *rest])
            assert args.run(args) == 0
        assert not {{"torch", "lmms_eval", "transformers"}} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_work_grows_in_step_with_the_cells(tmp_path):
    """Calls are counted, not seconds: `benchmarks/sweep_scale.py` has those (10,000 cells in 2 s)."""
    few, many = (calls_of_overview(tmp_path / str(cells), cells) for cells in (100, 1000))
    assert many < 11 * few


def calls_of_overview(path, count):
    cells = [made_cell(n, f"row {n // 4}") for n in range(count)]
    folder = write_sweep(path, cells)
    for job in range(20):
        events = [
            made_event(kind, cell["id"], f"{job % 4 + 1}-of-4", after(n))
            for n, cell in enumerate(cells[job // 4 * count // 5 : (job // 4 + 1) * count // 5])
            for kind in ("start", "done")
        ]
        write_events(folder, f"{job:012x}", events)
    calls = 0

    def called(frame, event, function):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        view = overview(folder)
    finally:
        sys.setprofile(None)
    assert view.counts["done"] == count and view.samples == 40 * count
    return calls
