"""`collect`: finished runs and their samples as Parquet."""

import argparse
import os
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("collect", help="runs.parquet and samples.parquet from sweeps or folders of runs")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="sweeps, or folders with runs below")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: FOLDER, if there is one")
    parser.add_argument("--partial", action="store_true", help="unfinished runs, too, marked so")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged runs out instead of refusing all")
    parser.add_argument(
        "--processes", type=int, default=min(8, os.cpu_count() or 1), help="that read (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files and say what is in them, and what is not."""
    from cacovid.runs.errors import RunError
    from sweeps.parquet import collect

    for folder in args.folders:
        if not folder.is_dir():
            raise RunError(f"{folder} is no folder; expected a sweep's, or one with run directories below it")
    if args.output is None and len(args.folders) > 1:
        raise RunError(f"{len(args.folders)} folders and no place for what they hold together; name one with -o DIR")
    out = args.output or args.folders[0]
    told = collect(args.folders, out, partial=args.partial, skip_damaged=args.skip_damaged, processes=args.processes)
    for run, why in told.unfinished.items():
        print(f"{'partial' if args.partial else 'left out'}: run {run}, {why}", file=sys.stderr)
    for what in told.damaged:
        print(f"left out: {what}", file=sys.stderr)
    print(f"{told.runs:,} runs in {out / 'runs.parquet'}, {told.samples:,} samples in {out / 'samples.parquet'}")
    return 0
