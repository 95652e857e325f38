"""What a method keeps against what contributes to the answer, and how much it listens to the question."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.contribution import COLUMNS, contribution_rows, interval_of
from analysis.plots.looks import Look, look, marker_style, order, title
from analysis.plots.style import DOUBLE, shortened, wrapped

BOUND = Look("black", "s", "-")
"""Rows that say how well anything could do."""


def contribution_dots(folder: Path) -> Figure:
    """One panel a measure, one row an order of tokens: means over questions with 95% intervals by video.

    `folder` is what `python -m cacovid contribution -o` wrote. Raises ResultsError as `contribution_rows` does.
    """
    rows = contribution_rows(folder)
    study = json.loads((folder / "study.json").read_bytes())
    methods = {str(one["label"]): str(one["name"]) for one in study["contestants"]}
    bounds = [str(label) for label in rows["label"].unique() if label not in methods]
    labels = bounds + sorted(methods, key=lambda label: order(methods[label], label))
    looks = _looks(labels, methods)
    columns = [column for column in COLUMNS if column in rows and rows[column].notna().any()]
    figure = Figure(figsize=(DOUBLE, 0.6 + 0.17 * len(labels)))
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axis, column in zip(axes, columns, strict=True):
        for place, label in enumerate(labels):
            if told := interval_of(rows[rows["label"] == label], column):
                axis.hlines(place, told.low, told.high, color=looks[label].colour, lw=0.9, alpha=0.6)
                axis.plot([told.mean], [place], ls="none", **marker_style(looks[label]))
        axis.set_xlabel(wrapped(COLUMNS[column], 22))
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        if np.sign(axis.get_xlim()).prod() < 0:
            axis.axvline(0, color="black", lw=0.6, zorder=1)
    axes[0].set_yticks(range(len(labels)), [_name(label, methods.get(label, "")) for label in labels])
    axes[0].set_ylim(len(labels) - 0.3, -0.7)
    return figure


def _looks(labels: list[str], methods: dict[str, str]) -> dict[str, Look]:
    """Of every row; several of one method are its variants."""
    out: dict[str, Look] = {}
    for label in labels:
        if method := methods.get(label):
            out[label] = look(method, sum(methods.get(other) == method for other in out))
        else:
            out[label] = BOUND
    return out


def _name(label: str, method: str) -> str:
    """`fastv:layer=2`, as the command writes contestants, becomes `FastV (layer=2)`."""
    name, _, settings = label.partition(":")
    return shortened(title(f"{name} ({settings.replace(',', ', ')})" if settings else name, method), 40)
