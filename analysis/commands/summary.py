"""`summary`: one table of all finished runs in a folder."""

import argparse

from analysis.commands.output import add_folder, write


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("summary", help="one table of all finished runs in a folder")
    add_folder(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from analysis.summary import summary, to_markdown, to_terminal

    rows = summary(args.folder)
    to_terminal(rows)
    write(args.output, to_markdown(rows))
    return 0
