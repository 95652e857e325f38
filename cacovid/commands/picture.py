"""The picture of one sample: its frames with the fate of every token, the audit above, the legend below.

Colours are Okabe and Ito's, which most colour-blind readers tell apart; every colour has a second sign
(light, hatching, a dot, a broken line).
"""

import math
import textwrap
import warnings
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cacovid.commands.look import CUT, DROPPED, KEPT, Look, cell_edges, printable
from cacovid.commands.outlines import borders, seams
from cacovid.commands.shade import HATCH, SLATE, shade

DPI = 110
PAGE = 14.0  # inches wide
MARGIN = 0.3  # inches
GAP = 0.12  # inches between frames
TITLE = 0.26  # inches above each frame
HEADER = 1.85  # inches, and a line for each line of the question
LINE = 0.19  # inches
LEGEND = 0.55  # inches
LANDSCAPE = 1.7  # width to height that the block of frames aims at

INK, QUIET, KEPT_LINE, EVIDENCE = "#1a1d23", "#6b7280", "white", "#F0E442"
MERGED = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
_SHADOW = [patheffects.Stroke(linewidth=2.6, foreground="black", alpha=0.75), patheffects.Normal()]


def columns(frames: int, aspect: float) -> int:
    """Frames in a row, for a block about LANDSCAPE wide with few empty places.

    >>> columns(8, 16 / 9), columns(16, 1.0), columns(32, 16 / 9)
    (3, 6, 6)
    """

    def cost(n: int) -> float:
        rows = math.ceil(frames / n)
        return abs(math.log(n * aspect / rows / LANDSCAPE)) + 0.8 * (rows * n - frames) / frames

    return min(range(1, frames + 1), key=cost)


