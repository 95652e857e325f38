"""`python benchmarks/sweep_scale.py`: seconds and memory of `sweeps status` and `sweeps collect` on big sweeps.

`status`: 10,000 cells in 4 shards, run by 200 jobs, with 8 workers at work. `collect`: 1,000,000 samples in 100 runs,
rows of the real layout with the lists of kept tokens of r = .25/.20/.15/.10 of 6,272 (about 9 GB; `--rows` makes
fewer). Each command is timed in a process of its own, start of the interpreter included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_sweeps import (
    made_cell,
    made_event,
    made_sample,
    made_settings,
    seconds_after,
    write_events,
    write_job,
    write_run,
    write_sweep,
)

RATIOS = (0.25, 0.2, 0.15, 0.1)


def main() -> int:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["status", "collect"], help="default: both")
    parser.add_argument("--cells", type=int, default=10_000, help="for status (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="for collect (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="for collect (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="make the sweeps here and keep them; taken as they are if there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.folder or Path(scratch)
        if args.only != "collect":
            folder = root / f"status-{args.cells}"
            if not folder.exists():
                make_status(folder, args.cells)
            touch_alive(folder)
            timed("status", str(folder))
        if args.only != "status":
            folder = root / f"collect-{args.rows}-{args.runs}"
            if not folder.exists():
                make_collect(folder, args.rows, args.runs)
            timed("collect", str(folder), "-o", str(root / "collected"))
    return 0


def timed(*words: str) -> None:
    """Run `python -m sweeps ...` and print what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-m", "sweeps", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if out.returncode:
        sys.exit(f"sweeps {words[0]} ended with {out.returncode}: {out.stderr}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(out.stdout.rstrip())
    print(
        f"{words[0]}: {seconds:.2f} s, {processor:.2f} s of processor time, largest process "
        f"{after.ru_maxrss / 2**20:.2f} GiB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def make_status(path: Path, cells: int, shards: int = 4, groups: int = 50, workers: int = 8) -> None:
    """A sweep half done: jobs of `cells / groups` cells for each shard, and `workers` workers at work."""
    made = [
        made_cell(n, f"row {n // 4 % (cells // groups // 4)}", RATIOS[n % 4], method=f"method{n % 50}")
        for n in range(cells)
    ]
    folder = write_sweep(path, made)
    now = datetime.now(UTC)
    size = cells // groups
    for group in range(groups):
        mine = made[group * size : (group + 1) * size]
        for shard in range(shards):
            name, job = f"{shard + 1}-of-{shards}", f"{group * shards + shard:012x}"
            write_job(folder, job, mine, (shard, shards))
            live = group * shards + shard < workers
            done = mine[: size // 2] if live else mine if group < groups // 2 else mine[: size // 4]
            events = []
            for number, cell in enumerate(done):
                at = now - timedelta(seconds=60 * (len(done) - number))
                events += [made_event("start", cell["id"], name, at - timedelta(seconds=50))]
                failed = number % 97 == 96
                events += [made_event("failed", cell["id"], name, at) if failed else _done(cell["id"], name, at)]
                settings = made_settings(int(cell["id"], 16))
                run = folder.runs(name) / cell["id"]
                run.mkdir(parents=True)
                attempt = {"started": seconds_after(-50, at), "ended": seconds_after(0, at), "computed": 10}
                state = "failed" if failed else "done"
                (run / "run.json").write_text(json.dumps({"id": settings.id, "state": state, "attempts": [attempt]}))
                (run / "samples.jsonl").write_text("")
            if live:
                events.append(made_event("start", mine[size // 2]["id"], name, now - timedelta(seconds=20)))
                rows = [made_sample(n, written=seconds_after(n - 20, now)) for n in range(20)]
                settings = made_settings(int(mine[size // 2]["id"], 16))
                write_run(
                    folder.runs(name),
                    settings,
                    rows,
                    asked=range(100),
                    state="running",
                    started=seconds_after(-20, now),
                )
            write_events(folder, job, events)


def _done(cell: str, shard: str, at: datetime) -> dict[str, object]:
    counts = {"documents": 40, "asked": 10, "answered": 10, "failed": 0, "missing": 0}
    return made_event("done", cell, shard, at, counts=counts)


def touch_alive(path: Path) -> None:
    """The workers that make_status left at work live."""
    for number in range(8):
        (path / "events" / f"{number:012x}.0.alive").touch()


def make_collect(path: Path, rows: int, runs: int) -> None:
    """Run directories with `rows` samples in all."""
    each = rows // runs
    lines = [json.dumps(made_sample(10**9, r)) for r in RATIOS]
    written = json.loads(lines[0])["written"]
    for number in range(runs):
        retention = RATIOS[number % 4]
        settings = made_settings(number, fields={"retention": retention, "seed": number})
        folder = write_run(path, settings, [], asked=range(each))
        head, _, tail = lines[number % 4].partition('"doc_id": 1000000000, "doc_sha256": "')
        tail = tail[64:].replace(written, "{written}")
        with open(folder / "samples.jsonl", "w") as file:
            for document in range(each):
                now = seconds_after(document)
                file.write(f'{head}"doc_id": {document}, "doc_sha256": "{document:064x}')
                file.write(tail.replace("{written}", now) + "\n")


if __name__ == "__main__":
    sys.exit(main())
