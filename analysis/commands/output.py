"""What the commands share: the folder argument, and writing a text to a file."""

import argparse
from pathlib import Path


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that makes one Markdown table of one folder."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="also write the table here, in Markdown")


def write(path: Path | None, text: str) -> None:
    """Write `text` to `path`, if there is one, and say so."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written to {path}")
