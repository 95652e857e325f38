"""The whole path from file to answer: with videos read ahead, a store and batches, against a plain loop.

`python benchmarks/pipeline.py [--questions 200]` evaluates questions of the test bed through lmms-eval in one process,
in several ways: each video read, encoded and answered one after the other (`store=off,prefetch=0`; even so a video is
decoded once for its seven questions), with videos read ahead, with a store in memory, with both, and with both in
batches. The ways take turns, four videos at a time, so that whatever else the machine does falls on all of them.

Printed: milliseconds a question, by stage, and how many times as fast as the plain loop each way is over all questions,
with the smallest and largest ratio of a turn. The answers, scores and kept tokens of all ways must be the same; the
records of the ways without batches must be the same altogether, but for times.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

KINDS = 7  # questions on a video of the test bed
TURN = 4 * KINDS  # questions that a way answers before the next way's turn
WAYS: dict[str, dict[str, Any]] = {
    "plain loop": {"store": "off", "prefetch": 0},
    "read ahead": {"store": "off", "prefetch": 2},
    "store": {"store": "memory", "prefetch": 0},
    "read ahead, store": {"store": "memory", "prefetch": 2},
    "read ahead, store, batches of 7": {"store": "memory", "prefetch": 2, "batch_size": KINDS},
}
STAGES = ("read", "waited", "vision", "store", "compress", "prefill", "decode")
ANSWER = ("doc_id", "prediction", "score", "kept", "prompt_sha256")


@dataclass
class Way:
    """One way with its loaded model, and the seconds of its turns, without loading the model and the task."""

    model: Any
    folder: Path
    turns: list[float] = field(default_factory=list)

    def records(self) -> list[dict[str, Any]]:
        """One row a question, as the run's folder has it."""
        (path,) = self.folder.glob("*/samples.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    """Exit status 1 where records differ."""
    parser = argparse.ArgumentParser(prog="python benchmarks/pipeline.py", description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--method", default="visionzip")
    parser.add_argument("--retention", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--pretrained", default="testbed")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    videos = -(-args.questions // KINDS) + 1  # the last one is to warm up on
    os.environ.update(OMP_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="false")
    os.environ["CACOVID_TESTBED_VIDEOS"] = str(videos)
    given = {"pretrained": args.pretrained, "device": args.device, "retention": args.retention}
    with TemporaryDirectory() as scratch:
        ways = {name: _load(Path(scratch) / name, args.method, {**given, **way}) for name, way in WAYS.items()}
        for way in ways.values():
            _evaluate(way, args.method, KINDS * (videos - 1), KINDS)
            way.turns.clear()
        starts = range(0, args.questions, TURN)
        for number, start in enumerate(tqdm(starts, unit="turn")):
            first = number % len(ways)  # none is always behind the same other one
            for way in [*ways.values()][first:] + [*ways.values()][:first]:
                _evaluate(way, args.method, start, min(TURN, args.questions - start))
        rows = {name: [r for r in w.records() if r["doc_id"] < args.questions] for name, w in ways.items()}
    print(_table(ways, rows))
    whole = [
        [{k: v for k, v in row.items() if k not in ("seconds", "written")} for row in some] for some in rows.values()
    ]
    answers = [[[row[k] for k in ANSWER] for row in some] for some in rows.values()]
    alone = [some for some, way in zip(whole, WAYS.values(), strict=True) if "batch_size" not in way]
    complete = all(len(some) == args.questions for some in whole)
    same = complete and all(some == alone[0] for some in alone) and all(some == answers[0] for some in answers)
    print("records: " + ("the same" if same else "NOT the same"))
    return 0 if same else 1


def _load(folder: Path, method: str, given: dict[str, Any]) -> Way:
    import torch

    from cacovid.lmms import models

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return Way(getattr(models, f"chat__llava_ov__{method}")(**given, results_dir=str(folder)), folder)


def _evaluate(way: Way, method: str, offset: int, limit: int) -> None:
    """One turn of a way."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from cacovid.lmms import tasks_dir

    answer = type(way.model).generate_until

    def timed(requests: list[Any]) -> Any:
        start = time.perf_counter()
        try:
            return answer(way.model, requests)
        finally:
            way.turns.append(time.perf_counter() - start)

    way.model.generate_until = timed
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False, model_name=f"{method}_llava_ov")
    simple_evaluate(
        way.model,
        tasks=["evidence_vqa"],
        offset=offset,
        limit=limit,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
    )


def _table(ways: dict[str, Way], rows: dict[str, list[dict[str, Any]]]) -> str:
    base = next(iter(ways.values())).turns
    lines = [
        "milliseconds a question; read: by the readers, waited: for what they read ahead; each question of a batch has",
        "the batch's prefill and decode",
        "",
        "| | all | " + " | ".join(STAGES) + " | times as fast |",
        "|---|" + "---|" * (len(STAGES) + 2),
    ]
    for name, way in ways.items():
        count = len(rows[name])
        values = [sum(row["seconds"].get(stage, 0.0) for row in rows[name]) for stage in STAGES]
        shown = [f"{1000 * value / count:.1f}" for value in (sum(way.turns), *values)]
        faster = [plain / own for plain, own in zip(base, way.turns, strict=True)]
        spread = f"{sum(base) / sum(way.turns):.2f} ({min(faster):.2f} to {max(faster):.2f})"
        lines.append(f"| {name} | {' | '.join(shown)} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
