"""Run directories, as the lmms-eval models of the suite write them: run.json and samples.jsonl."""

import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import ResultsError, ResultsWarning
from analysis.sources.frames import sample_frame
from analysis.tasks import sample_row, sample_score, task_of

SCHEMA = 1
"""Version of run.json and samples.jsonl that is read."""

_SETUP = ("dtype", "attention", "device", "sampling", "form", "batch_size", "task_sha256", "generation", "versions")
_SHARD = re.compile(r"(\d+)-of-(\d+)")
_NUMBER = re.compile(rb'"doc_id":\s*(\d+)')
Row = dict[str, Any]


def read_run_folders(folders: Iterable[Path]) -> tuple[list[Row], list[pd.DataFrame]]:
    """Rows of runs, and a frame of samples for each, from folders that hold a run.json.

    Folders of one run id are shards or copies of it and become one run. A run of which a part is not done is left
    out with a ResultsWarning: a part of the questions has another mean. Raises ResultsError, naming all that is
    damaged or of another schema.
    """
    wrong: list[str] = []
    parts: dict[str, list[tuple[Path, Row]]] = {}
    for folder in sorted(folders):
        try:
            run = read_run(folder / "run.json")
            parts.setdefault(run["id"], []).append((folder, run))
        except ResultsError as error:
            wrong.append(str(error))
    runs: list[Row] = []
    samples: list[pd.DataFrame] = []
    for name, some in parts.items():
        if reason := _unfinished(some):
            warnings.warn(f"run {name} ({some[0][0]}) is left out: {reason}", ResultsWarning, stacklevel=2)
            continue
        folder, run = max(some, key=lambda part: part[1]["started"])
        try:
            found = answers(name, [folder for folder, _ in some])
        except ResultsError as error:
            wrong.append(str(error))
            continue
        runs.append(run_row(run, folder))
        samples.append(sample_frame(tidy_sample(run["id"], row) for row in found))
    if wrong:
        raise ResultsError("; ".join(wrong))
    return runs, samples


def read_run(path: Path) -> Row:
    """One run.json. Raises ResultsError for a damaged one and for one of another schema."""
    try:
        run = json.loads(path.read_bytes())
    except ValueError as error:
        raise ResultsError(f"{path} is damaged ({error}); evaluate that cell again") from error
    if not isinstance(run, dict) or run.get("schema") != SCHEMA:
        found = run.get("schema") if isinstance(run, dict) else type(run).__name__
        raise ResultsError(
            f"{path} has schema {found}, expected {SCHEMA}: another version wrote it; read it with that version"
        )
    return run


def _unfinished(parts: list[tuple[Path, Row]]) -> str | None:
    """Why the parts of one run do not make it whole; None if they do."""
    if states := sorted({f"{run['state']} in {folder}" for folder, run in parts if run["state"] != "done"}):
        return f"{', '.join(states)}, expected done"
    shards = [found for folder, _ in parts if (found := _SHARD.fullmatch(folder.parent.name))]
    if len(shards) < len(parts):  # one of them is no shard: it is whole
        return None
    end = Fraction(0)
    for start, stop in sorted((Fraction(int(s[1]) - 1, int(s[2])), Fraction(int(s[1]), int(s[2]))) for s in shards):
        if start <= end:
            end = max(end, stop)
    return None if end >= 1 else f"only shards {', '.join(sorted(s[0] for s in shards))} are there"


def answers(name: str, folders: Iterable[Path], wanted: Collection[int] | None = None) -> Iterable[Row]:
    """A run's samples as they were recorded, one a document: an answer wins over a failure, then the later one.

    `wanted` limits them to documents of these numbers. Raises ResultsError for a damaged line, and without any sample.
    """
    found: dict[int, Row] = {}
    for folder in folders:
        for row in _lines(folder / "samples.jsonl", wanted):
            known = found.get(row["doc_id"])
            if known is None or _weight(row) >= _weight(known):
                found[row["doc_id"]] = row
    if not found:
        raise ResultsError(f"run {name} is done and holds no sample, expected one a document; evaluate it again")
    return (found[number] for number in sorted(found))


