"""Tables as Markdown, LaTeX, CSV and on the terminal. Equal tables give equal bytes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.results import ResultsError
from analysis.tables.cell import Cell, Table

MISSING = "--"
LEGEND = (
    "Bold: best of its block. = : not significantly below the best. [low, high]: 95% interval, resampling videos. "
    "n seeds: the mean over them; their draw is in the interval, too."
)


def text_of(cell: Cell) -> list[str]:
    """A cell's one or two lines: number with difference and tie mark, then its interval and number of seeds."""
    first = cell.text or MISSING
    if cell.difference:
        first += f" ({cell.difference})"
    if cell.tied and not cell.best:
        first += " ="
    second = [f"[{cell.low}, {cell.high}]"] if cell.low else []
    if cell.seeds:
        second.append(f"{cell.seeds} seeds")
    return [first, ", ".join(second)] if second else [first]


def to_terminal(table: Table, console: Console | None = None) -> None:
    """Print the table, as wide as it is; bold for the best."""
    out = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        out.add_column(column.replace(" ", "\n"), justify="left" if number < table.keys else "right", no_wrap=True)
    for number, row in enumerate(table.rows):
        if number in table.rules and number:
            out.add_section()
        out.add_row(*(Text("\n".join(text_of(cell)), style="bold" if cell.best else "") for cell in row))
    console = console or Console()
    console.width = max(console.width, Console(width=10_000).measure(out).maximum)
    console.print(out)
    for note in (LEGEND, *table.notes):
        console.print(note, markup=False, highlight=False)


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub's Markdown, each table under its title."""
    parts = []
    for table in tables:
        lines = [
            f"### {table.title}",
            "",
            "| " + " | ".join(_markdown(c) for c in table.columns) + " |",
            "|---" * table.keys + "|---:" * (len(table.columns) - table.keys) + "|",
        ]
        for row in table.rows:
            lines.append("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |")
        notes = [f"- {_markdown(note)}" for note in (LEGEND, *table.notes)]
        parts.append("\n".join([*lines, "", *notes]) + "\n")
    return "\n".join(parts)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _markdown_cell(cell: Cell) -> str:
    first, *rest = (_markdown(line) for line in text_of(cell))
    return "<br>".join([f"**{first}**" if cell.best else first, *rest])


_PARTS = ("text", "difference", "low", "high", "seeds")


def to_csv(tables: Sequence[Table]) -> str:
    """A row a row; a column's difference, interval bounds and seeds in columns of their own where any cell has them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for number, table in enumerate(tables):
        if number:
            writer.writerow([])
        parts = [
            [name for name in _PARTS if name == "text" or _any(table, column, name)]
            for column in range(len(table.columns))
        ]
        writer.writerow(
            f"{title} {name}" if name != "text" else title
            for title, names in zip(table.columns, parts, strict=True)
            for name in names
        )
        for row in table.rows:
            writer.writerow(getattr(cell, name) for cell, names in zip(row, parts, strict=True) for name in names)
    return out.getvalue()


def _any(table: Table, column: int, name: str) -> bool:
    return any(getattr(row[column], name) for row in table.rows)


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def to_latex(tables: Sequence[Table]) -> str:
    r"""Floats with booktabs rules, for `\input` in a document that loads booktabs and graphicx."""
    return "\n".join(_latex_table(table) for table in tables)


def to_latex_document(tables: Sequence[Table]) -> str:
    """A document of its own around `to_latex`."""
    head = (
        "\\documentclass{article}\n\\usepackage[a4paper,landscape,margin=1cm]{geometry}\n"
        "\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    )
    return f"{head}{to_latex(tables)}\\end{{document}}\n"


def _latex_table(table: Table) -> str:
    lines = [
        r"\begin{table*}[p]\centering",
        rf"\caption{{{table.title.translate(_LATEX)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{" + "l" * table.keys + "r" * (len(table.columns) - table.keys) + "}",
        r"\toprule",
        " & ".join(_latex_title(column) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number in table.rules and number:
            lines.append(r"\midrule")
        # A row that begins with [ would be read as the argument of the line break before it.
        lines.append("{}" + " & ".join(_latex_cell(cell) for cell in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [r"\par\raggedright\footnotesize", r"\\".join(note.translate(_LATEX) for note in (LEGEND, *table.notes))]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _latex_title(column: str) -> str:
    """A word a line: a table of many columns stays readable."""
    return rf"\shortstack{{{column.translate(_LATEX).replace(' ', chr(92) * 2)}}}"


def _latex_cell(cell: Cell) -> str:
    first, *rest = (line.translate(_LATEX) for line in text_of(cell))
    first = rf"\textbf{{{first}}}" if cell.best else first
    return rf"\shortstack[r]{{{first}\\{{\scriptsize {rest[0]}}}}}" if rest else first


def write(tables: Sequence[Table], path: Path) -> None:
    """Write `tables` in the format that the name says. Raises ResultsError for another one."""
    formats = {".md": to_markdown, ".tex": to_latex_document, ".csv": to_csv}
    if path.suffix not in formats:
        raise ResultsError(f"{path}: no format {path.suffix!r} for tables, expected one of {', '.join(formats)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(formats[path.suffix](tables), encoding="utf-8")
