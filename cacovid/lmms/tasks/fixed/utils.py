"""Stock tasks of lmms-eval with their scoring corrected: what a prediction is worth, and nothing else.

Prompts, videos and documents stay the stock task's; docs/tasks.md says what each one gets wrong. Checked against
lmms-eval 0.7.3.
"""

from collections import defaultdict
from typing import Any

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
from lmms_eval.tasks.longvideobench import utils as longvideobench
from lmms_eval.tasks.mlvu import utils as mlvu
from lmms_eval.tasks.mvbench import utils as mvbench

from cacovid.lmms.scoring import undisturbed

Row = dict[str, Any]
"""What a task tells of one sample. Here always: `score` 0 or 1, `parsed` (was an option found), `video`."""

MLVU_TEST_OPTIONS = list("ABCDEF")
"""The test set has six options a question (MLVU's README); the stock scorer knows the dev set's four."""


def mlvu_test_results(doc: Row, results: list[str]) -> dict[str, Row]:
    """Stock's row, the answer read by the same parser with six options instead of four."""
    row: Row = mlvu.mlvu_process_results(doc, results)["mlvu_percetion_score"]
    found = extract_mcq_answer(results[0], choices=MLVU_TEST_OPTIONS)
    row |= {"pred_answer": found, "score": float(found == doc["answer"]), "parsed": int(bool(found))}
    return _told("mlvu_percetion_score", row, doc["video_name"])


def longvideobench_results(doc: Row, results: list[str]) -> dict[str, Row]:
    """Stock's row; where its parser finds no option and draws one, nothing was answered, and that is wrong."""
    with undisturbed():  # it draws: other random numbers of the process stay what they would have been
        row: Row = longvideobench.longvideobench_process_results(doc, results)["lvb_acc"]
        found = longvideobench.parse_multi_choice_response(results[0], [""], {})  # it draws from these: "" alone
    row |= {"parsed_pred": found, "score": float(found == row["answer"]), "parsed": int(bool(found))}
    return _told("lvb_acc", row, doc["video_path"])


def mvbench_results(doc: Row, results: list[str]) -> dict[str, Row]:
    """Stock's row; its score of an empty answer is 0, and `mean_percent` counts it."""
    row: Row = mvbench.mvbench_process_results(doc, results)["mvbench_accuracy"]
    row |= {"score": float(row["score"]), "parsed": int(row["pred_answer"] != "")}
    return _told("mvbench_accuracy", row, doc["video"])


def _told(metric: str, row: Row, video: str) -> dict[str, Row]:
    row = {**row, "video": video}
    return {metric: row, "parsed": {**row, "score": float(row["parsed"])}}


def mean(rows: list[Row]) -> float:
    """Mean score of all samples, 0 to 1."""
    return sum(row["score"] for row in rows) / len(rows)


def mean_percent(rows: list[Row]) -> float:
    """Mean score of all samples, 0 to 100."""
    return 100 * mean(rows)


def macro_percent(rows: list[Row]) -> float:
    """Mean over task types of their means, 0 to 100; stock counts a type that `--limit` left out as 0."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row["task_type"]].append(row)
    return sum(map(mean_percent, kinds.values())) / len(kinds)
