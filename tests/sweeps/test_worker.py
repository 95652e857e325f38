"""A job's worker: every cell once, what fails is told and tried again, and it ends with its parent."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import answers
from cacovid.runs.files import Lock, read_lines
from sweeps import worker
from sweeps.folder import Folder
from sweeps.settings import Executor
from sweeps.shards import Shard
from sweeps.worker import WorkerError, work
from testbed_jobs import course, events, made_cells, made_job

DONE = {"runs": ["runs/x"], "counts": {"asked": 1}, "reasons": {}, "metrics": {}, "seconds": 1.0}


@pytest.mark.slow
def test_cells_through_lmms_eval(tmp_path: Path) -> None:
    """As the `lmms-eval` command would: same runs, same rows; and nothing twice."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from cacovid.lmms import tasks_dir

    cells = made_cells("random", "attention_topk@0.1", videos=1, limit=3)
    job = made_job(tmp_path, cells)
    work(Folder(tmp_path), job.id)
    assert course(tmp_path, job.id) == [(e, c.id) for c in cells for e in ("start", "done")]
    done = events(tmp_path, job.id)[1]
    assert done["counts"] == {"documents": 7, "asked": 3, "answered": 3, "failed": 0, "missing": 0}
    assert done["shard"] == "1-of-1" and done["reasons"] == {} and 0 <= done["metrics"]["accuracy,none"] <= 1
    assert done["seconds"] > 0 and (tmp_path / done["runs"][0] / "run.json").exists()
    assert len(list((tmp_path / "store").rglob("*.features.safetensors"))) == 1, "both cells use the store"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACOVID_TESTBED_VIDEOS", "1")
        simple_evaluate(
            model="random_llava_ov",
            model_args=f"pretrained=testbed,device=cpu,retention=0.25,results_dir={tmp_path}/plain/runs",
            tasks=["evidence_vqa"],
            limit=3,
            task_manager=TaskManager(include_path=str(tasks_dir()), include_defaults=False),
            bootstrap_iters=0,
        )
    plain, ours = answers(tmp_path / "plain"), answers(tmp_path)
    assert len(plain) == 3 and len(ours) == 6
    assert {key: row for key, row in ours.items() if key in plain} == plain

    work(Folder(tmp_path), job.id)
    assert len(events(tmp_path, job.id)) == 4, "what is done is not done again"

    work(Folder(tmp_path), made_job(tmp_path, cells[:1], shard=Shard(0, 4)).id)
    assert len(list((tmp_path / "events").glob("*.jsonl"))) == 2, "a part of what is done is done"


class Scripted:
    """In place of the evaluator: says how each try of a cell goes."""

    tries: list[str]
    outcomes: dict[str, list[BaseException | None]]

    def __init__(self, *_: Any) -> None:
        pass

    def evaluate(self, cell: Any) -> dict[str, Any]:
        self.tries.append(cell.label)
        if (error := self.outcomes[cell.label].pop(0)) is not None:
            raise error
        return DONE


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    import sweeps.evaluate

    Scripted.tries, Scripted.outcomes = [], {}
    monkeypatch.setattr(sweeps.evaluate, "Evaluator", Scripted)
    return Scripted


def test_failures_are_told_and_tried_again_at_the_end(tmp_path: Path, scripted: type[Scripted]) -> None:
    cells = made_cells("random", "uniform", "full@1")
    job = made_job(tmp_path, cells)
    scripted.outcomes = {
        "random": [SystemExit("video not found"), ValueError("odd"), None],
        "uniform": [RuntimeError("bad")] * 3,
        "full@1": [None],
    }
    work(Folder(tmp_path), job.id)
    assert scripted.tries == ["random", "uniform", "full@1", "random", "uniform", "random", "uniform"]
    failed = [event for event in events(tmp_path, job.id) if event["event"] == "failed"]
    assert [event["error"] for event in failed] == [
        "SystemExit: video not found",
        "RuntimeError: bad",
        "ValueError: odd",
        "RuntimeError: bad",
        "RuntimeError: bad",
    ]
    assert "Traceback" in failed[0]["trace"] and "in evaluate" in failed[0]["trace"]

    scripted.tries.clear()
    work(Folder(tmp_path), job.id)
    assert scripted.tries == [], "the same submission tries three times in all"
    made_job(tmp_path, cells)
    scripted.outcomes["uniform"] = [None]
    work(Folder(tmp_path), job.id)
    assert scripted.tries == ["uniform"], "the next submission tries anew"


