"""FrameFusion: similar tokens merge over time in the first LLM layers, what is left is pruned once by attention."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Final, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from baselines._framefusion_calls import Progress, chain_similarity, merging_call, need, pruning_call
from cacovid.budget import Measure
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method, Positions
from cacovid.records import LayerCut, VideoTokens
from cacovid.select import even_quota
from cacovid.state import PrefillState

Model = Literal["llava_video", "minicpm_v", "nvila", "internvl", "qwen2_vl", "testbed", "testbed_qwen2_5_vl"]

SIMILARITIES: Final[dict[Model, float]] = {
    "llava_video": 0.6,
    "minicpm_v": 0.7,
    "nvila": 0.7,
    "internvl": 0.5,
    "qwen2_vl": 0.5,
    "testbed": 0.99994,
    "testbed_qwen2_5_vl": 0.99961,
}
"""Similarity thresholds by model: the authors' (script/playground/ of their repository), and ours for the test beds.
LLaVA-OneVision has none there; `median_similarity` is the rule that they give for other models, and what
`python -m baselines.framefusion --pretrained testbed --split train --videos 32` prints."""


@dataclass(slots=True)
class Run:
    """One sample's passage through the LLM."""

    entering: int  # video tokens at the first call
    progress: Progress = field(default_factory=Progress)
    spent: int = 0  # video tokens computed by the layers whose count is set


@dataclass(frozen=True, kw_only=True)
class FrameFusion(Method):
    """Merge each patch with its like in the frame before in the first LLM layers, then prune once by attention.

    A merging call joins tokens whose hidden states have a cosine of at least `similarity` with the same patch's token
    before them. The first is made on the LLM's input, the next ones after the attention of layer 0, 1, ..., as long
    as each joins `merge_ratio` of the tokens; one call later the tokens with the least attention of the last prompt
    row go. r is the mean over the LLM's layers: deep layers hold fewer than r. Positions stay the original ones.

    Ours differs: the budget counts this model's layers (28 in the release) and is met to one token; scores and sums
    are float32; where merging is too slow for the budget the release stops with an error, ours prunes early, in the
    call after which one token a layer could not be paid any more (`overrun`).
    """

    similarity: float | Model = 0.6  # threshold on the cosine, inclusive, or the model to take it of
    merge_ratio: float = 0.1  # a call that merges a smaller share of the tokens is the last one
    overrun: Literal["prune", "refuse"] = "prune"  # "refuse" as released

    source: ClassVar[str] = "FrameFusion (arXiv 2501.01986, ICCV 2025, github.com/thu-nics/FrameFusion)"
    positions: ClassVar[Positions] = "original"
    means: ClassVar[Measure] = "layer_average"

    def __post_init__(self) -> None:
        super().__post_init__()
        value: Any = self.similarity
        if isinstance(value, str) and value not in SIMILARITIES:
            known = ", ".join(map(repr, get_args(Model)))
            raise MethodError(f"similarity={value!r}, expected a cosine in [-1, 1] or one of {known}")
        if not isinstance(value, str) and (not isinstance(value, Real) or isinstance(value, bool)):
            raise MethodError(f"similarity={value!r} is a {type(value).__name__}, expected float or a model's name")
        if not -1 <= self.threshold <= 1:
            raise MethodError(f"similarity={value!r}, expected a cosine in [-1, 1]")
        if not 0 <= self.merge_ratio <= 1:
            raise MethodError(f"merge_ratio={self.merge_ratio}, expected a share of the tokens in [0, 1]")

    @property
    def threshold(self) -> float:
        """`similarity` as a number."""
        return SIMILARITIES[self.similarity] if isinstance(self.similarity, str) else float(self.similarity)

    def identity(self) -> dict[str, Any]:
        return {"similarity": self.threshold}

    def slack(self, video: VideoTokens) -> int:
        """One token: the count of the last cut is an integer, and a merge that meets the budget rounds upwards."""
        return 0 if video.frames == 1 or self.budget(len(video)) == len(video) else 1

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        """The first merging call is known from the features; the layers behind it share what is left evenly."""
        budget = self.budget(len(video))
        patch = torch.arange(len(video), device=video.features.device) % video.tokens_per_frame
        alike = int((chain_similarity(video.flat, patch) >= self.threshold).sum())
        first = max(len(video) - alike, budget)
        if layers * budget - first < layers - 1 or layers == 1:  # too late after this layer: cut at once
            first = budget
        return [first, *even_quota(layers * budget - first, layers - 1)] if layers > 1 else [first]

    def fed(self, schedule: list[int]) -> list[int]:
        """Each call but the first cuts behind a layer's attention."""
        return [*schedule[1:], schedule[-1]]

    def lookup_flops(self, video: VideoTokens, shape: DecoderShape) -> int:
        """Of the importance step, which follows where merging alone does not meet the budget."""
        first, *later = self.schedule(video, shape.layers)
        return shape.attention_rows(1, video.rows - len(video) + first) if later and later[0] < first else 0

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        return 0 if budget == len(video) else _similarity_flops(len(video), video.features.shape[-1])

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        return self._call(0, state, budget) if layer == 0 else None

    def prune_after_attention(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        return self._call(layer + 1, state, budget)

    def _call(self, call: int, state: PrefillState, budget: int) -> LayerCut | None:
        """Call number `call` sets the number of tokens in layer `call`."""
        layers, tokens = len(state.layers), len(state.flat)
        run: Run = state.memo.setdefault("framefusion", Run(tokens))
        if run.progress.pruned or call == layers or budget >= run.entering:
            return None
        before, cost = run.progress, budget / run.entering
        target = tokens * (1 - need(before.fractions, cost, layers))  # video tokens a layer from here on
        if before.merged:
            run.progress = Progress(before.fractions, merged=True, pruned=True)
            return LayerCut(pruning_call(self._attention(state), target))
        patch = state.flat % state.video.tokens_per_frame
        if call > 0:  # how many calls there are is known only here; the first one is in `compressor_flops`
            state.lookups.append(_similarity_flops(tokens, state.hidden.shape[1]))
        cut, run.progress = merging_call(
            state.hidden,
            patch,
            before,
            cost,
            similarity=self.threshold,
            merge_ratio=self.merge_ratio,
            layers=layers,
        )
        run.spent += len(cut.keep)
        later = layers - 1 - call
        short = later == 0 or layers * budget - run.spent < later  # less than one token for each later layer
        if short and not run.progress.pruned and self.overrun == "prune":
            run.progress = Progress(before.fractions, merged=True, pruned=True)
            assert cut.hidden is not None
            rows = pruning_call(self._attention(state)[..., cut.keep], target)
            return LayerCut(cut.keep[rows], cut.hidden[rows])
        return cut

    @staticmethod
    def _attention(state: PrefillState) -> Float[Tensor, "1 H K"]:
        """Attention of the last prompt row in the layer at hand: before layer 0 runs, on its input."""
        return state.attention(state.last_row, layer=state.layer)


def _similarity_flops(tokens: int, width: int) -> int:
    """Norm of each token and product with the one before it."""
    return 4 * tokens * width


if __name__ == "__main__":
    from baselines._framefusion_calibrate import main

    main()
