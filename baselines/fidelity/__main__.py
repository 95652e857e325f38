"""Check the methods against golden vectors: `python -m baselines.fidelity DIR`.

DIR holds one folder a method. One line a method; the exit status is 1 where a check fails or a folder is unread.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import mean

from baselines.fidelity.checks import Check

METHODS = (
    "cacovid",
    "divprune",
    "dycoke",
    "fastv",
    "fastvid",
    "flashvid",
    "framefusion",
    "holitom",
    "prunevid",
    "visionzip",
)
"""Methods with vectors; each has its folder and its module here."""


def _run(name: str, folder: Path) -> list[Check]:
    """The checks of one method; vectors that are missing or broken count as one that failed."""
    try:
        checker = import_module(f"baselines.fidelity.{name}").check
        return checker(folder) or [Check(name, False, f"no vectors in {folder}")]
    except (OSError, KeyError, ValueError) as error:
        return [Check(name, False, f"vectors in {folder} could not be read: {error!r}")]


def _line(name: str, checks: list[Check]) -> str:
    """What was compared, and how near it came."""
    bad = sum(not check.passed for check in checks)
    differences = [check.difference for check in checks if check.difference is not None]
    agreements = [check.agreement for check in checks if check.agreement is not None]
    parts = [f"{'FAIL' if bad else 'pass'}  {name}: {len(checks) - bad} of {len(checks)} vectors hold"]
    if differences:
        parts.append(f"numbers differ by {max(differences):.1e} at most, {mean(differences):.1e} on average")
    if agreements:
        parts.append(f"indices agree to {100 * mean(agreements):.4g}%")
    return "; ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, check, print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m baselines.fidelity", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of golden vectors, one folder a method in it")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every check")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"no folder {options.folder}")
    passed = failed = 0
    for name in options.methods or METHODS:
        checks = _run(name, options.folder / name)
        bad = [check for check in checks if not check.passed]
        passed, failed = passed + len(checks) - len(bad), failed + len(bad)
        print(_line(name, checks), flush=True)
        for check in checks if options.verbose else bad:
            print(f"      {'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
