"""Scores of several runs on the same questions, aligned by document; runs on other questions are refused."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.results import ResultsError
from analysis.stats.clusters import ClusterSums, Codes, Floats

SHOWN = 8
"""How many documents an error names."""


@dataclass(frozen=True)
class Questions:
    """One task's scores: a row a question, a column a run; with each question's video and category."""

    runs: pd.Index
    scores: Floats  # (questions, runs), NaN = failed or not scored
    videos: Codes
    categories: Codes | None  # where the task's aggregate is macro

    def clusters(self, values: Floats) -> ClusterSums:
        """`values` (questions, columns) summed by video."""
        return ClusterSums.of(values, self.videos, self.categories)

    def columns(self, runs: list[str]) -> Floats:
        """(questions, runs)."""
        return self.scores[:, self.runs.get_indexer(pd.Index(runs))]


def align(samples: pd.DataFrame, *, macro: bool, common: bool) -> Questions:
    """The scores of the runs of one task.

    Args:
        samples: as SAMPLE_COLUMNS; where runs name a document's video differently, the first run's name counts.
        macro: the task averages over categories.
        common: keep the documents that all runs have instead of refusing runs that have others.

    Raises ResultsError: a document twice in a run, another document under the same number, other documents, no
    category where `macro`.
    """
    task = samples["task"].iloc[0]
    run, runs = pd.factorize(samples["run"])
    document, documents = pd.factorize(samples["doc_id"], sort=True)
    present = np.zeros((len(documents), len(runs)), dtype=np.intp)
    np.add.at(present, (document, run), 1)
    if (present > 1).any():
        row, column = np.argwhere(present > 1)[0]
        raise ResultsError(
            f"{task}: document {documents[row]} is {present[row, column]} times in run {runs[column]}, expected once; "
            f"read its folder once"
        )
    _same_content(task, samples)
    shared = present.all(1)
    if not common and not shared.all():
        raise ResultsError(_differ(task, documents, runs, present > 0))
    if not shared.any():
        raise ResultsError(f"{task}: the runs {_some(runs)} have no document in common; nothing to compare")
    scores = np.full(present.shape, np.nan)
    scores[document, run] = samples["score"].to_numpy(float, na_value=np.nan)
    about = samples.drop_duplicates("doc_id").set_index("doc_id").reindex(documents[shared])
    categories = pd.factorize(about["category"])[0] if macro else None
    if categories is not None and (categories < 0).any():
        raise ResultsError(
            f"{task}: documents {_some(about.index[categories < 0])} have no category, and the task's accuracy is the "
            f"mean over categories; use records that hold it"
        )
    return Questions(runs, scores[shared], pd.factorize(about["video"])[0], categories)


def _same_content(task: str, samples: pd.DataFrame) -> None:
    hashed = samples.loc[samples["document"].notna(), ["run", "doc_id", "document"]]
    pairs = hashed.drop_duplicates(["doc_id", "document"])
    twice = pairs[pairs["doc_id"].duplicated(keep=False)].sort_values("doc_id", kind="stable")
    if twice.empty:
        return
    first, second = twice["run"].iloc[:2]
    raise ResultsError(
        f"{task}: documents {_some(twice['doc_id'].unique())} are others in run {second} than in run {first} (their "
        f"hashes differ), expected the same questions; compare runs of one version of the task"
    )


def _differ(
    task: str, documents: pd.Index, runs: pd.Index, present: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]"
) -> str:
    poorest = int(present.sum(0).argmin())
    lacking = documents[present.any(1) & ~present[:, poorest]]
    return (
        f"{task}: run {runs[poorest]} has no documents {_some(lacking)}, which other runs have, expected the same "
        f"questions in all; evaluate them, leave the run out, or ask for the {int(present.all(1).sum())} that all have "
        f"in common"
    )


def _some(names: "pd.Index | np.ndarray[tuple[int], np.dtype[np.generic]]") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(str(name) for name in names[:SHOWN]) + more
