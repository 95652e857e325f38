"""`report`: one HTML page that opens from a file."""

import argparse
import warnings
from pathlib import Path

LIMIT = 25_000_000
"""Bytes of a page that a browser, and a mail, take without complaint."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="one HTML page: summary, table, figures, and a viewer of kept tokens",
        description="One self-contained HTML page of all runs in FOLDERs: what was run, a table to sort and filter, "
        "the figures, and for the questions on which methods differ the frames with what each method kept. The frames "
        "are read again from the videos that the records name.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="results, as for `tables`")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default: report.html")
    parser.add_argument("--questions", type=int, default=100, help="in the viewer, about (default: 100)")
    parser.add_argument(
        "--allow", default="", metavar="NAMES", help="settings that runs of one column may differ in: frames,dtype"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and say what is in it."""
    from analysis.report.page import make_page
    from analysis.results import ResultsWarning

    page = make_page(args.folders, allow=tuple(filter(None, args.allow.split(","))), questions=args.questions)
    content = page.html.encode()
    if len(content) > LIMIT:
        warnings.warn(
            f"{args.output} is {len(content) / 1e6:.0f} MB, more than {LIMIT / 1e6:.0f}; fewer --questions make it "
            f"smaller",
            ResultsWarning,
            stacklevel=2,
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_bytes(content)
    for note in dict.fromkeys(sheet.note for sheet in page.viewer.sheets if sheet.note):
        print(note)
    print(
        f"written to {args.output} ({len(content) / 1e6:.1f} MB): {page.rows} rows, {page.figures} figures, "
        f"{page.viewer.questions} questions in the viewer; open it in a browser"
    )
    return 0
