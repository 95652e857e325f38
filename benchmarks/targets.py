"""What compression is meant to cost, against what it does: `python benchmarks/targets.py --backbone llava_ov_7b`.

One process times the uncompressed model and four methods at r = 0.25 in turns (docs/latency.md), and CaCoVID's
compressor in turns with one decoder layer over the same uncompressed sequence. Every figure is a ratio within this run;
the published times are of another machine, so only their ratios are taken.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from cacovid.backbones import Backbone
from cacovid.backbones.base import compress_video
from cacovid.state import PrefillState
from sweeps.latency.block import Entry
from sweeps.latency.clock import StageTimer
from sweeps.latency.inputs import make_inputs
from sweeps.latency.passes import Seen, plans_of, read, reply, see
from sweeps.latency.run import device_of, entry_of, load, measure, ordered
from sweeps.latency.settings import QUOTABLE, Protocol, compose_latency

PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "cacovid_efficiency_table.csv"
LAYERS_MOST = 1.25  # CaCoVID's compressor: its policy is one decoder layer and two small heads
LOOKUPS_MOST = 0.02  # of prefill
PREFILL_LEAST = 3.7  # times as fast; published: 200.4 ms to 53.2 ms
METHODS = ("full", "fastv", "divprune", "prunevid", "cacovid")


def main() -> int:
    """Print a table; the exit status is 1 where a target is not met."""
    parser = argparse.ArgumentParser(prog="python benchmarks/targets.py", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--backbone", default="testbed", help="testbed, llava_ov_0_5b or llava_ov_7b, the last two random"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, help="default: as the checkpoint says, else 32")
    parser.add_argument("--repeats", type=int, default=QUOTABLE)
    parser.add_argument("--limit-s", type=float, help="seconds for the rows timed in turns")
    args = parser.parse_args()
    overrides = [f"backbone={args.backbone}", f"method=[{','.join(METHODS)}]", "retention=[0.25]"]
    overrides += [f"weights={'pretrained' if args.backbone == 'testbed' else 'random'}", f"device={args.device}"]
    overrides += [f"repeats={args.repeats}", "end_to_end=false", "decode_tokens=1"]
    overrides += [f"frames={args.frames}"] * (args.frames is not None)
    sweep, protocol = compose_latency(overrides)
    settings = sweep.backbones[args.backbone]
    backbone = load(args.backbone, settings, protocol, device_of(settings))
    frames = sweep.frames or backbone.frames
    with TemporaryDirectory() as scratch:
        entries = [entry_of(cell, backbone, protocol, Path(scratch)) for cell in ordered(sweep)]
        about = {"backbone": args.backbone, "weights": protocol.weights, "frames": frames, "batch": 1}
        about |= {"prompt_tokens": protocol.prompt_tokens, "decode_tokens": protocol.decode_tokens}
        until = float("inf") if args.limit_s is None else time.monotonic() + args.limit_s
        environment, found = measure(backbone, entries, protocol, about, Path(scratch), until)
        rows = {row["method"]: row for row in found}
        by_name = {entry.name: entry for entry in entries}
        videos = _videos(backbone, by_name["cacovid"], protocol, frames, Path(scratch))
        layers = _layers(backbone, by_name["cacovid"], videos)
        synced = _synchronises(backbone, by_name["cacovid"], videos[0])
        lookups = _lookups(backbone, by_name["fastv"], videos)
    print(
        f"{args.backbone}, {protocol.weights} weights, {frames} frames, r = 0.25, {environment['device_name']}, "
        f"{environment['dtype']}, {environment['attention']}, {rows['full']['repeats']} repeats; load average "
        f"{environment['clocks_before']['load_average'][0]:.1f} before, "
        f"{environment['clocks_after']['load_average'][0]:.1f} after"
    )
    if rows["full"]["repeats"] < QUOTABLE:
        print(f"fewer than {QUOTABLE} repeats: not for quoting")
    print("\n| target | measured | limit | met |\n|---|---|---|---|")
    met = [
        _line("CaCoVID's compressor, in decoder layers over the same sequence", layers, most=LAYERS_MOST),
        _told("CaCoVID's compressor never waits for the device", synced),
        *_shares(rows),
        _line("look-ups of attention rows (FastV), share of its prefill", lookups, most=LOOKUPS_MOST),
        _line("prefill at r = 0.25, times as fast", _faster(rows, _prefill), least=PREFILL_LEAST),
        _line("the same with the compressor", _faster(rows, _compressed)),
        _line("first token from the vision tower on, times as fast", _faster(rows, _seen)),
        _line("first token from the file on, times as fast", _faster(rows, lambda row: row["samples"]["ttft"])),
    ]
    return int(False in met)


def _videos(backbone: Backbone, entry: Entry, protocol: Protocol, frames: int, scratch: Path) -> list[Seen]:
    """One encoded video a repeat, and one to warm up on."""
    size = (protocol.height, protocol.width)
    inputs = make_inputs(
        backbone, scratch, 1 + protocol.repeats, 1, frames, words=protocol.prompt_tokens, size=size, seed=protocol.seed
    )
    clock = StageTimer(backbone.device)
    return [see(backbone, entry.method.needs, batch, read(batch, frames, clock), clock) for batch in inputs]


@torch.inference_mode()
def _layers(backbone: Backbone, entry: Entry, videos: list[Seen]) -> float:
    """The compressor against a layer of the LLM over the uncompressed input; median over videos, the first untimed."""
    layer, ratios = backbone.decoder.layers[0], []
    for seen in videos:
        video, timer = seen.videos[0], StageTimer(backbone.device)
        budget = entry.method.budget(len(video))
        with timer.stage("compress"):
            compress_video(entry.method, video, budget)
        state = backbone.sequence(video, entry.method.at(1.0).compress(video, len(video)), len(video), entry.method)
        hidden, (cos, sin) = state.embeds[None], backbone.decoder.rotary(state.positions)
        with timer.stage("layer"):
            layer(hidden, attention_mask=None, position_embeddings=(cos[None], sin[None]))
        ratios.append(timer.seconds["compress"] / timer.seconds["layer"])
    return median(ratios[1:])


@torch.inference_mode()
def _synchronises(backbone: Backbone, entry: Entry, seen: Seen) -> str | None:
    """What makes the compressor wait for the device; empty for nothing, None where that cannot be seen."""
    if backbone.device.type != "cuda":
        return None
    video = seen.videos[0]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        compress_video(entry.method, video, entry.method.budget(len(video)))
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _lookups(backbone: Backbone, entry: Entry, videos: list[Seen]) -> float:
    """Share of the look-ups in the prefill that they are part of; median over videos, the first untimed."""
    shares = []
    for seen in videos:
        timer = StageTimer(backbone.device)
        plans = plans_of(backbone, entry.method, "nominal", seen.videos)
        with _lookups_apart(timer):
            reply(backbone, plans, seen, 1, timer)
        shares.append(timer.seconds["look-up"] / (timer.seconds["look-up"] + timer.seconds["prefill"]))
    return median(shares[1:])


@contextmanager
def _lookups_apart(timer: StageTimer) -> Iterator[None]:
    stock = PrefillState.attention

    def timed(*args: Any, **settings: Any) -> Any:
        with timer.stage("look-up"):
            return stock(*args, **settings)

    with patch.object(PrefillState, "attention", timed):
        yield


def _shares(rows: dict[str, dict[str, Any]]) -> list[bool | None]:
    """Each method's compressor over its prefill, against the ratio of the published times."""
    met = []
    with open(PUBLISHED, encoding="utf-8") as file:
        for printed in csv.DictReader(file):
            if printed["compression_ms"] and rows[printed["method"]]["status"] == "measured":
                seconds = rows[printed["method"]]["samples"]
                share = median(map(_ratio, zip(seconds["compress"], seconds["prefill"], strict=True)))
                limit = float(printed["compression_ms"]) / float(printed["prefill_ms"])
                met.append(_line(f"{printed['method']}: compressor, share of its prefill", share, most=limit))
            elif printed["compression_ms"]:
                met.append(_told(f"{printed['method']}: compressor, share of its prefill", None))
    return met


