"""`python -m analysis COMMAND`: tables and figures of results. Each command is a module of its own."""

import argparse
import os
import sys
import warnings

from analysis.commands import contribution, paired, plots, report, summary, tables, training
from analysis.results import ResultsError, ResultsWarning

COMMANDS = (summary, paired, tables, plots, report, contribution, training)
"""Modules with `add_parser` and `run`; imports stay cheap until a run."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 nothing to show or results that do not fit."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    args = parser.parse_args(argv)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResultsWarning)
        try:
            status: int = args.run(args)
            sys.stdout.flush()  # a reader that went away shows here, not at exit
        except BrokenPipeError:  # `python -m analysis tables ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except ResultsError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
