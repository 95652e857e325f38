"""Qwen2.5-VL on the stock `Qwen2_5_VLForConditionalGeneration` of transformers v5.

Traps that this file exists for:
- a "frame" of `VideoTokens` is one temporal patch: two frames of the video, the last one repeated if their number is
  odd;
- the tower works in window order and merges four patches into a token: what is read off its last layer is averaged
  over the four and put back by argsort(window_index), not by window_index;
- the three position ids of a token come from the model's own `get_rope_index`, with the seconds a temporal patch
  takes in float32: transformers casts them to the model's dtype if the processor's output is moved with one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.image_utils import SizeDict
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from cacovid.attention import received
from cacovid.backbones.base import Backbone
from cacovid.backbones.exchange import Encoded, Pixels
from cacovid.errors import CheckpointError
from cacovid.flops import WindowedShape
from cacovid.records import Need

PIXELS = (128 * 28**2, 256 * 28**2)
"""Least and largest area of a frame unless the checkpoint's config has `cacovid_pixels`: those of the evaluation that
CaCoVID's authors released."""
UNKNOWN_RATE = 24.0
"""Frames a second that transformers' processor assumes of frames that come without a clock."""


class Qwen2_5_VL(Backbone):
    """Loads `Qwen/Qwen2.5-VL-{3B,7B,72B}-Instruct` and every checkpoint of that layout."""

    family = "qwen2_5_vl"
    model_type = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    example = "Qwen/Qwen2.5-VL-3B-Instruct"
    video_end = "<|vision_end|>"
    processing: ClassVar = {"cap_pixels_per_frame": False}

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        vision = model.config.vision_config
        if vision.depth - 1 not in vision.fullatt_block_indexes:
            raise CheckpointError(
                f"the vision tower's last block {vision.depth - 1} attends in windows, expected it among the blocks of "
                f"full attention {list(vision.fullatt_block_indexes)}: scores are read there"
            )
        self.merge: int = vision.spatial_merge_size
        self.limit_pixels(*getattr(model.config, "cacovid_pixels", PIXELS))

    @property
    def newline(self) -> Float[Tensor, "0 D"]:
        return self.model.get_input_embeddings().weight[:0]

    @property
    def vision_shape(self) -> WindowedShape:
        return WindowedShape.from_config(self.model.config)

    @property
    def merged_frames(self) -> int:
        return self.model.config.vision_config.temporal_patch_size

    @property
    def pixel_limits(self) -> tuple[int, int]:
        size = self.processor.video_processor.size  # its names say edges; the values are areas
        return size["shortest_edge"], size["longest_edge"]

    def limit_pixels(self, least: int | None, most: int | None) -> None:
        least, most = (
            own if given is None else given for own, given in zip(self.pixel_limits, (least, most), strict=True)
        )
        if not 0 < least <= most:
            raise CheckpointError(f"min_pixels={least}, max_pixels={most}: expected 0 < min_pixels <= max_pixels")
        self.processor.video_processor.size = SizeDict(shortest_edge=least, longest_edge=most)

    def axes(
        self, before: Int64[Tensor, " A"], after: Int64[Tensor, " C"], grid: tuple[int, int, int], rate: float
    ) -> Int64[Tensor, "L 3"]:
        frames, rows, columns = grid
        video = before.new_full((frames * rows * columns,), self.video_token_id)
        ids = torch.cat([before, video, after])[None]
        kinds = torch.zeros_like(ids)
        kinds[:, len(before) : len(before) + len(video)] = 2  # a video, for `get_rope_index`
        seconds = self.merged_frames / (rate or UNKNOWN_RATE)
        found, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=kinds,
            video_grid_thw=torch.tensor([[frames, rows * self.merge, columns * self.merge]]),
            second_per_grid_ts=torch.tensor([seconds], device=ids.device),
        )
        return found[:, 0].T.contiguous()

    @torch.inference_mode()
    def encode_pixels(self, pixels: Pixels, needs: frozenset[Need]) -> Encoded:
        """Merged features from the stock code path, and what the method declared."""
        values = self.on_device(pixels["pixel_values_videos"])
        thw = pixels["video_grid_thw"].to(self.device)
        count, height, width = thw[0].tolist()
        grid = (count, height // self.merge, width // self.merge)  # F, H, W
        core = self.model.model
        with self._tower_record(needs) as seen:
            rows = core.get_video_features(values, thw, return_dict=True).pooler_output[0]  # (F*S, D)
        captured: dict[str, Tensor] = {}
        if needs:
            order = self._raster(thw)

            def merged(x: Float[Tensor, "FP ..."]) -> Float[Tensor, "F S g ..."]:
                """Rows of the tower in raster order, its `g` patches a token together."""
                return x.unflatten(0, (-1, self.merge**2))[order].unflatten(0, (count, -1))

            if needs & {"received_attention", "keys"}:
                query, key = self._rotated(seen)  # (F*P, h, d)
                if "received_attention" in needs:
                    query, keys = (x.unflatten(0, (count, -1)).transpose(1, 2) for x in (query, key))  # (F, h, P, d)
                    scores = received(query, keys, core.visual.blocks[-1].attn.scaling)  # (F, P)
                    captured["received_attention"] = merged(scores.flatten()).mean(2)
                if "keys" in needs:
                    captured["keys"] = merged(key.float()).mean(2)
            if "patches" in needs:
                captured["patches"] = merged(seen["patches"]).flatten(1, 2)
        return Encoded(
            rows.unflatten(0, grid).contiguous(), {name: part.contiguous() for name, part in captured.items()}
        )

    def _raster(self, thw: Int64[Tensor, "1 3"]) -> Int64[Tensor, " FS"]:
        """Where the tower has the tokens, in raster order."""
        vision = self.model.config.vision_config
        index, _ = get_vision_window_index(
            thw, spatial_merge_size=self.merge, window_size=vision.window_size, patch_size=vision.patch_size
        )
        return torch.argsort(index).to(thw.device)

    def _rotated(self, seen: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Queries and keys (F*P, h, d) of the last block as its attention compares them, with the tower's rotary
        embedding."""
        attention = self.model.model.visual.blocks[-1].attn
        query, key, _ = seen["qkv"].unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
        return apply_rotary_pos_emb_vision(query, key, *seen["rotary"])

    @contextmanager
    def _tower_record(self, needs: frozenset[Need]) -> Iterator[dict[str, Any]]:
        """Record what the last block makes: its `qkv` (F*P, 3E) with the `rotary` tables, its output `patches`; the
        hooks are gone on exit."""
        seen: dict[str, Any] = {}
        block = self.model.model.visual.blocks[-1]
        handles = []
        if needs & {"received_attention", "keys"}:

            def tables(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
                seen["rotary"] = kwargs["position_embeddings"]

            handles.append(block.attn.register_forward_pre_hook(tables, with_kwargs=True))
            handles.append(block.attn.qkv.register_forward_hook(lambda _module, _args, out: seen.update(qkv=out)))
        if "patches" in needs:
            handles.append(block.register_forward_hook(lambda _module, _args, out: seen.update(patches=out)))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()
