"""Rows on disk: `latency.jsonl`, one line a row of the table, and `env.jsonl`, one line a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from cacovid.budget import Spent
from cacovid.runs.errors import RunLockedError
from cacovid.runs.files import Journal, Lock, read_lines, write_errors
from cacovid.runs.sample import finite
from sweeps.folder import FolderError
from sweeps.latency.block import Entry
from sweeps.latency.passes import BEFORE_LLM, STAGES
from sweeps.latency.summary import summary

SCHEMA = 1
ROWS, ENVIRONMENTS, LOCK = "latency.jsonl", "env.jsonl", "lock"


class LatencyFolder:
    """A results folder, held against a second writer."""

    def __init__(self, path: Path) -> None:
        """Use `writing`; to look, `read_rows`."""
        self.path = path
        self._rows, self._environments = Journal(path / ROWS), Journal(path / ENVIRONMENTS)

    @classmethod
    @contextmanager
    def writing(cls, path: Path) -> Iterator["LatencyFolder"]:
        """Raises FolderError while another process writes there, RunWriteError."""
        with write_errors(path, "nothing was measured"):
            path.mkdir(parents=True, exist_ok=True)
            try:
                lock = Lock(path / LOCK)
            except RunLockedError as error:
                raise FolderError(f"{error}; another folder: --results DIR") from error
            folder = cls(path)
        try:
            yield folder
        finally:
            folder._rows.close()
            folder._environments.close()
            lock.release()

    @property
    def done(self) -> set[str]:
        """Keys of rows that need no measuring: measured in full, or known not to work."""
        return {row["key"] for row in self._rows.rows if row["complete"]}

    def write(self, environment: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """A whole block: its environment first, so that no row is without one. Raises RunWriteError."""
        with write_errors(self.path, "the block's rows are lost, those of the blocks before it are safe"):
            self._environments.append(finite(environment))
            for row in rows:
                self._rows.append(finite(row))


def read_rows(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """All rows, and the environments by block. Raises FolderError where there are none, RunError for a damaged line."""
    rows, _ = read_lines(path / ROWS)
    if not rows:
        raise FolderError(f"{path} has no rows in {ROWS}; expected a folder that `python -m sweeps latency` wrote")
    environments, _ = read_lines(path / ENVIRONMENTS)
    return rows, {env["block"]: env for env in environments}


def newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a configuration, in the order in which these were first asked for: the last one, a complete one first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["complete"] or not found.get(row["key"], row)["complete"]:
            found[row["key"]] = row
    return list(found.values())


def row_of(entry: Entry, repeats: int, **about: Any) -> dict[str, Any]:
    """An entry after its block as plain data; `about`: what the block's rows share.

    `seconds` has a summary of each stage, of `ttft` (all before the first token), `decode_per_token`, `stages` (their
    sum) and `end_to_end`; `samples` has the values, one a round.
    """
    samples = {**entry.seconds, **_derived(entry.seconds, about["decode_tokens"])}
    measured = entry.status == "measured"
    return {
        "schema": SCHEMA,
        "key": entry.key,
        "label": entry.label,
        "method": entry.name,
        "fields": asdict(entry.method) | entry.stand_ins,
        "retention": entry.retention,
        "budget": entry.budget,
        **about,
        "status": entry.status,
        "reason": entry.reason,
        "complete": (measured and entry.reason is None) or entry.status in ("out_of_memory", "failed"),
        "repeats": repeats if entry.reason is None and measured else len(samples.get("prefill", [])),
        "seconds": {stage: summary(values) for stage, values in samples.items()},
        "stages_to_end_to_end": _balance(samples),
        "memory": _memory(entry),
        "spent": _mean_spent(entry.spent) if entry.spent else None,
        "samples": samples,
    }


def _derived(seconds: dict[str, list[float]], decode_tokens: int) -> dict[str, list[float]]:
    if not seconds:
        return {}
    before = [seconds[stage] for stage in (*BEFORE_LLM, "compress", "prefill") if stage in seconds]
    every = [seconds[stage] for stage in STAGES if stage in seconds]
    return {
        "ttft": list(map(sum, zip(*before, strict=True))),
        "decode_per_token": [value / decode_tokens for value in seconds["decode"]],
        "stages": list(map(sum, zip(*every, strict=True))),
    }


def _balance(samples: dict[str, list[float]]) -> float | None:
    """Median over rounds of the sum of the stages to the whole."""
    if "end_to_end" not in samples:
        return None
    return median(a / b for a, b in zip(samples["stages"], samples["end_to_end"], strict=True))


def _memory(entry: Entry) -> dict[str, Any]:
    if entry.memory is None:
        why = "end_to_end=false" if entry.status == "measured" else entry.status
        return {"above_weights_bytes": None, "how": None, "reason": why}
    most = max(entry.peaks, default=None)
    return {"above_weights_bytes": most, "how": entry.memory.how, "reason": entry.memory.reason}


def _mean_spent(spent: list[Spent]) -> dict[str, Any]:
    """Means over samples of the audit; FLOPs are of one sample."""

    def mean(name: str) -> float:
        return fmean(getattr(one, name) for one in spent)

    def flops(name: str) -> dict[str, float]:
        parts = [asdict(getattr(one, name)) for one in spent]
        return {part: fmean(one[part] for one in parts) for part in parts[0]}

    names = ("video_tokens", "asked", "entering", "kept", "layer_average", "decode_visible", "flops_ratio")
    return {
        **{name: mean(name) for name in names},
        "missed": mean("missed"),  # share of the samples
        "flops": flops("flops"),
        "flops_full": flops("flops_full"),
    }
