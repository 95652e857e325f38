"""How long a plan will keep its devices busy: from what finished cells took, else from FLOPs at a stated rate."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from cacovid.backbones.loading import checkpoint_folder
from cacovid.errors import BudgetError, MethodError
from cacovid.lmms.arguments import parse_arguments
from cacovid.records import VideoTokens
from cacovid.runs.digest import canonical, digest
from cacovid.sizes import SIZES, Sizes, synthetic_video
from cacovid.solve import Cost
from sweeps.cells import Cell
from sweeps.jobs import Job
from sweeps.plan import Plan
from sweeps.settings import Backbone, ConfigError

TFLOPS = 100.0
"""Rate that is assumed of a GPU unless told otherwise: a third of what an A100 can do in bfloat16 at most (312)."""
ANSWER = 4
"""Tokens of an answer: a letter, or a few words."""


@dataclass
class Estimate:
    """Seconds of one device each. An estimate is a sum of what is known; `unknown` says what is not in it."""

    measured: float = 0.0  # cells whose backbone and task have finished cells in the folder
    finished: set[str] = field(default_factory=set)  # the latter's ids
    vision: float = 0.0  # of the others, by FLOPs: vision tower
    llm: float = 0.0  # prefill and decode
    assumed: set[str] = field(default_factory=set)
    unknown: Counter[str] = field(default_factory=Counter)  # reason -> cells

    @property
    def hours(self) -> float:
        return (self.measured + self.vision + self.llm) / 3600


class _Unknown(Exception):
    """Why there is no figure."""


def estimate(plan: Plan, tflops: float | None = None) -> Estimate:
    """Of the plan's jobs, at `tflops` (TFLOP/s achieved by one device). Raises ConfigError for unknown sizes."""
    total = Estimate()
    measured = _measured(plan)
    encoded: set[tuple[str, str]] = set()
    for job in plan.jobs:
        group = _group(job.cells[0])
        try:
            questions = share(job, job.cells[0].task.documents)
            if questions is None:
                raise _Unknown(f"task {job.cells[0].task.name}: documents= is not given")
            if group in measured:
                rate, finished = measured[group]
                total.measured += rate * questions * len(job.cells)
                total.finished |= finished
                continue
            sizes, speed = _sizes(job.cells[0].backbone), _speed(job.cells[0].backbone, tflops)
            for cell, flops in _llm(job, sizes, total):
                total.llm += questions * flops / speed
                if plan.sweep.store.kind == "off":
                    total.vision += questions * sizes.vision.video(_frames(cell, sizes), sizes.grid) / speed
            if plan.sweep.store.kind != "off" and (group, job.shard.name) not in encoded:
                encoded.add((group, job.shard.name))
                videos = share(job, job.cells[0].task.videos)
                if videos is None:
                    total.assumed.add(f"a video for every question of {job.cells[0].task.name}")
                frames = _frames(job.cells[0], sizes)
                total.vision += (
                    (questions if videos is None else videos) * sizes.vision.video(frames, sizes.grid) / speed
                )
        except _Unknown as error:
            total.unknown[str(error)] += len(job.cells)
    return total


def _group(cell: Cell) -> str:
    return digest([asdict(cell.backbone), asdict(cell.task)])


def _measured(plan: Plan) -> dict[str, tuple[float, set[str]]]:
    """Backbone and task -> seconds a sample of their finished cells, and which those are."""
    seconds, samples, cells = Counter[str](), Counter[str](), dict[str, set[str]]()
    for cell in plan.cells:
        for event in plan.state(cell).done.values():
            seconds[_group(cell)] += event["seconds"]
            samples[_group(cell)] += event["counts"]["asked"]
            cells.setdefault(_group(cell), set()).add(cell.id)
    return {group: (seconds[group] / count, cells[group]) for group, count in samples.items() if count}


def share(job: Job, whole: int | None) -> int | None:
    """The job's stretch of `whole` documents or videos, as far as its task goes."""
    task = job.cells[0].task
    if whole is None:
        return None
    if task.limit is not None and task.documents is not None:
        whole = min(whole, -(-whole * task.limit // task.documents))
    return job.shard.span(whole)[1]


def _sizes(backbone: Backbone) -> Sizes:
    if backbone.sizes is not None:
        if backbone.sizes not in SIZES:
            raise ConfigError(f"sizes={backbone.sizes!r} of a backbone; known: {', '.join(SIZES)}")
        return SIZES[backbone.sizes]
    folder = checkpoint_folder(backbone.pretrained)
    if not Path(folder, "config.json").is_file():
        raise _Unknown(f"{backbone.pretrained}: its backbone has no sizes=, and it is no folder to read them from")
    from transformers import AutoConfig

    return Sizes.from_config(AutoConfig.from_pretrained(folder))


def _speed(backbone: Backbone, tflops: float | None) -> float:
    """FLOP/s."""
    if tflops is None and backbone.device == "cpu":
        raise _Unknown("device=cpu: give --tflops, what this processor achieves")
    return 1e12 * (TFLOPS if tflops is None else tflops)


def _frames(cell: Cell, sizes: Sizes) -> int:
    """Frames of tokens."""
    return sizes.token_frames(int(cell.arguments.get("max_frames_num") or sizes.frames))


def _llm(job: Job, sizes: Sizes, total: Estimate) -> Iterator[tuple[Cell, float]]:
    """FLOPs of one question in the LLM, for every cell where they are known; the others are counted as unknown."""
    for cell in job.cells:
        try:
            yield cell, _question(cell.method, canonical(cell.model_args), sizes)
        except (BudgetError, MethodError) as error:
            reason = " ".join(str(error).split("; ")[0].split())
            total.unknown[f"{cell.label} at r={cell.arguments['retention']:g}: {reason}"] += 1


@cache
def _question(method: str, arguments: str, sizes: Sizes) -> float:
    """FLOPs in the LLM for model arguments as JSON text. Under another budget than nominal, as if r N tokens were in
    every layer: they cost about as much."""
    given, shape = json.loads(arguments), sizes.decoder
    video = _video(sizes.token_frames(given.get("max_frames_num") or sizes.frames), sizes.grid, shape.width)
    text = video.rows - len(video)
    if given["budget"] == "nominal":
        layers = parse_arguments(method, given)[1].schedule(video, shape.layers)
    else:
        layers = [round(given["retention"] * len(video))] * shape.layers
    steps = [[tokens + text + step for tokens in layers] for step in range(1, ANSWER)]
    return Cost(shape, text).prefill(layers) + shape.decode(steps)


@cache
def _video(frames: int, grid: tuple[int, int], width: int) -> VideoTokens:
    return synthetic_video(frames, grid, width)
