"""`tables`: a paper's tables beside what was measured, ablations, and any pivot."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.published import PAPERS

if TYPE_CHECKING:
    from analysis.tables.cell import Table


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tables",
        help="a paper's tables beside what was measured, ablations, and any pivot",
        description="Tables of all runs in FOLDERs (run records, collected Parquet, lmms-eval's own output). Without "
        "--paper and --ablations: a pivot, accuracy by label and retention. Where lmms-eval mis-scores a task, a "
        "second table has its score and the corrected one (docs/tasks.md).",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="may be left out with --paper; with --table efficiency also one of `python -m sweeps latency`",
    )
    parser.add_argument("--paper", choices=PAPERS, help="the tables that this paper prints")
    parser.add_argument("--table", choices=("main", "efficiency"), default="main", help="which (default: main)")
    parser.add_argument(
        "--pivot", nargs="+", metavar="KEY=NAMES", default=[], help="rows=label columns=retention,task values=accuracy"
    )
    parser.add_argument("--ablations", metavar="LABEL", help="the rows that differ in one setting from LABEL's")
    parser.add_argument(
        "--allow", default="", metavar="NAMES", help="settings that runs of one column may differ in: frames,dtype"
    )
    parser.add_argument(
        "--common",
        action="store_true",
        help="use the questions that all runs of a task have, instead of refusing others",
    )
    parser.add_argument("--trace", action="store_true", help="print the run ids behind every cell")
    parser.add_argument("-o", "--output", type=Path, action="append", default=[], metavar="FILE.md|.tex|.csv")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print and write the tables. Raises ResultsError for what does not belong together."""
    from analysis.tables.render import to_terminal, write

    tables = _tables(args)
    for path in args.output:
        write(tables, path)
    for table in tables:
        to_terminal(table)
        if args.trace:
            print("\n".join(table.trace) or "no cell has runs behind it")
    for path in args.output:
        print(f"written to {path}")
    return 0


def _tables(args: argparse.Namespace) -> list["Table"]:
    from analysis.load import load
    from analysis.measured import cells, comparable
    from analysis.results import ResultsError
    from analysis.sources.latency_rows import is_latency
    from analysis.tables.corrected import corrected_table
    from analysis.tables.efficiency import efficiency_tables, latency_tables
    from analysis.tables.paper import main_tables, paper_backbone
    from analysis.tables.pivot import Pivot, ablation_table

    allow = tuple(filter(None, args.allow.split(",")))
    if not args.folders and not args.paper:
        raise ResultsError("nothing to tabulate: expected a FOLDER with runs, or --paper for the published numbers")
    if args.paper and args.table == "efficiency" and len(args.folders) == 1 and is_latency(args.folders[0]):
        return latency_tables(args.paper, args.folders[0])
    results = load(*args.folders) if args.folders else None
    if args.paper and args.table == "efficiency":
        return efficiency_tables(results, args.paper, allow, common=args.common)
    if args.paper:
        tables = main_tables(results, args.paper, allow, common=args.common)
        if results is None:
            return tables
        runs = results.of(results.runs["checkpoint"].map(paper_backbone).notna())
        chosen = comparable(runs, allow) if len(runs.samples) else runs
    else:
        assert results is not None
        chosen = comparable(results, allow)
        measured = cells(chosen, common=args.common)
        if args.ablations:
            return [ablation_table(measured, args.ablations)]
        tables = [Pivot.parse(args.pivot).table(measured)]
    beside = corrected_table(chosen, common=args.common)
    return tables if beside is None else [*tables, beside]
