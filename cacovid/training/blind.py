"""The blind test: which questions does the LLM answer right without the video? They teach a policy nothing."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cacovid.backbones import Backbone
from cacovid.training.problems import Problem, load_rows, problem_of
from cacovid.training.rewards import reward


@torch.inference_mode()
def blind_reply(backbone: Backbone, problem: Problem, max_new_tokens: int) -> str:
    """The stock model's greedy reply to the question's text alone."""
    prompt = backbone.template([{"role": "user", "content": [{"type": "text", "text": problem.text}]}])
    inputs = backbone.tokenizer(prompt, return_tensors="pt").to(backbone.device)
    out = backbone.model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    return str(backbone.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def blind_filter(
    backbone: Backbone, file: Path, out: Path, *, right: float = 0.5, max_new_tokens: int = 16
) -> tuple[int, int]:
    """Write the rows of `file` that are answered wrong without the video to `out`; (rows kept, rows asked).

    A row counts as right from a reward of `right` on. Replies are written to a journal beside `out` as they come:
    killed, the same call goes on; the journal stays, as the record of what was dropped and why.
    """
    rows = load_rows(file)
    asked = [(number, problem_of(row, number, file, file.parent)) for number, row in rows]
    journal = out.with_name(out.name + ".replies.jsonl")
    done = _journal(journal)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "a", encoding="utf-8") as record:
        for number, problem in tqdm(asked, desc="blind"):
            if number in done:
                continue
            reply = blind_reply(backbone, problem, max_new_tokens)
            worth = reward(problem.problem_type, reply, problem.solution)
            done[number] = {"row": number, "id": problem.id, "reply": reply, "reward": round(worth, 6)}
            record.write(json.dumps(done[number]) + "\n")
            record.flush()
    kept = [row for number, row in rows if done[number]["reward"] < right]
    part = out.with_suffix(".part")
    part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    os.replace(part, out)
    return len(kept), len(rows)


def _journal(path: Path) -> dict[int, dict[str, Any]]:
    """Replies that an earlier call got, by row; a last line that was cut off is taken out of the file."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {entry["row"]: entry for entry in map(json.loads, lines)}
