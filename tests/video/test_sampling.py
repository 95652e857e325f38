import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacovid.video import sample_indices

lengths = st.integers(1, 200_000)
counts = st.integers(1, 600)
rules = st.sampled_from(["round", "floor"])


@given(lengths, counts, rules)
def test_indices_rise_from_the_first_frame_to_the_last(total, frames, rule):
    indices = sample_indices(total, frames, rule)
    assert indices.dtype == np.int64
    assert len(indices) == min(total, frames)
    assert (np.diff(indices) > 0).all(), "sorted, and no frame twice"
    assert indices[0] == 0
    if frames > 1:
        assert indices[-1] == total - 1


@given(lengths, counts)
def test_the_two_rules_are_those_of_the_formulas(total, frames):
    if frames >= total:
        expected = floored = np.arange(total)
    else:
        expected = np.round(np.linspace(0, total - 1, frames))
        floored = np.linspace(0, total - 1, frames, dtype=int)
    assert np.array_equal(sample_indices(total, frames, "round"), expected)
    assert np.array_equal(sample_indices(total, frames, "floor"), floored)


def test_the_rules_differ_as_the_docstring_says():
    assert sample_indices(9, 4, "round").tolist() == [0, 3, 5, 8]
    assert sample_indices(9, 4, "floor").tolist() == [0, 2, 5, 8]


@pytest.mark.parametrize("total,frames", [(0, 4), (4, 0), (4, -1)])
def test_nothing_to_sample_is_refused(total, frames):
    with pytest.raises(ValueError, match=f"frames={frames} of a video of {total}, expected at least one"):
        sample_indices(total, frames)


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'ceil', expected one of round, floor"):
        sample_indices(9, 4, "ceil")
