"""A block: all rows of one backbone, number of frames and batch size, timed in turns, so that drift hits all alike."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from tqdm import tqdm

from cacovid.backbones import Backbone
from cacovid.budget import BudgetMode, Spent
from cacovid.method import Method
from cacovid.records import Need
from cacovid.video import Clip
from sweeps.latency.clock import StageTimer, wall_clock
from sweeps.latency.inputs import Question
from sweeps.latency.memory import PeakMemory, is_out_of_memory
from sweeps.latency.passes import Seen, plans_of, read, reply, see, spent_of, whole
from sweeps.latency.settings import Protocol

Status = Literal["measured", "out_of_memory", "failed", "not_measured"]


@dataclass(eq=False)
class Entry:
    """A row of the table, and what was measured of it: one value a round in each list of `seconds`."""

    label: str
    name: str  # of the method, in the registry
    method: Method
    retention: float
    budget: BudgetMode = "nominal"
    key: str = ""  # of the configuration, code and machine
    stand_ins: dict[str, str] = field(default_factory=dict)  # fields whose weights were made for the run, in words
    status: Status = "not_measured"
    reason: str | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    spent: list[Spent] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # bytes
    memory: PeakMemory | None = None  # the last one: how it was measured, or why not

    def give_up(self, status: Status, reason: str) -> None:
        """Nothing that was measured of it counts."""
        self.status, self.reason = status, reason
        self.seconds, self.spent, self.peaks, self.memory = {}, [], [], None


def turns(entries: list[Entry], round_: int) -> list[Entry]:
    """The order of a round: every other round is the one before it backwards, and each such pair starts one place on.

    A row's mean place in a pair is the middle, so that steady drift is the same for all.
    """
    start = round_ // 2 % max(len(entries), 1)
    order = entries[start:] + entries[:start]
    return order[::-1] if round_ % 2 else order


class Block:
    """Measures entries in place."""

    def __init__(
        self,
        backbone: Backbone,
        entries: list[Entry],
        inputs: list[list[Question]],
        frames: int,
        protocol: Protocol,
        *,
        until: float = float("inf"),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`inputs`: protocol.warmup + protocol.repeats batches. `until`: the moment of `now` at which to stop."""
        self._backbone, self._entries, self._frames, self._protocol = backbone, entries, frames, protocol
        self._warm, self._timed = inputs[: protocol.warmup], inputs[protocol.warmup :]
        self._until, self._now = until, now

    def measure(self) -> None:
        """Warm up, in order, as many entries as there is time to repeat; then the rounds.

        An entry that runs out of memory or fails is marked, and the others go on.
        """
        name = f"batch {len(self._timed[0])}"
        with tqdm(total=len(self._entries), desc=f"{name}, warm-up", unit="row") as bar:
            ready, round_s = self._warm_up(bar)
        with tqdm(total=len(self._timed) * len(ready), desc=name, unit="pass") as bar:
            for number, questions in enumerate(self._timed):
                start = self._now()
                if number and start + round_s > self._until:
                    break
                self._round(turns(ready, number), questions, bar)
                ready = [entry for entry in ready if entry.status == "measured"]
                round_s = self._now() - start
        for entry in ready:
            if (n := len(next(iter(entry.seconds.values()), []))) < len(self._timed):
                entry.reason = f"limit_s: {n} of {len(self._timed)} repeats"

    def _warm_up(self, bar: tqdm) -> tuple[list[Entry], float]:
        """The entries whose repeats fit into the time, and seconds that a round of them takes."""
        ready: list[Entry] = []
        seen: set[frozenset[Need]] = set()
        round_s = 0.0
        for entry in self._entries:
            left = self._until - self._now()
            if left <= 0 or (ready and round_s * len(self._timed) > left):
                entry.give_up("not_measured", "limit_s: no time was left for this row")
                bar.update()
                continue
            cost = 0.0
            with marking(entry):
                for questions in self._warm:
                    start = self._now()
                    vision = self._see(entry, questions, self._read(questions))
                    between = self._now()
                    self._pass(entry, questions, vision)
                    cost = self._now() - (between if entry.method.needs in seen else start)
            entry.seconds, entry.spent, entry.peaks = {}, [], []
            bar.update()
            if entry.status != "not_measured":  # failed
                continue
            if ready and (round_s + cost) * len(self._timed) > self._until - self._now():
                entry.give_up("not_measured", "limit_s: its repeats would not have fitted into the time")
                continue
            ready.append(entry)
            seen.add(entry.method.needs)
            round_s += cost
            entry.status = "measured"
        return ready, round_s

    def _round(self, order: list[Entry], questions: list[Question], bar: tqdm) -> None:
        """Files are read once, and the vision side runs once for all entries that need the same of it; each entry is
        booked their times."""
        shared: dict[frozenset[Need], tuple[Seen, dict[str, float]]] = {}
        clips = self._read(questions)
        for entry in order:
            with marking(entry):
                needs = entry.method.needs
                if needs not in shared:
                    shared[needs] = self._see(entry, questions, clips)
                self._pass(entry, questions, shared[needs])
            bar.update()

    def _read(self, questions: list[Question]) -> tuple[list[Clip], dict[str, float]]:
        timer = StageTimer(self._backbone.device)
        return read(questions, self._frames, timer), timer.seconds

    def _see(
        self, entry: Entry, questions: list[Question], clips: tuple[list[Clip], dict[str, float]]
    ) -> tuple[Seen, dict[str, float]]:
        timer = StageTimer(self._backbone.device)
        seen = see(self._backbone, entry.method.needs, questions, clips[0], timer)
        return seen, {**clips[1], **timer.seconds}

    def _pass(self, entry: Entry, questions: list[Question], vision: tuple[Seen, dict[str, float]]) -> None:
        """The stages apart, and then the whole."""
        seen, before = vision
        steps, backbone = self._protocol.decode_tokens, self._backbone
        plans = plans_of(backbone, entry.method, entry.budget, seen.videos)
        timer = StageTimer(backbone.device)
        done = reply(backbone, plans, seen, steps, timer)
        spent = spent_of(backbone, plans, seen, done)
        del done
        seconds = {**before, **timer.seconds}
        if self._protocol.end_to_end:
            entry.memory = PeakMemory(backbone.device)
            with entry.memory:
                start = wall_clock(backbone.device)
                whole(backbone, plans, questions, self._frames, steps)
                seconds["end_to_end"] = wall_clock(backbone.device) - start
            if entry.memory.above is not None:
                entry.peaks.append(entry.memory.above)
        entry.spent += spent
        for stage, value in seconds.items():
            entry.seconds.setdefault(stage, []).append(value)


@contextmanager
def marking(entry: Entry) -> Iterator[None]:
    """Turn an error of a method into the state of its row; what is no `Exception` goes through."""
    try:
        yield
    except Exception as error:  # a third party's method may raise anything, and hours may lie behind
        memory = is_out_of_memory(error)
        words = " ".join(str(error).split())
        entry.give_up("out_of_memory" if memory else "failed", f"{type(error).__name__}: {words[:500]}")
        error.__traceback__ = None  # its frames hold the tensors
        if memory:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
