"""A picture of one scene's moments with the evidence of one question outlined: docs/testbed/world.png.

`python -m cacovid.testbed.montage OUT.png [--video N] [--kind after]`
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cacovid.testbed.data import SPLITS
from cacovid.testbed.questions import Question, make_questions
from cacovid.testbed.render import CELL, SIDE, moment_frames, render
from cacovid.testbed.scene import GRID, MOMENTS, Scene, make_scene
from cacovid.testbed.words import KINDS, LETTERS

_ACROSS = 8
_GAP = 6


def draw_montage(scene: Scene, question: Question) -> Image.Image:
    """All moments in reading order; the question's evidence cells have a white and black outline."""
    frames = render(scene, moment_frames())
    down = -(-MOMENTS // _ACROSS)
    text_height = 90
    width, height = _ACROSS * (SIDE + _GAP) + _GAP, down * (SIDE + _GAP) + _GAP + text_height
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for moment in range(MOMENTS):
        row, column = divmod(moment, _ACROSS)
        left, top = _GAP + column * (SIDE + _GAP), _GAP + row * (SIDE + _GAP)
        sheet.paste(Image.fromarray(np.asarray(frames[moment])), (left, top))
        for frame, patch in question.evidence:
            if frame == moment:
                y, x = top + patch // GRID * CELL, left + patch % GRID * CELL
                pen.rectangle((x, y, x + CELL - 1, y + CELL - 1), outline="white", width=2)
                pen.rectangle((x + 2, y + 2, x + CELL - 3, y + CELL - 3), outline="black", width=1)
    options = "   ".join(f"{letter}. {word}" for letter, word in zip(LETTERS, question.options, strict=True))
    lines = f"{question.text}\n{options}\nanswer: {question.letter}"
    pen.multiline_text((_GAP, height - text_height + 6), lines, fill="black", font_size=20)
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m cacovid.testbed.montage", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--video", type=int, default=0, help="number of a test video")
    parser.add_argument("--kind", choices=KINDS, default="after")
    options = parser.parse_args(arguments)
    scene = make_scene((SPLITS["test"], options.video))
    draw_montage(scene, make_questions(scene)[KINDS.index(options.kind)]).save(options.out)


if __name__ == "__main__":
    main()
