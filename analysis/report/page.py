"""The page: all of it in one HTML file, the same bytes from the same results."""

import gzip
import json
import re
import tempfile
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.load import load
from analysis.plots.figures import FIGURES
from analysis.plots.part import Part, parts
from analysis.plots.style import save
from analysis.report.about import about
from analysis.report.frames import Sheet
from analysis.report.rows import cells, columns, table_of
from analysis.report.viewer import Viewer, make_viewer, record_folders
from analysis.results import ResultsError

CAPTIONS = {
    "retention": "Accuracy over the share of video tokens kept",
    "flops": "Accuracy against FLOPs",
    "latency": "Accuracy against the time of compressor and prefill",
    "tokens": "Accuracy against the mean of tokens over the LLM's layers",
    "category": "Accuracy over the share kept, by kind of question",
    "evidence": "Evidence kept over the share of tokens kept",
    "stages": "Time of each stage",
}
"""Figures of the report, in this order."""

ENLARGED = 4 / 3 * 1.4
"""CSS pixels of a figure's point: its letters, made for print, become as large as the page's."""


@dataclass(frozen=True)
class Drawing:
    """A figure as an SVG file in base64."""

    caption: str
    image: str
    width: int  # CSS pixels


@dataclass(frozen=True)
class Page:
    """The finished HTML and what is in it."""

    html: str
    rows: int
    figures: int
    viewer: Viewer


def make_page(paths: Collection[Path | str], *, allow: Collection[str] = (), questions: int = 100) -> Page:
    """The report of all runs with samples at `paths`, with about so many `questions` in its viewer.

    Raises ResultsError as `load` and `parts` do.
    """
    some = parts(load(*paths), allow)
    tables = [(part, table_of(part)) for part in some]
    viewer = make_viewer(tables, record_folders(paths), questions)
    whole = pd.concat([table for _, table in tables], ignore_index=True)
    shown = columns(whole)
    drawings = {part.title: figures(part) for part in some}
    environment = Environment(
        loader=PackageLoader("analysis.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        style=_file(environment, "page.css"),
        scripts=[_file(environment, f"{name}.js") for name in ("table", "draw", "viewer")],
        parts=[(part.title, about(part, table), drawings[part.title]) for part, table in tables],
        columns=shown,
        rows=list(zip(whole["runs"], whole["colour"], cells(whole, shown), strict=True)),
        viewer=viewer,
        data=packed({"parts": viewer.parts, "sheets": [_plain(sheet) for sheet in viewer.sheets]}),
        sheets=[b64encode(sheet.image).decode() for sheet in viewer.sheets],
    )
    return Page(html, len(whole), sum(map(len, drawings.values())), viewer)


def figures(part: Part) -> list[Drawing]:
    """The figures that the part has something for."""
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for name, caption in CAPTIONS.items():
            try:
                (path,) = save(partial(FIGURES[name], part), Path(folder), name, ["svg"])
            except ResultsError:  # the table shows what is missing
                continue
            width = re.search(r'<svg[^>]* width="([\d.]+)pt"', path.read_text())
            assert width is not None
            out.append(Drawing(caption, b64encode(path.read_bytes()).decode(), round(ENLARGED * float(width[1]))))
    return out


def packed(data: Any) -> str:
    """Plain data as base64 of gzipped JSON; without a time, so that equal data are equal texts."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _plain(sheet: Sheet) -> dict[str, Any]:
    return {"columns": sheet.columns, "size": sheet.size, "note": sheet.note, "there": bool(sheet.image)}


def _file(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
