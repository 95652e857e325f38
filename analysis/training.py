"""Training runs: their metrics files, and the table that compares them, a run a seed."""

import json
import re
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path

import pandas as pd
from scipy import stats

from analysis.results import ResultsError

LAST = 20
"""Steps at the end that a table's training reward averages over."""
_HELD_OUT = "validation@"
_REWARDS = {"token": f"rollouts, last {LAST} steps", "greedy": f"best tokens, last {LAST} steps"}


def metrics_files(items: Sequence[str]) -> dict[str, list[Path]]:
    """Label -> metrics files, from `[LABEL=]FOLDERS`; without a label it is the folder's name less its seed.

    Raises ResultsError for a pattern without any.
    """
    runs: dict[str, list[Path]] = {}
    for item in items:
        label, separator, pattern = item.partition("=")
        files = [Path(folder) / "metrics.jsonl" for folder in sorted(glob(pattern if separator else item))]
        files = [file for file in files if file.is_file()]
        if not files:
            raise ResultsError(f"no metrics.jsonl under {pattern or item!r}; give the out= folder of a training run")
        for file in files:
            seeds = runs.setdefault(label if separator else re.sub(r"-\d+$", "", file.parent.name), [])
            if file not in seeds:
                seeds.append(file)
    return runs


def read_metrics(file: Path) -> pd.DataFrame:
    """Rows by step; a last line that was cut off where a run was killed is left out. Raises ResultsError."""
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return pd.DataFrame(rows).set_index("step") if rows else pd.DataFrame()
    except (ValueError, KeyError) as error:
        raise ResultsError(
            f"{file} holds no metrics ({error!r}); expected a JSON object with `step` in each line"
        ) from error


def held_out_columns(tables: Sequence[pd.DataFrame]) -> dict[str, str]:
    """Columns of rewards on held-out questions -> their ratio in %, from the highest."""
    names = {name for table in tables for name in table if name.startswith(_HELD_OUT)}
    ratios = {name: 100 * float(name.removeprefix(_HELD_OUT)) for name in names}
    return {name: f"{ratios[name]:g}%" for name in sorted(names, key=lambda name: -ratios[name])}


def training_table(runs: Mapping[str, Sequence[Path]]) -> str:
    """Markdown: a row a label, of the last validation and the mean rewards of the last LAST steps: of what was drawn
    (token rollouts), and of the policy's best tokens on the same questions.

    A cell is the mean over seeds in %, each seed's value, and from the second row on the difference to the first
    row's with a 95% interval: Student's t, paired by the seed that the folder's name ends in, with as many degrees of
    freedom as seeds less one. The held-out questions are the same in all runs; the interval tells of seeds alone.
    Raises ResultsError for a damaged or empty file, and for runs without a validation.
    """
    tables = {label: {_seed(file): read_metrics(file) for file in files} for label, files in runs.items()}
    columns = held_out_columns([table for group in tables.values() for table in group.values()])
    if not columns:
        raise ResultsError("no run was validated; expected `validation@R` in metrics.jsonl (settings.validation.every)")
    kinds = {name: (f"held out, r = {ratio}", 1) for name, ratio in columns.items()}
    kinds |= {name: (words, LAST) for name, words in _REWARDS.items()}
    heads = " | ".join(words for words, _ in kinds.values())
    lines = [f"| run | steps | {heads} |", "|---" * (len(kinds) + 2) + "|"]
    (head, first), *_ = tables.items()
    for label, group in tables.items():
        steps = "/".join(map(str, sorted({int(max(table.index, default=0)) for table in group.values()})))
        cells = [
            _cell(_last(group, name, rows), None if label == head else _last(first, name, rows))
            for name, (_, rows) in kinds.items()
        ]
        lines.append(f"| {label} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seed(file: Path) -> str:
    return re.sub(r".*-(?=\d+$)", "", file.parent.name)


def _last(group: Mapping[str, pd.DataFrame], name: str, rows: int) -> pd.Series:
    """Seed -> mean of a column's last values in %; seeds without any are left out."""
    known = {seed: table[name].dropna().tail(rows) for seed, table in group.items() if name in table}
    return pd.Series({seed: 100 * values.mean() for seed, values in known.items() if len(values)}, dtype=float)


def _cell(values: pd.Series, reference: pd.Series | None) -> str:
    if values.empty:
        return "--"
    text = f"{values.mean():.1f}"
    if len(values) > 1:
        text += f" ({' / '.join(f'{value:.1f}' for value in values)})"
    difference = pd.Series() if reference is None else (values - reference).dropna()
    if len(difference) < 2:
        return text if difference.empty else f"{text}, {difference.iloc[0]:+.1f}"
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.sem()
    mean = difference.mean()
    return f"{text}, {mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}]"
