"""A small real Qwen2.5-VL and its processor, made in code: the published checkpoints' layout, random weights."""

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tiny import byte_tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PATCH, MERGE = 4, 2


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer with Qwen's marks around images and videos."""
    return byte_tokenizer(SPECIAL)


def tiny_qwen_processor() -> Qwen2_5_VLProcessor:
    """Processor of a tiny Qwen2.5-VL: tokens of 8 x 8 pixels and two frames."""
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 1024, "longest_edge": 2048}, **sizes),
        tokenizer=qwen_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_qwen_model(attention: str = "sdpa", *, seed: int = 0, layers: int = 4) -> Qwen2_5_VLForConditionalGeneration:
    """Random Qwen2.5-VL: a tower of 3 blocks with windows of 2 x 2 tokens, grouped queries, three rotary axes.

    A frame of 40 x 60 pixels has 4 x 6 tokens.
    """
    tokenizer = qwen_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in _MARKS.items()}
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 48,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 2 * MERGE * PATCH,
            "fullatt_block_indexes": [0, 2],
            "tokens_per_second": 2,
            "initializer_range": 0.3,
        },
        text_config={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": None,
            "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
        },
        tie_word_embeddings=False,
        **ids,
    )
    config.cacovid_pixels = [1024, 2048]
    config._attn_implementation = attention
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


_MARKS = {
    "vision_start_token_id": "vision_start",
    "vision_end_token_id": "vision_end",
    "image_token_id": "image_pad",
    "video_token_id": "video_pad",
}
