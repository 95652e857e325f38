"""`doctor`: does this installation work, and what is missing."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cacovid.commands.checks import Check

_STYLE = {"ok": "green", "missing": "yellow", "problem": "red"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="try versions, devices, decoders, attention backends and the plugin",
        description="Try every part of this installation for real. Exit status 0 if all that is required works, "
        "else 1. Nothing is downloaded and no network is used.",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run all checks, one group after the other, and report."""
    from rich.console import Console

    console = Console(quiet=args.json)
    report = {}
    for group in _groups():
        with console.status(f"checking {group} ..."):
            report[group] = examine(group)
        _show(console, group, report[group])
    failed = [check.name for checks in report.values() for check in checks if check.failed]
    if args.json:
        plain = {group: [asdict(check) for check in checks] for group, checks in report.items()}
        print(json.dumps({"ok": not failed, "failed": failed, "checks": plain}, indent=2))
    elif failed:
        console.print(f"\n[red]{len(failed)} required:[/red] {', '.join(failed)}")
    else:
        console.print("\n[green]all that is required works[/green]")
    return int(bool(failed))


def _groups() -> list[str]:
    from cacovid.commands.checks import CHECKS

    return list(CHECKS)


def examine(group: str) -> "list[Check]":
    """Run one group of checks; a check that itself fails is a problem, and the others go on."""
    from cacovid.commands.checks import CHECKS, Check
    from cacovid.commands.checks.result import reason

    try:
        return CHECKS[group]()
    except Exception as error:
        return [Check(name=group, state="problem", detail=reason(error), get="see the lines above")]


def _show(console: "Console", group: str, checks: "list[Check]") -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for check in checks:
        detail = Text(check.detail)
        if check.state != "ok":
            if not check.required:
                detail.append(" (optional)", style="dim")
            detail.append(f"\nget it: {check.get}", style="italic")
        table.add_row(Text(check.state, style=_STYLE[check.state]), Text(check.name, style="bold"), detail)
    console.print(Text(f"\n{group}", style="bold underline"))
    console.print(Padding(table, (0, 0, 0, 2)))
