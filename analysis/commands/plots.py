"""`plots`: figures for a paper, one file a figure and format."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.training import FOLDERS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TRAINING, CONTRIBUTION = "training", "contribution"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "plots",
        help="figures: accuracy over retention, against time, FLOPs and tokens, by category, ...",
        description="Figures for a two-column paper, drawn for every backbone and task of the runs in FOLDERs. One "
        "that the results have nothing for is not drawn, and why is said.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="results, as for `tables`")
    parser.add_argument("--training", default=[], **FOLDERS)  # type: ignore[arg-type]
    parser.add_argument(
        "--latency",
        metavar="[BACKBONE=]FOLDER",
        help="rows of `python -m sweeps latency`, for accuracy against peak memory; BACKBONE where it has several of a "
        "family, e.g. llava_ov_7b=results/latency",
    )
    parser.add_argument("--contribution", type=Path, metavar="FOLDER", help="of `python -m cacovid contribution -o`")
    parser.add_argument("-o", "--output", type=Path, default=Path("figures"), help="folder (default: figures)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these figures, e.g. retention latency flops")
    parser.add_argument("--format", default="pdf,svg,png", help="default: pdf,svg,png")
    parser.add_argument(
        "--allow", default="", metavar="NAMES", help="settings that runs of one figure may differ in: frames,dtype"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw what there is and print the files. Raises ResultsError where nothing was drawn."""
    from analysis.plots.style import FORMATS, save
    from analysis.results import ResultsError

    formats = args.format.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ResultsError(f"--format {','.join(unknown)}: expected some of {','.join(FORMATS)}")
    reasons: list[str] = []
    drawn = 0
    for name, draw in _figures(args):
        try:
            paths = save(draw, args.output, name, formats)
        except ResultsError as error:
            reasons.append(f"{name}: {error}")
            continue
        drawn += 1
        print(*paths, sep="\n")
    if not drawn:
        raise ResultsError("; ".join(reasons) or "nothing to draw: give FOLDERs, --training or --contribution")
    for reason in reasons:
        print(f"not drawn: {reason}", file=sys.stderr)
    return 0


def _figures(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], "Figure"]]]:
    """File name and how to draw it, for every figure that was asked for."""
    from analysis.load import load
    from analysis.plots.contribution import contribution_dots
    from analysis.plots.figures import FIGURES
    from analysis.plots.part import parts
    from analysis.plots.training import training_curves
    from analysis.results import ResultsError
    from analysis.training import metrics_files

    known = [*FIGURES, TRAINING, CONTRIBUTION]
    wanted = args.only or known
    if unknown := [name for name in wanted if name not in known]:
        raise ResultsError(f"--only {' '.join(unknown)}: no such figure; known: {', '.join(known)}")
    allow = tuple(filter(None, args.allow.split(",")))
    some = []
    if args.folders and not FIGURES.keys().isdisjoint(wanted):
        some = parts(load(*args.folders), allow, _memory(args.latency) if args.latency else None)
    tasks, backbones = ({getattr(part, name) for part in some} for name in ("task", "backbone"))
    for part in some:
        varied = [part.task] * (len(tasks) > 1) + [part.backbone] * (len(backbones) > 1)
        for name in FIGURES:
            if name in wanted:
                yield re.sub(r"[^\w.-]+", "-", "-".join([name, *varied])), partial(FIGURES[name], part)
    if args.training and TRAINING in wanted:
        yield TRAINING, partial(training_curves, metrics_files(args.training))
    if args.contribution and CONTRIBUTION in wanted:
        yield CONTRIBUTION, partial(contribution_dots, args.contribution)


def _memory(item: str) -> "pd.DataFrame":
    """Rows with a peak memory, of one backbone where it is named. Raises ResultsError as `memory_rows`, for no row."""
    from analysis.results import ResultsError
    from analysis.sources.latency_rows import memory_rows

    backbone, separator, folder = item.rpartition("=")
    rows = memory_rows(Path(folder))
    if separator and backbone not in set(rows["backbone"]):
        raise ResultsError(f"--latency {item}: it has rows of {', '.join(sorted(set(rows['backbone'])))}")
    return rows[rows["backbone"] == backbone] if separator else rows
