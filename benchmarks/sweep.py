"""A sweep that loads the model once and encodes each video once, against the same cells one by one.

`python benchmarks/sweep.py [--videos 4]` runs twelve cells of the test bed three times, on one process and one thread
each: as twelve `lmms-eval` commands, as a sweep without a store, and as a sweep with one; it prints their times, the
ratios, and how often a video was decoded and encoded. The answers of all three must be the same.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cacovid.lmms import tasks_dir
from sweeps.folder import Folder

METHODS = ("uniform", "divprune", "visionzip")
RATIOS = (0.25, 0.2, 0.15, 0.1)


def main() -> int:
    """Exit status 1 where answers differ."""
    parser = argparse.ArgumentParser(prog="python benchmarks/sweep.py", description=__doc__)
    parser.add_argument("--videos", type=int, default=4, help="test videos, seven questions each (default: 4)")
    videos = parser.parse_args().videos
    os.environ.update(OMP_NUM_THREADS="1", CACOVID_TESTBED_VIDEOS=str(videos), TOKENIZERS_PARALLELISM="false")
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        _sweep(root / "warm", "memory", 1, "method=full")  # the videos are made, the files are in the system's cache
        commands = _timed(lambda: _one_by_one(root / "commands"))
        off = _timed(lambda: _sweep(root / "off", "off", videos))
        disk = _timed(lambda: _sweep(root / "disk", "disk", videos))
        answers = [_answers(root / name) for name in ("commands", "off/runs", "disk/runs")]
        counted: Counter[str] = Counter()
        for event in Folder(root / "disk").read_events():
            counted.update(event.get("videos", {}))
    cells = len(METHODS) * len(RATIOS)
    print(f"{cells} cells of {7 * videos} questions on {videos} videos, one thread")
    print("| | seconds | times as long |\n|---|---|---|")
    for name, seconds in (("one lmms-eval command a cell", commands), ("sweep, store off", off), ("sweep", disk)):
        print(f"| {name} | {seconds:.0f} | {seconds / disk:.1f} |")
    print(
        f"sweep with store: {counted['decoded']} videos decoded, {counted['encoded']} encoded, {counted['hits']} hits"
    )
    same = answers[0] == answers[1] == answers[2]
    print("answers of all three: " + ("the same" if same else "NOT the same"))
    return 0 if same else 1


def _timed(do: Callable[[], None]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _one_by_one(results: Path) -> None:
    for method in METHODS:
        for ratio in RATIOS:
            arguments = f"pretrained=testbed,device=cpu,retention={ratio},results_dir={results}"
            command = ["--model", f"{method}_llava_ov", "--model_args", arguments, "--tasks", "evidence_vqa"]
            _run("lmms_eval", *command, "--include_path", str(tasks_dir()), "--batch_size", "1")


def _sweep(results: Path, store: str, videos: int, *overrides: str) -> None:
    rows = overrides or (f"method={','.join(METHODS)}", f"retention={','.join(map(str, RATIOS))}")
    environment = f"tasks.evidence_vqa.environment.CACOVID_TESTBED_VIDEOS={videos}"
    _run(
        "sweeps",
        "run",
        f"--results={results}",
        "executor=debug",
        "executor.threads=1",
        f"store={store}",
        environment,
        *rows,
    )


def _run(module: str, *arguments: str) -> None:
    out = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} ended with {out.returncode}:\n{out.stdout}\n{out.stderr}")


def _answers(folder: Path) -> dict[tuple[str, int], object]:
    found = {}
    for path in folder.glob("**/samples.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            found[path.parent.name, row["doc_id"]] = (row["prediction"], row["kept"])
    return found


if __name__ == "__main__":
    sys.exit(main())
