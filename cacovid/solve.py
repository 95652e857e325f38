"""Budget modes: from what r shall mean to the retention ratio at which a method meets it.

`nominal` is r as the method's paper counts it. For `layer_average` and `flops` the method's own r is solved, video
by video, by bisection over whole tokens, so that the figure comes as near to r N as a token allows.
"""

from dataclasses import dataclass

from cacovid.budget import BudgetMode, Measure, tokens_to_keep
from cacovid.errors import FloorError
from cacovid.flops import DecoderShape
from cacovid.method import Method
from cacovid.records import VideoTokens


@dataclass(frozen=True, slots=True)
class Plan:
    """How one video is to be compressed, and what its audit asks for."""

    method: Method  # at the retention ratio that meets the budget
    budget: int  # what its hooks are given
    asked: int  # round(r N)
    measure: Measure
    slack: float
    lenient: bool  # a miss is marked, not refused

    @classmethod
    def nominal(cls, method: Method, video: VideoTokens) -> "Plan":
        """r as the method counts it."""
        budget = method.budget(len(video))
        return cls(method, budget, budget, method.means, method.slack(video), method.adaptive)


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of the prefill of one sample as video tokens: see the measure `flops`."""

    shape: DecoderShape
    text: int  # rows that are not video tokens

    def prefill(self, schedule: list[int], fed: list[int] | None = None) -> float:
        """Of an LLM that computes these numbers of video tokens in its layers, `fed` of them feed-forward."""
        rows, into = ([self.text + n for n in counts] for counts in (schedule, fed or schedule))
        return float(self.shape.prefill(rows, into))

    def evenly(self, tokens: float) -> float:
        """The same number of video tokens in every layer; a linear mix between whole ones."""
        low, high = (self.prefill([int(tokens) + more] * self.shape.layers) for more in (0, 1))
        return low + (tokens - int(tokens)) * (high - low)

    def tokens(self, flops: float, most: int) -> float:
        """Video tokens, the same in every layer, that cost `flops`; the bisection is to a thousandth of a token."""
        low, high = 0.0, float(most)
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (middle, high) if self.evenly(middle) < flops else (low, middle)
        return (low + high) / 2


def plan(method: Method, video: VideoTokens, shape: DecoderShape, mode: BudgetMode, encoder: int = 0) -> Plan:
    """How `method` meets its retention ratio in `mode`; `encoder` = FLOPs of what it needs from the vision tower.

    The realised figure may be half a token a frame from r N, or as much as the method's own rounding; a miss is
    marked. Where the floor of the method is above that, FloorError says it: with one token left after its last cut
    it still computes more than r N.
    """
    if mode == "nominal" or method.retention == 1 or (mode == "layer_average" and method.means == mode):
        return Plan.nominal(method, video)
    total = len(video)
    asked = tokens_to_keep(method.retention, total)
    cost = Cost(shape, video.rows - len(video))

    def at(budget: int) -> Method:
        return method.at(budget / total)

    def figure(budget: int) -> float:
        candidate = at(budget)
        schedule = candidate.schedule(video, shape.layers)
        if mode == "layer_average":
            return sum(schedule) / len(schedule)
        flops = cost.prefill(schedule, candidate.fed(schedule)) + candidate.lookup_flops(video, shape)
        flops += candidate.compressor_flops(video, candidate.budget(total)) + encoder
        return cost.tokens(flops, 2 * total)

    low, high = 1, total  # figure(low) <= asked < figure(high), once the ends are looked at
    slack = max(video.frames / 2, method.slack(video))
    if (floor := figure(low)) > asked + slack:
        raise FloorError(
            floor / total,
            f"{type(method).__name__} cannot meet retention={method.retention:g} as {mode}: with one token left it "
            f"still computes {floor / total:.4g} of {total} video tokens; ask for retention >= {floor / total:.4g}, "
            f"choose an earlier layer, or use budget=nominal",
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if figure(middle) <= asked else (low, middle)
    budget = min((low, high), key=lambda b: abs(figure(b) - asked))
    solved = at(budget)
    return Plan(solved, solved.budget(total), asked, mode, slack, lenient=True)
