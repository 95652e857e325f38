"""The corrected variants of stock tasks: found by lmms-eval, equal to stock but for the score, and right where stock is
not."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from cacovid.lmms import tasks_dir

METRICS = {
    "mlvu_test": "mlvu_percetion_score",
    "longvideobench_val_v": "lvb_acc",
    "mvbench_action_count": "mvbench_accuracy",
}
KINDS = (*("anomaly_reco", "count", "ego", "needleQA", "order", "plotQA"), "sportsQA", "topic_reasoning", "tutorialQA")
"""MLVU test's types of questions."""
OURS = {"task", "process_results", "metric_list", "metadata", "cluster_key"}
"""What a variant may change."""


@pytest.fixture(scope="module")
def tasks() -> TaskManager:
    return TaskManager(include_path=str(tasks_dir()))


def _config(tasks: TaskManager, name: str) -> dict[str, Any]:
    """A task's YAML; a function as its file and name, since lmms-eval imports a file anew for each YAML."""
    config = load_yaml_config(tasks.task_index[name]["yaml_path"], mode="full")
    return {k: (v.__code__.co_filename, v.__name__) if callable(v) else v for k, v in config.items()}


def _variants(tasks: TaskManager) -> list[str]:
    return [name for name in tasks.all_subtasks if name.endswith("_fixed")]


def test_every_variant_is_found_and_is_the_stock_task_but_for_the_score(tasks: TaskManager) -> None:
    names = _variants(tasks)
    assert len(names) == 22 and {f"{name}_fixed" for name in METRICS} <= set(names)
    for name in names:
        stock, ours = _config(tasks, name.removesuffix("_fixed")), _config(tasks, name)
        stock.setdefault("output_type", "generate_until")
        ours.setdefault("output_type", "generate_until")
        assert {k: v for k, v in ours.items() if k not in OURS} == {k: v for k, v in stock.items() if k not in OURS}
        assert stock["process_results"] != ours["process_results"]


def test_the_group_has_the_tasks_of_mvbench(tasks: TaskManager) -> None:
    paths = [Path(tasks.task_index[name]["yaml_path"]) for name in ("mvbench", "mvbench_fixed")]
    both = [yaml.safe_load(path.read_text())["task"] for path in paths]
    assert [f"{name}_fixed" for name in both[0]] == both[1] and len(both[1]) == 20


def _documents(task: str, number: int) -> dict[str, Any]:
    """A made-up document in the fields of the real ones, its right answer `number`-th of its options."""
    if task == "mlvu_test":
        options = "".join(f"\n({letter}) thing {letter}" for letter in "ABCDEF")
        return {
            "video_name": f"{number // 2}.mp4",
            "duration": 60.0,
            "question": f"What is it?{options}",
            "answer": "ABCDEF"[number % 6],
            "task_type": KINDS[number % 9],
        }
    if task == "longvideobench_val_v":
        options = {f"option{i}": f"thing {i}" if i < 4 + number % 2 else "N/A" for i in range(5)}
        return {
            "id": f"q{number}",
            "video_id": f"v{number // 2}",
            "video_path": f"v{number // 2}.mp4",
            "question": "What is it?",
            **options,
            "correct_choice": number % 4,
            "duration_group": 15,
            "question_category": "S2E",
        }
    return {
        "video": f"{number // 2}.mp4",
        "question": "How often?",
        "candidates": ["1", "2", "3", "4"],
        "answer": "1234"[number % 4],
    }


def _right(task: str, document: dict[str, Any]) -> str:
    """The letter of the right answer."""
    if task == "mlvu_test":
        return str(document["answer"])
    place = document["correct_choice"] if task.startswith("long") else document["candidates"].index(document["answer"])
    return "ABCDE"[place]


class Scripted(lmms):
    """Answers by document number."""

    def __init__(self, answers: list[str]) -> None:
        super().__init__()
        self.answers = answers

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self.answers[request.args[3]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError


def _evaluate(
    tasks: TaskManager, folder: Path, name: str, documents: list[dict[str, Any]], answers: list[str]
) -> dict[str, Any]:
    """lmms-eval's numbers of the task on these documents: its own YAML with another data set, no videos."""
    config = {
        "include": tasks.task_index[name]["yaml_path"],
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": "docs.jsonl"}},
        "test_split": "test",
    }
    folder.mkdir(exist_ok=True)
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (folder / "local.yaml").write_text(yaml.safe_dump(config))
    done = simple_evaluate(
        Scripted(answers),
        tasks=[config["task"]],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        batch_size=1,
    )
    return {key.removesuffix(",none"): value for key, value in done["results"][config["task"]].items()}


RIGHT, EMPTY = [None] * 18, [""] * 18
"""Answers by document; None is the right letter."""


@pytest.mark.parametrize(
    ("task", "answers", "stock", "fixed", "parsed"),
    [
        # Six of 18 right answers are E or F, letters that stock's parser does not know.
        ("mlvu_test", RIGHT, 200 / 3, 100, 1),
        ("mlvu_test", RIGHT[:3], 100 / 3, 100, 1),  # as --limit 3: stock counts the six types that are left out as 0
        ("mlvu_test", EMPTY, 0, 0, 0),
        ("longvideobench_val_v", RIGHT, 1, 1, 1),
        ("longvideobench_val_v", EMPTY, "above 0", 0, 0),  # stock draws an option, and is right now and then
        ("mvbench_action_count", RIGHT, 100, 100, 1),
        ("mvbench_action_count", RIGHT[:3] + EMPTY[:7], 100, 30, 0.3),
    ],
)
def test_what_lmms_eval_reports(tasks, world, tmp_path, task, answers, stock, fixed, parsed) -> None:
    documents = [_documents(task, number) for number in range(len(answers))]
    given = [_right(task, d) if answer is None else answer for d, answer in zip(documents, answers, strict=True)]
    old = _evaluate(tasks, tmp_path / "stock", task, documents, given)[METRICS[task]]
    new = _evaluate(tasks, tmp_path / "fixed", f"{task}_fixed", documents, given)
    print(f"{task}: stock {old:g}, corrected {new[METRICS[task]]:g}, parsed {new['parsed']:g}")
    assert (new[METRICS[task]], new["parsed"]) == pytest.approx((fixed, parsed))
    assert old > 0 if stock == "above 0" else old == pytest.approx(stock)


@pytest.mark.parametrize(
    ("task", "answer", "score", "parsed"),
    [
        ("mlvu_test", "E", 1, 1),
        ("mlvu_test", "(E) thing E", 1, 1),
        ("mlvu_test", "The answer is F.", 0, 1),
        ("mlvu_test", "thing", 0, 0),
        ("longvideobench_val_v", "The answer is A", 1, 1),
        ("longvideobench_val_v", "none of them", 0, 0),
        ("longvideobench_val_v", "Best option:", 0, 0),
        ("mvbench_action_count", "(A) 1", 1, 1),
        ("mvbench_action_count", "", 0, 0),
    ],
)
def test_a_record_scores_the_variant_and_random_numbers_stay(tasks, task, answer, score, parsed) -> None:
    """By the task's own function, as the plug-in's models score at once: an answer that stock guesses has a score."""
    config = load_yaml_config(tasks.task_index[f"{task}_fixed"]["yaml_path"], mode="full")
    document = _documents(task, 4)
    before = random.getstate()
    row = config["process_results"](document, [answer])[METRICS[task]]
    assert random.getstate() == before
    assert (row["score"], row["parsed"]) == (score, parsed)
    assert row["video"].startswith(("2.", "v2."))
