"""The command line: one module a command, each with `add_parser` and `run`; imports stay cheap until a run."""

import argparse
import os
import sys

from sweeps.commands import clean, collect, latency, retry, run, status

USER_ERROR, INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Needs neither torch nor Hydra."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeps", description="Run grids of evaluations here or on Slurm, and see how far they are."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (run, status, collect, retry, clean, latency):
        module.add_parser(commands)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """As `parse_args`, but overrides may stand on both sides of options: `run +experiment=demo --dry frames=8`."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (args.command not in ("run", "latency") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    return args


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 something failed, 2 refused, 130 interrupted."""
    args = parse(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # a reader that went away shows here, not at exit
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `python -m sweeps run --dry | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError) as error:  # what users cause, LaunchError among them
        if args.debug:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        print(f"sweeps {args.command}: error: {words}", file=sys.stderr)
        return USER_ERROR
