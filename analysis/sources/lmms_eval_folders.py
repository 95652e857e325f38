"""Output folders of lmms-eval 0.6 or newer, whoever ran it: `*_results.json` and `*_samples_<task>.jsonl`."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import ResultsError, ResultsWarning
from analysis.sources.frames import sample_frame
from analysis.sources.run_folders import Row, spent_columns
from analysis.tasks import Task, sample_row, sample_score, task_of

_CHECKPOINT = ("pretrained", "model", "path", "model_version")
_FRAMES = ("max_frames_num", "max_num_frames", "num_frames", "nframes")
_ELSEWHERE = ("device", "device_map", "batch_size", "results_dir", "retention", "seed", "budget")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def read_lmms_eval(files: Iterable[Path], known: set[str]) -> tuple[list[Row], list[pd.DataFrame]]:
    """Rows of runs, and a frame of samples for each, from `*_results.json` files; one run a task.

    A task whose samples name a run record in `known` is that run and is left out. Raises ResultsError for damaged
    files; warns where the samples do not give the aggregate that lmms-eval reported.
    """
    runs: list[Row] = []
    samples: list[pd.DataFrame] = []
    seen: set[str] = set()
    for path in sorted(files):
        results = _read(path)
        for name in results["configs"]:
            run = _run_row(results, name, path)
            lines = _samples_of(path, name)
            ours = {(counts or {}).get("run") for row in lines for counts in row.get("token_counts") or [None]}
            if run["run"] in seen or (ours - {None} and ours <= known):
                continue
            seen.add(run["run"])
            rows = [_tidy(run["run"], name, row) for row in lines]
            if any((row["score"] or 0) > 1 for row in rows):  # an unknown task's own unit
                rows = [{**row, "score": None} for row in rows]
            if any(row["score"] is not None for row in rows):
                _compare(run, rows, path)
                run["score"] = None
            runs.append(run)
            if rows:
                samples.append(sample_frame(rows))
    return runs, samples


def _read(path: Path) -> Row:
    try:
        results: Row = json.loads(path.read_bytes())
        return {**results, "configs": results["configs"], "config": results["config"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path} is no result of lmms-eval 0.6 or newer ({error!r}); expected JSON with configs and config"
        ) from error


def _run_row(results: Row, name: str, path: Path) -> Row:
    config, task = results["config"], task_of(name)
    arguments = model_arguments(config["model_args"])
    first = {kind: next((arguments[k] for k in keys if k in arguments), None) for kind, keys in _KINDS.items()}
    own = {k: v for k, v in arguments.items() if k not in (*_CHECKPOINT, *_FRAMES, *_ELSEWHERE)}
    # Functions are written with their address, which changes with every process.
    described = _ADDRESS.sub("", json.dumps(results["configs"][name], sort_keys=True, default=str))
    setup = {
        "batch_size": _number(config.get("batch_size")),
        "lmms_eval": results.get("lmms_eval_version"),
        "lmms_eval_generation": config.get("gen_kwargs") or None,
        "lmms_eval_task_sha256": hashlib.sha256(described.encode()).hexdigest(),
    }
    sizes = results.get("n-samples", {}).get(name, {})
    return {
        "run": hashlib.sha256(path.read_bytes() + name.encode()).hexdigest()[:16],
        "source": str(path),
        "kind": "lmms_eval",
        "label": None,
        "backbone": config["model"],
        "checkpoint": str(first["checkpoint"] or results.get("model_name") or ""),
        "method": config["model"],
        "fields": json.dumps(own, sort_keys=True),
        "budget": str(arguments.get("budget", "nominal")),
        "retention_asked": float(arguments.get("retention", 1)),
        "seed": arguments.get("seed"),
        "task": name,
        "frames": first["frames"],
        "setup": json.dumps(setup, sort_keys=True),
        "hardware": None,
        "started": _iso(str(results.get("date", ""))),
        "documents": sizes.get("original"),
        "score": _aggregate(results["results"].get(name, {}), task),
    }


_KINDS = {"checkpoint": _CHECKPOINT, "frames": _FRAMES}


def model_arguments(given: str | Row | None) -> Row:
    """lmms-eval's --model_args, a text or a dict, with numbers as numbers.

    >>> model_arguments("pretrained=a/b,max_frames_num=32,x=no")
    {'pretrained': 'a/b', 'max_frames_num': 32, 'x': 'no'}
    """
    if not given:
        return {}
    pairs = given if isinstance(given, dict) else dict(word.split("=", 1) for word in given.split(",") if "=" in word)
    return {name: _number(value) for name, value in pairs.items()}


def _number(value: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def _iso(date: str) -> str | None:
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)", date)
    return "{}-{}-{}T{}:{}:{}".format(*found.groups()) if found else None


def _aggregate(reported: Row, task: Task) -> float | None:
    """The task's aggregate, 0..1; None for a task whose unit is not known."""
    values = [v for k, v in reported.items() if task.metric and k.split(",")[0] == task.metric]
    return float(values[0]) / task.scale if values and task.scale and isinstance(values[0], int | float) else None


