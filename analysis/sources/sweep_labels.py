"""What the rows of a sweep are called: run id -> label, from sweep.json and the events beside `runs/`."""

import json
from collections.abc import Iterable
from pathlib import Path

from analysis.results import ResultsError

SCHEMA = 1
"""Version of a sweep folder's files that is read."""


def sweep_labels(folders: Iterable[Path]) -> dict[str, str]:
    """Labels of the runs in `folders` that belong to a sweep. Raises ResultsError for one of another schema."""
    sweeps = {parent for folder in folders for parent in folder.parents[1:4] if (parent / "sweep.json").is_file()}
    names: dict[str, str] = {}
    for sweep in sorted(sweeps):
        planned = json.loads((sweep / "sweep.json").read_bytes())
        if planned.get("schema") != SCHEMA:
            raise ResultsError(f"{sweep}/sweep.json has schema {planned.get('schema')}, expected {SCHEMA}")
        cells = {cell["id"]: cell["label"] for cell in planned["cells"]}
        for file in sorted((sweep / "events").glob("*.jsonl")):
            for line in file.read_text().splitlines():
                if line.endswith("}"):  # the last line of a killed worker may be torn
                    event = json.loads(line)
                    if event["event"] == "done" and event["cell"] in cells:
                        names |= {Path(run).name: cells[event["cell"]] for run in event["runs"]}
    return names
