"""Tasks that lmms-eval 0.7.3 mis-scores: a run's answers scored as it does, and by the corrected rule.

docs/tasks.md shows each trap. The rules are those of the suite's own tasks `<task>_fixed`, applied to what a run of the
stock task recorded: a prediction, its target, and stock's score.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.results import Results
from analysis.tasks import MVBENCH

_ENDS = " \t\n,.!?;:'\""
_OPTION = (  # of six; the first that is found counts
    re.compile(r"^([A-F])(?![A-Za-z])"),
    re.compile(r"(?:^|[^A-Za-z])([A-F])$"),
    re.compile(r"(?i:answer|option|choice) is:?\s*\(?([A-F])(?![A-Za-z])"),
    re.compile(r".*\(([A-F])\)", re.DOTALL),
)
_NO_OPTION = re.compile(r"(?:Best answer:|Best option:|[^A-E])*")
"""An answer in which LongVideoBench's parser finds no capital A to E; these two prefixes it removes."""


def option(answer: str) -> str | None:
    """The option, A to F, that an answer names; None where it is not plain.

    >>> [option(text) for text in ("E", "(F) a dog", "The answer is E.", "A. red", "a dog")]
    ['E', 'F', 'E', 'A', None]
    """
    text = answer.strip(_ENDS)
    return next((match[1] for pattern in _OPTION if (match := pattern.search(text))), None)


def _mlvu_test(sample: dict[str, Any]) -> tuple[float, float]:
    """Stock reads four of the six options. Where no option is plain, stock's reading stays."""
    found = option(sample["prediction"])
    return sample["score"], sample["score"] if found is None else float(found == sample["target"])


def _longvideobench(sample: dict[str, Any]) -> tuple[float, float]:
    """Stock draws an option for an answer that names none. Run records do not keep the draw: no score there."""
    guessed = _NO_OPTION.fullmatch(sample["prediction"]) is not None
    return sample["score"], 0.0 if guessed else sample["score"]


def _mvbench(sample: dict[str, Any]) -> tuple[float, float]:
    """Stock leaves empty answers out of the mean."""
    return sample["score"] if sample["prediction"] else float("nan"), sample["score"]


RULES: dict[str, Callable[[dict[str, Any]], tuple[float, float]]] = {
    "mlvu_test": _mlvu_test,
    "longvideobench_val_v": _longvideobench,
    "longvideobench_val_i": _longvideobench,
    **dict.fromkeys(MVBENCH, _mvbench),
}
"""Stock task -> (stock's score of a sample, corrected score), NaN where the sample is left out or not known."""


def rescored(results: Results) -> tuple[Results, Results]:
    """The runs of mis-scored tasks, their samples scored as lmms-eval does, and by the corrected rule.

    A failed sample has no score in either.
    """
    some = results.of(
        results.runs["task"].isin(list(RULES)) & results.runs["run"].isin(results.samples["run"].unique())
    )
    answered = some.samples[some.samples["prediction"].notna() & some.samples["failure"].isna()]
    number = answered.groupby(["task", "prediction", "target", "score"], dropna=False, sort=False).ngroup()
    first = ~number.duplicated()
    scores = [RULES[row["task"]](row) for row in answered[first].to_dict("records")]
    pairs = pd.DataFrame(scores, number[first], ["stock", "corrected"]).loc[number].set_axis(answered.index)
    stock, corrected = (
        replace(some, samples=some.samples.assign(score=pairs[name].reindex(some.samples.index).astype("float64")))
        for name in pairs
    )
    return stock, corrected
