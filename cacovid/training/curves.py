"""The curves of one training run, drawn beside its metrics. `python -m analysis plots --training` compares several."""

import json
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


def draw_curves(file: Path, picture: Path) -> None:
    """Draw a metrics file: rewards, held-out rewards and gradient norms over steps.

    Raises ValueError where it holds no metric.
    """
    rows = read_metrics(file)
    table = pd.DataFrame(rows).set_index("step") if rows else pd.DataFrame()
    held_out = sorted((name for name in table if str(name).startswith("validation@")), reverse=True)
    panels = {name: f"held-out reward, r = {name.partition('@')[2]}" for name in held_out}
    panels |= {name: title for name, title in _PANELS.items() if name in table}
    if not panels:
        raise ValueError(f"no metrics in {file}")
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.2), squeeze=False)
    for axis, (name, title) in zip(axes[0], panels.items(), strict=True):
        smooth = 1 if name in held_out else _SMOOTH
        table[name].dropna().rolling(smooth, min_periods=1).mean().plot(ax=axis, lw=1.2)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        if name == "norm" and (table[name] > 0).any():
            axis.set_yscale("log")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics file; a last line that was cut off where a run was killed is left out."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]
