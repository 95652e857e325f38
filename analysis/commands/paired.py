"""`paired`: one method against all others, question by question."""

import argparse

from analysis.commands.output import add_folder, write


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("paired", help="one method against all others, question by question")
    add_folder(parser)
    parser.add_argument("--reference", default="cacovid", help="the method to compare with (default: cacovid)")
    parser.add_argument(
        "--budget", choices=("layer_average", "retention"), default="layer_average", help="which share must be equal"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from analysis.paired import paired, paired_markdown

    text = paired_markdown(paired(args.folder, args.reference, budget=args.budget))
    print(text, end="")
    write(args.output, text)
    return 0
