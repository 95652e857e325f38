"""What was run, for the head of the report: what all runs of a part share, and where and when they ran."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.plots.part import Part


def about(part: Part, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value of each fact; one that no run tells is left out.

    Args:
        table: the part's rows of `analysis.stats.compare`.
    """
    runs, samples = part.results.runs, part.results.samples
    setups = [json.loads(text) for text in runs["setup"]]
    versions = sorted({f"{name} {version}" for setup in setups for name, version in _versions(setup)})
    settings = [f"{name} {_some(setup.get(name) for setup in setups)}" for name in ("dtype", "attention", "device")]
    ratios = sorted(runs["retention_asked"].unique(), reverse=True)
    facts = {
        "task": f"{part.task}, {samples['doc_id'].nunique()} questions on {samples['video'].nunique()} videos",
        "backbone": f"{part.backbone}, weights {_some(name[:50] for name in runs['checkpoint'])}",
        "runs": f"{len(runs)} of {table['name'].nunique()} methods at r = {', '.join(f'{r:g}' for r in ratios)}",
        "frames a video": _some(f"{frames:g}" for frames in runs["frames"].dropna()),
        "settings": ", ".join(text for text in settings if not text.endswith(" ")),
        "hardware": _some(runs["hardware"].dropna()),
        "commit": _some(name.strip() for text in runs["commit"].dropna() for name in text.split(",")),
        "versions": ", ".join(versions),
        "started": " to ".join(sorted({runs["started"].min(), runs["started"].max()})),
    }
    return [(name, value) for name, value in facts.items() if value]


def _versions(setup: dict[str, Any]) -> Iterable[tuple[str, str]]:
    return (setup.get("versions") or {}).items()


def _some(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None}))
