"""Commands of `python -m sweeps`, one a module: `add_parser` and `run`."""
