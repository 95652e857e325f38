"""LLaVA-OneVision on the stock `LlavaOnevisionForConditionalGeneration` of transformers v5."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import AutoConfig, AutoProcessor, LlavaOnevisionForConditionalGeneration

from cacovid.attention import received
from cacovid.backbones.base import Backbone, Encoded
from cacovid.backbones.decoder import Decoder
from cacovid.errors import CheckpointError, PromptError
from cacovid.flops import VisionShape
from cacovid.records import Need, VideoTokens

FRAMES_AT_ONCE = 32  # frames that go through the vision tower together


class LlavaOnevision(Backbone):
    """Loads `llava-hf/llava-onevision-qwen2-{0.5b,7b}-ov-hf` and every checkpoint of that layout."""

    family = "llava_ov"

    def __init__(self, model: Any, processor: Any) -> None:
        text = model.config.text_config
        if "sliding_attention" in getattr(text, "layer_types", []):
            raise CheckpointError(
                "the language model uses sliding-window attention, expected full attention in every layer; "
                "set use_sliding_window=false in its text_config"
            )
        self.model = model.eval()
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.device = model.device
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
    ) -> "LlavaOnevision":
        """Load a folder or hub id (safetensors only, no remote code).

        Raises CheckpointError if it is missing, of another family, or lacks weights.
        """
        if Path(pretrained).is_absolute() and not Path(pretrained, "config.json").is_file():
            raise CheckpointError(f"no checkpoint at {pretrained}: expected a folder with config.json, or a hub id")
        try:
            config = AutoConfig.from_pretrained(pretrained, revision=revision)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"pretrained={pretrained!r} could not be read: {error}. Expected a checkpoint folder, a hub id, "
                f"or `testbed` for the embedded test bed"
            ) from error
        if config.model_type != "llava_onevision":
            raise CheckpointError(
                f"{pretrained} is a {config.model_type} checkpoint, expected llava_onevision "
                f"(such as llava-hf/llava-onevision-qwen2-7b-ov-hf)"
            )
        loader: Any = LlavaOnevisionForConditionalGeneration
        model, info = loader.from_pretrained(
            pretrained,
            revision=revision,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            attn_implementation=attn_implementation,
            use_safetensors=True,
            output_loading_info=True,
        )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise CheckpointError(
                f"{pretrained} lacks {len(missing)} weights, first {missing[:3]}; they would be random. "
                f"Download the checkpoint again"
            )
        return cls(model.to(device), AutoProcessor.from_pretrained(pretrained, revision=revision))

    @property
    def vision_shape(self) -> VisionShape:
        return VisionShape.from_config(self.model.config)

    @property
    def side(self) -> int:
        """Side of the pooled grid: LLaVA-OneVision squashes every frame to a square and pools by 2, rounding up."""
        vision = self.model.config.vision_config
        return math.ceil(vision.image_size // vision.patch_size / 2)

    @property
    def video_token_id(self) -> int:
        return self.model.config.video_token_id

    def template(self, messages: list[dict[str, Any]]) -> str:
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def prompt_ids(self, prompt: str) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " C"]]:
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
    def ask(self, encoded: Encoded, prompt: str, clip: str) -> VideoTokens:
        return VideoTokens(
            features=encoded.features,
            grid=(self.side, self.side),
            newline=self.model.model.image_newline[None].to(encoded.features),
            clip=clip,
            captured=encoded.captured,
            **self._around(prompt),
        )

    @torch.inference_mode()
    def with_prompt(self, video: VideoTokens, prompt: str) -> VideoTokens:
        return replace(video, **self._around(prompt))

    def _around(self, prompt: str) -> dict[str, Any]:
        """The fields of VideoTokens that hold the prompt."""
        embed = self.model.get_input_embeddings()
        before, after = self.prompt_ids(prompt)
        return {"prefix": embed(before), "suffix": embed(after), "question": self._question(after)}

    def pixels(self, frames: np.ndarray) -> Tensor:
        """The processor's pixel values (1, F, 3, h, w), on the model's device and in its dtype."""
        if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3:
            raise PromptError(f"frames of shape {frames.shape}, expected (F, height, width, 3) with F >= 1")
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        out = self.processor.video_processor(
            videos=[video], do_sample_frames=False, input_data_format="channels_first", return_tensors="pt"
        )
        return out["pixel_values_videos"].to(self.device, self.model.dtype)

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray, needs: frozenset[Need]) -> Encoded:
        """Pooled features from the stock code path, and what the method declared."""
        pixels = self.pixels(frames)
        core = self.model.model
        features: list[Tensor] = []
        captured: dict[str, list[Tensor]] = {need: [] for need in needs}
        for chunk in pixels.split(FRAMES_AT_ONCE, dim=1):
            with self._tower_record(needs) as seen:
                # (1, f*S [+ 1], D): newer releases append the newline token here, which the sequence adds itself
                rows = core.get_video_features(chunk, return_dict=True).pooler_output[0]
            count = chunk.shape[1]
            features.append(rows[: count * self.side**2].unflatten(0, (count, -1)))
            attention = self._tower_layer().self_attn
            if "received_attention" in needs:
                query, key = (
                    seen[name].unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for name in ("q", "k")
                )  # (f, h, P, d)
                scores = received(query, key, attention.scale)  # (f, P)
                captured["received_attention"].append(core.apply_pooling(scores[..., None])[..., 0])
            if "keys" in needs:
                keys = core.apply_pooling(seen["k"].float())  # (f, S, E)
                captured["keys"].append(keys.unflatten(-1, (attention.num_heads, -1)))
            if "patches" in needs:
                captured["patches"].append(seen["patches"])
        # Contiguous, as a stored copy would be: pooling leaves keys in another layout, and kernels round by layout.
        return Encoded(
            torch.cat(features).contiguous(),
            {name: torch.cat(parts).contiguous() for name, parts in captured.items()},
        )

    def _tower_layer(self) -> Any:
        """The vision layer whose output the features come from: the last *used* one."""
        which = self.model.config.vision_feature_layer
        index = which if isinstance(which, int) else which[-1]
        tower = self.model.model.vision_tower
        layers = getattr(tower, "vision_model", tower).encoder.layers  # transformers < 5.2x nests the tower
        return layers[index - 1 if index > 0 else len(layers) + index]  # hidden_states[0] is the embedding

    @contextmanager
    def _tower_record(self, needs: frozenset[Need]) -> Iterator[dict[str, Tensor]]:
        """Record q and k (f, P, E) of the last used vision layer, and its output; the hooks are gone on exit."""
        seen: dict[str, Tensor] = {}
        layer = self._tower_layer()
        modules = {}
        if needs & {"received_attention", "keys"}:
            modules = {"q": layer.self_attn.q_proj, "k": layer.self_attn.k_proj}
        if "patches" in needs:
            modules["patches"] = layer
        handles = []
        for name, module in modules.items():

            def record(_module: nn.Module, _args: Any, out: Any, name: str = name) -> None:
                seen[name] = out[0] if isinstance(out, tuple) else out

            handles.append(module.register_forward_hook(record))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _question(self, after: Tensor) -> slice:
        """Rows of the suffix up to the end of the user's turn; all of them in a prompt without a chat template."""
        end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        stops = (after == end).nonzero().flatten().tolist() if end is not None else []
        return slice(0, stops[0] if stops else len(after))
