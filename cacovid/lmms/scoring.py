"""Score a sample at once with the task's own code, so that a killed run has its scores, too."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from lmms_eval.filters.selection import TakeFirstFilter
from loguru import logger

from cacovid.runs.digest import digest
from cacovid.runs.sample import finite

_JUDGES = {"openai", "OpenAI", "AzureOpenAI", "anthropic", "requests", "get_server", "ServerConfig", "llm_judge"}
"""Names in a task's module that mean that scoring may call, and pay for, a service."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the task makes of one prediction; None = not known here."""

    target: Any = None
    score: float | None = None
    parsed: bool | None = None
    metrics: dict[str, Any] | None = None


def score(task: Any, document: Any, prediction: str | None) -> Score:
    """Target and score of one prediction by the task's `doc_to_target` and `process_results`.

    Not scored (None): a failed sample, tasks with answer filters, tasks whose scorer may call a service. A
    scorer that draws random numbers (LongVideoBench's does, for an answer that it cannot parse) has guessed:
    parsed is False and the score None. The random state is as before on return.
    """
    with undisturbed() as drew:
        try:
            target = finite(task.doc_to_target(document))
        except Exception as error:  # any task's code; the run goes on
            logger.warning(f"{task.config.task}: doc_to_target failed ({error!r}); the record has no target")
            target = None
        scorer = task.config.process_results
        if prediction is None or not callable(scorer) or not _plain_filters(task) or _may_call_service(scorer):
            return Score(target)
        try:
            metrics = scorer(document, [prediction.strip()])
        except Exception as error:
            logger.warning(f"{task.config.task}: process_results failed ({error!r}); the record has no score")
            return Score(target)
        if drew():
            return Score(target, None, False, None)
    value, parsed = _find(metrics, task.config.score_key or "score")
    return Score(target, value, parsed, finite(metrics))


def _find(metrics: dict[str, Any], key: str) -> tuple[float | None, bool | None]:
    """The score and the `parsed` flag among a task's metrics: under `key`, or the first metric that has them."""
    rows = [m if isinstance(m, dict) else {key: m} for m in metrics.values()]
    if key in metrics:
        rows.insert(0, {key: metrics[key]})
    found = [row[key] for row in rows if isinstance(row.get(key), int | float | np.number)]
    flags = [row["parsed"] for row in rows if row.get("parsed") is not None]
    return finite(float(found[0])) if found else None, bool(flags[0]) if flags else None


def _plain_filters(task: Any) -> bool:
    """True where the scorer gets the model's answer as it is."""
    ensembles = getattr(task, "_filters", [])
    return len(ensembles) == 1 and all(isinstance(f, TakeFirstFilter) for f in ensembles[0].filters)


def _may_call_service(scorer: Any) -> bool:
    scope = getattr(getattr(scorer, "func", scorer), "__globals__", {})
    return bool(_JUDGES & scope.keys())


@contextmanager
def undisturbed() -> Iterator[Any]:
    """Within the block the caller's random state is kept aside; yields a function that says if it was used."""
    python, array = random.getstate(), np.random.get_state(legacy=False)

    def drew() -> bool:
        return random.getstate() != python or digest(np.random.get_state(legacy=False)) != digest(array)

    try:
        yield drew
    finally:
        random.setstate(python)
        np.random.set_state(array)
