"""A cell's metrics as stock lmms-eval makes them of all its rows, whatever shards these were answered in."""

from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from cacovid.lmms.prompt import Request
from cacovid.runs.sample import finite
from sweeps.parts import read_samples
from sweeps.settings import Task

_CHUNK = 2000  # rows that are parsed at a time


class CellError(RuntimeError):
    """An evaluation that came back without all of its samples."""


class Answered(lmms):
    """Gives the answers that rows hold, in place of the model that gave them; "" for a failed one, as that model did.

    lmms-eval scores and aggregates them as it would have in one process; no video is read.
    """

    is_simple = False

    def __init__(self, answers: dict[tuple[str, int], str]) -> None:
        """`answers`: by task and document."""
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raises CellError for a document without a row."""
        asked = [Request.of(instance, simple=False) for instance in requests]
        if absent := [f"{r.task} {r.doc_id}" for r in asked if (r.task, r.doc_id) not in self._answers]:
            raise CellError(
                f"{len(absent)} documents have no row in the cell's runs, the first is {absent[0]}; have the cell "
                f"tried again: `python -m sweeps retry FOLDER --cells ID`, then `run`"
            )
        return [self._answers[request.task, request.doc_id] for request in asked]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not offered."""
        raise NotImplementedError("stored answers are of generation; loglikelihood tasks are not supported")

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not offered."""
        raise NotImplementedError("stored answers are of single questions; multi-round tasks are not supported")


def metrics_of_rows(task: Task, manager: TaskManager, runs: Iterable[Path]) -> dict[str, float | None]:
    """Metrics of a task, or of a group with its tasks, over all its documents.

    Args:
        runs: folders that hold a row for each of them; of two rows for a document the earlier folder's counts.

    Raises CellError for a document without a row, RunError for a damaged file.
    """
    answers: dict[tuple[str, int], str] = {}
    for run in runs:
        answers = _answers(run) | answers
    out = simple_evaluate(
        model=Answered(answers),
        tasks=[task.name],
        limit=task.limit,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=0,
    )
    return metrics_of_results(task, out["results"])


def metrics_of_results(task: Task, results: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """The numbers among lmms-eval's `results`: `metric,filter`, or `task/metric,filter` where the task is a group.

    A group's own aggregates are among them if its YAML has an `aggregate_metric_list`.
    """
    alone = results.keys() == {task.name}
    found = {
        key if alone else f"{name}/{key}": value
        for name, values in results.items()
        for key, value in values.items()
        if isinstance(value, Real)
    }
    return finite(found)


def _answers(run: Path) -> dict[tuple[str, int], str]:
    rows = (row for chunk in read_samples(run / "samples.jsonl", _CHUNK) for row in chunk)
    return {(row["task"], row["doc_id"]): row["prediction"] or "" for row in rows}
