"""Commands of `python -m analysis`: one module each, with `add_parser` and `run`."""
