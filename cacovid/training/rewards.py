"""What an answer is worth, by kind of problem: the rewards that move the policy, between 0 and 1.

Source: the release's accuracy_reward (itself Video-R1's), by problem type of the Video-R1 data.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import jiwer
from rouge_score.rouge_scorer import RougeScorer

_TAGGED: Final = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_ROUGES: Final = ("rouge1", "rouge2", "rougeL")
_TINY: Final = 1e-9
_OPTION: Final = re.compile(r"\b(?:option|answer is|choice)\b\s*:?\s*\(?([A-Z])\b", re.IGNORECASE)


def answer_of(text: str) -> str:
    """What stands between <answer> tags, or the whole text, stripped."""
    found = _TAGGED.search(text)
    return (found.group(1) if found else text).strip()


def choice_letter(text: str) -> str:
    """The letter that a reply names: its first one, or the one behind "option" in "red, option B"; "" for none."""
    if named := _OPTION.search(text):
        return named.group(1).upper()
    return text.strip().strip(".(")[:1]


def multiple_choice(reply: str, solution: str) -> float:
    """1 where the letters agree.

    Ours differs: the release compares first letters alone; "red, option B" names B here.
    """
    wanted = choice_letter(answer_of(solution))
    return float(bool(wanted) and wanted in (choice_letter(answer_of(reply)), choice_letter(reply)))


def numerical(reply: str, solution: str) -> float:
    """1 where both are equal after rounding to two decimals, and both or neither are written with decimals."""
    got, wanted = answer_of(reply), answer_of(solution)
    decimals = ["." in text or "," in text for text in (got, wanted)]
    numbers = [_number(text) for text in (got, wanted)]
    if decimals[0] != decimals[1] or None in numbers:
        return 0.0
    return float(round(numbers[0], 2) == round(numbers[1], 2))  # type: ignore[arg-type]


def ocr(reply: str, solution: str) -> float:
    """1 - word error rate, not below 0."""
    got, wanted = answer_of(reply), answer_of(solution)
    if not wanted.split():
        return float(not got.split())
    return max(0.0, 1.0 - float(jiwer.wer(wanted, got)))


def free_form(reply: str, solution: str) -> float:
    """Mean F measure of ROUGE-1, ROUGE-2 and ROUGE-L, with stemming."""
    scores = _rouge().score(answer_of(solution), answer_of(reply))
    return sum(scores[name].fmeasure for name in _ROUGES) / len(_ROUGES)


def regression(reply: str, solution: str) -> float:
    """1 - relative error, not below 0; 0 for what is no number."""
    got, wanted = _number(answer_of(reply)), _number(answer_of(solution))
    if got is None or wanted is None:
        return 0.0
    return 1.0 - min(1.0, (abs(got - wanted) + _TINY) / (abs(wanted) + _TINY))


REWARDS: Final[dict[str, Callable[[str, str], float]]] = {
    "multiple choice": multiple_choice,
    "numerical": numerical,
    "OCR": ocr,
    "free-form": free_form,
    "regression": regression,
}
"""Problem type, as the Video-R1 data names it -> reward of (reply, solution)."""


def reward(problem_type: str, reply: str, solution: str) -> float:
    """Raises ValueError for a problem type that has no reward."""
    if problem_type not in REWARDS:
        raise ValueError(f"problem_type={problem_type!r}, expected one of {', '.join(map(repr, REWARDS))}")
    return REWARDS[problem_type](reply, solution)


def _number(text: str) -> float | None:
    """The number that a text is, thousands separators allowed; None for anything else, NaN and infinity too."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


@cache
def _rouge() -> Any:
    return RougeScorer(list(_ROUGES), use_stemmer=True)
