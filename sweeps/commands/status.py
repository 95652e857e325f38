"""`status`: how far a sweep is."""

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sweeps.overview import CellView, Overview

SIGNS = {
    "done": ("✓", "green"),
    "running": ("▶", "cyan"),
    "queued": ("…", "blue"),
    "failed": ("✗", "red"),
    "lost": ("?", "magenta"),
    "waiting": ("·", "dim"),
}
"""Symbol and colour of a cell."""

MOST_LINES, MOST_COLUMNS, MOST_SIGNS = 60, 12, 8
"""Of the grid, and symbols in one place of it; a bigger one is counted by backbone and task instead."""

MOST_FAILED = 10
"""Failures that are told without --failed."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("status", help="cells done, running, queued, failed; samples, rate and time left")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the sweep's, e.g. results/demo")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=5.0, metavar="SECONDS", help="again and again, until no cell is open"
    )
    parser.add_argument("--json", action="store_true", help="as JSON; one line each time with --watch")
    parser.add_argument("--failed", action="store_true", help="all failed cells, with their traces")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the sweep's state, once or until its cells are done or failed."""
    from sweeps.folder import Folder
    from sweeps.overview import overview

    folder = Folder(args.folder)
    if args.json:
        view = overview(folder)
        print(json.dumps(asdict(view)), flush=True)
        while args.watch is not None and open_cells(view):
            time.sleep(args.watch)
            view = overview(folder)
            print(json.dumps(asdict(view)), flush=True)
        return 0
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if args.watch is None:
        for part in draw(overview(folder), args.failed):
            console.print(part, soft_wrap=isinstance(part, Text))
        return 0
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            start = time.monotonic()
            view = overview(folder)
            live.update(Group(*draw(view, args.failed)), refresh=True)
            if not open_cells(view):
                return 0
            # A big sweep takes a second to read: a login node has other users.
            time.sleep(max(args.watch, 4 * (time.monotonic() - start)))


def open_cells(view: "Overview") -> bool:
    """Whether a cell may still change by itself."""
    return any(view.counts[status] for status in ("running", "queued", "waiting", "lost"))


def draw(view: "Overview", traces: bool) -> list["Table | Text"]:
    """All that the terminal shows, from top to bottom."""
    from rich.text import Text

    counts = Text(f"{len(view.cells)} cells:")
    for status, number in view.counts.items():
        if number or status == "done":
            sign, colour = SIGNS[status]
            counts.append(f"  {sign} {number} {status}", colour)
    lines = [counts, Text(samples_line(view))]
    if any(view.older.values()):
        told = f"{view.older['done']} done, {view.older['unfinished']} unfinished"
        lines.append(Text(f"of earlier calls, with other settings or code: {told} (python -m sweeps clean --stale)"))
    if view.waits:
        reasons = ", ".join(f"{number} {reason}" for reason, number in view.waits.items())
        lines.append(Text(f"jobs in Slurm's queue, and why: {reasons}"))
    if view.unanswered:
        reasons = ", ".join(f"{number} {reason}" for reason, number in view.unanswered.items())
        lines.append(Text(f"samples without an answer: {reasons}", "yellow"))
    shown = view.failed if traces else view.failed[:MOST_FAILED]
    for failed in shown:
        lines.append(Text(f"✗ {failed.cell} {failed.label}, {failed.shard}: {failed.error} ({failed.events})", "red"))
        if traces:
            lines.append(Text(failed.trace.rstrip(), "dim"))
    if hidden := len(view.failed) - len(shown):
        lines.append(Text(f"✗ and {hidden} more (--failed)", "red"))
    again = {"failed": view.counts["failed"], "lost": view.counts["lost"]}
    if any(again.values()):
        options = " ".join(f"--{status}" for status, number in again.items() if number)
        lines.append(Text(f"to have them tried again: python -m sweeps retry {view.folder} {options}"))
    return [Text(view.folder, "bold"), *tables(view.cells), *lines]


def samples_line(view: "Overview") -> str:
    """Samples done of expected, rate, time left."""
    of = "an unknown number" if view.expected is None else f"{view.expected:,}"
    line = f"{view.samples:,} of {of} samples"
    if view.rate is not None:
        line += f", {view.rate:.3g} a second of late"
    if view.seconds_left is not None:
        line += f", {timedelta(seconds=round(view.seconds_left))} left"
    return line


def tables(cells: list["CellView"]) -> list["Table | Text"]:
    """A grid for each backbone and task, rows by ratios with a symbol a cell; counts where that does not fit."""
    places: dict[tuple[str, str], dict[str, dict[float | None, list[CellView]]]] = {}
    for cell in cells:
        rows = places.setdefault((cell.backbone, cell.task), {})
        rows.setdefault(cell.label, {}).setdefault(cell.retention, []).append(cell)
    ratios = sorted({cell.retention for cell in cells}, key=lambda r: -1 if r is None else r, reverse=True)
    lines = sum(len(rows) + 3 for rows in places.values())
    signs = max((len(some) for rows in places.values() for row in rows.values() for some in row.values()), default=0)
    if lines > MOST_LINES or len(ratios) > MOST_COLUMNS or signs > MOST_SIGNS:
        return [_counted(cells)]
    from rich.text import Text

    drawn: list[Table | Text] = []
    for (backbone, task), rows in places.items():
        drawn += [Text(f"\n{backbone}, {task}"), _grid(rows, ratios), Text()]
    return drawn


def _grid(rows: dict[str, dict[float | None, list["CellView"]]], ratios: list[float | None]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for ratio in ratios:
        table.add_column("" if ratio is None else f"r={ratio:g}")
    for label, row in rows.items():
        signs = [Text.assemble(*(SIGNS[cell.status] for cell in row.get(ratio, ()))) for ratio in ratios]
        table.add_row(Text(label), *signs)
    return table


def _counted(cells: list["CellView"]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("backbone", "task"):
        table.add_column(name)
    for status, (sign, colour) in SIGNS.items():
        table.add_column(f"{sign} {status}", style=colour, justify="right")
    found: dict[tuple[str, str], Counter[str]] = {}
    for cell in cells:
        found.setdefault((cell.backbone, cell.task), Counter())[cell.status] += 1
    for place, counts in found.items():
        table.add_row(*place, *(str(counts[status]) for status in SIGNS))
    return table
