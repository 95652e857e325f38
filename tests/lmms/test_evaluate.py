"""Whole evaluations through lmms-eval's `simple_evaluate`, in this process."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.conftest import World
from lmms.scene import TASK, UTILS, document, make_video, save_checkpoint, write_task
from PIL import Image

from cacovid.backbones import Backbone, LlavaOnevision, VideoRequest, load_backbone
from cacovid.lmms.arguments import ArgumentError
from cacovid.records import VideoTokens
from cacovid.registry import build_method
from cacovid.video import VideoWorker, read_clip

pytestmark = pytest.mark.slow


def journal(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / "runs").glob("*/samples.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "runs").glob("*/run.json")
    return json.loads(path.read_text())


def answers(out: dict[str, Any]) -> list[str]:
    return [row["filtered_resps"][0] for row in out["samples"]["small"]]


def mixed(world: World) -> list[dict[str, Any]]:
    """Video, another question on it, two images, text alone, a broken file, two videos, no file, video."""
    media: list[dict[str, Any]] = [
        {"video": world.videos[0]},
        {"video": world.videos[0]},
        {"images": [[255, 0, 0], [0, 255, 0]]},
        {},
        {"video": world.broken},
        {"video": world.videos[0], "second": world.videos[1]},
        {"video": str(world.root / "gone.mp4")},
        {"video": world.videos[1]},
    ]
    return [document(n, **m) for n, m in enumerate(media)]


def test_every_kind_of_request_in_both_forms(world: World, tmp_path: Path) -> None:
    chat = world.evaluate(tmp_path / "chat", mixed(world))
    simple = world.evaluate(tmp_path / "simple", mixed(world), force_simple=True)
    assert answers(chat) == answers(simple)
    rows, others = journal(tmp_path / "chat"), journal(tmp_path / "simple")
    assert [r["prompt_sha256"] for r in rows] == [r["prompt_sha256"] for r in others]
    assert record(tmp_path / "chat")["id"] != record(tmp_path / "simple")["id"], "the form is part of the identity"

    assert [r["modality"] for r in rows] == ["video", "video", "image", "text", "video", None, "video", "video"]
    assert [r["compressed"] for r in rows] == [True, True, False, False, False, False, False, True]
    assert [r["doc_id"] for r in rows if r["failure"]] == [4, 5, 6]
    assert [r["failure"]["kind"] for r in rows[4:7]] == ["VideoError", "PromptError", "VideoError"]
    assert [r["failure"]["reason"] for r in rows[4:7]] == ["truncated", "refused", "missing"]
    assert "has 2 videos, expected one" in rows[5]["failure"]["message"]
    assert [a == "" for a in answers(chat)] == [False] * 4 + [True] * 3 + [False]
    assert all(r["score"] is None and r["prediction"] is None for r in rows[4:7]), "failed is never 0"
    assert [r["score"] for r in rows if not r["failure"]] == [0.0] * 5
    assert len({r["doc_sha256"] for r in rows}) == 8

    audit = chat["samples"]["small"][0]["token_counts"][0]
    assert audit["spent"]["video_tokens"] == 64 and audit["spent"]["kept"] == 16 == len(audit["kept"])
    assert audit["spent"]["layers"] == [16] * 4 and audit["spent"]["retention"] == 0.25
    assert set(audit["seconds"]) == {"read", "waited", "vision", "compress", "prefill", "decode"}
    assert chat["samples"]["small"][4]["token_counts"][0]["failure"]["reason"] == "truncated"
    assert rows[1]["seconds"]["read"] == 0.0 < rows[0]["seconds"]["read"], "the same video is decoded once"
    assert chat["throughput"]["total_gen_tokens"] == sum(r["output_tokens"] or 0 for r in rows)

    run = record(tmp_path / "chat")
    assert run["state"] == "done" and run["settings"]["dtype"] == "float32"
    assert run["counts"] == {"documents": 8, "asked": 8, "answered": 5, "failed": 3, "missing": 0}
    assert run["attempts"][0]["provenance"]["hardware"]["cores"] == os.cpu_count()
    assert run["settings"]["fields"] == {"retention": 0.25, "seed": 0} and run["settings"]["frames"] == 4


def test_answers_are_those_of_the_backbone_and_the_stock_model(world: World, tmp_path: Path) -> None:
    out = answers(world.evaluate(tmp_path, mixed(world)))
    backbone = LlavaOnevision.load(str(world.checkpoint))
    clip = read_clip(world.videos[1], 4)
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is number 7?"}]
    prompt = backbone.template([{"role": "user", "content": [{"type": "video"}, *content]}])
    (direct,) = backbone.answer(
        [VideoRequest(clip.frames, prompt, clip.sha256)],
        build_method("random", retention=0.25),
        max_new_tokens=4,
        stop_strings=("\n\n",),
    )
    assert out[7] == direct.text

    images = [Image.new("RGB", (40, 40), color) for color in ((255, 0, 0), (0, 255, 0))]
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is number 2?"}]
    prompt = backbone.template([{"role": "user", "content": content}])
    inputs = backbone.processor(text=prompt, images=images, return_tensors="pt")
    with torch.inference_mode():
        ids = backbone.model.generate(**inputs, do_sample=False, max_new_tokens=4)
    text = backbone.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert out[2] == text.split("\n\n")[0]


@pytest.mark.parametrize("store", ["off", "disk"])
def test_the_other_family_answers_alike(world: World, tmp_path: Path, store: str) -> None:
    pretrained = str(save_checkpoint(tmp_path / "checkpoint", "qwen2_5_vl"))
    settings = {"pretrained": pretrained, "max_pixels": 1024, "store": store, "store_dir": str(tmp_path / "store")}
    documents = mixed(world)
    if store == "disk":  # what an earlier method left there
        world.evaluate(tmp_path / "other", documents, model="uniform_qwen2_5_vl", settings=settings)
    out = answers(world.evaluate(tmp_path, documents, model="random_qwen2_5_vl", settings=settings))
    backbone = load_backbone("qwen2_5_vl", pretrained, device="cpu", max_pixels=1024)
    clip = read_clip(world.videos[1], 4)
    content: list[dict[str, Any]] = [{"type": "video"}, {"type": "text", "text": "What is number 7?"}]
    (direct,) = backbone.answer(
        [VideoRequest(clip.frames, backbone.template([{"role": "user", "content": content}]), clip.sha256, clip.rate)],
        build_method("random", retention=0.25),
        max_new_tokens=4,
        stop_strings=("\n\n",),
    )
    assert out[7] == direct.text and clip.rate == pytest.approx(4 / 3, rel=0.1), "4 frames of 3 seconds"
    rows, run = journal(tmp_path), record(tmp_path)
    assert [r["modality"] for r in rows] == ["video", "video", "image", "text", "video", None, "video", "video"]
    assert [r["doc_id"] for r in rows if r["failure"]] == [4, 5, 6]
    assert rows[0]["grid"] == [2, 4, 4] and rows[0]["spent"]["kept"] == 8, "two pairs of frames of 32 x 32 pixels"
    assert run["settings"]["backbone"] == "qwen2_5_vl" and run["settings"]["pixels"] == [1024, 1024]
    assert set(rows[7]["seconds"]) & {"read", "store"} == {"store" if store == "disk" else "read"}


def test_batches_change_nothing_and_are_their_own_run(world: World, tmp_path: Path) -> None:
    documents = [document(n, video=world.videos[n % 3]) for n in range(5)]
    one = world.evaluate(tmp_path, documents)
    four = world.evaluate(tmp_path, documents, batch_size=4)
    assert answers(one) == answers(four)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_answers_are_taken_up_while_nothing_changed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.mp4"
    own.write_bytes(Path(world.videos[0]).read_bytes())
    documents = [document(0, video=str(own)), document(1, video=world.videos[1]), document(2)]
    first = world.evaluate(tmp_path, documents, limit=2)
    assert record(tmp_path)["counts"]["asked"] == 2

    calls: list[int] = []
    answer = Backbone.answer_encoded

    def counted(self: Backbone, videos: list[VideoTokens], *args: Any, **kwargs: Any) -> Any:
        calls.append(len(videos))
        return answer(self, videos, *args, **kwargs)

    monkeypatch.setattr(Backbone, "answer_encoded", counted)
    second = world.evaluate(tmp_path, documents)
    assert answers(second)[:2] == answers(first) and not calls
    assert record(tmp_path)["attempts"][1]["taken"] == 2 and record(tmp_path)["attempts"][1]["computed"] == 1
    audits = [out["samples"]["small"][0]["token_counts"] for out in (first, second)]
    assert audits[0] == audits[1], "a taken sample shows the same budget"

    os.utime(own, ns=(1, 1))
    world.evaluate(tmp_path, documents)
    assert not calls, "the same bytes under another date are the same video"
    own.write_bytes(Path(world.videos[2]).read_bytes())
    world.evaluate(tmp_path, documents)
    assert calls == [1], "a changed video is answered again"
    world.evaluate(tmp_path, [{**documents[0], "answer": "B"}, *documents[1:]])
    assert calls == [1, 1], "a changed document is answered again"
    assert [r["doc_id"] for r in journal(tmp_path)] == [0, 1, 2]
    world.evaluate(tmp_path, documents, settings={"resume": False})
    assert calls == [1, 1, 1, 1], "resume=False computes everything"


def test_repeats_are_asked_once(world: World, tmp_path: Path) -> None:
    out = world.evaluate(tmp_path, [document(0, video=world.videos[0])], repeats=3)
    assert len(journal(tmp_path)) == 1
    assert len(out["samples"]["small"][0]["resps"][0]) == 3


def test_a_task_that_exits_over_a_missing_file_costs_one_sample(world: World, tmp_path: Path) -> None:
    """videomme and mlvu call sys.exit when a video is not there."""
    utils = UTILS.replace(
        "def visual(doc):", "def visual(doc):\n    if doc['number'] == 0:\n        raise SystemExit('x')"
    )
    world.evaluate(tmp_path, [document(0), document(1)], files={"utils": utils})
    assert [(r["failure"] or {}).get("reason") for r in journal(tmp_path)] == ["missing", None]


def test_two_tasks_have_a_run_each(world: World, tmp_path: Path) -> None:
    write_task(tmp_path / "task" / "other", "other", [document(0), document(1)])
    out = world.evaluate(tmp_path, [document(0, video=world.videos[0])], tasks=["small", "other"])
    assert {name: len(rows) for name, rows in out["samples"].items()} == {"small": 1, "other": 2}
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json")]
    assert {(r["settings"]["task"], r["counts"]["answered"]) for r in runs} == {("small", 1), ("other", 2)}


def test_refusals_come_before_any_work(world: World, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="num_beams=5: only greedy decoding"):
        world.evaluate(tmp_path, [document(0)], gen_kwargs="num_beams=5")
    assert not (tmp_path / "runs").exists()
    choice = TASK.replace("generate_until", "multiple_choice").replace(
        "doc_to_text", "doc_to_choice: '[\"a\"]'\ndoc_to_text"
    )
    with pytest.raises(NotImplementedError, match="multiple_choice tasks are not supported"):
        world.evaluate(tmp_path, [document(0)], files={"yaml": choice.split("generation_kwargs")[0]}, force_simple=True)


def test_one_bad_budget_spares_the_rest_of_its_batch(world: World, tmp_path: Path) -> None:
    short = make_video(tmp_path / "short.mp4", 5, frames=1)  # 16 tokens: r = 0.03 keeps none of them
    documents = [document(0, video=world.videos[0]), document(1, video=short), document(2, video=world.videos[1])]
    world.evaluate(tmp_path, documents, batch_size=3, settings={"retention": 0.03})
    rows = journal(tmp_path)
    assert [(r["failure"] or {}).get("kind") for r in rows] == [None, "BudgetError", None]
    assert "a budget below one token" in rows[1]["failure"]["message"]


def test_a_reader_that_hangs_costs_one_sample(world: World, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    pipe.write_bytes(Path(world.videos[0]).read_bytes())
    settings = {"read_timeout": 1e-6}
    world.evaluate(tmp_path, [document(0, video=str(pipe)), document(1)], settings=settings)
    assert [(r["failure"] or {}).get("reason") for r in journal(tmp_path)] == ["timeout", None]
    with VideoWorker() as worker:
        assert worker.read(pipe, 2).indices == (0, 11)
