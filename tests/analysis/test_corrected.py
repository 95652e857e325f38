"""Stock's score and the corrected one, from what a run recorded: the same as the suite's own tasks give."""

import json
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from analysis.__main__ import main
from analysis.corrected import RULES
from analysis.load import load
from analysis.measured import comparable
from analysis.tables.cell import Cell, Table
from analysis.tables.corrected import corrected_table
from analysis.tasks import MVBENCH, TASKS, sample_score, task_of
from cacovid.lmms import tasks_dir
from made_runs import write_run
from sweeps.parquet import collect

ANSWERS = (
    *(
        "E",
        "(E)",
        "E.",
        "E. a dog",
        "(E) a dog",
        "E) a dog",
        "The answer is E.",
        "The best option is (E) a dog",
        "f",
        "",
    ),
    *("A", "B", "(C)", "D. a cat", "Best option: (A)", "Best option:", "The answer is A", "none of them", "I say: F"),
)
DOCUMENTS: dict[str, dict[str, Any]] = {
    "mlvu_test": {"video_name": "v.mp4", "question": "What?", "answer": "E", "task_type": "ego"},
    "longvideobench_val_v": {
        **{"id": "q", "video_path": "v.mp4", "duration_group": 15, "question_category": "S2E", "correct_choice": 0},
        **{f"option{i}": f"thing {i}" for i in range(5)},
    },
    "mvbench_action_count": {"video": "v.mp4", "candidates": ["1", "2", "3", "4"], "answer": "2"},
}
TARGETS = {"mlvu_test": "E", "longvideobench_val_v": "0", "mvbench_action_count": "2"}


@pytest.fixture(scope="module")
def scorers() -> dict[str, Any]:
    """Of stock tasks and their variants, as lmms-eval finds them."""
    tasks = TaskManager(include_path=str(tasks_dir()))
    names = [*DOCUMENTS, *(f"{task}_fixed" for task in DOCUMENTS)]
    return {n: load_yaml_config(tasks.task_index[n]["yaml_path"], mode="full")["process_results"] for n in names}


def test_every_mvbench_task_is_known() -> None:
    names = {name for name in TaskManager().all_subtasks if name.startswith("mvbench_")}
    assert names == set(MVBENCH) and {f"{name}_fixed" for name in names} <= set(TASKS)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("task", DOCUMENTS)
def test_a_rescored_answer_is_what_the_variant_gives(scorers: dict[str, Any], task: str, answer: str) -> None:
    stock = scorers[task](DOCUMENTS[task], [answer])
    fixed = scorers[f"{task}_fixed"](DOCUMENTS[task], [answer])
    known = sample_score(task_of(task), stock)
    _, corrected = RULES[task]({"prediction": answer, "target": TARGETS[task], "score": known})
    assert corrected == sample_score(task_of(f"{task}_fixed"), fixed)


def _mlvu(answers: list[tuple[str, str]], kinds: str) -> dict[str, Any]:
    rows = [
        {"task_type": kind, "pred_answer": given if given in "ABCD" else "", "answer": right}
        for (given, right), kind in zip(answers, kinds, strict=True)
    ]
    return {"metrics": [{"mlvu_percetion_score": row} for row in rows], "answers": answers}


def _mvbench(answers: list[tuple[str, str]]) -> dict[str, Any]:
    rows = [{"pred_answer": given, "gt_answer": right, "score": int(given == right)} for given, right in answers]
    return {"metrics": [{"mvbench_accuracy": row} for row in rows], "answers": answers}