def test_ctrl_c_is_no_failure(tmp_path: Path, scripted: type[Scripted]) -> None:
    job = made_job(tmp_path, made_cells("random"))
    scripted.outcomes = {"random": [KeyboardInterrupt()]}
    with pytest.raises(KeyboardInterrupt):
        work(Folder(tmp_path), job.id)
    assert [event for event, _ in course(tmp_path, job.id)] == ["start"]
    assert Folder(tmp_path).alive(job.id, 0).stat().st_mtime == 0, "who ends in good order is seen to be gone"


def test_a_task_that_cannot_be_loaded_fails_all_cells_at_once(tmp_path: Path) -> None:
    cells = made_cells("random", "uniform", name="no_such_task")
    job = made_job(tmp_path, cells)
    work(Folder(tmp_path), job.id)
    assert course(tmp_path, job.id) == [("failed", cell.id) for cell in cells]
    error = events(tmp_path, job.id)[0]["error"]
    for word in ("TaskError: task no_such_task cannot be loaded", "HF_HOME", "HF_DATASETS_CACHE", "HF_TOKEN"):
        assert word in error
    assert "include_path" in error


def test_a_checkpoint_that_cannot_be_loaded_fails_all_cells_at_once(tmp_path: Path) -> None:
    cells = [replace(c, backbone=replace(c.backbone, pretrained=str(tmp_path))) for c in made_cells("random", "full@1")]
    job = made_job(tmp_path, cells)
    work(Folder(tmp_path), job.id)
    assert course(tmp_path, job.id) == [("failed", cell.id) for cell in cells]
    assert events(tmp_path, job.id)[0]["error"].startswith("CheckpointError: ")


@pytest.mark.slow
def test_a_share_without_documents_is_done_at_once(tmp_path: Path) -> None:
    cells = made_cells("random", limit=1)
    job = made_job(tmp_path, cells, shard=Shard(0, 2))
    work(Folder(tmp_path), job.id)
    done = events(tmp_path, job.id)[-1]
    assert (done["event"], done["runs"], done["counts"]["asked"]) == ("done", [], 0)


def test_other_code_than_at_submission_is_refused(tmp_path: Path) -> None:
    job = made_job(tmp_path, made_cells("random"))
    path = Folder(tmp_path).job(job.id)
    path.write_text(path.read_text().replace('"retention": 0.25', '"retention": 0.3'))
    with pytest.raises(WorkerError, match="the code or the versions of packages are not those that it was submitted"):
        work(Folder(tmp_path), job.id)


def test_a_place_is_taken_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: type[Scripted]) -> None:
    """A worker on its way out and the one that comes after it write one journal, one after the other."""
    job = made_job(tmp_path, made_cells("random"))
    scripted.outcomes = {"random": [None]}
    alive = Folder(tmp_path).alive(job.id, 0)
    alive.parent.mkdir()
    holder = Lock(alive)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            holder.release()

    monkeypatch.setattr(worker.time, "sleep", wait)
    work(Folder(tmp_path), job.id)
    assert len(waits) == 2 and scripted.tries == ["random"]


def test_each_worker_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:

    for number, workers, given, expected in [
        (1, 2, "4,7", "7"),
        (2, 4, "4,7", "4"),
        (0, 1, "4,7", "4,7"),
        (1, 2, "", ""),
    ]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        worker._take_device(number, workers)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.slow
def test_it_ends_with_its_parent_and_closes_its_run(tmp_path: Path) -> None:
    executor = Executor("local", workers=2, threads=1)
    cells = made_cells("random", "uniform", videos=4)
    job = made_job(tmp_path, cells, executor)
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.worker", str(tmp_path), job.id, "1"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    while not any(path.stat().st_size for path in tmp_path.glob("runs/2-of-2/*/samples.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(30) == worker.TERMINATED
    (record,) = tmp_path.glob("runs/2-of-2/*/run.json")
    run = json.loads(record.read_text())
    assert (run["state"], run["error"]) == ("failed", "Terminated: SIGTERM")
    assert not record.with_name("asking.json").exists() and not record.with_name("strikes.json").exists()
    rows = read_lines(record.with_name("samples.jsonl"))[0]
    assert [row["doc_id"] for row in rows] == list(range(14, 14 + len(rows))), "its share is the second half"
    assert [event for event, _ in course(tmp_path, job.id, 1)] == ["start"]
