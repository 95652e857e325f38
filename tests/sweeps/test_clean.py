"""`python -m sweeps clean`: removes what it shows, after a yes, and nothing that is needed."""

import argparse
import json
import os
import time

import pytest

from cacovid.runs.files import Lock
from made_sweeps import (
    fake_squeue,
    made_cell,
    made_event,
    made_sample,
    made_settings,
    write_events,
    write_job,
    write_run,
    write_sweep,
)
from sweeps.commands import clean
from sweeps.folder import FolderError
from sweeps.live import QueueError


def call(*words):
    parser = argparse.ArgumentParser()
    clean.add_parser(parser.add_subparsers())
    args = parser.parse_args(["clean", *map(str, words)])
    return args.run(args)


OLD, DONE, OPEN = (made_cell(n, name) for n, name in enumerate(("old", "done", "open")))


@pytest.fixture
def folder(tmp_path):
    """A sweep: a cell of an earlier call, one that is done, one that is not; each with a run and a job."""
    folder = write_sweep(tmp_path / "s", [OLD, DONE, OPEN], grid=[DONE["id"], OPEN["id"]])
    for number, cell in enumerate((OLD, DONE, OPEN)):
        state = "running" if cell is OPEN else "done"
        run = write_run(folder.runs("1-of-1"), made_settings(number), [made_sample(0)], asked=range(1), state=state)
        write_job(folder, f"{number:012x}", [cell])
        ends = [] if cell is OPEN else [made_event("done", cell["id"], runs=[f"runs/{run.name}"])]
        write_events(folder, f"{number:012x}", [made_event("start", cell["id"]), *ends])
    return folder


def run_of(folder, number):
    return folder.path / "runs" / made_settings(number).id


def finish(folder):
    write_events(folder, f"{2:012x}", [made_event("done", OPEN["id"], runs=[f"runs/{made_settings(2).id}"])])


def test_runs_of_cells_of_earlier_calls(folder, capsys):
    assert call(folder.path, "--stale", "--yes") == 0
    assert [run_of(folder, n).exists() for n in range(3)] == [False, True, True]
    told = capsys.readouterr().out
    assert "1 runs of cells that the last call's grid has no more: 0.0 MiB" in told
    assert str(run_of(folder, 0)) in told and "1 of 1 removed" in told


def test_runs_that_never_ended_go_once_the_grid_is_done(folder):
    stray = write_run(folder.runs("1-of-2"), made_settings(7), [made_sample(0)], asked=range(2), state="failed")
    # Of a task with parts an event names one run: the others are done, and stay.
    part = write_run(folder.runs("1-of-1"), made_settings(8), [made_sample(0)])
    call(folder.path, "--stale", "--yes")
    assert stray.exists() and not run_of(folder, 0).exists()
    finish(folder)
    call(folder.path, "--stale", "--yes")
    assert not stray.exists() and part.exists()
    assert [run_of(folder, n).exists() for n in range(3)] == [False, True, True]


def test_a_run_that_cells_of_both_calls_share_stays(folder):
    event = made_event("done", OLD["id"], runs=[f"runs/{made_settings(1).id}"])  # device auto, then cpu, say
    write_events(folder, "0a", [event])
    call(folder.path, "--stale", "--yes")
    assert run_of(folder, 1).exists() and not run_of(folder, 0).exists()


def test_a_run_that_is_being_written_stays(folder, capsys):
    lock = Lock(run_of(folder, 0) / "lock")
    try:
        assert call(folder.path, "--stale", "--yes") == 1
    finally:
        lock.release()
    assert run_of(folder, 0).exists()
    assert "left in place" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "gone"), [("y", True), ("yes", True), ("", False), ("n", False), (None, False)])
def test_it_asks_first(folder, monkeypatch, capsys, answer, gone):
    def reply(question):
        assert "remove all of this?" in question
        if answer is None:
            raise EOFError  # no terminal
        return answer

    monkeypatch.setattr("builtins.input", reply)
    assert call(folder.path, "--stale") == (0 if gone else 1)
    assert run_of(folder, 0).exists() != gone
    assert gone or "nothing was removed" in capsys.readouterr().out


def test_dry_shows_and_removes_nothing(folder, capsys):
    assert call(folder.path, "--stale", "--dry") == 0
    assert run_of(folder, 0).exists()
    assert str(run_of(folder, 0)) in capsys.readouterr().out


