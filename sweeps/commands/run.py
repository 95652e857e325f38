"""`run`: compose a sweep, and run or submit what of it is not done."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.plan import Plan

DESCRIPTION = """\
Evaluate a grid of cells: backbone x method x retention x budget x task (x seed). Finished cells are skipped, so that
the same command goes on after an interruption, and takes failed cells up again.

Overrides are Hydra's: group=option, group=[a,b], key=value, +experiment=NAME. Bare commas make a list."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        help="run or submit a sweep, or go on with one",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,  # ours lists the groups of --config-dir, too
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="e.g. +experiment=demo retention=.25,.1")
    parser.add_argument("-h", "--help", action="store_true", help="show this, with the config groups and their options")
    parser.add_argument("--dry", action="store_true", help="print cells, jobs and an estimate; do nothing")
    parser.add_argument("--results", type=Path, metavar="DIR", help="the sweep's folder (default: results/NAME)")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own options, laid out as sweeps/conf")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        help="stay until the jobs have ended (default: --no-wait on Slurm; jobs on this machine are always waited for)",
    )
    parser.add_argument("--tflops", type=float, help="of one device, achieved: for the estimate of --dry")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 all done or submitted, 1 something failed, 130 interrupted.

    Raises ConfigError, FolderError, LaunchError, QueueError or RunWriteError.
    """
    from dataclasses import replace

    from sweeps.config import compose_sweep, options

    if args.help:
        args.parser.print_help()
        print("\nconfig groups:")
        for group, names in options(args.config_dir).items():
            print(f"  {group}: {', '.join(names)}")
        return 0
    sweep = compose_sweep(args.overrides, args.config_dir)
    if args.results is not None:
        sweep = replace(sweep, results=str(args.results))

    from sweeps.plan import Plan, alone

    if args.dry:
        from sweeps.commands.dry import show

        show(Plan.of(sweep), args.tflops)
        return 0

    from sweeps.folder import Folder
    from sweeps.launch import check, launch

    check(sweep.executor)
    with alone(Folder(Path(sweep.results))):
        plan = Plan.of(sweep)
        plan.record()
        wait = sweep.executor.kind != "slurm" if args.wait is None else args.wait
        print(f"{len(plan.cells)} cells in {plan.folder.path}, {len(plan.done)} done; {len(plan.jobs)} jobs to go")
        status = launch(plan.folder, plan.jobs, sweep.executor, wait=wait)
        report(Plan.of(sweep))
    return status


def report(plan: "Plan") -> None:
    """Print how many cells are done, what failed, and the commands to go on with."""
    from rich.console import Console
    from rich.table import Table

    from sweeps.commands.dry import describe

    table = Table("backbone", "task", "cells", "done", "failed", box=None, pad_edge=False)
    groups = dict.fromkeys((cell.backbone.pretrained, cell.task.name) for cell in plan.cells)
    for backbone, task in groups:
        among = [
            sum((cell.backbone.pretrained, cell.task.name) == (backbone, task) for cell in some)
            for some in (plan.cells, plan.done, plan.failed)
        ]
        table.add_row(backbone, task, *map(str, among))
    Console().print(table)
    for cell in plan.failed[:5]:
        error = next(iter(plan.state(cell).failed.values()))["error"]
        print(f"FAILED {describe(cell)}: {' '.join(error.split())[:300]}")
    folder = plan.folder.path
    if plan.jobs:
        print(f"python -m sweeps status {folder}    # how far it is, and why cells failed; the same command goes on")
    else:
        print(f"python -m analysis summary {folder}/runs    # the table")
