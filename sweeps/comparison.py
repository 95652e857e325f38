"""`python -m sweeps.comparison`: the shipped policies against the training-free methods, on the whole test split.

Its table: `python -m analysis paired results/comparison/runs --reference cacovid`.
"""

import sys
from pathlib import Path

from cacovid.policy.checkpoint import TESTBED_SEEDS
from sweeps.demo import RATIOS, demo_cells
from sweeps.local import Cell, command

LLM_LAYERS = 8
"""Of the test bed's LLM."""


def in_llm_retention(average: float, layer: int, layers: int) -> float | None:
    """What must be left after a cut before `layer` so that the layers' average is `average`; None under the floor.

    The layers before the cut compute every token, so no average below layer / layers can be met.
    """
    rest = (average * layers - layer) / (layers - layer)
    return rest if rest > 0 else None


def comparison_cells() -> list[Cell]:
    """The demo's cells and the policies (nominal budgets), and the in-LLM variants that meet a layer average too."""
    others = [cell for cell in demo_cells() if cell.method not in ("fewer_frames", "cacovid")]
    cells = [cell for cell in others if cell.retention < 1 or cell.method == "full"]
    for retention in RATIOS:
        cells += [Cell(f"cacovid ({name})", "cacovid", retention, {"policy": name}) for name in TESTBED_SEEDS]
        rest = in_llm_retention(retention, 1, LLM_LAYERS)
        if rest is not None:
            for variant in ("B1", "B3"):
                settings = {"variant": variant, "layer": 1}
                cells.append(Cell(f"attention top-k {variant}, layer average", "attention_topk", rest, settings))
    return cells


def main() -> int:
    """Run the comparison's cells."""
    results = Path("results/comparison/runs")
    return command("sweeps.comparison", __doc__, comparison_cells(), videos=250, results=results)


if __name__ == "__main__":
    sys.exit(main())
