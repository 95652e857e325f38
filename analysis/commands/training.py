"""`training`: the table of training runs, e.g. ablations with their seeds."""

import argparse
from pathlib import Path

from analysis.commands.output import write

FOLDERS = {
    "nargs": "+",
    "metavar": "[LABEL=]FOLDERS",
    "help": "folders of `python -m cacovid train`; those of one label, e.g. ocss='outputs/s*', are its seeds",
}
"""The argument that names training runs, here and in `plots`."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "training",
        help="the table of training runs: held-out rewards and what a change of the settings did",
        description="One row a label, seeds side by side; differences are to the first label's, paired by seed.",
    )
    parser.add_argument("runs", **FOLDERS)  # type: ignore[arg-type]
    parser.add_argument("-o", "--output", type=Path, help="also write the table here, in Markdown")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table. Raises ResultsError as `training_table`."""
    from analysis.training import metrics_files, training_table

    text = training_table(metrics_files(args.runs))
    print(text, end="")
    write(args.output, text)
    return 0
