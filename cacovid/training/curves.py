"""Curves of one or several training runs; runs under one label (seeds) become a mean with their range."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

_SMOOTH = 10
"""Steps that a point of a training curve averages over."""
_PANELS = {
    "token": "mean reward of token rollouts",
    "greedy": "reward of the policy's best tokens",
    "frame": "mean reward of frame rollouts",
    "norm": "gradient norm before clipping",
}


def draw_curves(runs: Mapping[str, Sequence[Path]], picture: Path) -> None:
    """Draw metrics files, label -> one file a seed: rewards, held-out rewards and gradient norms over steps.

    Raises ValueError where no file holds a metric.
    """
    tables = {label: [_table(file) for file in files] for label, files in runs.items()}
    names = {name for group in tables.values() for table in group for name in table}
    held_out = sorted((name for name in names if name.startswith("validation@")), reverse=True)
    panels = {name: f"held-out reward, r = {name.partition('@')[2]}" for name in held_out}
    panels |= {name: title for name, title in _PANELS.items() if name in names}
    if not panels:
        raise ValueError(f"no metrics in {', '.join(str(file) for files in runs.values() for file in files)}")
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.2), squeeze=False)
    for axis, (name, title) in zip(axes[0], panels.items(), strict=True):
        smooth = 1 if name in held_out else _SMOOTH
        for label, group in tables.items():
            columns = [table[name].dropna().rolling(smooth, min_periods=1).mean() for table in group if name in table]
            if not columns:
                continue
            both = pd.concat(columns, axis=1)
            (line,) = axis.plot(both.index, both.mean(axis=1), lw=1.2, label=label)
            axis.fill_between(both.index, both.min(axis=1), both.max(axis=1), alpha=0.2, lw=0, color=line.get_color())
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        if name == "norm" and any((table["norm"] > 0).any() for group in tables.values() for table in group):
            axis.set_yscale("log")
    if any(tables):
        axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics file; a last line that was cut off where a run was killed is left out."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def _table(file: Path) -> pd.DataFrame:
    rows = read_metrics(file)
    return pd.DataFrame(rows).set_index("step") if rows else pd.DataFrame()
