"""Every setting of every task in one frame: accuracy, difference to a reference, tests, ties, and what went wrong."""

from itertools import chain

import numpy as np
import pandas as pd

from analysis.results import RUN_COLUMNS, Results, ResultsError
from analysis.stats.measured import Settings
from analysis.stats.questions import align
from analysis.stats.rates import blind, rates
from analysis.stats.reference import reference_rows
from analysis.stats.significance import LEVEL, detectable, holm, mcnemar_midp
from analysis.tasks import task_of

KEY = ["backbone", "task", "label", "budget", "retention_asked", "kind"]
"""What a row goes by; runs that share it are its seeds."""

COLUMNS = {
    **{name: RUN_COLUMNS[name] for name in KEY},
    "method": "registered name",
    "runs": "tuple of the ids of its runs",
    "seeds": "how many runs: scores are averaged over them, question by question",
    "questions": "with a score",
    "videos": "of these questions",
    "accuracy": "the task's own aggregate, 0..1; of a row without samples what its source says",
    "accuracy_low": "end of the 95% interval, clustered by video, with the seeds' part where there are several",
    "accuracy_high": "other end",
    "accuracy_error": "analytic standard error of the same",
    "seed_deviation": "standard deviation of the accuracy over seeds",
    "reference": "label of the row that the difference is to; missing for it itself and where there is none",
    "paired": "questions that both answered",
    "difference": "row - reference on those, -1..1",
    "difference_low": "end of its 95% interval",
    "difference_high": "other end",
    "difference_error": "analytic standard error, cluster-robust",
    "gained": "questions right here, wrong there; missing over seeds and for parts of a point",
    "lost": "the reverse",
    "p_mcnemar": "mid-p; takes questions as independent",
    "p_flip": "of no difference by swapping the two video by video: exact and conservative; missing over seeds",
    "p": "of no difference by the error clustered by video, with the seeds' part: what p_holm and mark go by",
    "p_holm": "p after Holm over all rows of the backbone and task",
    "mark": "better or worse (p_holm < .05), open, or reference; missing where there is nothing to compare with",
    "detectable": "smallest true difference found in 80% of such experiments at .05 (before Holm)",
    "tied": "True: the best at its budget and retention, or not shown to be worse than that",
    "unparsed": "share of the answers in which the scorer found none; missing = not told",
    "empty": "share of the answers that are empty",
    "failed": "share of the questions without an answer",
    "unscored": "share of the questions with an answer and without a score",
    "blind": "accuracy of the uncompressed model of that backbone without any video (its *_no_visual task)",
}
"""Columns of `compare`."""


def compare(results: Results, *, reference: str | None = None, common: bool = False) -> pd.DataFrame:
    """A row for each backbone, task, label, budget and retention, with COLUMNS; seeds are pooled into their row.

    Args:
        results: runs that may stand in one column (`analysis.compatible`).
        reference: label or method that differences are to, at the same budget and retention where it has several;
            by default the uncompressed runs, and without one differences are missing.
        common: compare on the documents that all runs of a task have, instead of refusing runs with others.

    Raises ResultsError: an unknown or ambiguous reference, two runs of one setting and seed, and as `align` does.
    """
    runs = results.runs
    same = runs.duplicated([*KEY, "fields", "seed"], keep=False)
    if same.any():
        first = runs[same].groupby([*KEY, "fields", "seed"], dropna=False)["run"].agg(list).iloc[0]
        raise ResultsError(
            f"runs {', '.join(first)} are one setting and seed, expected each seed once; keep the newest of them"
        )
    if reference is not None and not runs["label"].eq(reference).any() and not runs["method"].eq(reference).any():
        raise ResultsError(f"no run of {reference!r}; it has {', '.join(sorted(runs['label'].unique()))}")
    tasks = [
        _task(group, results.samples, reference, common) for _, group in runs.groupby(["backbone", "task"], sort=True)
    ]
    table = pd.concat(tasks, ignore_index=True) if tasks else pd.DataFrame(columns=list(COLUMNS))
    return table.assign(blind=blind(table)).reindex(columns=list(COLUMNS))


