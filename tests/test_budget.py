"""From a ratio to a count, the shared selection helpers, and the audit's own refusal."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cacovid.budget import Flops, Spent, tokens_to_keep
from cacovid.errors import BudgetError
from cacovid.select import even_quota, evenly_spaced, top_k, top_k_per_frame


@pytest.mark.parametrize(
    ("retention", "tokens", "kept"),
    [(0.25, 6272, 1568), (0.20, 6272, 1254), (0.15, 6272, 941), (0.10, 6272, 627), (0.5, 5, 2), (1.0, 7, 7)],
)
def test_budget_rounds_half_to_even(retention, tokens, kept):
    assert tokens_to_keep(retention, tokens) == kept


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(BudgetError, match=r"retention=0.01 of 16 video tokens is a budget below one token; .* 0.0625"):
        tokens_to_keep(0.01, 16)


@given(st.integers(1, 400), st.data())
def test_evenly_spaced_is_the_exact_round_of_linspace(total, data):
    count = data.draw(st.integers(1, total))
    exact = [round(Fraction(k * (total - 1), max(count - 1, 1))) for k in range(count)]
    assert evenly_spaced(total, count).tolist() == exact
    assert len(set(exact)) == count


def test_evenly_spaced_agrees_with_numpy_away_from_halves():
    assert evenly_spaced(6272, 941).tolist() == np.round(np.linspace(0, 6271, 941)).astype(int).tolist()
    assert evenly_spaced(5, 0).tolist() == []


@given(st.integers(1, 40), st.integers(1, 30), st.data())
def test_even_quota_sums_to_the_budget(frames, size, data):
    budget = data.draw(st.integers(0, frames * size))
    quota = even_quota(budget, frames)
    assert sum(quota) == budget
    assert max(quota) - min(quota) <= 1


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 6))
def test_ties_go_to_the_earlier_token(values, k):
    scores = torch.tensor(values, dtype=torch.float32)
    expected = sorted(sorted(range(6), key=lambda i: (-values[i], i))[:k])
    assert top_k(scores, k).tolist() == expected
    assert top_k(scores.view(2, 3), k).tolist() == expected
    quota = [min(k, 3), k // 2]
    per_frame = [
        3 * f + i
        for f, n in enumerate(quota)
        for i in sorted(sorted(range(3), key=lambda i: (-values[3 * f + i], i))[:n])
    ]
    assert top_k_per_frame(scores.view(2, 3), quota).tolist() == per_frame


def spent(layers, asked, slack=0, measure="kept", lenient=False):
    return Spent(
        video_tokens=100,
        asked=asked,
        measure=measure,
        slack=slack,
        lenient=lenient,
        layers=layers,
        kept=layers[-1],
        equivalent=50.0,
        decode_visible=1.0,
        flops=Flops(vision=5, compressor=10, prefill=30, decode=10),
        flops_full=Flops(vision=5, compressor=0, prefill=80, decode=20),
    )


def test_the_four_figures():
    audit = spent((100, 100, 25, 25), asked=25)
    assert (audit.entering, audit.kept, audit.retention) == (100, 25, 0.25)
    assert audit.layer_average == 0.625
    assert audit.flops_ratio == 0.5, "the vision tower is the same in both and left out"
    assert audit.flops.total == 55
    json = audit.to_json()
    assert (json["kept"], json["entering"], json["flops"]["prefill"]) == (25, 100, 30)


def test_a_missed_budget_fails_the_run():
    spent((25, 25), asked=25).check("toy")
    spent((25, 24), asked=25, slack=1).check("toy")
    with pytest.raises(BudgetError, match=r"toy kept 24 of 100 video tokens \(kept\), asked for 25 \(allowed"):
        spent((25, 24), asked=25).check("toy")
    with pytest.raises(BudgetError, match="toy kept 27"):
        spent((27, 27), asked=25, slack=1).check("toy")


def test_the_asked_figure_is_the_one_that_is_checked():
    spent((100, 20), asked=60, measure="layer_average").check("toy")
    spent((100, 21), asked=60, measure="layer_average").check("toy")  # 60.5 is as near as whole tokens come
    with pytest.raises(BudgetError, match=r"toy kept 61 of 100 video tokens \(layer_average\), asked for 60"):
        spent((100, 22), asked=60, measure="layer_average").check("toy")
    spent((30, 10), asked=30, measure="entering").check("toy")
    spent((30, 10), asked=50, measure="flops").check("toy")


def test_content_may_miss_a_budget_and_is_marked():
    audit = spent((20, 20), asked=25, lenient=True)
    audit.check("toy")
    assert audit.missed and audit.to_json()["missed"] is True
    assert not spent((25, 25), asked=25, lenient=True).missed
