"""`curves`: training runs as one picture."""

import argparse
from glob import glob
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "curves",
        help="draw the curves of training runs",
        description="Draw rewards over steps of one or several training runs. Runs under one label, such as seeds, "
        "become a mean with their range.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="LABEL=FOLDERS", help="a label and the folders of its runs, e.g. ocss='outputs/s*'"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), help="png, pdf or svg")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw and say where the picture is."""
    from cacovid.training.curves import draw_curves

    runs: dict[str, list[Path]] = {}
    for item in args.runs:
        label, separator, pattern = item.partition("=")
        if not separator:
            label, pattern = Path(item).name, item
        files = [Path(folder) / "metrics.jsonl" for folder in sorted(glob(pattern))]
        files = [file for file in files if file.is_file()]
        if not files:
            raise FileNotFoundError(f"no metrics.jsonl under {pattern!r}; give the out= folder of a training run")
        runs.setdefault(label, []).extend(files)
    draw_curves(runs, args.output)
    print(args.output)
    return 0
