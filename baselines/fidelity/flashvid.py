"""FlashVID against its release: segments, selections, tree merging, the vision side as a whole, the inner cut."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines._flashvid_select import Selector, segment_of_frame, select_tokens
from baselines._flashvid_tree import grow_forest
from baselines.fidelity.checks import Check, cases, close, same
from baselines.flashvid import frame_quota, inner_keep, merge_video, released_left

ROWS, PARTS = 1e-4, 1e-5
"""Largest absolute differences of rows: of the whole stage, of the tree alone. Indices are exact."""

SELECTORS: dict[str, Selector] = {
    "attn_div_v2": "v2",
    "attn_div": "v1",
    "attn": "attention",
    "div": "diversity",
}
"""The official names and ours."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `flashvid`; the release's tree count, repeated picks and counts are switched on."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        params = case["params"]
        if "settings" in params:
            for name, setting in params["settings"].items():
                checks += _stage(stem, name, setting, tensors)
        else:
            checks += _segments(stem, tensors) + _selections(stem, params, tensors)
            checks += _trees(stem, params, tensors) + _inner(stem, params, tensors)
    return checks


def _stage(case: str, name: str, setting: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """The vision side with one setting."""
    x, attention = tensors["x"], tensors["attention"]
    expected = {key: tensors[f"{name}.{key}"] for key in ("segments", "selected", "roots", "indices", "rows")}
    budget = frame_quota(x.shape[1], setting["retention_ratio"], setting["expansion"], setting["alpha"])
    out = merge_video(
        x,
        attention,
        [budget[0]] * x.shape[0],
        alpha=setting["alpha"],
        merge_threshold=setting["temporal_threshold"],
        segment_threshold=setting["segment_threshold"],
        min_segments=setting["min_segment_num"],
        selector=SELECTORS[setting["token_selection_method"]],
        distinct=False,
        tree_mean="released",
        counts="released",
    )
    position, rows = out.compressed.position, out.compressed.tokens
    title = f"{case} {name}"
    counts = (*budget, len(position), len(position) - len(position.unique()))
    stored = [setting[key] for key in ("budget", "nA", "nT", "tokens", "duplicate_slots")]
    if rows.shape == expected["rows"].shape:
        rows = _in_their_order(position, rows, expected["rows"])
    return [
        same(f"{title} counts", torch.tensor(counts), torch.tensor(stored)),
        same(f"{title} segments", out.segment.bincount(), expected["segments"]),
        same(f"{title} selected", out.picks.sort().values, expected["selected"]),
        same(f"{title} roots", out.roots, expected["roots"]),
        same(f"{title} indices", position, expected["indices"]),
        close(f"{title} rows", rows, expected["rows"], ROWS),
    ]


def _in_their_order(position: Tensor, rows: Tensor, expected: Tensor) -> Tensor:
    """`rows` with the two of a shared position in the order that is nearer to the expected one: theirs is unstable."""
    rows = rows.clone()
    for i in (position[1:] == position[:-1]).nonzero().flatten().tolist():
        pair = rows[i : i + 2]
        if (pair.flip(0) - expected[i : i + 2]).norm() < (pair - expected[i : i + 2]).norm():
            rows[i : i + 2] = pair.flip(0)
    return rows


def _segments(case: str, tensors: dict[str, Tensor]) -> list[Check]:
    """Segmentation from mean tokens, at four minimal numbers of segments."""
    checks = []
    for key in sorted(key for key in tensors if key.endswith(".lengths")):
        video, at_least = key.removesuffix(".lengths").split(".min")
        ours = segment_of_frame(tensors[f"{video}.frame_means"], 0.9, int(at_least)).bincount()
        checks.append(same(f"{case} {key}", ours, tensors[key]))
    return checks


def _selections(case: str, params: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """The four selections, and the repeated pick of v2 where relevance is not positive."""
    x = tensors["select.x"]
    one_segment = torch.zeros(len(x), dtype=torch.int64)
    checks = []
    for name, selector in SELECTORS.items():
        attention = None if selector == "diversity" else tensors["select.attention"]
        picks = select_tokens(x, attention, one_segment, params["select_k"], selector, distinct=False)
        checks.append(same(f"{case} select.{name}", picks.sort().values, tensors[f"select.{name}"]))
    x = tensors["repeat.x"]
    for key, selector in {"v1": SELECTORS["attn_div"], "v2": SELECTORS["attn_div_v2"]}.items():
        stored = tensors[f"repeat.{key}"]
        even = torch.ones(x.shape[:2])  # uniform, as the method card has it
        picks = select_tokens(x, even, one_segment[:1], stored.shape[1], selector, distinct=False)
        checks.append(same(f"{case} repeat.{key}", picks.sort().values, stored))
    return checks


def _trees(case: str, params: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """Merging over time alone: nothing selected, no floor."""
    checks = []
    for name in ("star", "chain", "random"):
        x = tensors[f"tree.{name}.x"]
        none = torch.zeros(len(x), dtype=torch.int64)
        free = torch.ones(x.shape[:2], dtype=torch.bool)
        forest = grow_forest(x, free, none, none, params["tree_threshold"], "released")
        index = (~forest.merged).flatten().nonzero().squeeze(1)
        checks.append(same(f"{case} tree.{name}.index", index, tensors[f"tree.{name}.index"]))
        checks.append(close(f"{case} tree.{name}.rows", forest.rows[index], tensors[f"tree.{name}.rows"], PARTS))
    return checks


def _inner(case: str, params: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """The cut inside the LLM, and the released numbers of tokens a frame."""
    inner = params["inner"]
    start, video, row = inner["video_start"], inner["video_tokens"], tensors["inner.last_row"]
    left = released_left(video, inner["llm_retention_ratio"])
    kept = start + inner_keep(row[:, start : start + video], left)
    text = torch.cat([torch.arange(start), torch.arange(start + video, row.shape[1])])
    checks = [
        same(f"{case} inner.kept", torch.cat([text, kept]).sort().values, tensors["inner.kept"]),
        same(f"{case} inner.kept_video", torch.tensor(left), torch.tensor(inner["kept_video"])),
    ]
    for key, stored in params["budgets_alpha07_expansion125"].items():
        slots, retention = (part.split("=")[1] for part in key.split(","))
        ours = frame_quota(int(slots), float(retention), 1.25, 0.7)
        checks.append(same(f"{case} budget {key}", torch.tensor(ours), torch.tensor(stored)))
    return checks
