"""`python benchmarks/analysis_scale.py`: time and memory of the analysis on a million made-up samples.

100 runs (25 methods x 4 retention ratios, one of them uncompressed) of 10,000 questions on 2,500 videos: compared in
this process, and, as the Parquet that `python -m sweeps collect` writes, tabulated in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.results import RUN_COLUMNS, SAMPLE_COLUMNS, Results
from analysis.sources.run_folders import SCHEMA
from analysis.stats.compare import compare
from analysis.tasks import task_of
from sweeps.columns import run_table, sample_table

RATIOS = (0.25, 0.20, 0.15, 0.10)
SECONDS, GIB = 30.0, 4.0
"""Limits of `python -m analysis tables` on a million samples."""


def made_results(runs: int, questions: int, *, videos: int, task: str = "videomme", seed: int = 0) -> Results:
    """Runs whose scores share a difficulty by video and lose a little with each method; run 0 is uncompressed."""
    rng = np.random.default_rng(seed)
    of_run = [
        {
            "run": f"{number:012x}",
            "source": f"runs/{number:012x}",
            "kind": "cacovid",
            "label": f"method {(number - 1) // 4}" if number else "all tokens",
            "backbone": "llava_ov",
            "checkpoint": "made up",
            "method": f"method_{(number - 1) // 4}" if number else "full",
            "fields": "{}",
            "retention_asked": RATIOS[(number - 1) % 4] if number else 1.0,
            "budget": "nominal",
            "task": task,
            "frames": 32.0,
            "setup": "{}",
            "started": "2026-01-01T00:00:00+00:00",
            "documents": float(questions),
        }
        for number in range(runs)
    ]
    video = np.sort(rng.integers(0, videos, questions))
    easy = rng.normal(0.5, 1, videos)[video]
    noise = rng.normal(0, 1, questions)  # the question's own, the same in all runs
    samples = [_samples(str(run["run"]), number, rng, task, video, easy + noise) for number, run in enumerate(of_run)]
    return Results(pd.DataFrame(of_run, columns=list(RUN_COLUMNS)), pd.concat(samples, ignore_index=True))


def _samples(
    run: str, number: int, rng: np.random.Generator, task: str, video: "np.ndarray", easy: "np.ndarray"
) -> pd.DataFrame:
    questions = len(video)
    score = (easy - 0.01 * number + rng.normal(0, 0.5, questions) > 0).astype(float)
    score[rng.random(questions) < 0.001] = np.nan
    text = np.char.add("document ", np.arange(questions).astype(str))
    fixed = {name: np.full(questions, 0.25) for name in SAMPLE_COLUMNS if "<" not in name}
    return pd.DataFrame(
        {
            **fixed,
            "run": run,
            "task": task,
            "doc_id": np.arange(questions),
            "document": text,
            "video": np.char.add("video ", video.astype(str)),
            "category": np.array(["short", "medium", "long"])[video % 3],
            "score": score,
            "prediction": np.where(np.isnan(score), None, np.array(list("ABCD"))[rng.integers(0, 4, questions)]),
            "target": "A",
            "parsed": pd.array(np.where(np.isnan(score), None, True), dtype="boolean"),
            "failure": np.where(np.isnan(score), "truncated", None),
            "missed": pd.array(np.zeros(questions, dtype=bool), dtype="boolean"),
            **{f"seconds_{stage}": rng.random(questions) for stage in ("read", "vision", "compress", "prefill")},
        }
    ).astype(
        {name: "str" for name in ("run", "task", "document", "video", "category", "prediction", "target", "failure")}
    )


def write_collected(results: Results, folder: Path) -> None:
    """runs.parquet and samples.parquet in the columns of `python -m sweeps collect`, one row group a run."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(run_table([_run_row(run) for run in results.runs.to_dict("records")]), folder / "runs.parquet")
    stages = [name for name in results.samples if name.startswith("seconds_")]
    schema = sample_table("", []).schema
    for stage in stages:
        schema = schema.append(pa.field(stage, pa.float64()))
    with pq.ParquetWriter(folder / "samples.parquet", schema, compression="zstd") as writer:
        for _, samples in results.samples.groupby("run", sort=False):
            writer.write_table(_collected(samples, schema))


