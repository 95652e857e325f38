"""What docs/backbones.md says, tried on a third family: LLaVA-NeXT-Video (CLIP, average pooling, LLaMA)."""

from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
)

from cacovid.backbones import Backbone, Encoded
from cacovid.errors import MethodError
from cacovid.flops import SiglipShape
from cacovid.registry import build_method
from tiny import CHAT_TEMPLATE, byte_tokenizer

SIDE = 4  # tokens of a frame: 32 pixels, patches of 4, pooled by 2


class LlavaNextVideo(Backbone):
    """What a family writes. It captures nothing: methods that read its tower are refused."""

    family = model_type = "llava_next_video"
    model_class = LlavaNextVideoForConditionalGeneration
    example = "llava-hf/LLaVA-NeXT-Video-7B-hf"

    @property
    def newline(self) -> Any:
        return self.model.get_input_embeddings().weight[:0]

    @property
    def vision_shape(self) -> SiglipShape:
        return SiglipShape.from_config(self.model.config)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Any, needs: frozenset[Any]) -> Encoded:
        if needs:
            raise MethodError(f"{self.family} captures nothing of its tower, asked for {', '.join(sorted(needs))}")
        values = self.on_device(pixels["pixel_values_videos"])  # (1, F, 3, h, w)
        rows = self.model.model.get_video_features(values, return_dict=True).pooler_output[0]
        return Encoded(rows.unflatten(0, (values.shape[1], SIDE, SIDE)).contiguous())


@pytest.fixture(scope="module")
def third():
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=len(tokenizer),
            initializer_range=0.3,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64]],
        tie_word_embeddings=False,
    )
    size = {"height": 32, "width": 32}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size=size, crop_size=size, do_center_crop=False),
        image_processor=LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        patch_size=4,
        vision_feature_select_strategy="default",
    )
    model = LlavaNextVideoForConditionalGeneration(config).requires_grad_(False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return LlavaNextVideo(model, processor)


def test_r_1_is_bit_identical_to_the_stock_model(third, ask, stock):
    request = ask(third)
    ours = third.answer([request], build_method("full"), max_new_tokens=6, keep_logits=True)[0]
    expected = stock(third, request, max_new_tokens=6)
    assert ours.ids == expected.ids
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, expected.logits, strict=True))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("uniform", {}), ("divprune", {}), ("fastv", {"layer": 1}), ("prunevid", {"layer": 1}), ("framefusion", {})],
)
def test_methods_run_on_it(third, ask, name, settings):
    method = build_method(name, retention=0.5, **settings)
    requests = [ask(third, f, seed=f) for f in (6, 3)]
    batch = third.answer(requests, method, max_new_tokens=4)
    assert [a.spent.asked for a in batch] == [48, 24] and not any(a.spent.missed for a in batch)
    assert [a.ids for a in batch] == [third.answer([r], method, max_new_tokens=4)[0].ids for r in requests]


def test_what_it_does_not_capture_is_refused(third, ask):
    with pytest.raises(MethodError, match="captures nothing of its tower, asked for received_attention"):
        third.answer([ask(third)], build_method("attention_topk", retention=0.5))
