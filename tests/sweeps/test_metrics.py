"""Metrics of whole cells: a group and its tasks, in one shard or several, are what lmms-eval makes of all rows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lmms.scene import UTILS, document, write_task

from benchmarks.kills import answers
from cacovid.runs.files import Lock
from sweeps import evaluate, worker
from sweeps.cells import Cell
from sweeps.folder import CellState, Folder, states
from sweeps.shards import Shard
from sweeps.worker import work
from testbed_jobs import events, made_cells, made_job

GROUP = """\
group: made
task:
  - first
  - task: second
    doc_to_text: answer
aggregate_metric_list:
  - metric: right
    aggregation: mean
    weight_by_size: false
    filter_list: [none]
metadata:
  version: 1.0
"""
SCORER = """

import random


def results(doc, results):
    return {"right": doc["number"] + len(results[0]) + random.random()}
"""
"""Draws, as the one of LongVideoBench does: only lmms-eval's own order of documents gives the same numbers."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A group of two tasks, of three and five documents without media; it changes the prompt of the second."""
    root = tmp_path_factory.mktemp("tasks")
    for name, size in [("first", 3), ("second", 5)]:
        write_task(root / name, name, [document(n) for n in range(size)], utils=UTILS + SCORER)
    (root / "made.yaml").write_text(GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(root / "datasets"))
        patch.setattr(evaluate, "tasks_dir", lambda: root)
        yield root


def cells(name: str = "made", limit: int | None = None) -> list[Cell]:
    return made_cells("random", name=name, limit=limit)


def metrics(folder: Path, some: list[Cell], shards: list[Shard]) -> list[dict[str, float] | None]:
    """What the shards' `done` events tell, in the order in which these were done."""
    out = []
    for shard in shards:
        job = made_job(folder, some, shard=shard)
        work(Folder(folder), job.id)
        last = events(folder, job.id)[-1]
        assert last["event"] == "done", last
        out.append(last["metrics"])
    return out


def stock(tasks: Path, folder: Path, name: str, limit: int | None) -> dict[str, float]:
    """The numbers of lmms-eval's own command."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    found = simple_evaluate(
        model="random_llava_ov",
        model_args=f"pretrained=testbed,device=cpu,retention=0.25,results_dir={folder}/runs",
        tasks=[name],
        limit=limit,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )["results"]
    rows = [(task, key, value) for task, values in found.items() for key, value in values.items()]
    return {f"{t}/{key}" if len(found) > 1 else key: v for t, key, v in rows if isinstance(v, int | float)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("made", None), ("made", 2), ("first", None)])
def test_shards_and_groups_have_the_metrics_of_the_plain_command(
    tasks: Path, tmp_path: Path, name: str, limit: int | None
) -> None:
    expected = stock(tasks, tmp_path / "stock", name, limit)
    assert ("made/right,none" in expected) == (name == "made")
    some = cells(name, limit)
    assert metrics(tmp_path / "whole", some, [Shard()]) == [expected]
    assert metrics(tmp_path / "halves", some, [Shard(1, 2), Shard(0, 2)]) == [None, expected]
    rows = answers(tmp_path / "stock")
    assert len(rows) == {("made", None): 8, ("made", 2): 4, ("first", None): 3}[name, limit]
    assert answers(tmp_path / "whole") == rows and answers(tmp_path / "halves") == rows
    state = states(Folder(tmp_path / "halves").read_events())[some[0].id]
    assert state.metrics == expected


@pytest.mark.slow
def test_a_row_that_is_gone_is_no_zero(tasks: Path, tmp_path: Path) -> None:
    some = cells("first")
    metrics(tmp_path, some, [Shard(0, 2)])
    (path,) = tmp_path.glob("runs/1-of-2/*/samples.jsonl")
    path.write_text("")
    job = made_job(tmp_path, some, shard=Shard(1, 2))
    work(Folder(tmp_path), job.id)
    last = events(tmp_path, job.id)[-1]
    assert (
        last["event"] == "failed"
        and "1 documents have no row in the cell's runs, the first is first 0" in (last["error"])
    )


def test_of_two_that_end_at_once_one_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose neighbour is about to note the other half waits for it, and then tells the metrics."""
    (cell,) = cells()
    asked: list[list[str]] = []

    class Half:
        def __init__(self, *_: Any) -> None:
            pass

        def evaluate(self, cell: Cell) -> dict[str, Any]:
            return {"runs": ["runs/2-of-2/x"], "counts": {}, "reasons": {}, "metrics": None, "seconds": 1.0}

        def metrics(self, cell: Cell, runs: list[str]) -> dict[str, float]:
            asked.append(runs)
            return {"right": 0.5}

    monkeypatch.setattr(evaluate, "Evaluator", Half)
    job = made_job(tmp_path, [cell], shard=Shard(1, 2))
    folder = Folder(tmp_path)
    (tmp_path / "events").mkdir()
    neighbour = Lock(folder.ending(cell.id))

    def note_first_half(_: float) -> None:
        other = made_job(tmp_path, [cell], shard=Shard(0, 2))
        with worker.closing(worker.Journal(folder.events(other.id, 0))) as journal:
            worker.note(journal, "done", cell.id, "1-of-2", runs=["runs/1-of-2/x"], metrics=None)
        neighbour.release()

    monkeypatch.setattr(worker.time, "sleep", note_first_half)
    work(folder, job.id)
    assert asked == [["runs/1-of-2/x", "runs/2-of-2/x"]]
    assert events(tmp_path, job.id)[-1]["metrics"] == {"right": 0.5}


def test_metrics_of_a_cell_are_those_of_its_last_shard() -> None:
    def done(shard: str, time: str, metrics: dict[str, float] | None) -> dict[str, Any]:
        return {"event": "done", "cell": "a", "shard": shard, "time": time, "metrics": metrics}

    state = CellState()
    for event in [done("1-of-2", "1", None), done("2-of-2", "2", {"x": 1.0})]:
        state.take(event)
    assert state.metrics == {"x": 1.0}
    state.take({"event": "retry", "cell": "a", "shard": "1-of-2", "time": "3"})
    assert state.metrics is None, "it is not whole"
    state.take(done("1-of-2", "4", {"x": 2.0}))
    assert state.metrics == {"x": 2.0}


def test_a_group_without_aggregates_of_its_own_has_those_of_its_tasks() -> None:
    """MVBench's, for one."""
    from sweeps.metrics import metrics_of_results

    (cell,) = cells()
    results = {"made": {" ": " ", "alias": "made"}, "first": {"alias": " - first", "right,none": 0.5}}
    assert metrics_of_results(cell.task, results) == {"first/right,none": 0.5}
    alone = replace(cell.task, name="first")
    assert metrics_of_results(alone, {"first": {"right,none": float("nan")}}) == {"right,none": None}
