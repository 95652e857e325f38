"""`make demo`: every method at five retention ratios on the embedded test bed, through the real lmms-eval."""

import sys
from pathlib import Path
from typing import Any

from sweeps.local import Cell, command

RATIOS = (0.25, 0.20, 0.15, 0.10)


def demo_cells() -> list[Cell]:
    """The methods of the first release at r = 1 and the paper's four ratios; `random` with three seeds."""
    rows: list[tuple[str, str, dict[str, Any]]] = [
        *((f"random (seed {seed})", "random", {"seed": seed}) for seed in range(3)),
        ("uniform", "uniform", {}),
        ("fewer frames", "fewer_frames", {}),
        ("downsample", "downsample", {}),
        ("attention top-k A1, per frame", "attention_topk", {"variant": "A1", "scope": "frame"}),
        ("attention top-k A1, global", "attention_topk", {"variant": "A1", "scope": "global"}),
        ("attention top-k B1, layer 2", "attention_topk", {"variant": "B1", "layer": 2}),
        ("attention top-k B3, layer 2", "attention_topk", {"variant": "B3", "layer": 2}),
        ("CaCoVID", "cacovid", {"policy": "testbed"}),
    ]
    cells = [Cell("all tokens", "full", 1.0)]
    cells += [Cell(label, name, r, settings) for r in (1.0, *RATIOS) for label, name, settings in rows]
    return [c for c in cells if not (c.method == "random" and c.retention == 1 and c.settings["seed"])]


def main() -> int:
    """Run the demo's cells; the table is made by `python -m analysis summary`."""
    return command("sweeps.demo", __doc__, demo_cells(), videos=8, results=Path("results/demo/runs"))


if __name__ == "__main__":
    sys.exit(main())
