"""Check the methods against golden vectors: `python -m baselines.fidelity DIR`.

DIR holds one folder a method. One line a method; the exit status is 1 where a check fails or a folder is unread.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from baselines.fidelity import cacovid
from baselines.fidelity.checks import Check

CHECKERS: dict[str, Callable[[Path], list[Check]]] = {"cacovid": cacovid.check}


def _run(name: str, folder: Path) -> list[Check]:
    """The checks of one method; vectors that are missing or broken count as one that failed."""
    try:
        return CHECKERS[name](folder) or [Check(name, False, f"no vectors in {folder}")]
    except (OSError, KeyError, ValueError) as error:
        return [Check(name, False, f"vectors in {folder} could not be read: {error!r}")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, check, print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m baselines.fidelity", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of golden vectors, one folder a method in it")
    parser.add_argument("--methods", nargs="+", choices=sorted(CHECKERS), help="only these")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every check")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"no folder {options.folder}")
    passed = failed = 0
    for name in options.methods or sorted(CHECKERS):
        checks = _run(name, options.folder / name)
        bad = [check for check in checks if not check.passed]
        passed, failed = passed + len(checks) - len(bad), failed + len(bad)
        print(f"{'FAIL' if bad else 'pass'}  {name}: {len(checks) - len(bad)} of {len(checks)} vectors hold")
        for check in checks if options.verbose else bad:
            print(f"      {'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
