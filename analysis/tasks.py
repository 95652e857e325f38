"""How lmms-eval's tasks score and average: unit, aggregation, and where a sample's score and category are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task's conventions, in the words of lmms-eval's files."""

    metric: str | None = None  # key of its aggregate, and of a sample's row; None: unknown
    scale: float | None = None  # the aggregate's value when all is right: 1 or 100
    macro: bool = False  # the aggregate is the mean over categories, not over questions
    category: str | None = None  # field of the sample's row that `macro` and breakdowns go by
    video: str | None = None  # field of the sample's row that names the video
    compared: tuple[str, str] | None = None  # fields that are equal in a right answer, where a row has no `score`


_VIDEOMME = Task("videomme_perception_score", 100, category="duration", video="videoID")
_LONGVIDEOBENCH = Task("lvb_acc", 1, category="duration_group", compared=("parsed_pred", "answer"))
_MLVU = Task(
    "mlvu_percetion_score",  # sic
    100,
    macro=True,
    category="task_type",
    compared=("pred_answer", "answer"),
)
_MVBENCH = Task("mvbench_accuracy", 100)
_LVBENCH = Task("lvbench_score", 1)
_EVIDENCE = Task("accuracy", 1, category="kind", video="video_id")
_KINDS = ("color", "shape", "digit", "order", "direction", "count", "after")
MVBENCH = tuple(
    f"mvbench_{kind}"
    for kind in (
        *("action_antonym", "action_count", "action_localization", "action_prediction", "action_sequence"),
        *("character_order", "counterfactual_inference", "egocentric_navigation", "episodic_reasoning"),
        *("fine_grained_action", "fine_grained_pose", "moving_attribute", "moving_count", "moving_direction"),
        *("object_existence", "object_interaction", "object_shuffle", "scene_transition", "state_change"),
        "unexpected_action",
    )
)
"""MVBench's tasks."""
FIXED = "_fixed"
"""What the suite's corrected variant of a stock task ends in (docs/tasks.md)."""

TASKS: dict[str, Task] = {
    **dict.fromkeys(
        (
            "videomme",
            "videomme_w_subtitle",
            "videomme_long",
            "videomme_long_w_subtitle",
            "videomme_no_visual",
            "videomme_random_choice",
        ),
        _VIDEOMME,
    ),
    **dict.fromkeys(
        (
            "longvideobench_val_v",
            "longvideobench_val_i",
            "longvideobench_no_visual",
            "longvideobench_random_choice",
        ),
        _LONGVIDEOBENCH,
    ),
    "mlvu_dev": _MLVU,
    "mlvu_test": _MLVU,
    **dict.fromkeys(MVBENCH, _MVBENCH),
    f"mlvu_test{FIXED}": replace(_MLVU, video="video"),
    f"longvideobench_val_v{FIXED}": replace(_LONGVIDEOBENCH, video="video"),
    **dict.fromkeys((f"{name}{FIXED}" for name in MVBENCH), replace(_MVBENCH, video="video")),
    **dict.fromkeys(("lvbench", "lvbench_no_visual", "lvbench_random_choice"), _LVBENCH),
    "egoschema_subset": Task("score", 1, compared=("pred", "ground_truth")),
    **dict.fromkeys(("evidence_vqa", "evidence_vqa_validation", *(f"evidence_vqa_{k}" for k in _KINDS)), _EVIDENCE),
}
"""By lmms-eval's task name."""


def task_of(name: str) -> Task:
    """The task's conventions; of an unknown one only what needs no knowledge: the mean of its samples' scores."""
    return TASKS.get(name, Task())


def sample_row(task: Task, metrics: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the task's `process_results` said of one sample under its metric; {} where it said nothing."""
    found = (metrics or {}).get(task.metric or "")
    return found if isinstance(found, dict) else {}


def sample_score(task: Task, metrics: Mapping[str, Any] | None) -> float | None:
    """A sample's score, 0..1, from what the task's `process_results` returned; None where that does not tell it."""
    row = sample_row(task, metrics)
    value = row.get("score", (metrics or {}).get(task.metric or ""))
    if isinstance(value, bool | int | float):
        return float(value)
    if task.compared and set(task.compared) <= row.keys():
        given, right = (str(row[name]) for name in task.compared)
        return float(given == right)
    return None
