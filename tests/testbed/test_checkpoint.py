"""The shipped checkpoint: normal files, small, and it answers from real videos."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

from cacovid.testbed.data import load_split
from cacovid.testbed.evaluate import CHECKPOINT, evaluate, greedy_letters
from cacovid.testbed.packing import CHAT, VIDEO_TOKENS, Asked, answer_logits, pack
from cacovid.testbed.sight import read_moments, video_tokens
from cacovid.testbed.words import LETTERS


@pytest.fixture(scope="module")
def parts() -> tuple:
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    return AutoProcessor.from_pretrained(CHECKPOINT), model


def test_the_folder_is_small_and_safe() -> None:
    files = [file for file in Path(CHECKPOINT).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 20 * 2**20
    assert {file.name for file in files} >= {
        "config.json", "model.safetensors", "tokenizer.json", "processor_config.json", "generation_config.json",
    }  # fmt: skip
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_geometry(parts: tuple) -> None:
    processor, model = parts
    assert processor.num_image_tokens == 100
    assert processor.vision_feature_select_strategy == model.config.vision_feature_select_strategy == "full"
    frames = np.zeros((16, 160, 160, 3), dtype=np.uint8)
    batch = processor(text=["<video>"], videos=[frames], return_tensors="pt")
    assert (batch["input_ids"] == model.config.video_token_id).sum() == VIDEO_TOKENS + 1
    assert batch["pixel_values_videos"].shape == (1, 16, 3, 80, 80)


def test_letters_and_words_are_single_tokens(parts: tuple) -> None:
    tokenizer = parts[0].tokenizer
    assert all(len(tokenizer(text).input_ids) == 1 for text in (*LETTERS, " red", " hourglass", " 7", " four"))
    assert tokenizer.eos_token == "<|im_end|>"


def test_packed_questions_read_as_they_would_alone(parts: tuple) -> None:
    """The packed training form against the stock model's own forward, on the chat template's text."""
    processor, model = parts
    documents = load_split("test", limit_videos=1)
    frames = read_moments(Path(documents[0]["video"]))
    pixels = processor.video_processor(frames, return_tensors="pt")["pixel_values_videos"]
    asked = [Asked("\n\n" + doc["prompt"] + CHAT.tail, doc["answer"], doc["kind"]) for doc in documents]
    with torch.no_grad():
        packed = pack(processor.tokenizer, [np.arange(VIDEO_TOKENS)], [asked])
        logits, _, first = answer_logits(model, packed, video_tokens(model, pixels)[0])
        for doc, place in zip(documents[:3], first[:3], strict=True):
            content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            alone = model(**processor(text=[text], videos=[frames], return_tensors="pt")).logits[0, -1]
            torch.testing.assert_close(logits[place], alone, atol=2e-3, rtol=1e-3)


def test_generate_replies_with_a_word_and_its_letter_and_stops(parts: tuple) -> None:
    processor, model = parts
    doc = load_split("test", limit_videos=1)[0]
    content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    batch = processor(text=[text], videos=[read_moments(Path(doc["video"]))], return_tensors="pt")
    new = model.generate(**batch)[0, batch["input_ids"].shape[1] :]
    assert re.fullmatch(r" \w+, option [A-D]", processor.tokenizer.decode(new, skip_special_tokens=True))
    assert new[-1] == processor.tokenizer.eos_token_id


def test_two_pass_letters_are_what_generate_says(parts: tuple) -> None:
    processor, model = parts
    documents = load_split("test", limit_videos=1)
    frames = read_moments(Path(documents[0]["video"]))
    pixels = processor.video_processor(frames, return_tensors="pt")["pixel_values_videos"]
    texts = ["\n\n" + doc["prompt"] + CHAT.tail for doc in documents]
    with torch.no_grad():
        tokens = video_tokens(model, pixels)[0]
    letters = greedy_letters(model, processor.tokenizer, texts, [np.arange(VIDEO_TOKENS)], tokens, False)
    said = []
    for doc in documents:
        content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        batch = processor(text=[text], videos=[frames], return_tensors="pt")
        new = model.generate(**batch)[0, batch["input_ids"].shape[1] :]
        said.append(processor.tokenizer.decode(new, skip_special_tokens=True)[-1])
    assert letters == said


def test_it_answers_from_the_video_and_only_from_it() -> None:
    """The quality bar on 84 questions; docs/testbed.md has all 1750."""
    table = evaluate(CHECKPOINT, "test", limit_videos=12, conditions=("all tokens", "no video"))
    right = {name: sum(r for r, _ in kinds.values()) / 84 for name, kinds in table.items()}
    assert right["all tokens"] >= 0.9
    assert right["no video"] <= 0.45
