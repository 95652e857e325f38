"""Small real models and processors, made in code: the published checkpoints' layout, random weights."""

import atexit
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
)

from cacovid.policy.checkpoint import save_policy
from cacovid.policy.network import CompressionPolicy

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'video' %}{{ '<video>' }}"
    "{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}"
    "{% endif %}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokenizer(marks: Sequence[str] = ("<image>", "<video>")) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer without merges: reads any text, 256 tokens, three of the chat and `marks`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL, *marks]})
    return tokenizer


def tiny_processor(image: int = 32, patch: int = 4) -> LlavaOnevisionProcessor:
    """Processor of a tiny LLaVA-OneVision: square frames of `image` pixels."""
    size = {"height": image, "width": image}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[image, image], [image, 2 * image], [2 * image, image]]
        ),
        tokenizer=byte_tokenizer(),
        video_processor=LlavaOnevisionVideoProcessor(size=size, do_sample_frames=False),
        num_image_tokens=(image // patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_model(
    attention: str = "sdpa", *, seed: int = 0, layers: int = 4, image: int = 32, patch: int = 4
) -> LlavaOnevisionForConditionalGeneration:
    """Random LLaVA-OneVision: SigLIP of 3 layers, Qwen2 with grouped queries; 16 pooled tokens a frame."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=image,
            patch_size=patch,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            initializer_range=0.3,  # large enough that random weights give varied attention and answers
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[image, image], [image, 2 * image], [2 * image, image]],
        tie_word_embeddings=False,
    )
    config._attn_implementation = attention
    model = LlavaOnevisionForConditionalGeneration(config)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def tiny_policy(attention: str = "bidirectional", model: Any = None) -> CompressionPolicy:
    """A policy for `model` or else `tiny_model`, with random heads whose scores differ."""
    policy = CompressionPolicy.from_llm((model or tiny_model()).model.language_model, attention)
    torch.manual_seed(1)
    for head in (policy.token_compress, policy.frame_compress):
        for part in head:
            if isinstance(part, torch.nn.Linear):
                torch.nn.init.normal_(part.weight, std=part.in_features**-0.5 * 2)
    return policy


def tiny_siglip() -> SiglipModel:
    """A whole SigLIP as wide as `tiny_model`'s tower, with the pooling head that LLaVA-OneVision leaves out.

    Every weight is random: biases and norms are 0 and 1 when new, and would not count.
    """
    vision = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 4}
    text = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    text |= {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


@cache
def tiny_policy_folder(model: Callable[[], Any] = tiny_model) -> str:
    """`tiny_policy` for what `model` makes, as it is saved, in a folder that lasts as long as the process."""
    return _saved(lambda folder: save_policy(tiny_policy(model=model()), folder))


@cache
def tiny_siglip_folder() -> str:
    """`tiny_siglip` on disk, in the layout of the published checkpoint: config.json and one file of weights."""
    return _saved(tiny_siglip().save_pretrained)


def _saved(save: Callable[[Path], object]) -> str:
    folder = tempfile.TemporaryDirectory()
    save(Path(folder.name))
    atexit.register(folder.cleanup)
    return folder.name
