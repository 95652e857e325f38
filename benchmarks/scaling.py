"""How time and memory of every method's compressor grow with the frames, and with the tokens of a frame.

`python benchmarks/scaling.py --out FOLDER` measures `compress` of each registered method that acts before the LLM, on
made-up videos of the width of LLaVA-OneVision 0.5B at r = .25, one thread. Each (method, tokens a frame) has a process
of its own. FOLDER/scaling.csv gets a line for each point as it is measured, and a later call measures what is missing;
FOLDER/scaling.png has the curves. The table's exponents p are least-squares slopes of log cost over log size: a cost
that grows as size^p.

A point that takes longer than --limit seconds, or needs more than --memory GiB, is marked as cut, and so are the
larger videos of its row. Peak memory is what a call adds to the process: the video itself is there before.
"""

import argparse
import csv
import ctypes
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from cacovid.method import Method
    from cacovid.records import VideoTokens

FRAMES = (8, 16, 32, 64, 128, 256)
SIDES = (7, 10, 14)  # 49, 100 and 196 tokens a frame
LLM = "qwen2-0.5b"
RETENTION = 0.25
FITTED = 4  # points of a curve, the largest ones: below them fixed costs count
ENOUGH = 5.0  # seconds after which a point is not repeated
MADE = "made"  # the measuring process has made the next video
START = 600.0  # seconds for a process to import and to make its first video


@dataclass(frozen=True)
class Point:
    """One measured or cut point."""

    method: str
    tokens: int  # a frame
    frames: int
    seconds: float  # median of three calls, or of as many as fit; nan if cut
    peak_mib: float  # that a call adds
    cut: str = ""  # "time" or "memory"


def main() -> int:
    """Measure what is missing, print the table and draw the curves."""
    parser = argparse.ArgumentParser(prog="python benchmarks/scaling.py", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of scaling.csv and scaling.png")
    parser.add_argument("--methods", nargs="+", help="names (default: all that act before the LLM)")
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the square of a frame's tokens")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a call may take (default: %(default)g)")
    parser.add_argument("--memory", type=float, default=24.0, help="GiB a process may take (default: %(default)g)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.methods or compressors()
    points = read(args.out / "scaling.csv")
    rows = {(name, side): missing(points, name, side, args.frames) for name in names for side in args.sides}
    with TemporaryDirectory() as scratch, tqdm(total=sum(map(len, rows.values())), unit="point") as bar:
        for (name, side), frames in rows.items():
            bar.set_description(f"{name}, {side**2} tokens a frame")
            last = bar.n + len(frames)
            for point in measured(name, side, frames, args.limit, args.memory, scratch):
                points.append(point)
                append(args.out / "scaling.csv", point)
                bar.update()
            bar.update(last - bar.n)  # what was cut
    shown = [p for p in points if p.method in names and p.tokens in {s**2 for s in args.sides}]
    print(table(shown, names))
    draw(shown, names, args.out / "scaling.png")
    return 0


def missing(points: Sequence[Point], name: str, side: int, frames: Sequence[int]) -> list[int]:
    """Frames that are to be measured yet, in rising order; none behind a cut."""
    had = [p for p in points if (p.method, p.tokens) == (name, side**2)]
    return [] if any(p.cut for p in had) else sorted(set(frames) - {p.frames for p in had})


def compressors() -> list[str]:
    """Names of the methods that do something before the LLM."""
    from cacovid.registry import method_class, method_names

    return [name for name in method_names() if "pre-LLM" in object.__new__(method_class(name)).stages]


def measured(name: str, side: int, frames: Sequence[int], limit: float, memory: float, scratch: str) -> Iterator[Point]:
    """Points of rising size from one process, which ends with the first cut."""
    if not frames:
        return
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(theirs, name, side, list(frames), memory, scratch), daemon=True)
    process.start()
    theirs.close()
    try:
        for number in frames:
            if not ours.poll(START):
                raise SystemExit(f"{name}: the process that measures it did not begin within {START:g} s")
            told = ours.recv()
            if told == MADE:
                if not ours.poll(limit):
                    yield Point(name, side**2, number, math.nan, math.nan, "time")
                    return
                told = ours.recv()
            seconds, peak, cut = told
            yield Point(name, side**2, number, seconds, peak, cut)
            if cut:
                return
    except EOFError:
        raise SystemExit(f"{name}: the process that measures it died; see its error above") from None
    finally:
        process.kill()
        process.join()


def _serve(link: Connection, name: str, side: int, frames: list[int], memory: float, scratch: str) -> None:
    """In the measuring process: one message when a video is there, one with what its compression cost."""
    import torch

    from cacovid.sizes import SIZES, synthetic_video

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30),) * 2)
    method = _build(name, scratch)
    width = SIZES[LLM].decoder.width
    with torch.inference_mode():
        small = synthetic_video(8, side, width)
        method.compress(small, method.budget(len(small)))  # first calls load kernels
        for number in frames:
            try:
                video = synthetic_video(number, side, width)
                keys = torch.randn(number, side**2, 16, 72)  # of SigLIP's true width
                video = replace(video, captured={**video.captured, "keys": keys})
                link.send(MADE)
                link.send(_cost(method, video))
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and "memory" not in str(error):
                    raise
                link.send((math.nan, math.nan, "memory"))
                return


