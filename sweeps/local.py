"""Cells (a method with its settings at one retention ratio) on this machine, through the real lmms-eval.

Processes share the cells; each keeps one lmms-eval task manager. Runs already there are taken up again, so an
interrupted call goes on where it stopped.
"""

import argparse
import json
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

TASK = "evidence_vqa"


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a table: a method with its settings at one retention ratio."""

    label: str
    method: str
    retention: float
    settings: dict[str, Any] = field(default_factory=dict)


@cache
def _task_manager() -> Any:
    """One a process: indexing lmms-eval's tasks takes seconds."""
    from lmms_eval.tasks import TaskManager

    from cacovid.lmms import tasks_dir

    return TaskManager(include_path=str(tasks_dir()))


def _quiet() -> None:
    """A worker prints nothing: the parent shows one progress bar, the runs keep the rest."""
    from loguru import logger

    logger.remove()
    logging.disable(logging.WARNING)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  lives as long as the worker


def run_cell(cell: Cell, results_dir: str, batch_size: int) -> dict[str, Any]:
    """Evaluate one cell with lmms-eval's `simple_evaluate`; returns its label and the reported accuracy."""
    import torch
    from lmms_eval.evaluator import simple_evaluate

    torch.set_num_threads(1)
    out = simple_evaluate(
        model=f"{cell.method}_llava_ov",
        model_args={
            "pretrained": "testbed",
            "device": "cpu",
            "retention": cell.retention,
            "results_dir": results_dir,
            **cell.settings,
        },
        tasks=[TASK],
        batch_size=batch_size,
        task_manager=_task_manager(),
        log_samples=False,
        bootstrap_iters=0,
    )
    scores = {k: v for k, v in out["results"][TASK].items() if isinstance(v, int | float)}
    return {"label": cell.label, "retention": cell.retention, "scores": scores}


def command(module: str, description: str | None, cells: list[Cell], videos: int, results: Path) -> int:
    """`python -m MODULE`: the cells, on as many test videos and with as many processes as the command line says."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--videos", type=int, default=videos, help="test videos to ask about (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=results, help="where the runs go (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    return run_cells(cells, args.videos, args.results, args.processes)


def run_cells(cells: list[Cell], videos: int, results: Path, processes: int) -> int:
    """Run all cells on the first `videos` test videos; the exit status: 0, 1 if a cell failed, 130 interrupted.

    What the rows of a table are called is written beside `results`, as cells.json.
    """
    os.environ["CACOVID_TESTBED_VIDEOS"] = str(videos)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the workers before torch starts

    from cacovid.testbed.data import load_split

    questions = len(load_split("test", limit_videos=videos))  # made here once, with a progress bar
    print(f"{len(cells)} cells x {questions} questions on {videos} videos, {processes} processes")
    start, failures = time.perf_counter(), []
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_quiet)
    with pool, tqdm(total=len(cells), unit="cell") as bar:
        jobs = {pool.submit(run_cell, c, str(results), 1): c for c in cells}
        try:
            for job in as_completed(jobs):
                cell = jobs[job]
                bar.update()
                if error := job.exception():
                    failures.append(f"{cell.label} at r={cell.retention}: {error!r}")
                else:
                    bar.set_postfix_str(f"{cell.label} r={cell.retention}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("interrupted; run again to go on from here", file=sys.stderr)
            return 130
    print(f"{len(cells) - len(failures)} of {len(cells)} cells in {time.perf_counter() - start:.0f} s")
    order = [{"label": c.label, "method": c.method, "retention": c.retention, **c.settings} for c in cells]
    (results.parent / "cells.json").write_text(json.dumps(order, indent=1) + "\n")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0
