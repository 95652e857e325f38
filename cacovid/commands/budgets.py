"""`budgets`: what each method's retention ratio means, and what it really costs under each budget mode."""

import argparse
from typing import TYPE_CHECKING, Any, get_args

from cacovid.budget import BudgetMode
from cacovid.errors import BudgetError, FloorError, MethodError
from cacovid.sizes import SIZES, TEXT, synthetic_video

if TYPE_CHECKING:
    from cacovid.flops import DecoderShape
    from cacovid.records import VideoTokens


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("budgets", help="what r means for every method, and what it costs, as Markdown")
    parser.add_argument("--llm", choices=sorted(SIZES), default="qwen2-7b", help="sizes (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=32, help="of the video (default: %(default)s)")
    parser.add_argument("--side", type=int, help="side of a square grid of tokens (default: the model's own grid)")
    parser.add_argument("--retention", type=float, nargs="+", default=[0.25, 0.2, 0.15, 0.1])
    parser.add_argument("--methods", nargs="+", help="names, with fields as name:field=value,... (default: all)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a row for each method, mode and ratio."""
    from cacovid.registry import method_names

    sizes = SIZES[args.llm]
    shape = sizes.decoder
    video = synthetic_video(sizes.token_frames(args.frames), args.side or sizes.grid, shape.width)
    print(
        f"Shares of {len(video)} video tokens ({video.frames} x {video.tokens_per_frame}) in %, {args.llm}, "
        f"{TEXT} prompt tokens: entering the LLM / left after the last cut / average over its layers / "
        f"FLOPs of prefill and compressor, as the share of tokens that costs as much when cut before the LLM.\n"
    )
    print("| method | budget | " + " | ".join(f"r = {100 * r:g}" for r in args.retention) + " |")
    print("|---" * (2 + len(args.retention)) + "|")
    for text in args.methods or [name for name in method_names() if name != "full"]:
        name, _, given = text.partition(":")
        settings = dict(pair.split("=", 1) for pair in given.split(",")) if given else {}
        for mode in get_args(BudgetMode):
            cells = [realised(name, settings, retention, mode, video, shape) for retention in args.retention]
            print(f"| {text} | {mode} | {' | '.join(cells)} |", flush=True)
    return 0


def realised(
    name: str,
    settings: dict[str, Any],
    retention: float,
    mode: BudgetMode,
    video: "VideoTokens",
    shape: "DecoderShape",
) -> str:
    """The four figures that the method's schedule gives, without running an LLM, or why there are none."""
    from cacovid.lmms.arguments import convert
    from cacovid.registry import build_method, method_class
    from cacovid.solve import Cost, plan

    cls = method_class(name)
    try:
        typed = {key: convert(cls, key, value) for key, value in settings.items()}
        method = build_method(name, retention=retention, **typed)
        chosen = plan(method, video, shape, mode)
        schedule = chosen.method.schedule(video, shape.layers)
        compressor = chosen.method.compressor_flops(video, chosen.budget) + chosen.method.lookup_flops(video, shape)
    except FloorError as error:
        return f"floor {100 * error.floor:.1f}"
    except (BudgetError, MethodError) as error:
        return " ".join(str(error).split("; ")[0].split())
    cost = Cost(shape, video.rows - len(video))
    average = sum(schedule) / len(schedule)
    met = {"entering": schedule[0], "kept": schedule[-1], "layer_average": average}.get(chosen.measure, chosen.asked)
    if met > chosen.asked + chosen.slack + 0.5:
        return f"floor {100 * met / len(video):.1f}"
    equivalent = cost.tokens(cost.prefill(schedule, chosen.method.fed(schedule)) + compressor, 2 * len(video))
    return " / ".join(f"{100 * n / len(video):.1f}" for n in (schedule[0], schedule[-1], average, equivalent))
