"""What stands beside an accuracy: answers without a choice, empty ones, none at all, and right ones without a video."""

import numpy as np
import pandas as pd

from analysis.stats.reference import UNCOMPRESSED

BLIND = {name: "longvideobench_no_visual" for name in ("longvideobench_val_v", "longvideobench_val_i")}
"""lmms-eval's task without a video, where it is not called <task>_no_visual."""


def rates(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """`rows` with unparsed, empty, failed and unscored: shares, 0..1, over the samples of each row's `runs`.

    A row without samples has none of them.
    """
    row_of = {run: row for row, ids in rows["runs"].items() for run in ids}
    run, runs = pd.factorize(samples["run"])  # to look up each run once, not each sample
    of_samples = np.array([row_of.get(name, np.nan) for name in runs])[run]
    answered = samples["failure"].isna()
    flags = pd.DataFrame(
        {
            "unparsed": 1 - samples["parsed"].astype("Float64").where(answered),
            "empty": samples["prediction"].str.strip().eq("").where(answered & samples["prediction"].notna()),
            "failed": ~answered,
            "unscored": answered & samples["score"].isna(),
        }
    ).astype("Float64")
    return rows.join(flags.groupby(of_samples).mean().astype(float))


def blind(table: pd.DataFrame) -> list[float]:
    """For each row of `table` the uncompressed model's accuracy on its task without the video; NaN = not run."""
    full = table[table["method"].eq(UNCOMPRESSED) & table["accuracy"].notna()]
    known = full.groupby(["backbone", "task"])["accuracy"].first()
    keys = zip(table["backbone"], table["task"], strict=True)
    return [float(known.get((backbone, BLIND.get(task, f"{task}_no_visual")), float("nan"))) for backbone, task in keys]