def draw(look: Look) -> Figure:
    """The figure of one sample; axes labelled "frame 0", "frame 1", ... hold the frames."""
    frames, height, width = look.frames.shape[:3]
    across = columns(frames, width / height)
    down = math.ceil(frames / across)
    side = min((PAGE - 2 * MARGIN - (across - 1) * GAP) / across, 4.6 * max(1.0, width / height) ** 0.5)
    tall = side * height / width
    question = textwrap.wrap(printable(look.question), 140, max_lines=2, placeholder=" ...")
    header = HEADER + LINE * len(question)
    page = header + down * (TITLE + tall + GAP) + LEGEND
    figure = Figure(figsize=(PAGE, page), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = (PAGE - across * side - (across - 1) * GAP) / 2
    for f in range(frames):
        row, column = divmod(f, across)
        x = left + column * (side + GAP)
        y = page - header - row * (TITLE + tall + GAP) - TITLE - tall
        axes = figure.add_axes((x / PAGE, y / page, side / PAGE, tall / page), label=f"frame {f}")
        draw_frame(axes, look, f, pixels=round(side * DPI))
    _header(figure, look, question)
    _legend(figure, look, page)
    return figure


def save(look: Look, path: Path) -> None:
    """Draw and write the picture; the suffix names the format."""
    with warnings.catch_warnings():
        # An answer may be in any script; what the font lacks is drawn as a box, which says enough.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        draw(look).savefig(path)


def draw_frame(axes: Axes, look: Look, f: int, pixels: int) -> None:
    """Frame `f`, `pixels` wide; data units are pixels of the picture."""
    fates = look.fates
    picture = shade(look.frames[f], fates.fate[f], look.grid, look.covered, pixels)
    height, width = picture.shape[:2]
    axes.imshow(picture, interpolation="none", extent=(0, width, height, 0), aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(QUIET)
        spine.set_linewidth(0.6)

    fate, group, stands = (a[f].reshape(look.grid) for a in (fates.fate, fates.group, fates.stands))
    xs = cell_edges(look.grid[1], width, look.covered)
    ys = cell_edges(look.grid[0], height, look.covered)

    def place(cells: np.ndarray) -> np.ndarray:
        """Cell units (..., 2) to pixels."""
        return np.stack(
            [np.interp(cells[..., 0], range(len(xs)), xs), np.interp(cells[..., 1], range(len(ys)), ys)], -1
        )

    def lines(segments: np.ndarray, **style: object) -> None:
        axes.add_collection(LineCollection(place(segments), capstyle="projecting", **style), autolim=False)  # type: ignore[arg-type]

    alone = (fate == KEPT) & (group < 0)
    fine = min(width / look.grid[1], height / look.grid[0]) < 18  # pixels a cell
    lines(seams(alone), colors=KEPT_LINE, linewidths=0.4, alpha=0.45)
    lines(borders(alone.astype(np.int64), alone), colors=KEPT_LINE, linewidths=0.8 if fine else 1.3)
    for number in np.unique(group[group >= 0]).tolist():
        colour = MERGED[fates.colour[number]]
        lines(borders(group, group == number, inset=0.05), colors=colour, linewidths=1.0 if fine else 1.8)
    dots = np.argwhere((stands >= 0) & ~alone)  # (n, 2) row, column
    if len(dots):
        at = place(dots[:, ::-1] + 0.5)
        colours = [MERGED[fates.colour.get(number, 0)] for number in stands[tuple(dots.T)].tolist()]
        axes.scatter(at[:, 0], at[:, 1], s=9 if fine else 25, c=colours, edgecolors="black", linewidths=0.6, zorder=3)
    if look.evidence is not None:
        cells = look.evidence[f].reshape(look.grid)
        style = {"colors": EVIDENCE, "linewidths": 1.4, "linestyles": (0, (3, 1.5)), "path_effects": _SHADOW}
        lines(borders(cells.astype(np.int64), cells, inset=0.11), **style)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    _frame_title(axes, look, f, narrow=width < 260)


def _frame_title(axes: Axes, look: Look, f: int, narrow: bool) -> None:
    size = 8 if narrow else 9
    frame = "#" if narrow else "frame "
    kept, entering = int(look.fates.kept[f]), int(look.fates.entering[f])
    cells = look.grid[0] * look.grid[1]
    amount = f"{kept} of {cells}" if entering == kept else f"{entering} → {kept}"
    where = f"{frame}{look.indices[f]} · {look.seconds[f]:.2f} s"
    axes.set_title(where, loc="left", fontsize=size, color=QUIET, pad=3)
    axes.set_title(amount, loc="right", fontsize=size, color=INK, pad=3, fontweight="bold")


def _header(figure: Figure, look: Look, question: list[str]) -> None:
    page, edge = figure.get_figheight(), MARGIN / PAGE

    def say(x: float, inches: float, text: str, va: str = "top", **style: object) -> None:
        figure.text(x, 1 - inches / page, text, va=va, parse_math=False, **style)  # type: ignore[arg-type]

    say(edge, 0.22, look.method, fontsize=16, fontweight="bold", color=INK)
    about = f"{look.video} · {len(look.frames)} frames · {look.grid[0]} x {look.grid[1]} tokens a frame"
    say(1 - edge, 0.28, about, fontsize=9.5, color=QUIET, ha="right")
    below = 0.65 + LINE * len(question)
    say(edge, 0.62, "Q", fontsize=10.5, color=QUIET)
    say(edge, below + 0.14, "A", va="baseline", fontsize=10.5, color=QUIET)
    say(edge + 0.018, 0.62, "\n".join(question), fontsize=10.5, color=INK)
    answer = printable(look.answer)
    answer = answer if len(answer) <= 110 else answer[:106] + " ..."
    # By its baseline: an answer in a script of its own has another height.
    say(edge + 0.018, below + 0.14, answer or "(empty)", va="baseline", fontsize=10.5, color=INK, fontweight="bold")
    cards, panel = audit_cards(look), 0.14
    step = (1 - 2 * edge - panel - 0.02) / max(len(cards), 6)
    for i, (value, label) in enumerate(cards):
        say(edge + i * step, below + 0.36, value, fontsize=15, fontweight="bold", color=INK)
        say(edge + i * step, below + 0.67, label, fontsize=8, color=QUIET, linespacing=1.25)
    place = (1 - edge - panel, 1 - (below + 0.9) / page, panel, 0.45 / page)
    _layers(figure.add_axes(place, label="layers"), look)


def audit_cards(look: Look) -> list[tuple[str, str]]:
    """(value, what it is) of the realised retention, the audit's four figures and, if known, evidence recall."""
    s = look.spent
    total, giga = s.video_tokens, 1e9
    ours, full = s.flops, s.flops_full
    spent = (ours.compressor + ours.prefill + ours.decode) / giga
    whole = (full.prefill + full.decode) / giga
    cards = [
        (f"r = {s.retention:.3g}", f"kept {s.kept} of {total} video tokens\nasked r = {look.retention:g}: {s.asked}"),
        (f"{s.entering / total:.1%}", f"enter the LLM\n{s.entering} video tokens"),
        (f"{s.layer_average:.1%}", "average over LLM layers\nof the video tokens"),
        (f"{s.decode_visible / total:.1%}", f"read at decode\n{s.decode_visible:.4g} KV entries a layer"),
        (f"{s.flops_ratio:.1%}", f"FLOPs, LLM and method\n{spent:.3g} of {whole:.3g} GFLOPs"),
    ]
    recall = look.evidence_recall
    if recall is not None and look.evidence is not None:
        cells = int(look.evidence.sum())
        cards.append((f"{recall:.0%}", f"evidence recall\n{round(recall * cells)} of {cells} cells"))
    return cards


def _layers(axes: Axes, look: Look) -> None:
    """Video tokens at each LLM layer, as steps."""
    counts = np.array(look.spent.layers)
    axes.stairs(counts, np.arange(len(counts) + 1), fill=True, color="#0072B2", alpha=0.85)
    axes.set_xlim(0, len(counts))
    axes.set_ylim(0, look.spent.video_tokens)
    axes.set_xticks([0.5, len(counts) - 0.5] if len(counts) > 1 else [0.5])
    axes.set_xticklabels(["layer 0", str(len(counts) - 1)][: len(axes.get_xticks())], fontsize=7, color=QUIET)
    axes.set_yticks([0, look.spent.video_tokens])
    axes.tick_params(axis="both", length=0, labelsize=7, labelcolor=QUIET, pad=2)
    axes.set_facecolor("#eef0f3")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("video tokens at each layer", fontsize=7.5, color=QUIET, pad=3, loc="left")


def _legend(figure: Figure, look: Look, page: float) -> None:
    fate, slate = look.fates.fate, tuple(SLATE / 255)
    alone = (fate == KEPT) & (look.fates.group < 0)
    entries: list[tuple[Patch | Line2D, str]] = []
    if alone.any():
        entries.append((Patch(facecolor="#e4e7eb", edgecolor="#444"), "kept: clear"))
    if (look.fates.group >= 0).any():
        merged = Line2D([], [], color=MERGED[0], linewidth=2, marker="o", markeredgecolor="black", markersize=5)
        entries.append((merged, "merged: one colour a token, dot = the cell it stands for"))
    if (fate == CUT).any():
        hatched = Patch(facecolor=slate, edgecolor=tuple(HATCH / 255), hatch="////", linewidth=0)
        entries.append((hatched, "entered the LLM, cut inside it"))
    if (fate == DROPPED).any():
        entries.append((Patch(facecolor=slate, edgecolor="#444"), "dropped before the LLM"))
    if look.evidence is not None:
        evidence = Line2D([], [], color=EVIDENCE, linewidth=1.8, linestyle=(0, (3, 1.5)), path_effects=_SHADOW)
        entries.append((evidence, "evidence: holds the answer"))
    bold = "tokens that entered → were kept" if (fate == CUT).any() else "tokens kept in the frame"
    entries.append((Line2D([], [], linestyle=""), f"bold: {bold}"))
    figure.legend(
        [handle for handle, _ in entries],
        [words for _, words in entries],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.08 / page),
        ncols=len(entries),
        frameon=False,
        fontsize=9,
        handlelength=2.2,
        columnspacing=2.0,
    )
