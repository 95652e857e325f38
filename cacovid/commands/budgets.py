"""`budgets`: what each method's retention ratio means, and what it really costs under each budget mode."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from cacovid.budget import BudgetMode
from cacovid.errors import BudgetError, MethodError

if TYPE_CHECKING:
    from cacovid.flops import DecoderShape
    from cacovid.records import VideoTokens

TEXT = 100
"""Prompt tokens around the video; the newline token comes on top."""

QWEN2 = {
    "qwen2-7b": (28, 3584, 28, 4, 128, 18944, 152064),
    "qwen2-0.5b": (24, 896, 14, 2, 64, 4864, 151936),
}
"""Sizes of LLaVA-OneVision's LLMs: layers, width, heads, key heads, head width, feed-forward width, vocabulary."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one ratio under one mode; `figures` are shares of N, None where it cannot be met."""

    method: str
    mode: str
    retention: float
    figures: tuple[float, float, float, float] | None  # entering, kept, layer average, FLOPs
    remark: str = ""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("budgets", help="what r means for every method, and what it costs, as Markdown")
    parser.add_argument("--llm", choices=sorted(QWEN2), default="qwen2-7b", help="sizes (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--side", type=int, default=14, help="side of the pooled grid (default: %(default)s)")
    parser.add_argument("--retention", type=float, nargs="+", default=[0.25, 0.2, 0.15, 0.1])
    parser.add_argument("--methods", nargs="+", help="names, with fields as name:field=value,... (default: all)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a row for each method, mode and ratio."""
    from cacovid.flops import DecoderShape
    from cacovid.registry import method_names

    shape = DecoderShape(*QWEN2[args.llm])
    video = synthetic_video(args.frames, args.side, shape.width)
    print(
        f"Video tokens in % of {len(video)} ({args.frames} x {args.side**2}), {args.llm}, {TEXT} prompt tokens. FLOPs: "
        f"of prefill and compressor, as the share of tokens which, cut before the LLM, costs the same.\n"
    )
    print("| method | budget | r | entering | kept | layer average | FLOPs | |")
    print("|---|---|---|---|---|---|---|---|")
    for text in args.methods or [name for name in method_names() if name != "full"]:
        name, _, given = text.partition(":")
        settings = dict(pair.split("=", 1) for pair in given.split(",")) if given else {}
        for mode in get_args(BudgetMode):
            for retention in args.retention:
                print(line(realised(name, settings, retention, mode, video, shape)), flush=True)
    return 0


def line(row: Row) -> str:
    """A row of the Markdown table."""
    shares = ["", "", "", ""] if row.figures is None else [f"{100 * share:.1f}" for share in row.figures]
    return f"| {row.method} | {row.mode} | {100 * row.retention:g} | {' | '.join(shares)} | {row.remark} |"


def realised(
    name: str,
    settings: dict[str, Any],
    retention: float,
    mode: BudgetMode,
    video: "VideoTokens",
    shape: "DecoderShape",
) -> Row:
    """The figures that the method's schedule gives, without running an LLM."""
    from cacovid.lmms.arguments import convert
    from cacovid.registry import build_method, method_class
    from cacovid.solve import Cost, plan

    cls = method_class(name)
    label = name + "".join(f" {key}={value}" for key, value in settings.items())
    try:
        typed = {key: convert(cls, key, value) for key, value in settings.items()}
        method = build_method(name, retention=retention, **typed)
        chosen = plan(method, video, shape, mode)
        schedule = chosen.method.schedule(video, shape.layers)
        compressor = chosen.method.compressor_flops(video, chosen.budget) + chosen.method.lookup_flops(video, shape)
    except (BudgetError, MethodError) as error:
        return Row(label, mode, retention, None, " ".join(str(error).split("; ")[0].split()))
    cost = Cost(shape, len(video.prefix) + 1 + len(video.suffix))
    equivalent = cost.tokens(cost.prefill(schedule) + compressor, 2 * len(video))
    counts = (schedule[0], schedule[-1], sum(schedule) / len(schedule), equivalent)
    entering, kept, average, flops = (count / len(video) for count in counts)
    return Row(label, mode, retention, (entering, kept, average, flops), "by content" if method.adaptive else "")


def synthetic_video(frames: int, side: int, width: int, seed: int = 0) -> "VideoTokens":
    """Noise features that change slowly, with a cut in the middle: some methods' counts hang on the content."""
    import torch

    from cacovid.records import VideoTokens

    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    size = side * side
    scenes = noise(2, size, width)[torch.arange(frames) * 2 // frames]  # (F, S, D)
    steps = 0.3 * noise(1, size, 1).abs() * noise(frames, size, width)
    attention = noise(frames, size).softmax(-1)
    return VideoTokens(
        features=scenes + steps,
        grid=(side, side),
        prefix=noise(TEXT // 2, width),
        newline=noise(1, width),
        suffix=noise(TEXT - TEXT // 2, width),
        question=slice(0, TEXT // 4),
        clip="synthetic",
        captured={
            "received_attention": attention,
            "keys": noise(frames, size, 16, 8),
            "patches": noise(frames, (2 * side - 1) ** 2, 32),
        },
    )
