"""LLaVA-OneVision on the stock `LlavaOnevisionForConditionalGeneration` of transformers v5."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from cacovid.attention import received
from cacovid.backbones.base import Backbone
from cacovid.backbones.exchange import Encoded, Pixels
from cacovid.flops import SiglipShape
from cacovid.records import Need

FRAMES_AT_ONCE = 32  # frames that go through the vision tower together


class LlavaOnevision(Backbone):
    """Loads `llava-hf/llava-onevision-qwen2-{0.5b,7b}-ov-hf` and every checkpoint of that layout."""

    family = "llava_ov"
    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    example = "llava-hf/llava-onevision-qwen2-7b-ov-hf"

    @property
    def newline(self) -> Float[Tensor, "1 D"]:
        return self.model.model.image_newline[None]

    @property
    def vision_shape(self) -> SiglipShape:
        return SiglipShape.from_config(self.model.config)

    @property
    def side(self) -> int:
        """Side of the pooled grid: LLaVA-OneVision squashes every frame to a square and pools by 2, rounding up."""
        vision = self.model.config.vision_config
        return math.ceil(vision.image_size // vision.patch_size / 2)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Pixels, needs: frozenset[Need]) -> Encoded:
        """Pooled features from the stock code path, and what the method declared."""
        values = self.on_device(pixels["pixel_values_videos"])  # (1, F, 3, h, w)
        core = self.model.model
        features: list[Tensor] = []
        captured: dict[str, list[Tensor]] = {need: [] for need in needs}
        for chunk in values.split(FRAMES_AT_ONCE, dim=1):
            with self._tower_record(needs) as seen:
                # (1, f*S [+ 1], D): newer releases append the newline token here, which the sequence adds itself
                rows = core.get_video_features(chunk, return_dict=True).pooler_output[0]
            count = chunk.shape[1]
            features.append(rows[: count * self.side**2].unflatten(0, (count, self.side, self.side)))
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
