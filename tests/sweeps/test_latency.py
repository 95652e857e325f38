"""The latency protocol on tiny models: what rows hold, the order of rounds, limits, failures. No time is tested."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cacovid.backbones import BACKBONES, Backbone
from cacovid.backbones.decoder import Decoder
from cacovid.flops import DecoderShape, SiglipShape
from cacovid.registry import build_method
from cacovid.sizes import SIZES
from cacovid.video import read_clip
from sweeps.latency import clock as clocks
from sweeps.latency.architectures import llava_onevision
from sweeps.latency.block import Block, Entry, turns
from sweeps.latency.clock import StageTimer
from sweeps.latency.inputs import make_inputs, write_video
from sweeps.latency.memory import PeakMemory, is_out_of_memory
from sweeps.latency.passes import STAGES
from sweeps.latency.run import measure
from sweeps.latency.settings import Protocol
from sweeps.latency.summary import median_interval, summary

TINY = Protocol(repeats=2, warmup=1, decode_tokens=3, prompt_tokens=80, width=48, height=32)
DERIVED = {"ttft", "decode_per_token", "stages", "end_to_end"}


def entry(name: str, retention: float = 0.5, **settings: Any) -> Entry:
    retention = 1.0 if name == "full" else retention
    return Entry(name, name, build_method(name, retention=retention, **settings), retention, key=name)


def timed(
    backbone: Backbone, folder: Path, entries: list[Entry], protocol: Protocol = TINY, batch: int = 1, **more: Any
) -> list[dict[str, Any]]:
    about = {"backbone": "tiny", "weights": "random", "frames": 4, "batch": batch}
    about |= {"prompt_tokens": protocol.prompt_tokens, "decode_tokens": protocol.decode_tokens}
    environment, rows = measure(backbone, entries, protocol, about, folder, **more)
    assert {row["block"] for row in rows} == {environment["block"]}
    return rows


@pytest.mark.parametrize("family", sorted(BACKBONES), indirect=True, scope="session")
@pytest.mark.parametrize("batch", [1, 2])
def test_every_row_is_complete(backbone, tmp_path, batch):
    entries = [entry("full"), entry("uniform"), entry("fastv", layer=1), entry("dycoke", extend=True)]
    rows = timed(backbone, tmp_path, entries, batch=batch)
    for row in rows:
        assert (row["status"], row["reason"], row["complete"], row["repeats"]) == ("measured", None, True, 2)
        assert set(row["samples"]) == {*STAGES, *DERIVED} == set(row["seconds"])
        assert all(len(values) == 2 and min(values) > 0 for values in row["samples"].values())
        assert 0.5 < row["stages_to_end_to_end"] < 2
        samples = row["samples"]
        for i in range(2):
            assert samples["stages"][i] == pytest.approx(sum(samples[stage][i] for stage in STAGES))
            assert samples["ttft"][i] == pytest.approx(samples["stages"][i] - samples["decode"][i])
            assert samples["decode_per_token"][i] == pytest.approx(samples["decode"][i] / 3)
        assert (row["memory"]["above_weights_bytes"] is None) == (row["memory"]["reason"] is not None)
    full, uniform, fastv, _ = (row["spent"] for row in rows)
    assert full["entering"] == full["video_tokens"] == fastv["entering"] == 2 * uniform["entering"]
    assert fastv["kept"] == uniform["kept"] == uniform["entering"]
    assert uniform["flops"]["prefill"] < fastv["flops"]["prefill"] < full["flops"]["prefill"]
    assert full["flops_ratio"] == 1


def test_stages_alone_have_no_whole(backbone, tmp_path):
    [row] = timed(backbone, tmp_path, [entry("uniform")], replace(TINY, end_to_end=False))
    assert set(row["samples"]) == {*STAGES, *DERIVED} - {"end_to_end"} and row["stages_to_end_to_end"] is None
    assert row["memory"] == {"above_weights_bytes": None, "how": None, "reason": "end_to_end=false"}


def test_a_solved_budget_is_planned_outside_the_stages(backbone, tmp_path):
    solved = replace(entry("fastv", 0.6, layer=1), budget="layer_average")
    [row] = timed(backbone, tmp_path, [solved])
    assert set(row["samples"]) == {*STAGES, *DERIVED}
    assert row["spent"]["layer_average"] == pytest.approx(0.6, abs=0.05) and row["spent"]["kept"] < 0.5 * 64


def test_decoding_has_a_fixed_number_of_steps_whatever_comes(build_backbone, tmp_path, monkeypatch):
    backbone = build_backbone()
    steps, stock = [], Decoder.decode

    def counted(self: Decoder, state: Any, tokens: Any, step: int) -> Any:
        steps.append(step)
        logits = stock(self, state, tokens, step)
        return logits.index_fill(1, torch.tensor([backbone.tokenizer.eos_token_id]), 1e9)  # the end token, always

    monkeypatch.setattr(Decoder, "decode", counted)
    assert backbone.model.generation_config.eos_token_id == backbone.tokenizer.eos_token_id
    timed(backbone, tmp_path, [entry("uniform")])
    passes = (TINY.warmup + TINY.repeats) * 2  # each apart and whole
    assert steps == list(range(3)) * passes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rounds_go_through_all_rows_and_steady_drift_cancels(count):
    entries = [entry("uniform") for _ in range(count)]
    orders = [[entries.index(e) for e in turns(entries, number)] for number in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len({tuple(order) for order in orders}) == {1: 1, 2: 2, 5: 10}[count]
    for row in range(count):
        places = [order.index(row) for order in orders]
        assert all(sum(places[i : i + 2]) == count - 1 for i in range(0, 2 * count, 2))
        assert sorted(places) == sorted(2 * list(range(count)))


def test_a_block_runs_in_turns(backbone, tmp_path, monkeypatch):
    seen: list[str] = []
    stock = Block._pass

    def noted(self: Block, one: Entry, *rest: Any) -> None:
        seen.append(one.label)
        stock(self, one, *rest)

    monkeypatch.setattr(Block, "_pass", noted)
    timed(backbone, tmp_path, [entry("full"), entry("uniform"), entry("random")], replace(TINY, repeats=3))
    warm, *rounds = (seen[i : i + 3] for i in range(0, len(seen), 3))
    assert warm == ["full", "uniform", "random"]
    assert rounds == [["full", "uniform", "random"], ["random", "uniform", "full"], ["uniform", "random", "full"]]


def test_the_vision_side_runs_once_a_round_for_rows_of_the_same_needs(backbone, tmp_path, monkeypatch):
    stock, calls = backbone.encode_pixels, []

    def counted(pixels: Any, needs: Any) -> Any:
        calls.append(needs)
        return stock(pixels, needs)

    monkeypatch.setattr(backbone, "encode_pixels", counted)
    names = ["full", "uniform", "visionzip"]
    rows = timed(backbone, tmp_path, [entry(n) for n in names], replace(TINY, end_to_end=False))
    needs = build_method("visionzip").needs
    assert needs and calls.count(needs) == TINY.warmup + TINY.repeats
    assert calls.count(frozenset()) == 2 * TINY.warmup + TINY.repeats
    full, uniform, visionzip = (row["samples"]["vision"] for row in rows)
    assert full == uniform != visionzip


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"), "out_of_memory", "3 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "CPUAllocator"),
        (ValueError("no\n such thing"), "failed", "ValueError: no such thing"),
    ],
)
@pytest.mark.parametrize("after", [0, 2])  # in the warm-up, and in the second round
def test_a_row_that_breaks_is_marked_and_the_others_go_on(backbone, tmp_path, monkeypatch, error, status, words, after):
    calls = itertools.count()
    broken = entry("uniform")

    def breaks(self: Any, video: Any, budget: int) -> Any:
        if next(calls) // 2 >= after:  # apart and whole
            raise error
        return build_method("uniform", retention=0.5).compress(video, budget)

    monkeypatch.setattr(broken, "method", type("Breaks", (type(broken.method),), {"compress": breaks})(retention=0.5))
    full, row, random = timed(backbone, tmp_path, [entry("full"), broken, entry("random")])
    assert (row["status"], row["complete"], row["samples"], row["spent"]) == (status, True, {}, None)
    assert words in row["reason"] and row["memory"]["above_weights_bytes"] is None
    assert [full["repeats"], random["repeats"]] == [2, 2]


def test_a_budget_that_was_missed_is_no_measurement(backbone, tmp_path, monkeypatch):
    cheat = entry("uniform")
    keeps_all = {"compress": lambda self, video, budget: build_method("full").compress(video, len(video))}
    monkeypatch.setattr(cheat, "method", type("Cheat", (type(cheat.method),), keeps_all)(retention=0.5))
    [row] = timed(backbone, tmp_path, [cheat])
    assert row["status"] == "failed" and "asked for" in row["reason"]


def test_ctrl_c_ends_the_block(backbone, tmp_path, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Block, "_pass", stop)
    with pytest.raises(KeyboardInterrupt):
        timed(backbone, tmp_path, [entry("uniform")])


@pytest.mark.parametrize(("limit", "statuses", "repeats"), [(1e9, 3, 4), (25, 2, 4), (19, 1, 3), (14, 1, 2)])
def test_a_limit_drops_rows_from_the_end_and_then_rounds(backbone, tmp_path, limit, statuses, repeats):
    """By a clock that is 1 s later whenever it is asked: five times for a row in the warm-up, twice for a round."""
    protocol = replace(TINY, repeats=4, end_to_end=False)
    inputs = make_inputs(backbone, tmp_path, 5, 1, 4, words=80, size=(32, 48), seed=0)
    entries = [entry("full"), entry("uniform"), entry("random")]
    ticks = itertools.count()
    Block(backbone, entries, inputs, 4, protocol, until=limit, now=lambda: float(next(ticks))).measure()
    found = [e.status for e in entries]
    assert found == ["measured"] * statuses + ["not_measured"] * (3 - statuses)
    assert all(e.reason and e.reason.startswith("limit_s") for e in entries[statuses:])
    assert {len(e.seconds["prefill"]) for e in entries[:statuses]} == {repeats}
    assert all((e.reason is None) == (repeats == 4) for e in entries[:statuses])


def test_nothing_is_measured_after_the_limit(backbone, tmp_path):
    rows = timed(backbone, tmp_path, [entry("full"), entry("uniform")], until=0.0)
    assert [(row["status"], row["complete"]) for row in rows] == [("not_measured", False)] * 2


def test_inputs_are_all_different(backbone, tmp_path):
    inputs = make_inputs(backbone, tmp_path, 3, 2, 4, words=90, size=(32, 48), seed=0)
    questions = [question for batch in inputs for question in batch]
    assert len({question.prompt for question in questions}) == 6
    assert len({frozenset(question.path for question in batch) for batch in inputs}) == 3
    assert all(len({question.path for question in batch}) == 2 for batch in inputs)
    lengths = {sum(map(len, backbone.prompt_ids(question.prompt))) for question in questions}
    assert min(lengths) >= 90 and max(lengths) <= 92
    hashes = {read_clip(question.path, 4).frames.tobytes() for question in questions}
    assert len(hashes) == 3


def test_a_made_video_moves_and_has_a_cut(tmp_path):
    write_video(tmp_path / "a.mp4", 12, (64, 96), seed=3)
    frames = read_clip(tmp_path / "a.mp4", 12).frames.astype(np.float64)
    assert frames.shape == (12, 64, 96, 3)
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.min() > 1 and steps.argmax() == 5


@pytest.mark.parametrize("sizes", ["qwen2-0.5b", "qwen2-7b"])
def test_architectures_are_those_of_the_published_models(sizes):
    config, processor = llava_onevision(sizes)
    assert DecoderShape.from_config(config.text_config) == SIZES[sizes].decoder
    assert SiglipShape.from_config(config) == SIZES[sizes].vision
    size = processor.video_processor.size
    assert (size["height"], size["width"]) == (384, 384)
    assert config.video_token_id == processor.tokenizer.convert_tokens_to_ids("<video>") < config.text_config.vocab_size


def test_a_stage_inside_another_takes_its_time_away(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 7.0, 10.0, 20.0])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(moments))
    timer = StageTimer(torch.device("cpu"))
    with timer.stage("outer"), timer.stage("inner"):
        pass
    assert timer.seconds == {"outer": 1.0 + 4.0, "inner": 2.0}
    with timer.stage("inner"):
        pass
    assert timer.seconds["inner"] == 2.0 + 10.0


def test_on_cuda_stages_are_timed_by_events_that_are_waited_for(monkeypatch):
    told: list[str] = []

    class Event:
        made = itertools.count()

        def __init__(self, enable_timing: bool) -> None:
            self.number = next(Event.made)

        def record(self) -> None:
            told.append(f"record {self.number}")

        def synchronize(self) -> None:
            told.append(f"wait {self.number}")

        def elapsed_time(self, other: "Event") -> float:
            return 5.0 * (other.number - self.number)  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    timer = StageTimer(torch.device("cuda"))
    with timer.stage("prefill"):
        told.append("work")
    assert told == ["record 0", "wait 0", "work", "record 1", "wait 1"]
    assert timer.seconds == {"prefill": 0.005}


def test_peak_memory_sees_what_was_freed_again():
    with PeakMemory(torch.device("cpu")) as peak:
        torch.ones(64 * 2**20 // 4).sum()
    if peak.reason is None:
        assert peak.above is not None and 60 * 2**20 < peak.above < 200 * 2**20
    else:
        assert peak.above is None


def test_memory_that_runs_out_is_told_from_other_errors():
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_the_interval_of_the_median_holds_it_as_often_as_it_says():
    assert median_interval(range(5)) is None and median_interval(range(6)) == (0.0, 5.0)
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(generator.exponential(size=20)) or (1.0, 0.0)
        hits += low <= np.log(2) <= high
    assert 0.94 < hits / 2000 < 0.975  # 95.9% by the binomial distribution
    assert summary([3.0, 1.0, 2.0]) == {"n": 3, "p50": 2.0, "low": None, "high": None, "p90": 2.8, "p99": 2.98}
