"""One colour, marker and line a method, the same in every figure, and what rows are called."""

import re
import zlib
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

_BLACK, _GREY, _VERMILLION = "#000000", "#777777", "#D55E00"
_ORANGE, _SKY, _GREEN, _BLUE, _PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#CC79A7"
STAGE_COLOURS = {
    "read": "#BBBBBB",
    "vision": _SKY,
    "compress": _VERMILLION,
    "prefill": _BLUE,
    "decode": _ORANGE,
}
"""Okabe and Ito's palette, which readers with any colour vision tell apart, as for methods; its yellow is too light."""
SEQUENCE: tuple[tuple[str, Any], ...] = tuple(
    (colour, line) for line in ("-", (0, (4, 1.5))) for colour in (_VERMILLION, _BLUE, _GREEN, _ORANGE, _PURPLE, _SKY)
)
"""Colour and line of the first, second, ... of what is no method."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
_FILLS = ("full", "left", "bottom", "right", "top")


@dataclass(frozen=True)
class Look:
    """What a row is drawn with; `line` is a matplotlib dash pattern, `fill` a marker fill style."""

    colour: str
    marker: str
    line: Any
    fill: str = "full"


_KNOWN = {
    "full": ("all tokens", _BLACK, "*", 0),
    "cacovid": ("CaCoVID", _VERMILLION, "o", 0),
    "fastv": ("FastV", _ORANGE, "s", 0),
    "visionzip": ("VisionZip", _SKY, "^", 0),
    "dycoke": ("DyCoke", _GREEN, "D", 0),
    "divprune": ("DivPrune", _BLUE, "v", 0),
    "prunevid": ("PruneVid", _PURPLE, "P", 0),
    "framefusion": ("FrameFusion", _ORANGE, "X", 1),
    "holitom": ("HoliTom", _SKY, "<", 1),
    "fastvid": ("FastVID", _GREEN, ">", 1),
    "flashvid": ("FlashVID", _BLUE, "h", 1),
    "attention_topk": ("attention top-k", _PURPLE, "d", 1),
    "random": ("random", _GREY, "o", 2),
    "uniform": ("uniform", _GREY, "s", 2),
    "fewer_frames": ("fewer frames", _GREY, "^", 2),
    "downsample": ("downsample", _GREY, "v", 2),
}
"""Registered name -> what it is called, colour, marker, first line style; in the order of every legend."""
_ORDER = list(_KNOWN)
_OTHER_COLOURS, _OTHER_MARKERS = (_ORANGE, _SKY, _GREEN, _BLUE, _PURPLE), ("p", "H", "8")


def look(method: str, variant: int = 0) -> Look:
    """The look of a method's `variant`-th row: variants share colour and marker, not line and marker fill.

    A method that is not of the suite has a look by its name, so that it, too, looks the same in every figure.
    """
    if method in _KNOWN:
        _, colour, marker, line = _KNOWN[method]
    else:
        number = zlib.crc32(method.encode())
        colour = _OTHER_COLOURS[number % len(_OTHER_COLOURS)]
        marker, line = _OTHER_MARKERS[number // 5 % len(_OTHER_MARKERS)], number // 15
    return Look(colour, marker, _DASHES[(line + variant) % len(_DASHES)], _FILLS[variant % len(_FILLS)])


def order(method: str, label: str) -> tuple[Any, ...]:
    """Sort key of rows: the suite's methods as in `_KNOWN`, others by name before the references; layer 2 before 10."""
    place = _ORDER.index(method) if method in _KNOWN else _ORDER.index("random") - 0.5
    words = re.split(r"(\d+)", f"{method} {label}")
    return (place, [int(word) if word.isdigit() else word for word in words])


def title(label: str, method: str) -> str:
    """A row's label as readers write it.

    >>> title("fastv (layer=2)", "fastv"), title("my own label", "fastv")
    ('FastV (layer=2)', 'my own label')
    """
    if method in _KNOWN and label.startswith(method):
        return _KNOWN[method][0] + label[len(method) :]
    return label


def marker_style(look: Look, *, hollow: bool = False) -> dict[str, Any]:
    """Arguments of `Axes.plot` for a marker; hollow = another budget was spent than asked."""
    fill = "none" if hollow else look.fill
    return {
        "color": look.colour,
        "marker": look.marker,
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 0.8,
        "markersize": 7 if look.marker == "*" else 4,
    }


def handle(label: str, look: Look) -> Line2D:
    """The legend's entry of a row."""
    return Line2D([], [], label=label, ls=look.line, **marker_style(look))


HOLLOW = Line2D(
    [], [], ls="none", marker="o", fillstyle="none", markersize=4, markeredgewidth=0.8, color=_GREY,
    label="hollow: spent another\nbudget than asked",
)  # fmt: skip
SEED = Line2D([], [], ls="none", marker="_", markersize=4, color=_GREY, label="tick: one seed")
