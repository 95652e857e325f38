"""A small lmms-eval world: a tiny checkpoint, videos made with PyAV, and a task written to a folder."""

import json
from pathlib import Path

import av
import numpy as np

from tiny import tiny_model, tiny_processor
from tiny_qwen import tiny_qwen_model, tiny_qwen_processor

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: docs.jsonl
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.results
generation_kwargs:
  max_new_tokens: 4
  temperature: 0
  do_sample: false
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
UTILS = """\
from PIL import Image


def visual(doc):
    out = [v for v in (doc["video"], doc["second"]) if v]
    return out + [Image.new("RGB", (40, 40), tuple(c)) for c in doc["images"]]


def results(doc, results):
    return {"right": float(results[0] == doc["answer"])}
"""


def save_checkpoint(folder: Path, family: str = "llava_ov") -> Path:
    model, processor = {
        "llava_ov": (tiny_model, tiny_processor),
        "qwen2_5_vl": (tiny_qwen_model, tiny_qwen_processor),
    }[family]
    model().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def make_video(path: Path, seed: int, frames: int = 12) -> str:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for picture in rng.integers(0, 255, (frames, 8, 8, 3), dtype=np.uint8):
            big = picture.repeat(8, 0).repeat(8, 1)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(big, format="rgb24")))
        box.mux(stream.encode(None))
    return str(path)


def document(number: int, **fields: object) -> dict:
    return {
        "number": number,
        "question": f"What is number {number}?",
        "answer": "A",
        "video": "",
        "second": "",
        "images": [],
        **fields,
    }


def write_task(folder: Path, name: str, documents: list[dict], yaml: str = TASK, utils: str = UTILS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.format(name=name))
    (folder / "utils.py").write_text(utils)
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    return folder
