"""Full-size backbones with random weights, made on the device: real times, no download.

Another family: a function that makes its config and its processor from `cacovid.sizes.SIZES`, and a line in RANDOM.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SiglipVisionConfig,
)

from cacovid.backbones import BACKBONES, Backbone
from cacovid.flops import DecoderShape, SiglipShape, WindowedShape
from cacovid.sizes import SIZES
from cacovid.testbed.families import LLAVA_OV, QWEN2_5_VL
from sweeps.settings import Backbone as BackboneSettings
from sweeps.settings import ConfigError

PATCH = 14  # pixels, of both towers
IMAGE = 384  # side of SigLIP's input
VISION_HEADS = 16


def llava_onevision(sizes: str) -> tuple[LlavaOnevisionConfig, LlavaOnevisionProcessor]:
    """Config and processor of LLaVA-OneVision at `sizes` of SIZES: the published layout, with a small tokenizer."""
    decoder, vision = SIZES[sizes].decoder, SIZES[sizes].vision
    assert isinstance(vision, SiglipShape)
    small = LLAVA_OV.build_processor()
    tokenizer = small.tokenizer
    vocabulary = tokenizer.get_vocab()
    size, grid = {"height": IMAGE, "width": IMAGE}, [[IMAGE, IMAGE]]
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=vision.patches,
        vision_feature_select_strategy="full",
        chat_template=small.chat_template,
    )
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=vision.width,
            intermediate_size=vision.feed_forward,
            num_hidden_layers=vision.layers,
            num_attention_heads=VISION_HEADS,
            image_size=IMAGE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            **_decoder(decoder),
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        image_token_index=vocabulary["<image>"],
        video_token_index=vocabulary["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=grid,
        tie_word_embeddings=False,
    )
    return config, processor


def qwen2_5_vl(sizes: str) -> tuple[Qwen2_5_VLConfig, Qwen2_5_VLProcessor]:
    """Config and processor of Qwen2.5-VL at `sizes` of SIZES: the published layout, with a small tokenizer."""
    decoder, vision = SIZES[sizes].decoder, SIZES[sizes].vision
    assert isinstance(vision, WindowedShape)
    small = QWEN2_5_VL.build_processor()
    tokenizer = small.tokenizer
    vocabulary = tokenizer.get_vocab()
    patches: dict[str, Any] = {"patch_size": PATCH, "merge_size": vision.merge}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**patches),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**patches),
        chat_template=small.chat_template,
    )
    every, half = vision.layers // vision.full_layers, decoder.head_dim // 2
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": vision.layers,
            "hidden_size": vision.width,
            "intermediate_size": vision.feed_forward,
            "num_heads": VISION_HEADS,
            "out_hidden_size": vision.llm_width,
            "patch_size": PATCH,
            "spatial_merge_size": vision.merge,
            "window_size": vision.window * vision.merge * PATCH,
            "fullatt_block_indexes": list(range(every - 1, vision.layers, every)),
            "tokens_per_second": 2,
        },
        text_config={
            **_decoder(decoder),
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8],  # of 64: 16, 24, 24
            },
        },
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        tie_word_embeddings=False,
    )
    return config, processor


def _decoder(shape: DecoderShape) -> dict[str, Any]:
    """What the text configs of all families have in common."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32768,
    }


RANDOM: dict[str, Callable[[str], tuple[Any, Any]]] = {"llava_ov": llava_onevision, "qwen2_5_vl": qwen2_5_vl}
"""Families whose architectures can be made, by family name."""


def random_backbone(name: str, settings: BackboneSettings, device: str, seed: int) -> Backbone:
    """The backbone `name` of a sweep with random weights on `device`: bfloat16, or float32 on a CPU.

    Raises ConfigError where its architecture is not known here.
    """
    if settings.family not in RANDOM or settings.sizes not in SIZES:
        raise ConfigError(
            f"weights=random: no architecture of backbone {name} (family {settings.family}, sizes {settings.sizes}); "
            f"known are backbones of the families {', '.join(RANDOM)} with sizes= one of {', '.join(SIZES)}; for "
            f"another leave weights= out"
        )
    config, processor = RANDOM[settings.family](settings.sizes)
    dtype = ("float32" if torch.device(device).type == "cpu" else "bfloat16") if settings.dtype == "auto" else None
    with torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(
            config,
            dtype=getattr(torch, dtype or settings.dtype),
            attn_implementation=settings.attn_implementation,
        )
    model.generation_config = GenerationConfig(do_sample=False)
    return BACKBONES[settings.family](model.requires_grad_(False), processor)
