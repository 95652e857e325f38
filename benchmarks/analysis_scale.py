"""`python benchmarks/analysis_scale.py`: time and memory of the analysis on a million made-up samples.

100 runs (25 methods x 4 retention ratios, one of them uncompressed) of 10,000 questions on 2,500 videos. `--parquet`
also writes them, for what reads files.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results import RUN_COLUMNS, SAMPLE_COLUMNS, Results
from analysis.stats.compare import compare

RATIOS = (0.25, 0.20, 0.15, 0.10)


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


def main() -> int:
    """Print what each step took; the exit status is 1 where the comparison passed its limits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--videos", type=int, default=2500)
    parser.add_argument("--task", default="videomme", help="mlvu_dev for a macro average (default: %(default)s)")
    parser.add_argument("--parquet", type=Path, help="also write runs.parquet and samples.parquet to this folder")
    args = parser.parse_args()
    results = made_results(args.runs, args.questions, videos=args.videos, task=args.task)
    held = results.samples.memory_usage(deep=True).sum() / 2**30
    print(f"{len(results.samples):,} samples of {args.runs} runs, {held:.2f} GiB")
    if args.parquet:
        args.parquet.mkdir(parents=True, exist_ok=True)
        results.runs.to_parquet(args.parquet / "runs.parquet")
        results.samples.to_parquet(args.parquet / "samples.parquet")
    start = time.perf_counter()
    table = compare(results)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"compare: {len(table)} rows in {seconds:.1f} s; peak of the process {peak:.2f} GiB")
    return int(seconds > 20 or peak > 4)


if __name__ == "__main__":
    sys.exit(main())