def _run_row(run: dict[str, Any]) -> dict[str, Any]:
    text = dict.fromkeys(("dtype", "attention", "device", "sampling", "form", "task_sha256", "source"), "made up")
    fields = {"retention": run["retention_asked"]}
    return {
        **text,
        **{name: run[name] for name in ("run", "label", "method", "budget", "backbone", "task", "started")},
        "schema": SCHEMA,
        "state": "done",
        "frames": int(run["frames"]),
        "batch_size": 1,
        "fields": json.dumps(fields),
        "checkpoint": json.dumps({"folder": run["checkpoint"]}),
        "generation": "[]",
        "versions": "{}",
        "documents": int(run["documents"]),
        "folders": [run["source"]],
    }


def _collected(samples: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """One run's samples; columns that made-up samples have nothing for are missing."""
    task = str(samples["task"].iloc[0])
    of_task = task_of(task)
    metrics = [
        json.dumps({of_task.metric: {of_task.category: category, "score": score}}) if score == score else None
        for category, score in zip(samples["category"], samples["score"], strict=True)
    ]
    tokens = samples["video_tokens"].astype(int)
    columns = {
        "doc_sha256": samples["document"],
        "video_sha256": samples["video"],
        "failure_reason": samples["failure"],
        "metrics": metrics,
        "spent_video_tokens": tokens,
        "spent_entering": (samples["entering"] * tokens).astype(int),
        "spent_decode_visible": samples["decode_share"] * tokens,
        **{f"spent_flops_{part}": tokens for part in ("vision", "compressor", "prefill", "decode")},
        **{f"spent_{name}": samples[name] for name in ("retention", "layer_average", "flops_ratio", "missed")},
        "output_tokens": samples["output_tokens"].astype(int),
    }
    columns = {**{name: samples[name] for name in schema.names if name in samples}, **columns}
    missing = pa.nulls(len(samples))
    arrays = [
        pa.array(columns[field.name], field.type, from_pandas=True)
        if field.name in columns
        else missing.cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


_MEASURE = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen([sys.executable, "-m", "analysis", "tables", sys.argv[1]], stdout=sys.stderr)
_, status, used = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
child.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]))
sys.exit(child.returncode)
"""
"""In a small process between: a child's peak starts at what its parent holds (Linux, at exec)."""


def tabulate(folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak GiB of `python -m analysis tables FOLDER`, imports included.

    Raises RuntimeError where it fails.
    """
    command = [sys.executable, "-c", _MEASURE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m analysis tables {folder} ended with {done.returncode}: {done.stderr[-2000:]}")
    wall, processor, peak = json.loads(done.stdout)
    return wall, processor, peak


def main() -> int:
    """Print what each step took; the exit status is 1 where one passed its limits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--videos", type=int, default=2500)
    parser.add_argument("--task", default="videomme", help="mlvu_dev for a macro average (default: %(default)s)")
    parser.add_argument("--parquet", type=Path, help="keep runs.parquet and samples.parquet in this folder")
    args = parser.parse_args()
    results = made_results(args.runs, args.questions, videos=args.videos, task=args.task)
    held = results.samples.memory_usage(deep=True).sum() / 2**30
    print(f"{len(results.samples):,} samples of {args.runs} runs, {held:.2f} GiB")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.parquet or Path(scratch)
        write_collected(results, folder)
        wall, processor, most = tabulate(folder)
    print(f"tables, a process of its own: {wall:.1f} s, {processor:.1f} s of CPU, peak {most:.2f} GiB")
    start = time.perf_counter()
    table = compare(results)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"compare: {len(table)} rows in {seconds:.1f} s; peak of the process {peak:.2f} GiB")
    return int(seconds > 20 or max(peak, most) > GIB or wall > SECONDS)


if __name__ == "__main__":
    sys.exit(main())
