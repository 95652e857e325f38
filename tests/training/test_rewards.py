"""Rewards by kind of problem, and the rate that follows them."""

import pytest

from cacovid.training.rate import AdaptiveRate
from cacovid.training.rewards import reward


@pytest.mark.parametrize(
    ("problem_type", "reply", "solution", "worth"),
    [
        ("multiple choice", "B", "<answer>B</answer>", 1.0),
        ("multiple choice", "B. red", "B", 1.0),
        ("multiple choice", "(B)", "B", 1.0),
        ("multiple choice", "<answer>B</answer>", "B", 1.0),
        ("multiple choice", "red, option B", "B", 1.0),
        ("multiple choice", "black, option C", "B", 0.0),
        ("multiple choice", "The answer is (B).", "B", 1.0),
        ("multiple choice", "", "B", 0.0),
        ("multiple choice", "", "", 0.0),
        ("numerical", "3", "3", 1.0),
        ("numerical", "3.0", "3", 0.0),  # one with decimals, one without
        ("numerical", "3.001", "3.00", 1.0),
        ("numerical", "1,200", "1200", 0.0),  # a comma counts as a decimal sign, as in the release
        ("numerical", "three", "3", 0.0),
        ("numerical", "nan", "nan", 0.0),
        ("OCR", "stop here", "stop here", 1.0),
        ("OCR", "stop", "stop here", 0.5),
        ("OCR", "a b c d e", "x", 0.0),
        ("OCR", "", "", 1.0),
        ("free-form", "a cat sits", "a cat sits", 1.0),
        ("free-form", "zebra", "a cat sits", 0.0),
        ("regression", "9", "10", 0.9),
        ("regression", "-50", "10", 0.0),
        ("regression", "much", "10", 0.0),
    ],
)
def test_what_a_reply_is_worth(problem_type: str, reply: str, solution: str, worth: float) -> None:
    assert reward(problem_type, reply, solution) == pytest.approx(worth, abs=1e-6)


def test_free_form_replies_are_graded() -> None:
    near, far = (reward("free-form", text, "a black cat sits on a mat") for text in ("a cat sitting on mats", "a dog"))
    assert 0 < far < near < 1


def test_an_unknown_problem_type_is_refused() -> None:
    with pytest.raises(ValueError, match="problem_type='essay', expected one of 'multiple choice', 'numerical'"):
        reward("essay", "", "")


def test_the_rate_follows_the_rewards() -> None:
    rate = AdaptiveRate()
    assert rate.after(0.02, 0.9) == 0.01
    assert rate.after(0.01, 1.0) == 0.01
    assert rate.after(0.02, 0.1) == 0.04
    assert rate.after(0.08, 0.0) == 0.12
    assert rate.after(0.02, 0.5) == 0.02
    assert AdaptiveRate(adaptive=False).after(0.02, 1.0) == 0.02
    with pytest.raises(ValueError, match=r"expected 0 < low <= start <= high <= 1"):
        AdaptiveRate(start=0.5)