def _task(runs: pd.DataFrame, samples: pd.DataFrame, reference: str | None, common: bool) -> pd.DataFrame:
    """The rows of one backbone and task: those with scored samples measured, the others with their source's score."""
    task = runs["task"].iloc[0]
    samples = samples[samples["task"].eq(task) & samples["run"].isin(runs["run"])]
    rows = (
        runs.sort_values([*KEY, "seed", "run"])
        .groupby(KEY, dropna=False, sort=True)
        .agg(method=("method", "first"), runs=("run", tuple), seeds=("run", "size"), accuracy=("score", "mean"))
        .reset_index()
    )
    scored = set(samples.loc[samples["score"].notna(), "run"].unique())
    measured = rows["runs"].map(lambda ids: scored.issuperset(ids))
    if measured.any():
        with_scores = samples["run"].isin(set(chain.from_iterable(rows.loc[measured, "runs"])))
        questions = align(samples[with_scores], macro=task_of(task).macro, common=common)
        settings = Settings(questions, [list(ids) for ids in rows.loc[measured, "runs"]])
        found = _accuracies(rows[measured].reset_index(drop=True), settings)
        found = _differences(found, settings, reference)
        rows = pd.concat([_ties(found, settings), rows[~measured]], ignore_index=True)
    return rates(rows, samples).sort_values(KEY, ignore_index=True)


def _accuracies(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    means, data = settings.accuracies(), settings.questions.clusters(settings.scores)
    return rows.assign(
        questions=data.counts.sum((0, 1)).astype(int),
        videos=data.videos,
        accuracy=means.value,
        accuracy_low=means.low,
        accuracy_high=means.high,
        accuracy_error=means.spread.error,
        seed_deviation=[float(m.std(ddof=1)) if len(m) > 1 else np.nan for m in settings.seed_means],
    )


def _differences(rows: pd.DataFrame, settings: Settings, reference: str | None) -> pd.DataFrame:
    """`rows` with what compares them with their reference rows."""
    others = reference_rows(rows, reference)
    pairs = [(row, other) for row, other in enumerate(others) if other is not None and other != row]
    means = settings.differences(pairs)
    gained, lost = settings.changed(pairs)
    p = settings.p_values(pairs)
    adjusted = holm(p)
    found = pd.DataFrame(
        {
            "reference": [rows["label"][other] for _, other in pairs],
            "paired": settings.paired(pairs),
            "difference": means.value,
            "difference_low": means.low,
            "difference_high": means.high,
            "difference_error": means.spread.error,
            "gained": gained,
            "lost": lost,
            "p_mcnemar": mcnemar_midp(gained, lost),
            "p_flip": settings.flipped(pairs),
            "p": p,
            "p_holm": adjusted,
            "mark": np.where(adjusted < LEVEL, np.where(means.value > 0, "better", "worse"), "open"),
            "detectable": detectable(means.spread),
        },
        index=[row for row, _ in pairs],
    )
    rows = rows.join(found)
    rows.loc[[row for row, other in enumerate(others) if other == row], "mark"] = "reference"
    return rows


def _ties(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """`rows` with `tied`: Holm within each budget and retention, over the comparisons with its best."""
    tied = pd.Series(True, index=rows.index)
    groups = rows[rows["accuracy"].notna()].groupby(["budget", "retention_asked"], dropna=False)
    best = groups["accuracy"].transform("idxmax")
    pairs = [(int(row), int(top)) for row, top in best.items() if row != top]
    p = pd.Series(settings.p_values(pairs), index=[row for row, _ in pairs])
    for _, group in groups:
        others = group.index.intersection(p.index)
        tied[others] = ~(holm(p[others].to_numpy()) < LEVEL)  # a missing p shows nothing
    return rows.assign(tied=tied.where(rows["accuracy"].notna()).astype("boolean"))