def _samples_of(path: Path, name: str) -> list[Row]:
    file = path.with_name(f"{path.name.removesuffix('results.json')}samples_{name}.jsonl")
    if not file.is_file():
        return []
    rows: dict[int, Row] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            document = row["doc_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{file}, line {number} is damaged ({error!r}); evaluate again") from error
        if document in rows:
            raise ResultsError(
                f"{file} holds document {document} twice: two runs that began in the same second wrote there; "
                f"give each its own --output_path and evaluate again"
            )
        rows[document] = row
    return [rows[document] for document in sorted(rows)]


def _tidy(run: str, name: str, row: Row) -> Row:
    task = task_of(name)
    about = sample_row(task, row)
    counts = (row.get("token_counts") or [None])[0] or {}
    prediction = row["filtered_resps"]
    parsed, failure = about.get("parsed"), (counts.get("failure") or {}).get("reason")
    return {
        "run": run,
        "task": name,
        "doc_id": row["doc_id"],
        "document": counts.get("doc_sha256"),
        "video": str(about.get(task.video or "", f"{name}/{row['doc_id']}")),
        "category": about.get(task.category or ""),
        "score": None if failure else sample_score(task, row) if task.metric else _only_score(row),
        "prediction": prediction[0] if isinstance(prediction, list) and prediction else prediction,
        "target": row["target"] if isinstance(row["target"], str) else json.dumps(row["target"]),
        "parsed": None if parsed is None else bool(parsed),
        "failure": failure,
        "output_tokens": counts.get("output_tokens"),
        "evidence_recall": counts.get("evidence_recall"),
        **spent_columns(counts.get("spent")),
        **{f"seconds_{stage}": seconds for stage, seconds in counts.get("seconds", {}).items()},
    }


def _only_score(row: Row) -> float | None:
    """The score under the one metric of an unknown task that has any; None where there are several or none."""
    found = {float(m["score"]) for m in row.values() if isinstance(m, dict) and isinstance(m.get("score"), int | float)}
    return found.pop() if len(found) == 1 else None


def _compare(run: Row, rows: list[Row], path: Path) -> None:
    """Warn where the mean that the samples give is not what lmms-eval reported. It counts a failed sample as wrong."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        groups.setdefault(row["category"] if task_of(run["task"]).macro else None, []).append(row["score"] or 0.0)
    mean = sum(sum(scores) / len(scores) for scores in groups.values()) / len(groups)
    if run["score"] is not None and abs(mean - run["score"]) > 1e-6:
        warnings.warn(
            f"{path}: {run['task']} reports {100 * run['score']:.2f}, its {len(rows)} samples give {100 * mean:.2f}; "
            f"the samples count here",
            ResultsWarning,
            stacklevel=3,
        )
