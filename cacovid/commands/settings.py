"""`--set field=value`: a method's fields from the command line."""

import json


def parse_settings(pairs: list[str]) -> dict[str, object]:
    """`field=value` pairs to values: numbers, true, false, null and quoted text as in JSON, else the text itself.

    Raises ValueError for a pair without `=`, or a field given twice.
    """
    out: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name):
            raise ValueError(f"--set {pair!r}, expected field=value, such as --set layer=2")
        if name in out:
            raise ValueError(f"--set gives {name!r} twice: {out[name]!r} and {value!r}")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out
