"""The command line: one module a command, each with `add_parser` and `run`; imports stay cheap until a run."""

import argparse
import os
import sys

from cacovid.commands import blind_filter, budgets, contribution, doctor, inspect, methods, tasks, train

USER_ERROR, INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Needs neither torch nor matplotlib."""
    parser = argparse.ArgumentParser(
        prog="python -m cacovid",
        description="Look inside the suite (methods, one video under a method, this installation), train policies, and "
        "measure what tokens contribute.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (methods, budgets, tasks, inspect, doctor, train, blind_filter, contribution):
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a check failed, 2 refused, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # a reader that went away shows here, not at exit
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `python -m cacovid methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:  # what users cause; see cacovid.errors
        if args.debug:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        print(f"cacovid {args.command}: error: {words}", file=sys.stderr)
        return USER_ERROR