def _cost(method: "Method", video: "VideoTokens") -> tuple[float, float, str]:
    """Seconds, MiB and no cut."""
    times: list[float] = []
    peak, before = 0, _reset_peak()
    while not times or (len(times) < 3 and sum(times) < ENOUGH):
        start = time.perf_counter()
        method.compress(video, method.budget(len(video)))
        times.append(time.perf_counter() - start)
        peak = peak or _peak()
    return statistics.median(times), (peak - before) / 2**20, ""


def _build(name: str, scratch: str) -> "Method":
    """The method at its defaults; with made-up weights where it needs some."""
    from cacovid.registry import build_method

    settings: dict[str, Any] = {}
    match name:
        case "cacovid":
            settings = {"policy": _policy(Path(scratch) / "policy")}
        case "fastvid":
            settings = {"saliency": "received_attention"}  # its head's time hangs on the tower alone
        case "dycoke":
            settings = {"extend": True}
    return build_method(name, retention=RETENTION, **settings)


def _policy(folder: Path) -> str:
    from transformers import Qwen2Config

    from cacovid.policy.checkpoint import save_policy
    from cacovid.policy.network import CompressionPolicy
    from cacovid.sizes import SIZES

    shape = SIZES[LLM].decoder
    if not folder.exists():
        config = Qwen2Config(
            hidden_size=shape.width,
            intermediate_size=shape.feed_forward,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            num_hidden_layers=1,
            vocab_size=1,
        )
        save_policy(CompressionPolicy(config, "bidirectional"), folder)
    return str(folder)