def submit(folder, *rows):
    lines = [{"executor": "local", "slurm": None, "pid": None, "host": "h", "time": "2026", **row} for row in rows]
    (folder.path / "submitted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_logs_of_finished_jobs(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{fake_squeue(tmp_path / 'bin', '')}:{os.environ['PATH']}")
    folder.log.mkdir()
    files = {
        "finished": [f"{1:012x}.0.out", "41_1_0_log.out", "41_1_submitted.pkl", f"{0:012x}.0.out"],
        "open": [f"{2:012x}.0.out", "41_2_0_log.out", "77_0_log.err", "41_submission.sh", "unknown.txt"],
    }
    for name in (*files["finished"], *files["open"]):
        (folder.log / name).write_text("x")
    # The process number 77 was given to two jobs, one of which is not done.
    shared = [{"job": f"{n:012x}", "pid": 77} for n in (1, 2)]
    write_job(folder, "0b", [DONE])
    write_job(folder, "0c", [OPEN])
    submit(folder, *shared, {"job": "0b", "slurm": "41_1"}, {"job": "0c", "slurm": "41_2"})
    call(folder.path, "--logs", "--yes")
    assert {path.name for path in folder.log.iterdir()} == set(files["open"])


def test_code_that_no_job_runs(folder, capsys):
    for name in ("old", "new"):
        (folder.code / name).mkdir(parents=True)
    submit(folder, {"job": f"{2:012x}", "code": "new"}, {"job": f"{1:012x}", "code": "old"})
    folder.alive(f"{2:012x}", 0).touch()
    call(folder.path, "--code", "--yes")
    assert [path.name for path in folder.code.iterdir()] == ["new"]
    submit(folder, {"job": f"{2:012x}"})
    call(folder.path, "--code", "--yes")
    assert [path.name for path in folder.code.iterdir()] == ["new"]
    assert "it is not told which they run" in capsys.readouterr().out
    os.utime(folder.alive(f"{2:012x}", 0), (time.time() - 99,) * 2)
    call(folder.path, "--code", "--yes")
    assert not list(folder.code.iterdir())


@pytest.mark.parametrize("kind", ["code", "store"])
def test_what_a_run_may_need_is_not_removed_while_it_is_at_work(folder, kind):
    """It may have made a snapshot that no job runs yet."""
    (folder.path / kind / "x").mkdir(parents=True)
    lock = Lock(folder.path / "lock")
    try:
        with pytest.raises(FolderError, match=f"`python -m sweeps run` is at work in .*what --{kind} may remove"):
            call(folder.path, f"--{kind}", "--yes")
        assert call(folder.path, "--stale", "--yes") == 0
    finally:
        lock.release()
    assert (folder.path / kind / "x").exists()
    assert call(folder.path, f"--{kind}", "--yes") == 0
    assert not (folder.path / kind / "x").exists()


def test_a_queue_that_does_not_answer_keeps_everything(folder, monkeypatch):
    (folder.code / "new").mkdir(parents=True)
    submit(folder, {"job": f"{2:012x}", "slurm": "7_0", "code": "new"})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QueueError, match="squeue does not say which jobs are still queued"):
        call(folder.path, "--code", "--yes")
    assert (folder.code / "new").exists()


def test_the_store_goes_when_nobody_uses_it(folder):
    (folder.path / "store" / "ab").mkdir(parents=True)
    (folder.path / "store" / "ab" / "x").write_bytes(b"0" * 2**20)
    folder.alive(f"{2:012x}", 0).touch()
    with pytest.raises(FolderError, match=f"jobs {2:012x} are queued or at work and use the store; wait for them"):
        call(folder.path, "--store", "--yes")
    os.utime(folder.alive(f"{2:012x}", 0), (time.time() - 99,) * 2)
    call(folder.path, "--store", "--yes")
    assert not (folder.path / "store").exists()


def test_a_store_elsewhere_is_not_ours_to_remove(folder, tmp_path):
    write_sweep(tmp_path / "t", [], config={"store": {"folder": "/shared/store"}})
    with pytest.raises(FolderError, match=r"the store is /shared/store: other sweeps may use it"):
        call(tmp_path / "t", "--store")


def test_refusals(folder, tmp_path):
    with pytest.raises(FolderError, match="nothing was chosen; expected some of --stale, --logs, --code, --store"):
        call(folder.path)
    with pytest.raises(FolderError, match="holds no sweep"):
        call(tmp_path, "--stale")
