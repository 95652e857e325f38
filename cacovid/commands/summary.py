"""What `inspect` says on the terminal: a few lines, or JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cacovid.commands.look import Look, printable

if TYPE_CHECKING:
    from cacovid.backbones import Answer
    from cacovid.video import Clip

_BARS = "▁▂▃▄▅▆▇█"


def as_json(look: Look, clip: "Clip", answer: "Answer", picture: Path) -> dict[str, object]:
    """The audit and what it is about, as plain data."""
    fates = look.fates
    frames = [
        {"index": index, "seconds": seconds, "entering": int(entering), "kept": int(kept)}
        for index, seconds, entering, kept in zip(look.indices, look.seconds, fates.entering, fates.kept, strict=True)
    ]
    return {
        "video": clip.path,
        "sha256": clip.sha256,
        "decoder": clip.backend,
        "sampling": clip.sampling,
        "question": look.question,
        "answer": look.answer,
        "method": look.method,
        "retention_asked": look.retention,
        "grid": list(look.grid),
        "spent": look.spent.to_json(),
        "kept_positions": answer.kept.tolist(),
        "frames": frames,
        "evidence_recall": look.evidence_recall,
        "seconds": answer.seconds,
        "picture": str(picture),
    }


def bars(counts: list[int], full: int) -> str:
    """One block a frame, as high as its share of `full`; a blank for none.

    >>> bars([0, 1, 98, 196], 196)
    ' ▁▄█'
    """
    top = len(_BARS)
    return "".join(" " if n == 0 else _BARS[max(1, round(n / full * top)) - 1] for n in counts)


def show(look: Look, clip: "Clip", answer: "Answer", picture: Path) -> None:
    """Print the summary."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    spent, kept = look.spent, look.fates.kept.tolist()
    total, full = spent.video_tokens, look.grid[0] * look.grid[1]
    giga = ", ".join(f"{stage} {flops / 1e9:.3g}" for stage, flops in asdict(spent.flops).items())
    rows = {
        "video": f"{clip.path}: {len(clip.indices)} of {clip.total_frames} frames, {clip.fps:.3g} fps, {clip.backend}",
        "question": printable(look.question),
        "answer": printable(look.answer) or "(empty)",
        "method": f"{look.method}, r = {look.retention:g} asked, {spent.retention:.4g} kept at the end",
        "tokens": f"{total} video tokens, {spent.entering} enter the LLM, {spent.kept} after the last cut "
        f"(asked {spent.asked}); layer average {spent.layer_average:.1%}",
        "at decode": f"{spent.decode_visible:.5g} KV entries of the video a layer and step",
        "FLOPs": f"{spent.flops_ratio:.1%} of the uncompressed LLM; in GFLOPs: {giga}",
        "seconds": ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in answer.seconds.items()),
        "a frame": f"|{bars(kept, full)}| {min(kept)} to {max(kept)} of {full} tokens kept",
    }
    if (recall := look.evidence_recall) is not None:
        rows["evidence"] = f"{recall:.0%} of the cells that hold the answer are kept"
    rows["picture"] = str(picture)
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(table)
