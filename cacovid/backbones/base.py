"""What every backbone offers: videos in, answers on compressed tokens out, with the budget really spent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.backbones.decoder import Decoder, Prefilled, Sequence
from cacovid.backbones.generation import Generated, Stopping, generate
from cacovid.budget import BudgetMode, Flops, Spent
from cacovid.clock import StageClock
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape, VisionShape, sample_flops
from cacovid.method import Method
from cacovid.records import Compressed, Need, VideoTokens
from cacovid.solve import Cost, Plan, plan


@dataclass(frozen=True, slots=True, eq=False)
class VideoRequest:
    """One video and one prompt."""

    frames: np.ndarray  # uint8 (F, height, width, 3), RGB
    prompt: str  # chat-templated text with exactly one video placeholder
    clip: str  # stable id of the video's content, e.g. the file's SHA-256


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the vision side made of a video, whatever is asked about it. Contiguous, on the model's device."""

    features: Float[Tensor, "F S D"]  # as `VideoTokens`
    captured: Mapping[str, Tensor] = field(default_factory=dict)  # as `VideoTokens`


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came back for one request."""

    text: str
    ids: list[int]  # decoded tokens, end token included
    spent: Spent
    seconds: dict[str, float]  # stage -> seconds; a batch's prefill and decode count whole for each sample
    grid: tuple[int, int]  # (H, W) video tokens a frame
    compressed: Compressed  # what entered the LLM
    kept: Int64[Tensor, " K"]  # flat positions still there after the last layer's cut
    logits: list[Float[Tensor, " V"]] = field(default_factory=list)  # float32, one a decoded token, if asked for


class Backbone(ABC):
    """One adapter a model family, on the stock transformers class; nothing in the model is patched.

    A family writes `encode_frames`, `ask`, `with_prompt`, `prompt_ids`, the sizes and its loading; the rest is shared.
    """

    family: str  # suffix of the lmms-eval model id, e.g. "llava_ov"
    model: Any  # a transformers model
    decoder: Decoder
    processor: Any
    tokenizer: Any
    device: torch.device

    @abstractmethod
    def template(self, messages: list[dict[str, Any]]) -> str:
        """Chat messages (transformers' format) to prompt text, generation prompt included."""

    @abstractmethod
    def encode_frames(self, frames: np.ndarray, needs: frozenset[Need]) -> Encoded:
        """Vision tower, projector and pooling on uint8 (F, height, width, 3); captures exactly what `needs` names.

        Raises PromptError for frames of another shape.
        """

    @abstractmethod
    def ask(self, encoded: Encoded, prompt: str, clip: str) -> VideoTokens:
        """An encoded video with a prompt around it. `clip` is the stable id of the video's content.

        Raises PromptError for a malformed prompt.
        """

    @abstractmethod
    def with_prompt(self, video: VideoTokens, prompt: str) -> VideoTokens:
        """An encoded video with another prompt around it: the vision tower does not run again."""

    @abstractmethod
    def prompt_ids(self, prompt: str) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " C"]]:
        """Token ids before and after the video placeholder. Raises PromptError unless there is exactly one."""

    @property
    @abstractmethod
    def vision_shape(self) -> VisionShape:
        """Sizes of the vision tower, for FLOPs."""

    @property
    @abstractmethod
    def video_token_id(self) -> int:
        """Token id of the video placeholder."""

    def encode(self, requests: list[VideoRequest], needs: frozenset[Need]) -> list[VideoTokens]:
        """`encode_frames` and `ask`, one video at a time: a batch gives bit-equal features to single requests."""
        return [self.ask(self.encode_frames(r.frames, needs), r.prompt, r.clip) for r in requests]

    @property
    def frames(self) -> int:
        """Frames to sample unless told otherwise: the `cacovid_frames` of the checkpoint's config, else 32."""
        return getattr(self.model.config, "cacovid_frames", 32)

    @property
    def decoder_shape(self) -> DecoderShape:
        """Sizes of the LLM, for FLOPs."""
        return self.decoder.shape

    def answer(
        self,
        requests: list[VideoRequest],
        method: Method,
        *,
        budget: BudgetMode = "nominal",
        max_new_tokens: int = 16,
        stop_strings: tuple[str, ...] = (),
        keep_logits: bool = False,
    ) -> list[Answer]:
        """Encode a batch and answer it; as `answer_encoded`, with the vision tower's time in `seconds`."""
        clock = StageClock(self.device)
        with clock.stage("vision"):
            videos = self.encode(requests, method.needs)
        answers = self.answer_encoded(
            videos,
            [request.prompt for request in requests],
            method,
            budget=budget,
            max_new_tokens=max_new_tokens,
            stop_strings=stop_strings,
            keep_logits=keep_logits,
        )
        return [replace(answer, seconds={**clock.seconds, **answer.seconds}) for answer in answers]

    @torch.inference_mode()
    def answer_encoded(
        self,
        videos: list[VideoTokens],
        prompts: list[str],
        method: Method,
        *,
        budget: BudgetMode = "nominal",
        max_new_tokens: int = 16,
        stop_strings: tuple[str, ...] = (),
        keep_logits: bool = False,
    ) -> list[Answer]:
        """Answer a batch of encoded videos: compress, prefill, decode greedily, and audit.

        Args:
            prompts: the text that each video was put into.
            budget: what r means.

        Raises BudgetError if a sample spent another budget than asked or the method cannot meet it.
        """
        clock = StageClock(self.device)
        # Searched for a table; a deployment would run at the ratio that was found.
        with nullcontext() if budget == "nominal" else clock.stage("plan"):
            plans = [plan(method, v, self.decoder_shape, budget, self._encoder_flops(method, v)) for v in videos]
        with clock.stage("compress"):
            compressed = [compress_video(p.method, v, p.budget) for v, p in zip(videos, plans, strict=True)]
        sequences = [self.sequence(v, c, p.budget, p.method) for v, c, p in zip(videos, compressed, plans, strict=True)]
        with clock.stage("prefill"):
            state = self.decoder.prefill(sequences)
        stopping = Stopping.from_config(self.model.generation_config, max_new_tokens, stop_strings)
        penalised = [torch.cat(self.penalised(prompt)) for prompt in prompts]
        with clock.stage("decode"):
            generated = generate(self.decoder, state, self.tokenizer, penalised, stopping, keep_logits=keep_logits)
        answers = []
        for i, (video, out) in enumerate(zip(videos, generated, strict=True)):
            spent = self.audit(state, i, video, plans[i], len(out.ids))
            spent.check(type(method).__name__)
            answers.append(
                Answer(
                    out.text,
                    out.ids,
                    spent,
                    dict(clock.seconds),
                    video.grid,
                    compressed[i],
                    sequences[i].flat,
                    out.logits,
                )
            )
        return answers

    def sequence(self, video: VideoTokens, compressed: Compressed, budget: int, method: Method) -> Sequence:
        """Put the compressed video between the prompt's halves, at the positions that the method states."""
        start, kept, end = len(video.prefix), len(compressed), len(video.suffix)
        device = video.features.device
        embeds = torch.cat([video.prefix, compressed.tokens, video.newline, video.suffix])
        if method.positions == "original":
            full = start + len(video) + 1 + end
            tail = torch.arange(start + len(video), full, device=device)
            positions = torch.cat([torch.arange(start, device=device), start + compressed.position, tail])
        else:
            full = start + kept + 1 + end
            positions = torch.arange(full, device=device)
        return Sequence(
            embeds=embeds,
            positions=positions,
            span=slice(start, start + kept),
            flat=compressed.position,
            video=video,
            method=method,
            budget=budget,
            next_position=full,
        )

    def audit(self, state: Prefilled, sample: int, video: VideoTokens, asked: Plan, decoded: int) -> Spent:
        """What sample number `sample` really spent, from the layers' own row counts."""
        text = len(video.prefix) + 1 + len(video.suffix)  # the newline token counts as text
        layers = [layout.computed[sample] for layout in state.layouts]
        fed = [layout.fed[sample] for layout in state.layouts]
        steps = state.visible[: max(decoded - 1, 0)]  # samples that ended early still ride along in a batch
        visible = [[layer[sample] for layer in step] for step in steps]
        read = [n for step in visible for n in step] or [layout.video_tokens(sample) for layout in state.layouts]

        def flops(prefill: list[int], fed: list[int], decode: list[list[int]], compressor: int) -> Flops:
            return sample_flops(
                self.vision_shape,
                self.decoder_shape,
                frames=video.frames,
                compressor=compressor,
                prefill_rows=[text + n for n in prefill],
                fed_rows=[text + n for n in fed],
                decode_keys=[[text + n + t + 1 for n in step] for t, step in enumerate(decode)],
            )

        compressor = (
            asked.method.compressor_flops(video, asked.budget)
            + self._encoder_flops(asked.method, video)
            + sum(state.sequences[sample].lookups)
        )
        full = [len(video)] * len(layers)
        ours = flops(layers, fed, visible, compressor)
        cost = Cost(self.decoder_shape, text)
        return Spent(
            video_tokens=len(video),
            asked=asked.asked,
            measure=asked.measure,
            slack=asked.slack,
            lenient=asked.lenient,
            layers=tuple(layers),
            kept=len(state.sequences[sample].flat),
            decode_visible=sum(read) / len(read),
            equivalent=cost.tokens(ours.prefill + ours.compressor, 2 * len(video)),
            flops=ours,
            flops_full=flops(full, full, [full] * len(visible), 0),
        )

    def _encoder_flops(self, method: Method, video: VideoTokens) -> int:
        """What the vision tower computes for this method besides the features."""
        captured = {"received_attention": self.vision_shape.received_attention(video.frames), "keys": 0, "patches": 0}
        return sum(captured[need] for need in method.needs)

    def penalised(self, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
        """The ids that a repetition penalty sees: the prompt's, the video placeholder among them."""
        before, after = self.prompt_ids(prompt)
        return before, before.new_tensor([self.video_token_id]), after


def compress_video(method: Method, video: VideoTokens, budget: int) -> Compressed:
    """Call the method and refuse what would break the LLM's input."""
    out = method.compress(video, budget)
    if len(out) < 1 or out.tokens.shape[1:] != video.flat.shape[1:] or len(out.position) != len(out):
        raise MethodError(
            f"{type(method).__name__}.compress returned tokens {tuple(out.tokens.shape)} with "
            f"{len(out.position)} positions; expected (K, {video.flat.shape[1]}) with K >= 1 positions"
        )
    if out.tokens.dtype != video.features.dtype:
        raise MethodError(
            f"{type(method).__name__}.compress changed the dtype to {out.tokens.dtype}, "
            f"expected {video.features.dtype}: cast scores, not features"
        )
    return out


__all__ = ["Answer", "Backbone", "Encoded", "Generated", "VideoRequest"]