def _ratio(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1]


def _prefill(row: dict[str, Any]) -> list[float]:
    return row["samples"]["prefill"]


def _compressed(row: dict[str, Any]) -> list[float]:
    return list(map(sum, zip(row["samples"]["compress"], row["samples"]["prefill"], strict=True)))


def _seen(row: dict[str, Any]) -> list[float]:
    stages = ("vision", "prompt", "compress", "prefill")
    return list(map(sum, zip(*(row["samples"][stage] for stage in stages), strict=True)))


def _faster(rows: dict[str, dict[str, Any]], cost: Callable[[dict[str, Any]], list[float]]) -> float | None:
    """The uncompressed model's time to CaCoVID's, median over repeats; None where one was not measured."""
    pair = [rows["full"], rows["cacovid"]]
    if any(row["status"] != "measured" for row in pair):
        return None
    return median(map(_ratio, zip(*map(cost, pair), strict=True)))


def _line(name: str, value: float | None, *, most: float | None = None, least: float | None = None) -> bool | None:
    limit = f"at most {most:.3g}" if most is not None else f"at least {least:.3g}" if least is not None else ""
    if value is None:
        print(f"| {name} | not measured | {limit} | |")
        return None
    met = None
    if limit:
        met = value <= most if most is not None else least is not None and value >= least
    print(f"| {name} | {value:.3g} | {limit} | {'' if met is None else 'yes' if met else 'NO'} |")
    return met


def _told(name: str, problem: str | None) -> bool | None:
    """A target that is met where there is no `problem`; None: it could not be measured here."""
    told = "not measurable here" if problem is None else problem or "does not"
    print(f"| {name} | {told} | never | {'' if problem is None else 'NO' if problem else 'yes'} |")
    return None if problem is None else not problem


if __name__ == "__main__":
    sys.exit(main())
