"""Hydra configs of `python -m sweeps run`: a folder a group, a file an option."""
