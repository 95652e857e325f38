"""Methods by name. Every method, ours or a third party's, enters by the entry point group `cacovid.methods`.

The entry point's name is the method's name, so that names can be listed without importing torch.
"""

from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from cacovid.errors import MethodError

if TYPE_CHECKING:
    from cacovid.method import Method

GROUP = "cacovid.methods"


@cache
def _entries() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise MethodError(
                f"two methods are called {entry.name!r}: {other.value} and {entry.value}; rename one of them in "
                f"its package's [project.entry-points.{GROUP!r}]"
            )
    return found


def method_names() -> list[str]:
    """All registered names, sorted; cheap (no torch)."""
    return sorted(_entries())


def method_class(name: str) -> "type[Method]":
    """The class registered under `name`. Raises MethodError for an unknown name or a broken entry point."""
    from cacovid.method import Method

    if name not in _entries():
        near = get_close_matches(name, method_names(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise MethodError(f"no method {name!r}{hint}; known: {', '.join(method_names())}")
    entry = _entries()[name]
    try:
        cls = entry.load()
    except Exception as error:  # a third party's module may raise anything
        raise MethodError(f"method {name!r} could not be imported from {entry.value}: {error!r}") from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise MethodError(f"entry point {name!r} = {entry.value} is {cls!r}, expected a subclass of Method")
    return cls


def build_method(name: str, **settings: object) -> "Method":
    """Build a method from its name and fields (`retention` among them); `a+b` composes two methods.

    Raises MethodError for an unknown name or field, with the known ones; BudgetError for a bad retention.
    """
    if "+" in name:
        from cacovid.compose import compose

        return compose(name, settings)
    cls = method_class(name)
    known = [f.name for f in fields(cls) if f.init]
    if extra := sorted(set(settings) - set(known)):
        raise MethodError(f"{name} has no field {', '.join(map(repr, extra))}; its fields: {', '.join(known)}")
    return cls(**settings)  # type: ignore[arg-type]
