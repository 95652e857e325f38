"""What every backbone offers: videos in, answers on compressed tokens out, with the budget really spent."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import AutoProcessor

from cacovid.backbones.checkpoint import load_model
from cacovid.backbones.decoder import Decoder, Prefilled, Sequence
from cacovid.backbones.exchange import Answer, Encoded, Pixels, VideoRequest
from cacovid.backbones.generation import Generated, Stopping, generate
from cacovid.budget import BudgetMode, Flops, Spent
from cacovid.clock import StageClock
from cacovid.errors import CheckpointError, MethodError, PromptError
from cacovid.flops import DecoderShape, VisionShape, sample_flops
from cacovid.method import Method
from cacovid.records import Compressed, Need, VideoTokens
from cacovid.solve import Cost, Plan, plan


class Backbone(ABC):
    """One adapter a model family, on the stock transformers class; nothing in the model is patched.

    A family names its model class and writes `encode_pixels`, `newline`, `vision_shape` and, where it has them, `axes`.
    The rest is shared. See docs/backbones.md.
    """

    family: ClassVar[str]  # suffix of the lmms-eval model id, e.g. "llava_ov"
    model_type: ClassVar[str]  # of the checkpoint's config
    model_class: ClassVar[Any]  # of transformers
    example: ClassVar[str]  # a published checkpoint
    video_end: ClassVar[str | None] = None  # token that the chat template puts behind a video
    processing: ClassVar[dict[str, Any]] = {}  # further arguments of the stock video processor

    def __init__(self, model: Any, processor: Any) -> None:
        text = model.config.text_config
        if "sliding_attention" in (getattr(text, "layer_types", None) or []):
            raise CheckpointError(
                "the language model uses sliding-window attention, expected full attention in every layer; "
                "set use_sliding_window=false in its text_config"
            )
        self.model = model.eval()
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.device: torch.device = model.device
        self.decoder = Decoder(model.model.language_model, model.lm_head)

    @classmethod
    def load(
        cls,
        pretrained: str,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        revision: str | None = None,
    ) -> Self:
        """Load a folder or hub id (safetensors only, no remote code).

        Raises CheckpointError if it is missing, of another family, or lacks weights.
        """
        model = load_model(
            cls.model_class,
            cls.model_type,
            cls.example,
            pretrained,
            dtype=dtype,
            attn_implementation=attn_implementation,
            revision=revision,
        )
        return cls(model.to(device), AutoProcessor.from_pretrained(pretrained, revision=revision))

    @abstractmethod
    def encode_pixels(self, pixels: Pixels, needs: frozenset[Need]) -> Encoded:
        """Vision tower, projector and pooling of what `preprocess` made; captures exactly what `needs` names."""

    def encode_frames(self, frames: np.ndarray, needs: frozenset[Need]) -> Encoded:
        """`preprocess` and `encode_pixels` on uint8 (F, height, width, 3).

        Raises PromptError for frames of another shape.
        """
        return self.encode_pixels(self.preprocess(frames), needs)

    @property
    @abstractmethod
    def newline(self) -> Float[Tensor, "M D"]:
        """The rows that the model puts behind every video; none for most families."""

    @property
    @abstractmethod
    def vision_shape(self) -> VisionShape:
        """Sizes of the vision tower, for FLOPs."""

    def axes(
        self, before: Int64[Tensor, " A"], after: Int64[Tensor, " C"], grid: tuple[int, int, int], rate: float
    ) -> Int64[Tensor, "L 3"] | None:
        """Position ids of a prompt with a video of `grid` (F, H, W) in it; None: rows are counted from 0."""
        return None

    @property
    def merged_frames(self) -> int:
        """Frames of a video that are one frame of `VideoTokens`."""
        return 1

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        """Least and largest area of a frame, in pixels; None where every frame is brought to one size."""
        return None

    def limit_pixels(self, least: int | None, most: int | None) -> None:
        """Set `pixel_limits`; None leaves a limit as it is. Raises CheckpointError where there are none."""
        if least is not None or most is not None:
            raise CheckpointError(
                f"min_pixels={least}, max_pixels={most}: {self.family} reads every frame in one size; leave them out"
            )

    def preprocess(self, frames: np.ndarray) -> Pixels:
        """What the stock video processor makes of uint8 (F, height, width, 3), on the CPU; pinned for a CUDA device.

        Raises PromptError for another shape.
        """
        if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3:
            raise PromptError(f"frames of shape {frames.shape}, expected (F, height, width, 3) with F >= 1")
        made = self.processor.video_processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            do_sample_frames=False,
            input_data_format="channels_first",
            return_tensors="pt",
            **self.processing,
        )
        pinned = self.device.type == "cuda"
        return {name: part.pin_memory() if pinned else part for name, part in made.items() if torch.is_tensor(part)}

    def on_device(self, pixels: Tensor) -> Tensor:
        """Pixel values where the model is, in its dtype."""
        return pixels.to(self.device, non_blocking=True).to(self.model.dtype)

    def template(self, messages: list[dict[str, Any]]) -> str:
        """Chat messages (transformers' format) to prompt text, generation prompt included."""
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    @property
    def video_token_id(self) -> int:
        """Token id of the video placeholder."""
        return self.model.config.video_token_id

    def prompt_ids(self, prompt: str) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " C"]]:
        """Token ids before and after the video placeholder. Raises PromptError unless there is exactly one."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids[0]
        at = (ids == self.video_token_id).nonzero().flatten().tolist()
        if len(at) != 1:
            raise PromptError(
                f"the prompt holds {len(at)} video placeholders ({self.processor.video_token}), expected exactly 1; "
                f"one video a question is supported"
            )
        ids = ids.to(self.device)
        return ids[: at[0]], ids[at[0] + 1 :]

    @torch.inference_mode()
    def ask(self, encoded: Encoded, prompt: str, clip: str, rate: float = 0.0) -> VideoTokens:
        """An encoded video with a prompt around it. `clip` and `rate` as in `VideoRequest`.

        Raises PromptError for a malformed prompt.
        """
        embed = self.model.get_input_embeddings()
        before, after = self.prompt_ids(prompt)
        frames, rows, columns, _ = encoded.features.shape
        return VideoTokens(
            features=encoded.features.flatten(1, 2),
            grid=(rows, columns),
            prefix=embed(before),
            newline=self.newline.to(encoded.features),
            suffix=embed(after),
            question=self._question(after),
            clip=clip,
            captured=encoded.captured,
            axes=self.axes(before, after, (frames, rows, columns), rate),
        )

    def _question(self, after: Tensor) -> slice:
        """Rows of the suffix that hold the user's turn; all of them in a prompt without a chat template."""
        end, closing = (
            self.tokenizer.convert_tokens_to_ids(token) if token else None for token in ("<|im_end|>", self.video_end)
        )
        stops = (after == end).nonzero().flatten().tolist() if end is not None else []
        first = int(closing is not None and len(after) > 0 and int(after[0]) == closing)
        return slice(first, stops[0] if stops else len(after))

    def encode(self, requests: list[VideoRequest], needs: frozenset[Need]) -> list[VideoTokens]:
        """`encode_frames` and `ask`, one video at a time: a batch gives bit-equal features to single requests."""
        return [self.ask(self.encode_frames(r.frames, needs), r.prompt, r.clip, r.rate) for r in requests]

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
            plans = [plan(method, v, self.decoder_shape, budget, self.encoder_flops(method, v)) for v in videos]
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
        """Put the compressed video between the prompt's halves, at the positions that the method states.

        Under M-RoPE every token keeps its own three ids, whatever the method states: there is no way to close gaps
        in a grid, and all ports to such models slice the original ids.
        """
        span, device = video.span, video.features.device
        before, after = torch.arange(span.start, device=device), torch.arange(span.stop, video.rows, device=device)
        stood = torch.cat([before, span.start + compressed.position, after])  # rows of the uncompressed sequence
        if video.axes is not None:
            # As `generate` counts on: behind the last row, also where a slow video's times run past the text.
            positions, following = video.axes[stood], int(video.axes[-1].max()) + 1
        elif method.positions == "original":
            positions, following = stood, video.rows
        else:
            positions, following = torch.arange(len(stood), device=device), len(stood)
        return Sequence(
            embeds=torch.cat([video.prefix, compressed.tokens, video.newline, video.suffix]),
            positions=positions,
            span=slice(span.start, span.start + len(compressed)),
            flat=compressed.position,
            video=video,
            method=method,
            budget=budget,
            next_position=following,
        )

    def audit(self, state: Prefilled, sample: int, video: VideoTokens, asked: Plan, decoded: int) -> Spent:
        """What sample number `sample` really spent, from the layers' own row counts."""
        text = video.rows - len(video)  # the newline token counts as text
        layers = [layout.computed[sample] for layout in state.layouts]
        fed = [layout.fed[sample] for layout in state.layouts]
        steps = state.visible[: max(decoded - 1, 0)]  # samples that ended early still ride along in a batch
        visible = [[layer[sample] for layer in step] for step in steps]
        read = [n for step in visible for n in step] or [layout.video_tokens(sample) for layout in state.layouts]

        def flops(prefill: list[int], fed: list[int], decode: list[list[int]], compressor: int) -> Flops:
            return sample_flops(
                self.decoder_shape,
                vision=self.vision_shape.video(video.frames, video.grid),
                compressor=compressor,
                prefill_rows=[text + n for n in prefill],
                fed_rows=[text + n for n in fed],
                decode_keys=[[text + n + t + 1 for n in step] for t, step in enumerate(decode)],
            )

        compressor = (
            asked.method.compressor_flops(video, asked.budget)
            + self.encoder_flops(asked.method, video)
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

    def encoder_flops(self, method: Method, video: VideoTokens) -> int:
        """What the vision tower computes for this method besides the features."""
        if "received_attention" not in method.needs:  # keys and patches are there anyway
            return 0
        return self.vision_shape.received_attention(video.frames, video.grid)

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
    # Where positions are three axes, a row may not stand behind one of a later place: ports sort, too.
    return out if video.axes is None else out.in_raster_order()


__all__ = ["Answer", "Backbone", "Encoded", "Generated", "VideoRequest"]
