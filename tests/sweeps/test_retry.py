"""`python -m sweeps retry`: sets aside what it was told to, and nothing else."""

import argparse
import json

import pytest

from cacovid.runs import Run, RunLockedError, Sample
from cacovid.runs.files import Lock
from made_sweeps import (
    failed_sample,
    made_cell,
    made_event,
    made_sample,
    made_settings,
    write_events,
    write_run,
    write_sweep,
)
from sweeps.commands import retry
from sweeps.folder import CellState, FolderError, states

NAMES = ("done", "failed", "lost", "running", "waiting")
CELLS = {name: made_cell(n, name) for n, name in enumerate(NAMES)}
IDS = {name: cell["id"] for name, cell in CELLS.items()}


def call(*words):
    parser = argparse.ArgumentParser()
    retry.add_parser(parser.add_subparsers())
    args = parser.parse_args(["retry", *map(str, words)])
    return args.run(args)


@pytest.fixture
def folder(tmp_path):
    folder = write_sweep(tmp_path / "s", list(CELLS.values()))
    write_events(folder, "0a", [made_event("start", IDS["done"]), made_event("done", IDS["done"])])
    write_events(folder, "0a", [made_event("start", IDS["failed"]), made_event("failed", IDS["failed"])])
    write_events(folder, "0a", [made_event("start", IDS["lost"])])
    write_events(folder, "0b", [made_event("start", IDS["running"])])
    folder.alive("0b", 0).touch()
    return folder


def known(folder):
    """Names of cells of which something is known."""
    found = states(folder.read_events())
    return {name for name, id in IDS.items() if found.get(id, CellState()) != CellState()}


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["--failed"], {"failed"}),
        (["--lost"], {"lost"}),
        (["--failed", "--lost"], {"failed", "lost"}),
        (["--cells", IDS["done"]], {"done"}),
        (["--cells", IDS["done"], IDS["failed"], "--failed"], {"failed"}),
        (["--quarantined"], set()),
    ],
)
def test_what_was_chosen_is_set_aside(folder, capsys, words, again):
    assert call(folder.path, *words) == 0
    assert known(folder) == {"done", "failed", "lost", "running"} - again
    told = capsys.readouterr().out
    for name in again:
        assert f"{IDS[name]} ({name}, r=0.25, made_up), 1-of-1" in told
    if again:
        assert f"{len(again)} to be tried again; go on with the `python -m sweeps run ...` that made" in told
    else:
        assert "nothing to try again" in told


def test_dry_changes_nothing(folder, capsys):
    before = sorted(folder.path.rglob("*"))
    call(folder.path, "--failed", "--dry")
    assert sorted(folder.path.rglob("*")) == before and "failed" in known(folder)
    told = capsys.readouterr().out
    assert f"failed: {IDS['failed']}" in told and "nothing was done (--dry)" in told


def test_a_shard_at_work_is_left_alone(folder, capsys):
    call(folder.path, "--cells", IDS["running"])
    assert "running" in known(folder)
    assert f"at work, left alone: {IDS['running']}, 1-of-1" in capsys.readouterr().out


def test_each_shard_by_itself(tmp_path):
    cell = made_cell(1)
    folder = write_sweep(tmp_path / "s", [cell])
    write_events(folder, "0a", [made_event("done", cell["id"], "1-of-2"), made_event("failed", cell["id"], "2-of-2")])
    call(folder.path, "--failed")
    state = states(folder.read_events())[cell["id"]]
    assert state.covers("1-of-2") and not state.failed
    # What came to be known after it counts again.
    call(folder.path, "--cells", cell["id"])
    assert states(folder.read_events())[cell["id"]] == CellState()
    write_events(folder, "0a", [json.loads(json.dumps(made_event("done", cell["id"])).replace("2026", "2999"))])
    assert states(folder.read_events())[cell["id"]].covers("1-of-1")


@pytest.fixture
def quarantined(folder):
    """The run of the cell that is done: two answers, one document that was given up."""
    settings = made_settings(0)
    rows = [made_sample(0, 0.01), failed_sample(1, "quarantined", "Quarantined"), failed_sample(2)]
    run = write_run(folder.runs("1-of-1"), settings, rows)
    (run / "strikes.json").write_text('{"1": 3}')
    reasons = {"quarantined": 1, "truncated": 1}
    write_events(folder, "0a", [made_event("done", IDS["done"], runs=[f"runs/{run.name}"], reasons=reasons)])
    return run


def test_quarantined_documents_are_asked_again(folder, quarantined, capsys):
    call(folder.path, "--quarantined")
    assert known(folder) == {"failed", "lost", "running"}
    assert not (quarantined / "strikes.json").exists()
    rows = [json.loads(line) for line in (quarantined / "samples.jsonl").read_text().splitlines()]
    assert [row["doc_id"] for row in rows] == [0, 2]
    assert json.loads((quarantined / "run.json").read_text())["state"] == "failed"  # no table takes it as it is
    assert "1 runs whose documents are asked again" in capsys.readouterr().out
    with Run(folder.runs("1-of-1"), made_settings(0), asked=[0, 1, 2]) as run:
        assert run.stored(0) is not None and run.stored(1) is None
        assert run.strikes.failure(1) is None
        for document in (1, 2):
            run.record(Sample(**made_sample(document, 0.01)))
    assert run.counts()["answered"] == 3


def test_strikes_of_a_run_that_did_not_end_are_forgotten(folder, quarantined):
    lost = write_run(folder.runs("1-of-1"), made_settings(7), [made_sample(0, 0.01)], asked=range(3), state="running")
    (lost / "strikes.json").write_text('{"1": 3}')
    call(folder.path, "--quarantined", "--dry")
    assert (lost / "strikes.json").exists() and (quarantined / "strikes.json").exists()
    call(folder.path, "--quarantined")
    assert not (lost / "strikes.json").exists()
    assert len((lost / "samples.jsonl").read_text().splitlines()) == 1


def test_a_run_that_is_being_written_keeps_its_quarantine(folder, quarantined, capsys):
    lock = Lock(quarantined / "lock")
    try:
        call(folder.path, "--quarantined")
    finally:
        lock.release()
    assert (quarantined / "strikes.json").exists() and "done" in known(folder)
    assert "left alone" in capsys.readouterr().out


def test_two_calls_at_once_do_not_write_over_each_other(folder):
    lock = Lock(folder.path / "events" / "retry.lock")
    try:
        with pytest.raises(RunLockedError, match="is being written by another process"):
            call(folder.path, "--failed")
    finally:
        lock.release()
    call(folder.path, "--failed")
    call(folder.path, "--lost")
    assert len(folder.events("retry", 0).read_text().splitlines()) == 2


def test_refusals(folder, tmp_path):
    with pytest.raises(FolderError, match="nothing was chosen; expected --failed, --lost, --quarantined or --cells"):
        call(folder.path)
    with pytest.raises(FolderError, match=r"no cell ffff in .*status .* --json` tells the ids"):
        call(folder.path, "--cells", "ffff", IDS["done"])
    with pytest.raises(FolderError, match="holds no sweep"):
        call(tmp_path, "--failed")
