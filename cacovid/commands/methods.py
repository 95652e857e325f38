"""`methods`: every registered method on one line."""

import argparse
import json
import shutil
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from cacovid.errors import MethodError
from cacovid.registry import method_class, method_names

if TYPE_CHECKING:
    from cacovid.method import Method


CARDS = Path(__file__).parents[2] / "docs" / "methods"
"""A page for each published method; in a checkout, not in an installed wheel."""


@dataclass(frozen=True)
class Setting:
    """One field of a method."""

    name: str
    type: str
    default: object  # None also where there is none; see `required`
    required: bool


@dataclass(frozen=True)
class Entry:
    """What the list says about one method; `error` is set where it cannot be imported."""

    name: str
    stages: tuple[tuple[str, ...], ...] = ()  # by default, then others that its fields lead to
    source: str = ""
    summary: str = ""
    positions: str = ""
    settings: tuple[Setting, ...] = ()
    error: str | None = None


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("methods", help="list the registered methods")
    parser.add_argument("--fields", action="store_true", help="each method's fields with their defaults, too")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list; a broken method is listed as such (and fails `doctor`)."""
    entries = [describe(name) for name in method_names()]
    if args.json:
        print(json.dumps([_plain(entry) for entry in entries], indent=2))
    else:
        _show(entries, with_fields=args.fields)
    return 0


def describe(name: str) -> Entry:
    """Everything the list says about the method registered under `name`; never raises for a broken one."""
    try:
        cls = method_class(name)
    except MethodError as error:
        return Entry(name, error=" ".join(str(error).split()))
    lines = (cls.__doc__ or "").strip().splitlines()
    return Entry(
        name=name,
        stages=_stages(cls),
        source=cls.source,
        summary=lines[0] if lines else "",
        positions=cls.positions if isinstance(cls.positions, str) else "",
        settings=tuple(_setting(field) for field in fields(cls) if field.init),
    )


def _stages(cls: "type[Method]") -> tuple[tuple[str, ...], ...]:
    """Where the method acts by default, and where else under each choice that its `Literal` fields offer."""
    bare = object.__new__(cls)  # class attributes hold the defaults: no valid instance is needed
    found = [bare.stages]
    for field in fields(cls):
        choices = get_args(field.type) if get_origin(field.type) is Literal else ()
        for choice in choices:
            probe = object.__new__(cls)
            object.__setattr__(probe, field.name, choice)  # the class is frozen
            found.append(probe.stages)
    return tuple(dict.fromkeys(found))


def _setting(field: "Field[object]") -> Setting:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if get_origin(field.type) is Literal:
        kind = " | ".join(map(str, get_args(field.type)))
    else:
        kind = field.type.__name__ if type(field.type) is type else str(field.type).replace("typing.", "")
    required = default is MISSING
    return Setting(field.name, kind, None if required else default, required)


def _plain(entry: Entry) -> dict[str, object]:
    """JSON-ready; defaults that JSON cannot hold are shown as their text."""
    settings = {
        s.name: {"type": s.type, "required": s.required, "default": json.loads(json.dumps(s.default, default=str))}
        for s in entry.settings
    }
    return {
        "name": entry.name,
        "stages": list(entry.stages[0]) if entry.stages else [],
        "other_stages": [list(stages) for stages in entry.stages[1:]],
        "source": entry.source,
        "summary": entry.summary,
        "positions": entry.positions,
        "fields": settings,
        "error": entry.error,
    }


def _show(entries: list[Entry], *, with_fields: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("method", no_wrap=True, style="bold")
    table.add_column("stages", no_wrap=True)
    table.add_column("what it does", ratio=3)
    table.add_column("source", ratio=2, style="dim")
    for entry in entries:
        if entry.error:
            table.add_row(entry.name, Text("broken", style="red"), Text(entry.error), "")
            continue
        stages = " or ".join(" + ".join(some) or "none" for some in entry.stages)
        table.add_row(entry.name, stages, Text(entry.summary), Text(entry.source))
        if with_fields:
            for s in entry.settings:
                value = "required" if s.required else f"= {s.default}"
                table.add_row(
                    "", Text(s.name, style="cyan", justify="right"), Text(f"{value}  ({s.type})", style="cyan"), ""
                )
    console = Console(width=shutil.get_terminal_size((120, 24)).columns)
    console.print(table)
    if cards := sorted(path.stem for path in CARDS.glob("*.md")):
        console.print(f"How faithful each is to its authors' code: docs/methods/{{{','.join(cards)}}}.md", style="dim")
