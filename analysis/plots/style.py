"""Sizes of a two-column paper, fonts, legends that cover nothing, and files that are equal when figures are."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.3, 6.9
"""Widths of one and of two columns, inches."""
MANY = 14
"""Entries of a legend that a one-column figure has room for."""
LETTERS, LETTERS_BESIDE = 24, 38
"""Of a line in a legend below a one-column figure, in two columns, and beside a two-column figure."""
FORMATS = ("pdf", "svg", "png")

_TEXT = 7
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": _TEXT,
    "axes.titlesize": _TEXT + 1,
    "axes.labelsize": _TEXT,
    "xtick.labelsize": _TEXT,
    "ytick.labelsize": _TEXT,
    "legend.fontsize": _TEXT,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # TrueType outlines: publishers refuse type 3
    "svg.hashsalt": "cacovid",
    "path.simplify": False,
}


def shortened(text: str, width: int) -> str:
    """At most `width` letters: long labels often differ at their end, so the middle gives way to an ellipsis."""
    tail = width // 3
    return text if len(text) <= width else f"{text[: width - 1 - tail].rstrip()}…{text[-tail:].lstrip()}"


def wrapped(text: str, width: int) -> str:
    """At most two lines of at most `width` letters, shortened if need be."""
    tries = (textwrap.wrap(shortened(text, letters), width) for letters in range(2 * width, width - 1, -1))
    return "\n".join(next(lines for lines in tries if len(lines) <= 2))


def legend_height(handles: Sequence[Artist]) -> float:
    """Inches of a legend of one column."""
    return 0.4 + 0.14 * sum(str(handle.get_label()).count("\n") + 1 for handle in handles)


def chart(handles: Sequence[Artist]) -> Figure:
    """An empty figure for one axis and a legend: as wide as one column of a paper, as two for many rows."""
    if len(handles) <= MANY:
        return Figure(figsize=(SINGLE, 2.1 + legend_height(handles) / 2))
    return Figure(figsize=(DOUBLE, max(2.8, legend_height(handles))))


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend outside all axes, where it covers nothing: below in a one-column figure, else to the right."""
    if not handles:
        return
    narrow = figure.get_figwidth() <= SINGLE
    figure.legend(
        handles=list(handles),
        loc="outside lower center" if narrow else "outside right upper",
        ncols=2 if narrow else 1,
        handlelength=2.6,
        labelspacing=0.35,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def save(draw: Callable[[], Figure], folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Draw in the style and write every format; no date and no program name, so that equal figures are equal files.

    A figure's label, which says in words what is drawn, goes into the file as its description.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    with mpl.rc_context(STYLE):
        figure = draw()
        text = str(figure.get_label()) or None
        metadata: dict[str, dict[str, Any]] = {
            "pdf": {"CreationDate": None, "Subject": text},
            "svg": {"Date": None, "Description": text},
            "png": {"Software": None, **({"Description": text} if text else {})},
        }
        for path, suffix in zip(paths, formats, strict=True):
            figure.savefig(path, metadata=metadata[suffix], dpi=300)
    return paths
