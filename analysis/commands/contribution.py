"""`contribution`: the table of a `python -m cacovid contribution` folder."""

import argparse

from analysis.commands.output import add_folder, write


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("contribution", help="the table of a `python -m cacovid contribution` folder")
    add_folder(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from analysis.contribution import contribution_table

    text = contribution_table(args.folder)
    print(text, end="")
    write(args.output, text)
    return 0
