"""The words of the test-bed world: what an object can look like and what a question can answer."""

from typing import Final

SHAPES: Final = (
    "circle", "square", "triangle", "diamond", "star", "cross",
    "ring", "heart", "moon", "hourglass", "arrow", "gate",
)  # fmt: skip
DIGITS: Final = tuple("0123456789")
GLYPHS: Final = SHAPES + DIGITS

COLOURS: Final = {
    "red": (220, 30, 30),
    "green": (20, 150, 40),
    "blue": (35, 60, 230),
    "yellow": (240, 225, 30),
    "purple": (130, 30, 170),
    "cyan": (40, 220, 225),
    "orange": (250, 135, 10),
    "white": (250, 250, 250),
    "pink": (255, 150, 200),
    "black": (10, 10, 10),
}
"""Colour name -> RGB, 0 to 255."""
COLOUR_NAMES: Final = tuple(COLOURS)

NUMBERS: Final = ("one", "two", "three", "four")
DIRECTIONS: Final = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Direction name -> (row step, column step); row 0 is the top of the frame."""
LETTERS: Final = ("A", "B", "C", "D")

KINDS: Final = ("color", "shape", "digit", "order", "direction", "count", "after")
"""The question kinds, in the order in which a video asks them."""
