"""`python -m sweeps.comparison`: the shipped policies against the training-free methods, on the whole test split.

Its table: `python -m analysis paired results/comparison/runs --reference cacovid`.
"""

import argparse
import os
import sys
from pathlib import Path

from sweeps.demo import RATIOS, demo_cells
from sweeps.local import Cell, run_cells

POLICIES = ("testbed", "testbed-1", "testbed-2")
SETTINGS = {"importance_share": 1.0, "frame_cap": 4.0}
"""How the shipped policies are asked: all by importance, see docs/cacovid.md."""
LLM_LAYERS = 8
"""Of the test bed's LLM."""


def in_llm_retention(average: float, layer: int, layers: int) -> float | None:
    """What must be left after a cut before `layer` so that the layers' average is `average`; None under the floor.

    The layers before the cut compute every token, so no average below layer / layers can be met.

    >>> round(in_llm_retention(0.25, 1, 8), 4), in_llm_retention(0.10, 1, 8)
    (0.1429, None)
    """
    rest = (average * layers - layer) / (layers - layer)
    return rest if rest > 0 else None


def comparison_cells() -> list[Cell]:
    """The demo's cells and the policies (nominal budgets), and the in-LLM variants that meet a layer average too."""
    cells = [
        cell for cell in demo_cells() if cell.method != "fewer_frames" and (cell.retention < 1 or cell.method == "full")
    ]
    for retention in RATIOS:
        cells += [Cell(f"cacovid ({name})", "cacovid", retention, {"policy": name, **SETTINGS}) for name in POLICIES]
        rest = in_llm_retention(retention, 1, LLM_LAYERS)
        if rest is not None:
            for variant in ("B1", "B3"):
                settings = {"variant": variant, "layer": 1}
                cells.append(Cell(f"attention top-k {variant}, layer average", "attention_topk", rest, settings))
    return cells


def main() -> int:
    """Run the comparison's cells."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.comparison", description=__doc__)
    parser.add_argument("--videos", type=int, default=250, help="test videos to ask about (default: all 250)")
    parser.add_argument("--results", type=Path, default=Path("results/comparison/runs"), help="where the runs go")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    return run_cells(comparison_cells(), args.videos, args.results, args.processes)


if __name__ == "__main__":
    sys.exit(main())
