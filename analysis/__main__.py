"""`python -m analysis summary FOLDER [-o table.md]`."""

import argparse
import sys
from pathlib import Path

from analysis.runs import RunsError
from analysis.summary import summary, to_markdown, to_terminal


def main(argv: list[str] | None = None) -> int:
    """Print the summary of a results folder; exit status 2 where there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m analysis")
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("summary", help="one table of all finished runs in a folder")
    table.add_argument("folder", type=Path)
    table.add_argument("-o", "--output", type=Path, help="also write the table here, in Markdown")
    args = parser.parse_args(argv)
    try:
        rows = summary(args.folder)
    except RunsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    to_terminal(rows)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(to_markdown(rows))
        print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
