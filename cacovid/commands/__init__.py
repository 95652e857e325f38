"""The commands of `python -m cacovid`: one module each, with `add_parser` and `run`."""
