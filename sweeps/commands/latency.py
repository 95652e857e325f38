"""`latency`: stage times of methods under one protocol."""

import argparse
from pathlib import Path

DESCRIPTION = """\
Time backbones and methods stage by stage, in turns, on videos made for it: docs/latency.md. Rows that are in the
results folder already are not measured again.

Overrides are those of `run` that choose backbones and rows (backbone=, method=, retention=, frames=, ...) and
weights=random, device=, batch=1,4, repeats=, decode_tokens=, limit_s= and the others of sweeps/latency/settings.py."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "latency",
        help="stage times of methods: read, vision tower, compressor, prefill, decode, and the whole",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="e.g. backbone=llava_ov_7b weights=random")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="print the table of a results folder, do nothing")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    parser.add_argument(
        "--results", type=Path, default=Path("results/latency"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own options, laid out as sweeps/conf")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 all rows measured, 1 some not.

    Raises ConfigError, FolderError, CheckpointError, DeviceError or RunWriteError.
    """
    from sweeps.settings import ConfigError

    if args.table is not None:
        if args.overrides:
            raise ConfigError(f"--table prints all that {args.table} holds; it takes no {args.overrides[0]}")
        _print(args.table)
        return 0

    from sweeps.latency.rows import LatencyFolder
    from sweeps.latency.run import run_latency
    from sweeps.latency.settings import compose_latency

    sweep, protocol = compose_latency(args.overrides, args.config_dir)
    with LatencyFolder.writing(args.results) as folder:
        run_latency(sweep, protocol, folder, again=args.again)
    return _print(args.results)


def _print(folder: Path) -> int:
    """1 where a row is not measured."""
    from sweeps.latency.rows import newest, read_rows
    from sweeps.latency.table import tables

    rows, environments = read_rows(folder)
    print(tables(rows, environments))
    return int(any(row["status"] != "measured" for row in newest(rows)))
