"""The lmms-eval plugin: models `<method>_<family>`, the test bed's tasks, and where to find them."""

from pathlib import Path


def tasks_dir() -> Path:
    """The folder for `lmms-eval --include_path`; cheap (no torch)."""
    return Path(__file__).parent / "tasks"
