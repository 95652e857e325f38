"""`python -m sweeps.comparison`: every method on the test bed's test split, r as in its paper and as layer average.

Its tables: `python -m analysis paired results/comparison/runs --reference cacovid` and `... summary ...`.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cacovid.policy.checkpoint import TESTBED_SEEDS
from sweeps.demo import RATIOS, demo_cells
from sweeps.local import Cell, command

LLM_LAYERS = 8
"""Of the test bed's LLM."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published method as its authors set it, with what the test bed's eight layers ask for."""

    label: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    whole: int | None = None
    """LLM layers that compute all tokens: the floor of its layer average. None = its r is a layer average already."""


ROWS = [
    Row("attention top-k B1, layer 1", "attention_topk", {"variant": "B1", "layer": 1}, whole=1),
    Row("attention top-k B3, layer 1", "attention_topk", {"variant": "B3", "layer": 1}, whole=1),
    Row("FastV", "fastv", {}, whole=2),
    Row("FastV, K = 1", "fastv", {"layer": 1}, whole=1),
    Row("VisionZip", "visionzip"),
    Row("DyCoke, below its floor", "dycoke", {"extend": True}),  # of 31.3% at 16 frames
    Row("DivPrune", "divprune"),
    Row("PruneVid", "prunevid", {}, whole=0),
    Row("PruneVid, beta solved", "prunevid", {"knobs": "solved_beta"}, whole=0),
    Row("FrameFusion", "framefusion", {"similarity": "testbed"}),
    Row("HoliTom", "holitom"),
    Row("HoliTom with its inner stage", "holitom", {"inner": True, "inner_layer": 5}, whole=0),
    Row("FastVID on received attention", "fastvid", {"saliency": "received_attention"}),  # its head is SigLIP's own
    Row("FlashVID", "flashvid"),
]


def comparison_cells() -> list[Cell]:
    """All of the demo's rows and the published methods below r = 1, and three policies, under two meanings of r."""
    cells = [Cell("all tokens", "full", 1.0)]
    simple = [c for c in demo_cells() if c.retention < 1 and c.method not in ("fewer_frames", "cacovid")]
    policies = [Row(f"cacovid ({name})", "cacovid", {"policy": name}) for name in TESTBED_SEEDS]
    for retention in RATIOS:
        cells += [cell for cell in simple if cell.retention == retention]
        for row in [*policies, *ROWS]:
            cells.append(Cell(row.label, row.method, retention, row.settings))
            if row.whole is not None and row.whole / LLM_LAYERS < retention:
                settings = {**row.settings, "budget": "layer_average"}
                cells.append(Cell(f"{row.label}, layer average", row.method, retention, settings))
    return cells


def main() -> int:
    """Run the comparison's cells."""
    results = Path("results/comparison/runs")
    return command("sweeps.comparison", __doc__, comparison_cells(), videos=250, results=results)


if __name__ == "__main__":
    sys.exit(main())
