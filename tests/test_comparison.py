"""The comparison on the test bed: which cells it has, and which of them are left out for a reason."""

from cacovid.policy.checkpoint import TESTBED_SEEDS
from cacovid.registry import method_names
from sweeps.comparison import LLM_LAYERS, comparison_cells
from sweeps.demo import RATIOS


def test_every_policy_meets_every_method_at_every_ratio() -> None:
    cells = comparison_cells()
    for retention in RATIOS:
        here = [cell for cell in cells if cell.retention == retention]
        assert {cell.settings["policy"] for cell in here if cell.method == "cacovid"} == set(TESTBED_SEEDS)
        assert {cell.method for cell in here} == set(method_names()) - {"full", "fewer_frames"}
    assert len({(c.method, c.retention, str(c.settings)) for c in cells}) == len(cells), "no cell twice"
    assert [cell.retention for cell in cells if cell.method == "full"] == [1.0]


def test_layer_averages_below_a_floor_are_no_cells() -> None:
    asked = [cell for cell in comparison_cells() if cell.settings.get("budget") == "layer_average"]
    assert {"fastv", "attention_topk", "prunevid", "holitom"} == {cell.method for cell in asked}
    for cell in asked:
        if cell.method in ("fastv", "attention_topk"):
            assert cell.settings["layer"] / LLM_LAYERS < cell.retention
    assert not any(c.method == "fastv" and "layer" not in c.settings for c in asked), (
        "K = 2 of 8 layers is 25% at least"
    )
