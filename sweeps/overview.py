"""What `python -m sweeps status` shows, as data: how far every cell is, samples, rate, time left."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from sweeps.folder import CellState, Folder, states
from sweeps.live import QueueError, breathes, submitted
from sweeps.progress import progress
from sweeps.shards import Shard

Status = Literal["done", "running", "queued", "failed", "lost", "waiting"]
"""How far a cell is.

done: its finished shards hold all documents. Else the first that holds for a shard of it: running; queued: its job is
pending in Slurm's queue; failed: its last start ended in an error; lost: it was started, did not end, and its worker no
longer lives; waiting: none of these.
"""

Event = dict[str, Any]


@dataclass(frozen=True)
class CellView:
    """One cell of the last call's grid."""

    id: str
    label: str
    backbone: str
    task: str
    retention: float | None
    status: Status
    samples: int  # of its finished shards
    expected: int | None  # None: the size of its task is not known yet
    unanswered: dict[str, int]  # failure reason, e.g. truncated or quarantined -> samples of its finished shards
    metrics: dict[str, float | None] | None  # lmms-eval's, of all its samples; None: it is not done


@dataclass(frozen=True)
class FailedShard:
    """Why a cell failed on one stretch of its documents."""

    cell: str
    label: str
    shard: str
    error: str
    trace: str
    events: str  # file that tells it, in the sweep's folder


@dataclass(frozen=True)
class Overview:
    """A sweep at one moment."""

    folder: str
    cells: list[CellView]
    counts: dict[Status, int]
    older: dict[str, int]  # cells of earlier calls alone: done, unfinished
    samples: int  # of finished shards, and of runs that are at work or were cut off in it
    expected: int | None  # None: the size of a task is not known yet
    rate: float | None  # samples a second of late; None: none came
    seconds_left: float | None  # at that rate, failed cells aside; None: unknown, or nothing is at work
    unanswered: dict[str, int]  # failure reason -> samples of finished shards, most first
    waits: dict[str, int]  # why Slurm has jobs pending, in its words -> jobs
    failed: list[FailedShard]


def overview(folder: Folder, now: datetime | None = None) -> Overview:
    """The state of a sweep's folder. Raises FolderError where there is none."""
    now = now or datetime.now(UTC)
    sweep = folder.read()
    known = states(folder.read_events())
    last = set(sweep["grid"])
    grid = [cell for cell in sweep["cells"] if cell["id"] in last]
    sizes = _sizes(sweep["cells"], known)
    pending, waits = pending_shards(folder)
    alive = liveness(folder)
    cells = [_view(cell, known.get(cell["id"], CellState()), sizes, alive, pending) for cell in grid]
    mine = [(cell, known[cell["id"]]) for cell in grid if cell["id"] in known]
    starts = [event["time"] for _, state in mine for event in state.started.values()]
    opened = datetime.fromisoformat(min(starts)) if starts else None
    moving = progress(folder, (event for state in known.values() for event in state.done.values()), opened, now)
    counts = Counter(view.status for view in cells)
    expected = [view.expected for view in cells]
    open_samples = sum((view.expected or 0) - view.samples for view in cells if view.status not in ("done", "failed"))
    samples = sum(view.samples for view in cells) + moving.samples
    whole = None if None in expected else sum(size or 0 for size in expected)
    left = max(0, open_samples - moving.samples)
    earlier = [known.get(cell["id"], CellState()).covers("1-of-1") for cell in sweep["cells"] if cell["id"] not in last]
    unanswered: Counter[str] = sum((Counter(view.unanswered) for view in cells if view.unanswered), Counter())
    broken = [(cell, state) for cell, state in mine if state.failed and not state.covers("1-of-1")]
    return Overview(
        folder=str(folder.path),
        cells=cells,
        counts={status: counts[status] for status in ("done", "running", "queued", "failed", "lost", "waiting")},
        older={"done": sum(earlier), "unfinished": len(earlier) - sum(earlier)},
        samples=samples,
        expected=whole,
        rate=moving.rate,
        seconds_left=left / moving.rate if moving.rate and whole is not None and counts["running"] else None,
        unanswered=dict(unanswered.most_common()),
        waits=waits,
        failed=[shard for cell, state in broken for shard in _failures(cell, state)],
    )


def liveness(folder: Folder) -> Callable[[Event], bool]:
    """Whether the worker that wrote an event lives; each is looked at once."""

    @cache
    def look(job: str, worker: int) -> bool:
        return breathes(folder.alive(job, worker))

    return lambda event: look(event["job"], event["worker"])


def pending_shards(folder: Folder) -> tuple[dict[str, set[str]], dict[str, int]]:
    """Cell id -> shards that wait in Slurm's queue, and its reasons -> jobs; none where it does not answer: the rest
    can be told without it."""
    out: dict[str, set[str]] = {}
    waits: Counter[str] = Counter()
    try:
        rows = submitted(folder)
    except QueueError:
        return out, waits
    for some in rows:
        if some.state == "PENDING":
            waits[str(some.reason)] += 1
            told = json.loads(folder.job(some.row["job"]).read_bytes())
            for cell in told["cells"]:
                out.setdefault(cell["id"], set()).add(Shard(**told["shard"]).name)
    return out, dict(waits)


def _view(
    cell: dict[str, Any],
    state: CellState,
    sizes: dict[str, int],
    alive: Callable[[Event], bool],
    pending: dict[str, set[str]],
) -> CellView:
    status: Status
    if state.covers("1-of-1"):
        status = "done"
    elif any(map(alive, state.started.values())):
        status = "running"
    elif not all(map(state.covers, pending.get(cell["id"], ()))):
        status = "queued"
    elif state.failed:
        status = "failed"
    else:
        status = "lost" if state.started else "waiting"
    finished = [state.done[shard] for shard in state.disjoint()]
    return CellView(
        id=cell["id"],
        label=cell["label"],
        backbone=cell["backbone"]["pretrained"].rstrip("/").rpartition("/")[2],
        task=cell["task"]["name"],
        retention=cell["arguments"].get("retention"),
        status=status,
        samples=sum(event["counts"]["answered"] + event["counts"]["failed"] for event in finished),
        expected=sizes.get(_task(cell)),
        unanswered=dict(sum((Counter(event["reasons"]) for event in finished if event["reasons"]), Counter())),
        metrics=state.metrics,
    )


def _task(cell: dict[str, Any]) -> str:
    task = cell["task"]
    return json.dumps([task["name"], task["limit"], task["environment"]])


def _sizes(cells: list[dict[str, Any]], known: dict[str, CellState]) -> dict[str, int]:
    """Documents that a cell of each task answers: as a finished shard tells, else as the configuration says."""
    sizes: dict[str, int] = {}
    for cell in cells:
        key, limit = _task(cell), cell["task"]["limit"]
        told = [event["counts"]["documents"] for event in known.get(cell["id"], CellState()).done.values()]
        for size in (*told, *([] if key in sizes else [cell["task"]["documents"]])):
            if size is not None:
                sizes[key] = size if limit is None else min(size, limit)
                break
    return sizes


def _failures(cell: dict[str, Any], state: CellState) -> Iterator[FailedShard]:
    for shard, event in state.failed.items():
        file = f"events/{event['job']}.{event['worker']}.jsonl"
        yield FailedShard(cell["id"], cell["label"], shard, event["error"], event["trace"], file)