def _longvideobench(answers: list[tuple[str, str]]) -> dict[str, Any]:
    """As our records: what stock draws is not kept."""
    rows = [{"parsed_pred": given, "answer": right, "duration_group": 15} for given, right in answers]
    metrics = [{"lvb_acc": row} if row["parsed_pred"] else None for row in rows]
    return {"metrics": metrics, "answers": [(given, "0") for given, _ in answers]}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    def write(name: str, method: str, task: str, kind: dict[str, Any], **more: object) -> None:
        write_run(tmp_path / "runs", name, method, [None] * 4, setup={"task": task}, **kind, **more)

    write("m", "full", "mlvu_test", _mlvu([("E", "E"), ("A", "A"), ("F", "F"), ("B", "C")], "xxyy"))
    for seed, given in enumerate(("BC", "AB")):
        answers = [("E", "E"), (given[0], "A"), ("", "F"), (given[1], "C")]
        write(f"r{seed}", "random", "mlvu_test", _mlvu(answers, "xxyy"), retention=0.25, seed=seed)
    write("v", "full", "mvbench_action_count", _mvbench([("A", "A"), ("", "A"), ("", "B"), ("B", "B")]))
    write("l", "full", "longvideobench_val_v", _longvideobench([("A", "A"), ("", "A"), ("B", "C"), ("B", "B")]))
    write_run(tmp_path / "runs", "other", "full", [1, 0, 1, 1])
    return tmp_path / "runs"


def _table(folder: Path) -> Table:
    table = corrected_table(comparable(load(folder)))
    assert table is not None
    return table


def _row(table: Table, *key: str) -> dict[str, Cell]:
    return next(
        dict(zip(table.columns, row, strict=True))
        for row in table.rows
        if tuple(cell.text for cell in row[: table.keys]) == key
    )


def test_stock_and_corrected_stand_side_by_side(runs: Path, tmp_path: Path) -> None:
    table = _table(runs)
    assert len(table.rows) == 4, "a task that is scored right has no row"
    # Two types: stock 1 of 2 and 0 of 2, corrected 2 of 2 and 1 of 2.
    mlvu = _row(table, "mlvu_test", "full", "1")
    assert (mlvu["lmms-eval"].text, mlvu["corrected"].text, mlvu["corrected"].difference) == ("25.0", "75.0", "+50.0")
    assert mlvu["changed"].text == "2" and mlvu["corrected"].runs == ("m",)
    mvbench = _row(table, "mvbench_action_count", "full", "1")
    assert (mvbench["lmms-eval"].text, mvbench["corrected"].text) == ("100.0", "50.0")
    lvb = _row(table, "longvideobench_val_v", "full", "1")
    assert (lvb["lmms-eval"].text, lvb["corrected"].text, lvb["n"].text) == ("", "50.0", "4")
    assert "that names none (1 here); the records do not hold the draw" in table.notes[0]
    random = _row(table, "mlvu_test", "random", "0.25")
    assert random["corrected"].seeds == "2" and random["corrected"].runs == ("r0", "r1")
    collect([runs], tmp_path / "out")
    assert _table(tmp_path / "out") == table


def test_a_draw_that_lmms_eval_wrote_down_is_in_its_score(tmp_path: Path) -> None:
    """A plain lmms-eval output: four empty answers, one drawn right."""
    rows = [
        {
            "doc_id": number,
            "target": 0,
            "filtered_resps": [""],
            "lvb_acc": {"parsed_pred": drawn, "answer": "A", "duration_group": 15},
        }
        for number, drawn in enumerate("ABCD")
    ]
    results = {
        "results": {"longvideobench_val_v": {"lvb_acc,none": 0.25}},
        "configs": {"longvideobench_val_v": {}},
        "config": {"model": "llava_onevision", "model_args": "pretrained=x"},
    }
    (tmp_path / "20260101_000000_results.json").write_text(json.dumps(results))
    samples = tmp_path / "20260101_000000_samples_longvideobench_val_v.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = _row(_table(tmp_path), "longvideobench_val_v", "llava_onevision", "1")
    assert (row["lmms-eval"].text, row["corrected"].text, row["changed"].text) == ("25.0", "0.0", "1")


def test_the_command_shows_it_where_there_is_something(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", str(runs), "--pivot", "columns=task,retention", "--trace"]) == 0
    out = capsys.readouterr().out
    assert "Tasks that lmms-eval mis-scores" in out and "mlvu_test, random, 0.25 | corrected: r0 r1" in out
    assert main(["tables", str(runs / "other")]) == 0
    assert "mis-scores" not in capsys.readouterr().out
