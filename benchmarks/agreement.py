"""Do two runs of the latency protocol agree? `python benchmarks/agreement.py FOLDER FOLDER`.

Compares what the protocol is quoted for: how many times as fast each row is as the uncompressed model of its own block.
Status 1 if a ratio of the two runs' figures is further from 1 than `--within`, or if they have no row in common.
"""

import argparse
from pathlib import Path
from typing import Any

from sweeps.latency.rows import newest, read_rows
from sweeps.latency.table import speed_up

STAGES = {"prefill": "compressor + prefill", "ttft": "first token", "end_to_end": "end to end"}


def main() -> int:
    """Print the largest differences of each stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
    parser.add_argument("--within", type=float, default=0.05)
    args = parser.parse_args()
    one, other = (_speed_ups(folder) for folder in args.folders)
    if not (keys := sorted(one.keys() & other.keys())):
        print(f"{args.folders[0]} and {args.folders[1]} have no row in common")
        return 1
    print(f"{len(keys)} rows in both runs. Ratio of their speed-ups over the uncompressed model:")
    print(
        "| stage | median | furthest from 1 | row | apart by more than " + f"{args.within:.0%} |\n|---|---|---|---|---|"
    )
    agree = True
    for stage, title in STAGES.items():
        ratios = {key: one[key][stage] / other[key][stage] for key in keys if one[key][stage] and other[key][stage]}
        if not ratios:
            continue
        worst = max(ratios, key=lambda key: abs(ratios[key] - 1))
        apart = sum(abs(ratio - 1) > args.within for ratio in ratios.values())
        agree = agree and apart == 0
        middle = sorted(ratios.values())[len(ratios) // 2]
        print(f"| {title} | {middle:.3f} | {ratios[worst]:.3f} | {worst[0]}, r = {worst[1]:g} | {apart} |")
    return 0 if agree else 1


def _speed_ups(folder: Path) -> dict[tuple[Any, ...], dict[str, float | None]]:
    """Of each row but the uncompressed one, by stage."""
    rows, _ = read_rows(folder)
    full = {row["block"]: row for row in rows if row["method"] == "full" and row["status"] == "measured"}
    return {
        tuple(row[name] for name in ("label", "retention", "budget", "backbone", "frames", "batch")): {
            stage: speed_up(row, full[row["block"]], stage) for stage in STAGES
        }
        for row in newest(rows)
        if row["status"] == "measured" and row["method"] != "full" and row["block"] in full
    }


if __name__ == "__main__":
    raise SystemExit(main())
