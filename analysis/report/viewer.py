"""What the viewer of kept tokens shows: questions on which methods differ, and what each method kept for them."""

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.plots.part import ROW, Part
from analysis.report.frames import BYTES_A_PIXEL, Sheet, contact_sheet
from analysis.sources.run_folders import answers
from analysis.stats.reference import UNCOMPRESSED

SHEETS_BYTES = 11_000_000
"""What all frames of a page may take, about; in a page bytes become 4/3 as many letters."""
LARGEST = 256 * 256
"""Pixels of a frame where there is room."""

Json = dict[str, Any]


@dataclass
class Viewer:
    """The viewer's data, as plain data for the page, and the pictures that its questions point to."""

    parts: list[Json] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)

    @property
    def questions(self) -> int:
        """Of all parts."""
        return sum(len(part["questions"]) for part in self.parts)


def record_folders(paths: Iterable[Path | str]) -> dict[str, list[Path]]:
    """Run id -> the folders below `paths` that hold its records; several where it was sharded."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in map(Path, paths):
        for file in sorted(path.rglob("run.json")):
            found[file.parent.name].append(file.parent)
    return found


def make_viewer(tables: Sequence[tuple[Part, pd.DataFrame]], folders: Mapping[str, list[Path]], limit: int) -> Viewer:
    """Of each part at most `limit` / parts questions, those first on which the answers differ most.

    Args:
        tables: each part with its rows of `analysis.stats.compare`. A row of several seeds is shown by its first.
        folders: as `record_folders`; rows without records are not shown.
    """
    out = Viewer()
    videos: dict[str, Json] = {}
    for part, table in tables:
        shown = table[[ids[0] in folders for ids in table["runs"]]]
        if len(shown):
            made = _part(part, shown, folders, max(1, limit // len(tables)))
            out.parts.append(made)
            for video in filter(None, (question["video"] for question in made["questions"])):
                videos.setdefault(video["path"], video)
    frames = sum(len(video["indices"]) for video in videos.values())
    pixels = min(LARGEST, int(SHEETS_BYTES / BYTES_A_PIXEL / max(1, frames)))
    out.sheets = [contact_sheet(video, pixels) for video in videos.values()]
    place = {path: number for number, path in enumerate(videos)}
    for question in (question for part in out.parts for question in part["questions"]):
        video = question.pop("video")
        question["sheet"] = place[video["path"]] if video else None
        question["frames"] = len(video["indices"]) if video else 0
    return out


def _part(part: Part, table: pd.DataFrame, folders: Mapping[str, list[Path]], limit: int) -> Json:
    rows = {key: row for key, row in part.rows.items() if key in set(table[ROW].itertuples(index=False, name=None))}
    number = {key: place for place, key in enumerate(rows)}
    ratios = sorted(set(table.loc[table["method"] != UNCOMPRESSED, "retention_asked"]))
    samples = part.results.samples
    first = [ids[0] for ids in table["runs"]]
    samples = samples[samples["run"].isin(first)].set_index(["run", "doc_id"]).sort_index()
    flips = _flips(samples["score"], first, table)
    category = samples.groupby("doc_id")["category"].first().fillna("")
    chosen = _round_robin(flips, category, limit)
    questions: dict[int, Json] = {
        doc: {"doc": doc, "kind": category[doc], "flips": int(flips[doc]), "answers": []} for doc in chosen
    }
    for run, row in zip(first, table.itertuples(), strict=True):
        key = tuple(getattr(row, name) for name in ROW)
        ratio = None if row.method == UNCOMPRESSED else ratios.index(row.retention_asked)
        for record in answers(run, folders[run], questions.keys()):
            sample = samples.loc[run, record["doc_id"]]
            _add(questions[record["doc_id"]], record, sample, number[key], ratio)
    return {
        "title": part.title,
        "methods": [
            {"name": row.name, "method": row.method, "colour": row.look.colour, "whole": row.method == UNCOMPRESSED}
            for row in rows.values()
        ],
        "ratios": ratios,
        "questions": list(questions.values()),
    }


def _flips(scores: pd.Series, runs: Sequence[str], table: pd.DataFrame) -> "pd.Series[int]":
    """By document: how many rows are right where the uncompressed model is wrong, or the reverse.

    Without an uncompressed run: how many are not as most are.
    """
    by_run = scores.unstack("run")[list(runs)]
    right, known = by_run >= 0.5, by_run.notna()
    whole = [run for run, method in zip(runs, table["method"], strict=True) if method == UNCOMPRESSED]
    if whole:
        known = known.mul(known[whole[0]], axis=0)
    usual = right[whole[0]] if whole else right.mean(axis=1) >= 0.5
    return (right.ne(usual, axis=0) & known).sum(axis=1)


def _round_robin(flips: "pd.Series[int]", category: pd.Series, limit: int) -> list[int]:
    """Documents with most flips first, of every category in turn, in the order of their numbers."""
    place: Counter[Any] = Counter()
    turns = []
    for doc in sorted(flips.index, key=lambda doc: (-flips[doc], doc)):
        turns.append((place[category[doc]], -flips[doc], doc))
        place[category[doc]] += 1
    return sorted(doc for _, _, doc in sorted(turns)[:limit])


def _add(question: Json, record: Json, sample: pd.Series, method: int, ratio: int | None) -> None:
    """One method's answer; what all records of a question share is taken from the first that has it."""
    for name in ("question", "grid", "evidence"):
        if question.get(name) is None:
            question[name] = record.get(name)
    if question.get("video") is None:
        question["video"] = record["video"] if "indices" in (record["video"] or {}) else None
    question["target"] = _text(sample["target"])
    told = question["grid"] is not None and record.get("grid") == question["grid"]
    question["answers"].append(
        {
            "method": method,
            "ratio": ratio,
            "text": record["prediction"],
            "failure": _text(sample["failure"]),
            "score": None if pd.isna(sample["score"]) else round(float(sample["score"]), 3),
            "kept": bitset(record["kept"], int(np.prod(question["grid"]))) if told and record["kept"] else None,
            "merged": record["merged"] if told else None,
        }
    )


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def bitset(positions: Sequence[int], size: int) -> str:
    """Base64 of one bit a position, position 0 in the lowest bit, as `merged` in the records.

    >>> bitset([0, 9], 16)
    'AQI='
    """
    flags = np.zeros(size, dtype=bool)
    flags[list(positions)] = True
    return b64encode(np.packbits(flags, bitorder="little").tobytes()).decode()
