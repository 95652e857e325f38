"""Everything that holds results, into one tidy frame: run directories, collected Parquet, lmms-eval output, papers."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.labels import labels
from analysis.published import published_runs
from analysis.results import Results, ResultsError, ResultsWarning
from analysis.sources.collected import is_collected, read_collected
from analysis.sources.frames import run_frame, sample_frame
from analysis.sources.lmms_eval_folders import read_lmms_eval
from analysis.sources.run_folders import read_run_folders
from analysis.sources.sweep_labels import sweep_labels


def load(*paths: Path | str) -> Results:
    """All finished runs at `paths`: folders (searched at any depth) and CSVs of `results/published`.

    A folder that `python -m sweeps collect` wrote to is read from its Parquet alone. A run that is found twice, as a
    record, collected, or as lmms-eval's output of it, is one run; the first place counts.

    Raises ResultsError where there is nothing, or something is damaged or of another schema. Warns (ResultsWarning)
    of what is left out.
    """
    frames: list[Results] = []
    folders: list[Path] = []
    outputs: list[Path] = []
    for path in map(Path, paths):
        if path.suffix == ".csv" and path.is_file():
            frames.append(Results(published_runs(path), sample_frame([])))
        elif is_collected(path):
            frames.append(read_collected(path))
            _warn_of_newer(path)
        elif path.is_dir():
            folders += [file.parent for file in path.rglob("run.json")]
            outputs += path.rglob("*_results.json")
        else:
            raise ResultsError(f"{path} is neither a folder of results nor a published table (.csv)")
    frames += _records(folders)
    frames += _outputs(outputs, {run for frame in frames for run in frame.runs["run"]})
    frames = [frame for frame in frames if len(frame.runs)]
    if not frames:
        raise ResultsError(
            f"no finished run below {', '.join(map(str, paths))}: expected */run.json with state done, "
            f"*_results.json of lmms-eval, or collected Parquet; run an evaluation first"
        )
    return _together(frames)


def _records(folders: list[Path]) -> Iterable[Results]:
    runs, samples = read_run_folders(dict.fromkeys(folders))
    names = sweep_labels(folders)
    yield Results(run_frame({**row, "label": names.get(row["run"])} for row in runs), _stacked(samples))


def _outputs(files: list[Path], known: set[str]) -> Iterable[Results]:
    runs, samples = read_lmms_eval(dict.fromkeys(files), known)
    yield Results(run_frame(runs), _stacked(samples))


def _stacked(samples: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(samples, ignore_index=True) if samples else sample_frame([])


def _warn_of_newer(folder: Path) -> None:
    collected = min(file.stat().st_mtime for file in folder.glob("*.parquet"))
    if newer := sum(file.stat().st_mtime > collected for file in folder.rglob("run.json")):
        warnings.warn(
            f"{folder}: {newer} runs are newer than its Parquet and are left out; collect it again",
            ResultsWarning,
            stacklevel=3,
        )


def _together(frames: list[Results]) -> Results:
    """One `Results`, every run once, every row named, in an order that does not hang on the folders' order."""
    seen: set[str] = set()
    kept: list[Results] = []
    for frame in frames:
        new = ~frame.runs["run"].isin(seen)
        kept.append(frame if new.all() else frame.of(new))
        seen |= set(frame.runs["run"])
    runs = pd.concat([frame.runs for frame in kept], ignore_index=True)
    samples = pd.concat([frame.samples for frame in kept if len(frame.samples)] or [sample_frame([])])
    nameless = runs["label"].isna()
    rows = list(zip(runs.loc[nameless, "method"], runs.loc[nameless, "fields"], strict=True))
    names = labels(rows)
    runs.loc[nameless, "label"] = [names[row] for row in rows]
    samples = samples.sort_values(["run", "doc_id"], ignore_index=True)
    return Results(runs.sort_values("run", ignore_index=True), samples)