def _weight(row: Row) -> tuple[bool, str]:
    return row["failure"] is None, row["written"]


def _lines(path: Path, wanted: Collection[int] | None) -> Iterator[Row]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if wanted is not None and (told := _NUMBER.search(line)) and int(told[1]) not in wanted:
                    continue  # unread: a line is mostly the list of what was kept
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ResultsError(
                        f"{path}, line {number} is damaged ({error}); evaluate that cell again"
                    ) from error
    except FileNotFoundError:
        raise ResultsError(f"{path} is missing beside a run.json that says done; evaluate that cell again") from None


def run_row(run: Row, source: Path) -> Row:
    """A row of `Results.runs` from a run.json; its label is still missing."""
    settings = run["settings"]
    fields = dict(settings["fields"])
    retention, seed = fields.pop("retention"), fields.pop("seed", None)
    checkpoint = settings["checkpoint"]
    setup = {name: settings[name] for name in _SETUP} | {"weights_commit": checkpoint.get("commit")}
    return {
        "run": run["id"],
        "source": str(source),
        "kind": "cacovid",
        "label": None,
        "backbone": settings["backbone"],
        "checkpoint": checkpoint.get("hub") or checkpoint["folder"],
        "method": settings["method"],
        "fields": json.dumps(fields, sort_keys=True),
        "budget": settings["budget"],
        "retention_asked": float(retention),
        "seed": seed,
        "task": settings["task"],
        "frames": settings["frames"],
        "setup": json.dumps(setup, sort_keys=True),
        "hardware": _hardware(run["attempts"]),
        "commit": _commit(run["attempts"]),
        "started": run["started"],
        "documents": run["counts"]["documents"],
        "score": None,
    }


def _hardware(attempts: list[Row]) -> str | None:
    """Accelerators, else the processor, of every attempt."""
    known = [(attempt.get("provenance") or {}).get("hardware") for attempt in attempts]
    return "; ".join(sorted({_machine(machine) for machine in known if machine})) or None


def _commit(attempts: list[Row]) -> str | None:
    """The commit of every attempt."""
    known = [(attempt.get("provenance") or {}).get("git") for attempt in attempts]
    return ", ".join(sorted({f"{git['commit']}{'+' * git['dirty']}" for git in known if git})) or None


def _machine(machine: Row) -> str:
    names = [card["name"] for card in machine.get("accelerators", [])]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or str(machine["cpu"])


def tidy_sample(run: str, sample: Row) -> Row:
    """A row of `Results.samples` from a line of samples.jsonl."""
    task = task_of(sample["task"])
    about = sample_row(task, sample["metrics"])
    score = sample["score"] if sample["score"] is not None else sample_score(task, sample["metrics"])
    video = (sample["video"] or {}).get("sha256") or sample["doc_sha256"]
    return {
        "run": run,
        "task": sample["task"],
        "doc_id": sample["doc_id"],
        "document": sample["doc_sha256"],
        "video": video,
        "category": about.get(task.category or ""),
        "score": score,
        "prediction": sample["prediction"],
        "target": sample["target"] if isinstance(sample["target"], str | None) else json.dumps(sample["target"]),
        "parsed": sample["parsed"],
        "failure": sample["failure"]["reason"] if sample["failure"] else None,
        "output_tokens": sample["output_tokens"],
        "evidence_recall": sample["evidence_recall"],
        **spent_columns(sample["spent"]),
        **{f"seconds_{stage}": seconds for stage, seconds in sample["seconds"].items()},
    }


def spent_columns(spent: Row | None) -> Row:
    """The budget audit's columns; none where nothing was compressed."""
    if not spent:
        return {}
    return {
        **{name: spent[name] for name in ("video_tokens", "retention", "layer_average", "flops_ratio")},
        "entering": spent["entering"] / spent["video_tokens"],
        "decode_share": spent["decode_visible"] / spent["video_tokens"],
        "flops": float(sum(spent["flops"].values())),
        "missed": spent["missed"],
    }
