"""The learning curve of a training log as a picture."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cacovid.testbed.words import KINDS


def _best_form(row: dict[str, Any]) -> dict[str, float]:
    """Accuracy by kind in the benchmark's form, or in hints or letters alone while a stage has nothing else."""
    table = row["accuracy"]
    return dict(table.get("letter") or table.get("hint") or table["echo"])


def draw_curve(log: Path, picture: Path) -> None:
    """Draw accuracy over minutes, one panel a stage that answers questions, and the two vision curves."""
    stages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        stages[row["stage"]].append(row)
    names = [name for name in ("language", "sight", "align", "join") if stages[name]]
    figure, axes = plt.subplots(1, max(1, len(names)), figsize=(4.2 * max(1, len(names)), 3.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=False):
        rows = stages[name]
        minutes = [row["seconds"] / 60 for row in rows]
        if "accuracy" in rows[0]:
            for kind in KINDS:
                axis.plot(minutes, [_best_form(row).get(kind, float("nan")) for row in rows], label=kind, lw=1)
            axis.set_ylim(0, 1.02)
        for field in ("glyph", "colour", "relative_error"):
            if field in rows[0]:
                axis.plot(minutes, [row[field] for row in rows], label=field.replace("_", " "), lw=1)
        axis.set(title=name, xlabel="minutes in the stage")
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("share of training answers right")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
