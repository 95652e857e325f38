"""Cells: one row at one retention ratio, on one backbone and task. Their ids say when a number would change."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from cacovid.backbones.loading import BACKBONES
from cacovid.errors import BudgetError, MethodError
from cacovid.lmms.arguments import ArgumentError, parse_arguments
from cacovid.lmms.recording import code_of
from cacovid.registry import method_class
from cacovid.runs.digest import digest
from cacovid.runs.settings import SCHEMA, package_versions
from cacovid.runs.source import source_sha256
from sweeps.settings import Backbone, ConfigError, Rows, Sweep, Task


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep; everything in it but `label` and `seed`, which tables go by, can change a number."""

    label: str
    backbone: Backbone
    task: Task
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)  # of the lmms-eval model, but for the backbone's
    seed: int | None = None  # the method's, where its row has seeds; among the arguments, too

    @property
    def model_args(self) -> dict[str, Any]:
        """All that the lmms-eval model `<method>_<family>` is built with, but for where things are stored."""
        backbone = {k: v for k, v in asdict(self.backbone).items() if k not in ("family", "sizes") and v is not None}
        return {**backbone, **self.arguments}

    @property
    def id(self) -> str:
        """Sixteen hex digits: equal where configuration, code and package versions are equal.

        Known before anything is loaded. A run's own id (`RunSettings`) has what loading tells: the weights' hash
        and the task's configuration.
        """
        described = {
            "schema": SCHEMA,
            "family": self.backbone.family,
            "method": self.method,
            "arguments": self.model_args,
            "task": {k: v for k, v in asdict(self.task).items() if k not in ("documents", "videos")},
            "source": _source(self.method, self.backbone.family),
            "versions": _versions(),
        }
        return digest(described)[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the id."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Cell":
        """Inverse of `to_json`."""
        rest = {k: v for k, v in row.items() if k not in ("id", "backbone", "task")}
        return cls(backbone=Backbone(**row["backbone"]), task=Task(**row["task"]), **rest)


@cache
def _versions() -> dict[str, str]:
    return package_versions()


@cache
def _source(method: str, family: str) -> str:
    return source_sha256(code_of([method_class(method)], BACKBONES[family]))


def cells_of(sweep: Sweep) -> list[Cell]:
    """The grid, in the order of its rows. Raises ConfigError for an empty one, a row that cannot be, and twins."""
    cells: list[Cell] = []
    for backbone_name, backbone in sweep.backbones.items():
        if backbone.family not in BACKBONES:
            raise ConfigError(f"backbone {backbone_name}: no family {backbone.family!r}; known: {', '.join(BACKBONES)}")
        for task in sweep.tasks.values():
            for label, rows in sweep.methods.items():
                if rows.only is None or backbone_name in rows.only:
                    cells += _cells_of_row(sweep, backbone, task, label, rows)
    if not cells:
        raise ConfigError("the grid is empty: expected at least one each of backbone, task, method, retention, budget")
    seen: dict[str, Cell] = {}
    for cell in cells:
        if (twin := seen.setdefault(cell.id, cell)) is not cell:
            raise ConfigError(
                f"rows {twin.label!r} and {cell.label!r} are the same cell ({cell.method}, {cell.arguments}); drop one"
            )
    return cells


def _cells_of_row(sweep: Sweep, backbone: Backbone, task: Task, label: str, rows: Rows) -> Iterator[Cell]:
    shared = {"sampling": sweep.sampling, "batch_size": sweep.batch_size, "read_timeout": sweep.read_timeout}
    if sweep.frames is not None:
        shared["max_frames_num"] = sweep.frames
    for retention in sweep.retention if rows.retention is None else rows.retention:
        for budget in sweep.budget if rows.budget is None else rows.budget:
            for seed in sweep.seeds if rows.seeds else [None]:
                own = rows.settings if seed is None else {**rows.settings, "seed": seed}
                cell = Cell(
                    label,
                    backbone,
                    task,
                    rows.method,
                    {**shared, "retention": retention, "budget": budget, **own},
                    seed,
                )
                try:
                    parse_arguments(cell.method, cell.model_args)
                except (ArgumentError, MethodError, BudgetError) as error:
                    raise ConfigError(f"row {label!r} at r={retention}: {error}") from error
                yield cell
