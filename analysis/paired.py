"""One method against all others, question by question: differences with their intervals."""

import json
from pathlib import Path

import pandas as pd

from analysis.results import ResultsError
from analysis.stats import Interval, clustered_mean
from analysis.summary import row_names, scored_samples

SEEDS = ("seed", "policy", "policy_sha256")
"""Fields whose values are repetitions of one setting: their scores are averaged, question by question."""


def paired(folder: Path, reference: str, *, budget: str = "layer_average") -> pd.DataFrame:
    """A row for each retention of `reference` and each other method that spent at least as much.

    Columns: r, method, its realised share (`budget`: the column that is compared, layer_average or retention), its
    accuracy, the reference's, and the paired difference (reference - method) over the same questions, all in [0, 1].

    A method is compared where its realised share is the reference's or more, give or take half a point, in the
    nearest such setting: a method with a floor above r is compared at its floor, which favours it. Questions without a
    score (a method that refuses a video) are left out, on both sides, with a ResultsWarning.
    Raises ResultsError where `reference` has no finished run.
    """
    samples = scored_samples(folder)
    samples["fields"] = samples["fields"].map(_without_seeds)
    names = row_names(samples)
    keys = ["method", "fields", "retention_asked"]
    groups = {key: group for key, group in samples.groupby(keys, sort=False)}
    ours = {key: group for key, group in groups.items() if key[0] == reference}
    if not ours:
        raise ResultsError(
            f"no finished run of {reference!r} below {folder}; it has {sorted(samples['method'].unique())}"
        )
    share = {key: float(group[budget].mean()) for key, group in groups.items()}
    rows = []
    for own, group in ours.items():
        mine = group.groupby("doc_id").agg(score=("score", "mean"), video=("video", "first"))
        for method, fields in {key[:2] for key in groups if key[0] not in (reference, "full")}:
            able = [key for key in groups if key[:2] == (method, fields) and share[key] >= share[own] - 0.005]
            if not able:
                continue
            other = min(able, key=lambda key: share[key])
            theirs = groups[other].groupby("doc_id")["score"].mean()
            both = mine[mine.index.isin(theirs.index)]
            difference = both["score"] - theirs.reindex(both.index)
            rows.append(
                {
                    "r": own[2],
                    "reference": names[own[:2]],
                    "method": names[method, fields],
                    "share": share[other],
                    "accuracy": float(theirs.mean()),
                    "reference accuracy": float(both["score"].mean()),
                    "difference": clustered_mean(difference, both["video"], bounds=(-1, 1)),
                }
            )
    return pd.DataFrame(rows).sort_values(["r", "accuracy"], ascending=[False, False], ignore_index=True)


def _without_seeds(text: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name not in SEEDS}, sort_keys=True)


def paired_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, per cent; a difference whose interval holds 0 is marked."""
    lines = ["| r | against | its share | its accuracy | ours | ours - its | |", "|---" * 7 + "|"]
    for row in table.to_dict("records"):
        difference: Interval = row["difference"]
        low, high = 100 * difference.low, 100 * difference.high
        mark = "" if low > 0 else "not above" if high > 0 else "below"
        cells = (
            f"{row['r']:.2f}",
            row["method"],
            f"{100 * row['share']:.1f}%",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['reference accuracy']:.1f}",
            f"{100 * difference.mean:+.1f} [{low:+.1f}, {high:+.1f}]",
            mark,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
