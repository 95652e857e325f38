"""The test bed's model: the stock LLaVA-OneVision classes at a size that two CPU cores can train."""

import torch
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from cacovid.testbed.scene import MOMENTS
from cacovid.testbed.tokenizer import IMAGE_SIZE, PATCH_SIZE


def build_config(processor: LlavaOnevisionProcessor) -> LlavaOnevisionConfig:
    """SigLIP of width 128 and 4 layers, Qwen2 of width 128 and 8 layers with 4 query and 2 key heads."""
    tokenizer = processor.tokenizer
    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaOnevisionConfig(  # type: ignore[call-arg]
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=processor.image_processor.image_grid_pinpoints,
        tie_word_embeddings=True,
        cacovid_frames=MOMENTS,  # how many frames the model was trained to read
    )


def build_model(processor: LlavaOnevisionProcessor, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """An untrained model; the seed fixes its weights."""
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(build_config(processor))
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        max_new_tokens=16,
    )
    return model
