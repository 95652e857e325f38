"""`python -m analysis summary|paired|contribution FOLDER [-o table.md]`."""

import argparse
import sys
from pathlib import Path

from analysis.contribution import contribution_table
from analysis.paired import paired, paired_markdown
from analysis.runs import RunsError
from analysis.summary import summary, to_markdown, to_terminal


def main(argv: list[str] | None = None) -> int:
    """Print the summary of a results folder; exit status 2 where there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m analysis")
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("summary", help="one table of all finished runs in a folder")
    table.add_argument("folder", type=Path)
    table.add_argument("-o", "--output", type=Path, help="also write the table here, in Markdown")
    against = commands.add_parser("paired", help="one method against all others, question by question")
    against.add_argument("folder", type=Path)
    against.add_argument("--reference", default="cacovid", help="the method to compare with (default: cacovid)")
    against.add_argument(
        "--budget", choices=("layer_average", "retention"), default="layer_average", help="which share must be equal"
    )
    against.add_argument("-o", "--output", type=Path, help="also write the table here, in Markdown")
    orders = commands.add_parser("contribution", help="the table of a `python -m cacovid contribution` folder")
    orders.add_argument("folder", type=Path)
    orders.add_argument("-o", "--output", type=Path, help="also write the table here")
    args = parser.parse_args(argv)
    try:
        if args.command == "contribution":
            text = contribution_table(args.folder)
            print(text, end="")
        elif args.command == "paired":
            text = paired_markdown(paired(args.folder, args.reference, budget=args.budget))
            print(text, end="")
        else:
            rows = summary(args.folder)
            to_terminal(rows)
            text = to_markdown(rows)
    except RunsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text, encoding="utf-8")
        print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
