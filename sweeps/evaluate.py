"""The cells of a job through stock lmms-eval, in this process: what they share is loaded once."""

import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager, get_task_dict

from cacovid.lmms import models, tasks_dir
from cacovid.lmms.arguments import ArgumentError, Arguments, parse_arguments
from cacovid.lmms.shared import Shared
from sweeps.cells import Cell
from sweeps.folder import Folder
from sweeps.jobs import Job
from sweeps.metrics import CellError, metrics_of_results, metrics_of_rows
from sweeps.settings import Task
from sweeps.shards import Shard

OWN_TASKS = "cacovid"
"""As a task's include_path: the tasks that come with the suite."""


class TaskError(RuntimeError):
    """A task that cannot be loaded here."""


@dataclass(frozen=True)
class LoadedTask:
    """An lmms-eval task: itself, or the tasks of a group, each with its number of documents."""

    manager: TaskManager
    documents: dict[str, int]

    @classmethod
    def load(cls, task: Task) -> "LoadedTask":
        """Raises TaskError, which says how to stage what is missing."""
        try:
            path = str(tasks_dir()) if task.include_path == OWN_TASKS else task.include_path
            manager = TaskManager(include_path=path, include_defaults=task.include_path != OWN_TASKS)
            documents = {name: len(leaf.eval_docs) for name, leaf in leaves(task, manager).items()}
        except (Exception, SystemExit) as error:
            raise TaskError(_advice(task, error)) from error
        # Runs and rows name their task; lmms-eval gives those that a group's YAML makes up no name of their own.
        if made := sorted(set(documents) - set(manager.all_subtasks)):
            raise TaskError(f"group {task.name} makes tasks of its own, which have no name: {', '.join(made)}")
        return cls(manager, documents)


class Evaluator:
    """Evaluates a job's cells on one shard of the documents."""

    def __init__(self, folder: Folder, job: Job, shard: Shard) -> None:
        """Load the task and the first cell's backbone.

        Raises TaskError, DeviceError or CheckpointError.
        """
        self._folder, self._job, self._shard = folder, job, shard
        self._task = LoadedTask.load(job.cells[0].task)
        methods = [parse_arguments(cell.method, self._arguments(cell))[1] for cell in job.cells]
        self._needs = frozenset().union(*(method.needs for method in methods))
        self._shared: Shared | None = None
        self._share(job.cells[0])

    def evaluate(self, cell: Cell) -> dict[str, Any]:
        """What the cell's `done` event tells; `metrics` are None where the shard is not all of the cell.

        Raises CellError, and whatever lmms-eval raises.
        """
        start = time.perf_counter()
        shared = self._share(cell)
        before = asdict(shared.counters)
        model_class = getattr(models, f"chat__{cell.backbone.family}__{cell.method}")
        model = model_class(**self._arguments(cell), shared=shared)
        limit, shares = cell.task.limit, self._shares(cell.task.limit)
        metrics = None
        if self._shard == Shard():  # a group in one call: lmms-eval aggregates over its tasks
            out = self._through_lmms_eval(cell, model, cell.task.name, limit, 0)
            metrics = metrics_of_results(cell.task, out["results"])
        else:
            # As the group has loaded them: by name alone, what its YAML says of a task would be lost.
            for name, leaf in leaves(cell.task, self._manager(cell)).items():
                first, count = shares[name]
                if count:  # lmms-eval takes a limit of 0 for none
                    self._through_lmms_eval(cell, model, leaf, count, first)
        counts: Counter[str] = Counter(documents=0, asked=0, answered=0, failed=0, missing=0)
        for name, (_, count) in shares.items():
            told = _checked_counts(model.folders[name], count) if count else {"documents": self._task.documents[name]}
            counts.update(told)
        reasons = Counter(s.failure.reason for samples in model.samples.values() for s in samples if s.failure)
        folders = [os.path.relpath(folder, self._folder.path) for folder in model.folders.values()]
        return {
            "runs": folders,
            "videos": {name: count - before[name] for name, count in asdict(shared.counters).items()},
            "counts": dict(counts),
            "reasons": dict(reasons),
            "metrics": metrics,
            "seconds": time.perf_counter() - start,
        }

    def metrics(self, cell: Cell, runs: list[str]) -> dict[str, float | None]:
        """Metrics of the whole cell from its runs' folders, as `done` events name them. Raises as `metrics_of_rows`."""
        return metrics_of_rows(cell.task, self._manager(cell), [self._folder.path / run for run in runs])

    def _shares(self, limit: int | None) -> dict[str, tuple[int, int]]:
        """First document of the shard, and how many, by task."""
        sizes = self._task.documents.items()
        return {name: self._shard.span(size if limit is None else min(size, limit)) for name, size in sizes}

    def _manager(self, cell: Cell) -> TaskManager:
        self._task.manager.model_name = f"{cell.method}_{cell.backbone.family}"  # tasks may prompt by the model's id
        return self._task.manager

    def _through_lmms_eval(
        self, cell: Cell, model: Any, task: Any, limit: int | None, offset: int
    ) -> dict[str, dict[str, Any]]:
        return simple_evaluate(
            model=model,
            tasks=[task],
            limit=limit,
            offset=offset,
            task_manager=self._manager(cell),
            log_samples=False,
            bootstrap_iters=0,
        )

    def _arguments(self, cell: Cell) -> dict[str, Any]:
        store = self._job.store
        return {
            **cell.model_args,
            "store": store.kind,
            "store_dir": store.folder or str(self._folder.path / "store"),
            "store_gib": store.gib,
            "results_dir": str(self._folder.runs(self._shard.name)),
        }

    def _share(self, cell: Cell) -> Shared:
        """The loaded backbone; loaded anew where a row's settings change what it was loaded with."""
        arguments: Arguments = parse_arguments(cell.method, self._arguments(cell))[0]
        family = cell.backbone.family
        if self._shared is not None:
            try:
                self._shared.check(family, arguments)
            except ArgumentError:
                self._shared = None  # before the next one is loaded: two may not fit
        if self._shared is None:
            self._shared = Shared.load(arguments, self._needs, family=family)
        return self._shared


def _checked_counts(run: Path, asked: int) -> dict[str, int]:
    """Counts of run.json. lmms-eval's return is no proof that every sample has a row."""
    record = json.loads((run / "run.json").read_text())
    counts = record["counts"]
    if record["state"] != "done" or counts["missing"] or counts["asked"] != asked:
        raise CellError(
            f"{run} is {record['state']} with {counts['asked']} samples asked, {counts['missing']} missing; expected "
            f"a finished run of {asked}"
        )
    return counts


def leaves(task: Task, manager: TaskManager) -> dict[str, Any]:
    """A task, or the tasks of a group: freshly loaded objects of lmms-eval, by name."""
    return _leaves(get_task_dict([task.name], manager, "chat"))


def _leaves(tasks: dict[Any, Any]) -> dict[str, Any]:
    """The tasks in lmms-eval's nested groups, by name."""
    out = {}
    for name, task in tasks.items():
        out.update(_leaves(task) if isinstance(task, dict) else {str(name): task})
    return out


def _advice(task: Task, error: BaseException) -> str:
    return (
        f"task {task.name} cannot be loaded here ({type(error).__name__}: {error}). On a node without network: load it "
        f"once where there is one, with HF_HOME and HF_DATASETS_CACHE in a folder that both see, and give the jobs the "
        f"same folders and HF_HUB_OFFLINE=1. A gated data set needs HF_TOKEN of an account that was granted access. A "
        f"task of your own needs task.include_path, as --include_path of lmms-eval"
    )
