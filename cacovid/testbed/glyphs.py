"""Pictures of the objects as opacity masks: shapes from formulas, digits from scikit-learn's handwriting."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from cacovid.testbed.words import DIGITS, SHAPES

Mask = NDArray[np.float32]

_OVER = 8
"""Sub-samples a pixel and axis, for smooth edges."""


def _inside(shape: str, x: Mask, y: Mask) -> NDArray[np.bool_]:
    """Which points of the square [-1, 1]^2 (y down) belong to a shape."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    ax, ay = np.abs(x), np.abs(y)
    match shape:
        case "circle":
            return radius < 0.85
        case "square":
            return (ax < 0.8) & (ay < 0.8)
        case "triangle":
            return (y < 0.8) & (y > 2.0 * ax - 0.95)
        case "diamond":
            return ax / 0.7 + ay < 1.0
        case "star":
            turn = np.abs((angle + np.pi / 2 + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
            return radius * (np.cos(turn) + 2.2 * np.sin(turn)) < 1.0
        case "cross":
            return np.minimum(ax, ay) < 0.27
        case "ring":
            return (radius < 0.9) & (radius > 0.5)
        case "heart":
            lobes = np.hypot(ax - 0.44, y + 0.35) < 0.47
            return lobes | ((y > -0.4) & (y < 0.9) & (ax + 0.78 * y < 0.68))
        case "moon":
            return (np.hypot(x + 0.05, y) < 0.9) & (np.hypot(x - 0.4, y) > 0.75)
        case "hourglass":
            return (ay < 0.9) & (ax < ay * 0.95 + 0.06)
        case "arrow":
            return ((y < 0.0) & (y > 1.3 * ax - 0.95)) | ((ax < 0.25) & (y >= 0.0) & (y < 0.9))
        case "gate":
            return (ax < 0.85) & (ay < 0.85) & ~((ax < 0.38) & (y > -0.35))
    raise ValueError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")


@cache
def shape_mask(shape: str, size: int) -> Mask:
    """Opacity (size, size), 0 to 1, of a shape drawn `size` pixels wide."""
    line = (np.arange(size * _OVER, dtype=np.float32) + 0.5) / (size * _OVER) * 2 - 1
    x, y = np.meshgrid(line, line)
    fine = _inside(shape, x.astype(np.float32), y.astype(np.float32)).astype(np.float32)
    return fine.reshape(size, _OVER, size, _OVER).mean(axis=(1, 3))


@cache
def _digit_images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    bunch = load_digits()
    return bunch.images.astype(np.float32) / 16.0, bunch.target


@cache
def digit_indices(digit: str, split: int) -> NDArray[np.int64]:
    """Which handwritten images a split may use: every fifth for validation, every fifth for test."""
    _, target = _digit_images()
    rest = np.arange(len(target)) % 5
    mine = {0: rest < 3, 1: rest == 3, 2: rest == 4}[split]
    return np.flatnonzero(mine & (target == DIGITS.index(digit)))


@cache
def digit_mask(index: int, size: int) -> Mask:
    """Opacity (size, size) of one handwritten digit, stretched bilinearly from 8 x 8."""
    image = _digit_images()[0][index]
    at = np.clip((np.arange(size) + 0.5) / size * 8 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    part = (at - low).astype(np.float32)
    rows = image[low] * (1 - part)[:, None] + image[low + 1] * part[:, None]
    smooth = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    # Handwriting fades towards its edges; a steeper slope keeps thin strokes readable in small cells.
    return np.clip(smooth * 1.6, 0, 1)