def _peak() -> int:
    """Most bytes that this process has held at once, since `_reset_peak` where the system lets it (Linux).

    There not by getrusage, whose figure starts with what the parent held when it started this process.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _reset_peak() -> int:
    """Bytes held now, from which `_peak` counts on; without what the allocator keeps of earlier tensors (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def read(path: Path) -> list[Point]:
    """Points of an earlier call."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [
            Point(r["method"], int(r["tokens"]), int(r["frames"]), float(r["seconds"]), float(r["peak_mib"]), r["cut"])
            for r in csv.DictReader(file)
        ]


def append(path: Path, point: Point) -> None:
    """One line more, and the header before the first."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(f.name for f in fields(Point))
        writer.writerow(astuple(point))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Least-squares slope of log cost over log size, of the FITTED largest sizes; nan with fewer than three."""
    import numpy as np

    pairs = sorted((s, c) for s, c in zip(sizes, costs, strict=True) if c > 0)[-FITTED:]
    if len(pairs) < 3:
        return math.nan
    x, y = np.log(np.array(pairs)).T
    return float(np.polyfit(x, y, 1)[0])


def curve(points: Sequence[Point], name: str, *, tokens: int | None = None, frames: int | None = None) -> list[Point]:
    """One method's points at so many tokens a frame, or frames, by rising size."""
    found = [p for p in points if p.method == name and tokens in (None, p.tokens) and frames in (None, p.frames)]
    return sorted((p for p in found if not p.cut), key=lambda p: (p.frames, p.tokens))


def whole(points: Sequence[Point]) -> int:
    """Largest number of frames at which no method was cut."""
    cut = min((p.frames for p in points if p.cut), default=math.inf)
    return max(p.frames for p in points if p.frames < cut)


def table(points: Sequence[Point], names: Sequence[str]) -> str:
    """Exponents and the largest point of each method, as Markdown."""
    most, longest = max(p.tokens for p in points), max(p.frames for p in points)
    common = whole(points)
    lines = [
        f"| method | time, frames (at {most} tokens) | time, tokens (at {common} frames) | memory, frames | "
        f"{longest} x {most}: seconds | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        by_frames, by_tokens = curve(points, name, tokens=most), curve(points, name, frames=common)
        values = [
            exponent([p.frames for p in by_frames], [p.seconds for p in by_frames]),
            exponent([p.tokens for p in by_tokens], [p.seconds for p in by_tokens]),
            exponent([p.frames for p in by_frames], [p.peak_mib for p in by_frames]),
        ]
        last = max((p for p in points if p.method == name and p.tokens == most), key=lambda p: p.frames)
        if last.cut:
            end = [f"cut by {last.cut} at {last.frames} frames", ""]
        else:
            end = [f"{last.seconds:.3f}", f"{last.peak_mib:.0f}"]
        shown = ["" if math.isnan(value) else f"{value:.2f}" for value in values]
        lines.append(f"| {name} | {' | '.join([*shown, *end])} |")
    return "\n".join(lines)


def draw(points: Sequence[Point], names: Sequence[str], path: Path) -> None:
    """Time over frames, memory over frames and time over tokens, both axes logarithmic; grey lines have slope 1, 2."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from analysis.plots.looks import look, marker_style, title

    most, common = max(p.tokens for p in points), whole(points)
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    plans = [
        (f"time at {most} tokens a frame", {"tokens": most}, "frames", "seconds"),
        (f"memory at {most} tokens a frame", {"tokens": most}, "frames", "peak_mib"),
        (f"time at {common} frames", {"frames": common}, "tokens", "seconds"),
    ]
    for axes, (heading, at, across, up) in zip(panels, plans, strict=True):
        drawn = []
        for name in names:
            some = [p for p in map(asdict, curve(points, name, **at)) if p[up] > 0]
            style = look(name)
            x, y = [p[across] for p in some], [p[up] for p in some]
            axes.plot(x, y, linestyle=style.line, linewidth=1.2, **marker_style(style), label=title(name, name))
            drawn += list(zip(x, y, strict=True))
        ticks = sorted({x for x, _ in drawn})
        low = min(y for _, y in drawn)
        for slope in (1, 2):
            guide = [low * (x / ticks[0]) ** slope for x in ticks]
            axes.plot(ticks, guide, color="#BBBBBB", linewidth=0.8, zorder=0)
            axes.annotate(
                f"slope {slope}", (ticks[-1], guide[-1]), color="#777777", fontsize=7, ha="right", va="bottom"
            )
        axes.set(xscale="log", yscale="log", title=heading)
        axes.set_xlabel("frames" if across == "frames" else "tokens a frame")
        axes.set_ylabel("seconds" if up == "seconds" else "MiB added by a call")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(color="#EEEEEE", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
