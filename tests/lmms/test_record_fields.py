"""What a sample's record says for the viewer: the question, the grid, and what was merged."""

import json
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lmms.conftest import World

from cacovid.lmms.evaluation import merged_tokens


def flags(text: str | None) -> list[int]:
    assert text is not None
    return np.unpackbits(np.frombuffer(b64decode(text), np.uint8), bitorder="little").nonzero()[0].tolist()


def answer(owner: list[int], position: list[int], kept: list[int]) -> Any:
    compressed = SimpleNamespace(owner=torch.tensor(owner), position=torch.tensor(position))
    return SimpleNamespace(compressed=compressed, kept=torch.tensor(kept))


def test_merged_are_those_that_went_into_a_token_that_is_still_there() -> None:
    owner = [0, 0, -1, 1, 1, 0, -1, -1, 1]
    assert flags(merged_tokens(answer(owner, [0, 4], [0, 4]))) == [1, 3, 5, 8]
    assert flags(merged_tokens(answer(owner, [0, 4], [0]))) == [1, 5], "token 4 was cut in the LLM, and what is in it"
    assert merged_tokens(answer([0, -1, -1, 1], [0, 3], [0, 3])) is None, "pure pruning"


@pytest.mark.slow
def test_a_record_has_question_grid_kept_and_merged(world: World, tmp_path: Path) -> None:
    document = {"question": "What is it?", "answer": "A", "video": world.videos[0], "second": None, "images": []}
    world.evaluate(tmp_path, [document], model="visionzip_llava_ov")
    (file,) = tmp_path.glob("runs/*/samples.jsonl")
    (sample,) = [json.loads(line) for line in file.read_text().splitlines()]
    frames, rows, columns = sample["grid"]
    assert frames == 4 and frames * rows * columns == sample["spent"]["video_tokens"]
    assert sample["question"] == "What is it?" and sample["evidence"] is None
    merged = flags(sample["merged"])
    assert set(sample["kept"]).isdisjoint(merged) and len(merged) + len(sample["kept"]) <= frames * rows * columns
