"""Whole evaluations with a store: the same records, less work."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from lmms.conftest import World
from lmms.scene import document, write_task
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from cacovid.lmms.arguments import ArgumentError, Arguments
from cacovid.lmms.shared import Shared
from cacovid.registry import build_method
from cacovid.store import Counters

pytestmark = pytest.mark.slow

METHODS = ("random", "visionzip", "attention_topk")


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Samples by run, without what may differ: times."""
    out = {}
    for path in folder.glob("*/samples.jsonl"):
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        out[path.parent.name] = [{k: v for k, v in row.items() if k not in ("seconds", "written")} for row in samples]
    return out


def model_args(world: World, folder: Path) -> dict[str, Any]:
    return {
        "pretrained": str(world.checkpoint),
        "retention": 0.25,
        "device": "cpu",
        "max_frames_num": 4,
        "results_dir": str(folder / "runs"),
    }


def test_methods_that_share_a_backbone_and_a_store(world: World, tmp_path: Path) -> None:
    media = [{"video": world.videos[n]} for n in (0, 0, 1, 1)] + [{"video": world.broken}, {}]
    documents = [document(n, **some) for n, some in enumerate(media)]
    for method in METHODS:
        world.evaluate(tmp_path / "alone", documents, model=f"{method}_llava_ov")

    tasks = write_task(tmp_path / "task", "small", documents)
    manager = TaskManager(include_path=str(tasks), include_defaults=False, model_name="random_llava_ov")
    given = model_args(world, tmp_path / "shared")
    needs = frozenset().union(*(build_method(method).needs for method in METHODS))
    plain = {k: v for k, v in given.items() if k not in ("retention", "results_dir")}
    shared = Shared.load(Arguments(**plain, store="disk", store_dir=str(tmp_path / "store")), needs)
    models = importlib.import_module("cacovid.lmms.models")
    for method in METHODS:
        model = getattr(models, f"chat__llava_ov__{method}")(**given, shared=shared)
        assert model.backbone is shared.backbone
        simple_evaluate(model, tasks=["small"], task_manager=manager, bootstrap_iters=0)

    assert shared.counters == Counters(decoded=2, encoded=2, hits=4 * len(METHODS) - 2)
    alone, together = rows(tmp_path / "alone" / "runs"), rows(tmp_path / "shared" / "runs")
    assert len(alone) == len(METHODS) and alone == together, "a store is no part of a run's identity"
    run = json.loads(next((tmp_path / "shared" / "runs").glob("*/run.json")).read_text())
    assert run["arguments"]["store"] == "disk", "run.json says what was really used"


def test_batches_and_stage_times(world: World, tmp_path: Path) -> None:
    documents = [document(n, video=world.videos[n % 2]) for n in range(4)]
    settings = {"store": "disk", "store_dir": str(tmp_path / "store")}
    world.evaluate(tmp_path / "one", documents, settings=settings)
    world.evaluate(tmp_path / "four", documents, settings=settings, batch_size=4)
    (one,), (four,) = rows(tmp_path / "one" / "runs").values(), rows(tmp_path / "four" / "runs").values()
    assert one == four
    (path,) = (tmp_path / "one" / "runs").glob("*/samples.jsonl")
    stages = [list(json.loads(line)["seconds"]) for line in path.read_text().splitlines()]
    rest = ["compress", "prefill", "decode"]
    assert stages == [["read", "waited", "vision", *rest]] * 2 + [["store", *rest]] * 2


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"dtype": "bfloat16"}, "loaded otherwise: dtype='bfloat16' instead of 'auto'; give this model"),
        ({"max_frames_num": 8, "sampling": "floor"}, "max_frames_num=8 instead of 4, sampling='floor' instead of"),
    ],
)
def test_a_model_that_cannot_share_is_refused(world: World, tmp_path: Path, other: dict[str, Any], words: str) -> None:
    given = model_args(world, tmp_path)
    shared = Shared.load(Arguments(pretrained=given["pretrained"], device="cpu", max_frames_num=4))
    model = importlib.import_module("cacovid.lmms.models").chat__llava_ov__random
    with pytest.raises(ArgumentError, match=words):
        model(**{**given, **other}, shared=shared)


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ArgumentError, match="store_gib=0, expected a size above 0; store=off keeps nothing"):
        Arguments(pretrained="x", store_gib=0)
