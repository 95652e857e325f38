"""The table of a results folder, in Markdown: times in milliseconds, speed-ups against the rows' own block."""

from statistics import median
from typing import Any

from sweeps.latency.rows import newest
from sweeps.latency.settings import QUOTABLE

STATES = {"out_of_memory": "out of memory", "failed": "failed", "not_measured": "not measured"}
COLUMNS = (
    ("read", "read"),
    ("preprocess", "preprocess"),
    ("vision", "vision tower"),
    ("compress", "compressor"),
    ("prefill", "prefill"),
    ("ttft", "first token"),
    ("decode_per_token", "a decoded token"),
)
HEAD = (
    "method",
    "r",
    "tokens a layer",
    "FLOPs",
    *(title for _, title in COLUMNS),
    "end to end",
    "end to end, p90",
    "end to end, p99",
    "stages / end to end",
    "memory, GiB",
    "compressor + prefill, times as fast",
    "first token, times as fast",
    "end to end, times as fast",
)


def tables(rows: list[dict[str, Any]], environments: dict[str, dict[str, Any]]) -> str:
    """One table for each backbone, machine, number of frames and batch size, with notes below it.

    Of several rows of one configuration `newest` shows one; the uncompressed model that it is compared with is that of
    its own block.
    """
    full = {row["block"]: row for row in rows if row["method"] == "full" and row["status"] == "measured"}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in newest(rows):
        environment = environments.get(row["block"], {})
        kind = ("backbone", "weights", "frames", "batch", "prompt_tokens", "decode_tokens")
        about = (*(row[name] for name in kind), *(environment.get(n) for n in ("device_name", "dtype", "attention")))
        groups.setdefault(about, []).append(row)
    return "\n\n".join(_table(about, group, full, environments) for about, group in groups.items())


def _table(
    about: tuple[Any, ...],
    rows: list[dict[str, Any]],
    full: dict[str, dict[str, Any]],
    environments: dict[str, dict[str, Any]],
) -> str:
    backbone, weights, frames, batch, prompt, steps, device, dtype, attention = about
    title = (
        f"**{backbone}**, {weights} weights, {frames} frames, batch {batch}, {prompt} prompt tokens, {steps} decode "
        f"steps; {device}, {dtype}, {attention}. Median milliseconds of a batch; [95% interval of the median]."
    )
    lines = [title, "", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [_line(row, full.get(row["block"])) for row in rows]
    return "\n".join([*lines, *_notes(rows, environments)])


def _line(row: dict[str, Any], full: dict[str, Any] | None) -> str:
    name, budget = row["label"], row["budget"].replace("_", " ")
    if budget != "nominal" and budget not in name:
        name += f" ({budget})"
    cells = [name, f"{row['retention']:g}"]
    if row["status"] != "measured":
        cells += [STATES[row["status"]], *[""] * (len(HEAD) - len(cells) - 1)]
        return f"| {' | '.join(cells)} |"
    seconds, spent = row["seconds"], row["spent"]
    cells += [f"{spent['layer_average'] * spent['video_tokens']:.0f}", f"{100 * spent['flops_ratio']:.1f}%"]
    cells += [_milliseconds(seconds.get(stage)) for stage, _ in COLUMNS]
    whole = seconds.get("end_to_end")
    cells += [_milliseconds(whole), *(f"{1000 * whole[p]:.1f}" if whole else "" for p in ("p90", "p99"))]
    balance, memory = row["stages_to_end_to_end"], row["memory"]["above_weights_bytes"]
    cells += ["" if balance is None else f"{balance:.3f}", "" if memory is None else f"{memory / 2**30:.2f}"]
    cells += [_speed_up(row, full, stage) for stage in ("prefill", "ttft", "end_to_end")]
    return f"| {' | '.join(cells)} |"


def _milliseconds(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = "" if found["low"] is None else f" [{1000 * found['low']:.1f}, {1000 * found['high']:.1f}]"
    return f"{1000 * found['p50']:.1f}{interval}"


def speed_up(row: dict[str, Any], full: dict[str, Any], stage: str) -> float | None:
    """Times as fast as the uncompressed model of the same block: the median over rounds. A prefill has its compressor.

    None where one of the two was not measured. Raises ValueError for rows of two blocks.
    """
    if row["block"] != full["block"]:
        raise ValueError(f"rows of blocks {row['block']} and {full['block']} were not timed in turns")
    own, base = (_cost(one["samples"], stage) for one in (row, full))
    ratios = [b / a for a, b in zip(own, base, strict=False)]
    return median(ratios) if ratios else None


def _cost(samples: dict[str, list[float]], stage: str) -> list[float]:
    if stage == "prefill" and stage in samples:
        return list(map(sum, zip(samples["compress"], samples["prefill"], strict=True)))
    return samples.get(stage, [])


def _speed_up(row: dict[str, Any], full: dict[str, Any] | None, stage: str) -> str:
    factor = speed_up(row, full, stage) if full else None
    return "" if factor is None else f"{factor:.2f}"


def _notes(rows: list[dict[str, Any]], environments: dict[str, dict[str, Any]]) -> list[str]:
    notes = [f"- {row['label']}, r = {row['retention']:g}: {row['reason']}" for row in rows if row["reason"]]
    few = [row for row in rows if row["status"] == "measured" and row["repeats"] < QUOTABLE]
    if few:
        notes.append(f"- fewer than {QUOTABLE} repeats in {len(few)} rows: not for quoting")
    for memory in {row["memory"]["how"] for row in rows if row["memory"]["how"]}:
        notes.append(f"- memory above the weights: {memory}, the largest of the repeats")
    loads = [
        max(environments[block][when]["load_average"][0] for when in ("clocks_before", "clocks_after"))
        for block in {row["block"] for row in rows} & set(environments)
    ]
    if loads:
        notes.append(f"- load average of the machine: up to {max(loads):.1f}")
    return ["", *notes] if notes else []
