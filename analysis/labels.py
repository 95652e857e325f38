"""Names of rows: the method, and what of its settings sets it apart from its other rows."""

import json
from collections.abc import Iterable


def labels(rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Name of each (method, settings as JSON text): the method and those settings that differ between its rows.

    >>> labels([("full", "{}"), ("fastv", '{"layer": 2}'), ("fastv", '{"layer": 3}')])[("fastv", '{"layer": 3}')]
    'fastv (layer=3)'
    """
    by_method: dict[str, dict[str, dict[str, object]]] = {}
    for method, text in sorted(set(rows)):
        by_method.setdefault(method, {})[text] = json.loads(text)
    names = {}
    for method, settings in by_method.items():
        varied = {
            key for one in settings.values() for key in one if len({str(s.get(key)) for s in settings.values()}) > 1
        }
        for text, one in settings.items():
            # A hash tells runs apart, not readers: its beginning is enough.
            shown = ", ".join(f"{k}={str(one[k])[:12] if k.endswith('sha256') else one[k]}" for k in one if k in varied)
            names[method, text] = f"{method} ({shown})" if shown else method
    return names
