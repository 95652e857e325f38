"""The comparison on the test bed: which cells it has, and what an in-LLM cut must leave for a layer average."""

import pytest

from cacovid.policy.checkpoint import TESTBED_SEEDS
from sweeps.comparison import LLM_LAYERS, comparison_cells, in_llm_retention
from sweeps.demo import RATIOS


@pytest.mark.parametrize("average", [0.25, 0.2, 0.15])
def test_layers_before_and_after_the_cut_average_to_what_is_asked(average: float) -> None:
    rest = in_llm_retention(average, 1, LLM_LAYERS)
    assert rest is not None
    assert (1 + (LLM_LAYERS - 1) * rest) / LLM_LAYERS == pytest.approx(average)


def test_no_cut_reaches_an_average_below_its_floor() -> None:
    assert in_llm_retention(1 / LLM_LAYERS, 1, LLM_LAYERS) is None
    assert in_llm_retention(0.1, 1, LLM_LAYERS) is None


def test_every_policy_meets_every_method_at_every_ratio() -> None:
    cells = comparison_cells()
    for retention in RATIOS:
        here = [cell for cell in cells if cell.retention == retention]
        assert {cell.settings["policy"] for cell in here if cell.method == "cacovid"} == set(TESTBED_SEEDS)
        assert {"random", "uniform", "downsample", "attention_topk"} <= {cell.method for cell in here}
    assert len({(c.method, c.retention, str(c.settings)) for c in cells}) == len(cells), "no cell twice"
    assert [cell.retention for cell in cells if cell.method == "full"] == [1.0]
