"""A latency run from the command line: its keys, its folder, what is measured again, the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sweeps.latency.run as runs
from analysis.results import ResultsError
from analysis.sources.latency_rows import ALLOCATED, MEMORY_COLUMNS, memory_rows
from cacovid.backbones import LlavaOnevision
from cacovid.policy.checkpoint import load_policy
from cacovid.registry import method_names
from cacovid.runs.files import Lock
from sweeps.commands.line import main
from sweeps.latency.architectures import random_backbone
from sweeps.latency.block import Block, Entry
from sweeps.latency.rows import newest, read_rows
from sweeps.latency.settings import Protocol, compose_latency
from sweeps.latency.stand_ins import with_random_weights
from sweeps.latency.table import HEAD, speed_up, tables
from sweeps.settings import Backbone as BackboneSettings
from sweeps.settings import ConfigError
from tiny import tiny_model, tiny_processor, tiny_siglip_folder

FEW = ["repeats=2", "warmup=1", "decode_tokens=2", "width=48", "height=32", "frames=4"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The tiny model in place of every backbone; labels of the rows that were timed, block by block."""
    monkeypatch.setattr(runs, "load", lambda *_: LlavaOnevision(tiny_model().requires_grad_(False), tiny_processor()))
    blocks: list[Any] = []
    stock = Block.measure

    def noted(self: Block) -> None:
        blocks.append([(e.label, e.retention) for e in self._entries])
        stock(self)

    monkeypatch.setattr(Block, "measure", noted)
    yield blocks


def latency(folder: Path, *words: str) -> int:
    return main(["--debug", "latency", f"--results={folder}", *FEW, *words])


def test_a_run_is_resumed_and_measures_again_only_when_told(measured, tmp_path, capsys):
    words = ["method=[full,uniform,fastv]", "retention=.5,.25"]
    assert latency(tmp_path, *words) == 0
    grid = [("full", 1.0), ("uniform", 0.5), ("fastv", 0.5), ("uniform", 0.25), ("fastv", 0.25)]
    assert measured == [grid]  # the first ratio of all methods comes first
    table = capsys.readouterr().out
    assert table.count("\n|") == 2 + 5 and "not for quoting" in table

    assert latency(tmp_path, *words) == 0
    assert len(measured) == 1 and capsys.readouterr().out == table

    assert latency(tmp_path, *words, "batch=1,2") == 0  # the batch that is new
    assert measured[1:] == [grid]
    assert latency(tmp_path, "method=[full,divprune]", "retention=.5") == 0
    assert measured[2:] == [[("full", 1.0), ("divprune", 0.5)]]  # never without the uncompressed model
    assert latency(tmp_path, "method=divprune", "retention=.5", "--again") == 0
    assert measured[3:] == [[("uncompressed", 1.0), ("divprune", 0.5)]]
    assert latency(tmp_path, "method=divprune", "retention=.5", "repeats=3") == 0  # another protocol
    assert len(measured) == 5

    rows, environments = read_rows(tmp_path)
    assert {row["block"] for row in rows} == set(environments) and len(environments) == 5
    with pytest.raises(ResultsError, match="no row at batch 1 whose peak memory an accelerator told"):
        memory_rows(tmp_path)
    told = [row | {"memory": {"above_weights_bytes": 1, "how": ALLOCATED}} for row in rows]
    (tmp_path / "latency.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    found = memory_rows(tmp_path)
    assert set(found["family"]) == {"llava_ov"} and len(found) == sum(row["batch"] == 1 for row in rows)
    assert list(found) == list(MEMORY_COLUMNS) and found.notna().all(axis=None)
    for environment in environments.values():
        assert environment["attention"] == "sdpa" and environment["dtype"] == "float32"
        assert {"device_name", "versions", "git", "clocks_before", "clocks_after", "protocol"} <= set(environment)
    assert [row["label"] for row in newest(rows)].count("full") == 2  # batches 1 and 2

    capsys.readouterr()
    assert main(["latency", "--table", str(tmp_path)]) == 0
    again = capsys.readouterr().out
    assert again.count("Median milliseconds") == 2 and "batch 2" in again
    lines = [line for line in again.splitlines() if line.startswith("| ") and not line.startswith("| method")]
    assert len(lines) == len(newest(rows)) and all(line.count("|") == len(HEAD) + 1 for line in lines)
    # A row is compared with the uncompressed model of its own block, whatever was measured later.
    assert all(line.rstrip(" |").rsplit("|", 1)[1].strip() for line in lines)


def test_what_failed_is_told_and_not_tried_again(measured, tmp_path, monkeypatch, capsys):
    stock = Block._pass

    def breaks(self: Block, entry: Entry, *rest: Any) -> None:
        if entry.label == "uniform":
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        stock(self, entry, *rest)

    monkeypatch.setattr(Block, "_pass", breaks)
    assert latency(tmp_path, "method=[full,uniform]", "retention=.5") == 1
    told = capsys.readouterr().out
    assert "| uniform | 0.5 | out of memory |" in told and "Tried to allocate 9 GiB" in told
    assert latency(tmp_path, "method=[full,uniform]", "retention=.5") == 1
    assert len(measured) == 1
    assert latency(tmp_path, "method=[full,uniform]", "retention=.5", "--again") == 1
    assert len(measured) == 2


def test_what_there_was_no_time_for_is_measured_by_the_next_call(measured, tmp_path, capsys):
    words = ["method=[full,uniform]", "retention=.5"]
    assert latency(tmp_path, *words, "limit_s=1e-9") == 1
    assert "not measured" in capsys.readouterr().out
    assert latency(tmp_path, *words) == 0
    assert "not measured" not in capsys.readouterr().out
    rows, _ = read_rows(tmp_path)
    assert [row["status"] for row in rows] == ["not_measured"] * 2 + ["measured"] * 2


def test_an_interrupted_block_leaves_no_row(measured, tmp_path, monkeypatch):
    def stop(self: Block) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Block, "measure", stop)
    assert latency(tmp_path, "method=uniform", "retention=.5") == 130
    assert (tmp_path / "latency.jsonl").read_text() == (tmp_path / "env.jsonl").read_text() == ""


def test_rows_of_two_blocks_are_not_compared(measured, tmp_path):
    latency(tmp_path, "method=[full,uniform]", "retention=.5")
    latency(tmp_path, "method=[full,uniform]", "retention=.5", "--again")
    rows, environments = read_rows(tmp_path)
    with pytest.raises(ValueError, match="not timed in turns"):
        speed_up(rows[1], rows[2], "ttft")
    full, own = rows[2]["samples"], rows[3]["samples"]
    first, second = (full["ttft"][i] / own["ttft"][i] for i in range(2))
    assert speed_up(rows[3], rows[2], "ttft") == pytest.approx((first + second) / 2)
    first, second = (
        (full["compress"][i] + full["prefill"][i]) / (own["compress"][i] + own["prefill"][i]) for i in range(2)
    )
    assert speed_up(rows[3], rows[2], "prefill") == pytest.approx((first + second) / 2)
    assert f"{speed_up(rows[3], rows[2], 'end_to_end'):.2f} |" in tables(rows, environments).splitlines()[5]


def test_the_comparison_runs_whole_on_the_test_bed(tmp_path, capsys):
    """Every method with its settings for the test bed, and rows whose budget is solved."""
    words = ["backbone=testbed", "method=comparison", "retention=.25", "repeats=1", "warmup=1", "decode_tokens=1"]
    words += ["frames=8", "width=48", "height=32", "end_to_end=false"]
    assert main(["--debug", "latency", f"--results={tmp_path}", *words]) == 0, capsys.readouterr().out
    rows, _ = read_rows(tmp_path)
    assert {row["budget"] for row in rows} == {"nominal", "layer_average"}
    assert {row["method"] for row in rows} == set(method_names()) - {"fewer_frames"}


def small() -> LlavaOnevision:
    return LlavaOnevision(tiny_model().requires_grad_(False), tiny_processor())


def test_weights_that_belong_to_a_method_are_made_in_its_shapes(tmp_path):
    backbone = small()
    given = with_random_weights("cacovid", {"policy": "testbed", "frame_cap": 2.0}, backbone, tmp_path)
    policy = load_policy(given["policy"])
    assert (policy.width, policy.attention, given["frame_cap"]) == (48, "bidirectional", 2.0)
    written = Path(given["policy"], "policy.safetensors").stat().st_mtime_ns
    assert with_random_weights("cacovid", given, backbone, tmp_path) == given
    assert Path(given["policy"], "policy.safetensors").stat().st_mtime_ns == written
    given = with_random_weights("fastvid", {"head": "google/some"}, backbone, tmp_path)
    shapes = {p.name for p in Path(tiny_siglip_folder()).iterdir()}
    assert {"config.json", "model.safetensors"} <= {p.name for p in Path(given["head"]).iterdir()} <= shapes
    stand_in = {"saliency": "received_attention"}
    assert with_random_weights("fastvid", stand_in, backbone, tmp_path) == stand_in
    assert with_random_weights("uniform", {}, backbone, tmp_path) == {}


@pytest.fixture
def small_sizes(monkeypatch):
    """The published layouts at a hundredth of their size."""
    import sweeps.latency.architectures as architectures
    from cacovid.backbones import qwen2_5_vl
    from cacovid.flops import DecoderShape, SiglipShape, WindowedShape
    from cacovid.sizes import SIZES, Sizes

    decoder = DecoderShape(4, 48, 4, 2, 12, 80, 600)
    tower = {"width": 32, "feed_forward": 48, "llm_width": 48}
    siglip = SiglipShape(layers=3, patches=64, patch_inputs=3 * 16, **tower)
    windowed = WindowedShape(layers=4, full_layers=2, window=2, merge=2, patch_inputs=3 * 32, **tower)
    monkeypatch.setitem(SIZES, "qwen2-7b", Sizes(decoder, siglip, (4, 4)))
    monkeypatch.setitem(SIZES, "qwen2.5-vl-3b", Sizes(decoder, windowed, (4, 6), merged_frames=2))
    monkeypatch.setattr(qwen2_5_vl, "PIXELS", (1024, 2048))
    for name, value in (("PATCH", 4), ("IMAGE", 32), ("VISION_HEADS", 4)):
        monkeypatch.setattr(architectures, name, value)


def test_random_weights_of_the_other_family(tmp_path, small_sizes, capsys):
    words = ["backbone=qwen2_5_vl_3b", "weights=random", "method=full,cacovid,fastv,visionzip", "retention=.5"]
    words += ["device=cpu", "frames=4", "repeats=1", "warmup=1", "decode_tokens=1", "width=60", "height=40"]
    assert main(["--debug", "latency", f"--results={tmp_path}", *words]) == 0, capsys.readouterr().out
    rows = {row["method"]: row for row in read_rows(tmp_path)[0]}
    assert rows["full"]["spent"]["video_tokens"] == 2 * 24 and rows["cacovid"]["spent"]["kept"] == 24
    assert set(rows) == {"full", "cacovid", "fastv", "visionzip"}


def test_random_weights_make_a_backbone_that_every_method_runs_on(tmp_path, small_sizes, capsys):
    """By the whole path from the command line."""
    words = ["backbone=llava_ov_7b", "weights=random", "method=all", "retention=.5", "device=cpu", "frames=4"]
    words += ["repeats=1", "warmup=1", "decode_tokens=1", "width=48", "height=32"]
    assert main(["--debug", "latency", f"--results={tmp_path}", *words]) == 0, capsys.readouterr().out
    rows, [environment] = (lambda found: (found[0], found[1].values()))(read_rows(tmp_path))
    by_method = {row["method"]: row for row in rows}
    assert {"cacovid", "fastvid", "prunevid", "flashvid", "full"} <= set(by_method)
    assert by_method["fastvid"]["fields"]["saliency"] == "head"
    made = by_method["fastvid"]["fields"]["head"], by_method["cacovid"]["fields"]["policy"]
    assert made == ("random weights", "random weights"), "not where they lay during the run"
    assert by_method["full"]["spent"]["video_tokens"] == 4 * 16 and by_method["cacovid"]["spent"]["kept"] == 32
    assert environment["weights_bytes"] > 0 and environment["dtype"] == "float32"


def test_the_architecture_of_an_unknown_backbone_is_refused():
    with pytest.raises(ConfigError, match=r"weights=random: no architecture of backbone mine.*llava_ov.*qwen2-7b"):
        random_backbone("mine", BackboneSettings("qwen2_5_vl", "somewhere"), "cpu", 0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task=videomme", "no key 'task' of a latency run; known: .*batch.*method"),
        ("store=disk", "no key 'store'"),
        ("bach=1", "no key 'bach'"),
        ("method=nosuch", "nosuch"),
        ("backbone=nosuch", "no option 'nosuch'.*known: .*llava_ov_7b"),
        ("batch=0", r"batch=\[0\], expected sizes of at least 1"),
        ("batch=[]", "expected sizes"),
        ("batch=two", "batch.0='two'"),
        ("repeats=0", "repeats=0, expected at least 1"),
        ("repeats=2.5", "repeats=2.5"),
        ("width=33", "expected even numbers"),
        ("limit_s=0", "limit_s=0"),
        ("weights=none", "weights='none'.*pretrained"),
        ("+repeats=3", "expected repeats=VALUE"),
        ("retention=1.5", "retention"),
    ],
)
def test_refusals(override, words):
    with pytest.raises(ConfigError, match=words):
        sweep, _ = compose_latency([override])
        runs.ordered(sweep)


def test_given_weights_replace_those_of_one_backbone():
    sweep, protocol = compose_latency(["backbone=llava_ov_7b", "pretrained=my/folder", "device=cuda", "batch=1,4"])
    assert (sweep.backbones["llava_ov_7b"].pretrained, sweep.backbones["llava_ov_7b"].device) == ("my/folder", "cuda")
    assert protocol == Protocol(pretrained="my/folder", device="cuda", batch=[1, 4])
    with pytest.raises(ConfigError, match="2 backbones, expected one"):
        compose_latency(["backbone=[llava_ov_7b,testbed]", "pretrained=my/folder"])
    with pytest.raises(ConfigError, match="drop it or weights=random"):
        compose_latency(["pretrained=my/folder", "weights=random"])


def test_a_folder_is_held_against_a_second_writer(tmp_path, capsys):
    lock = Lock(tmp_path / "lock")
    assert main(["latency", f"--results={tmp_path}", "method=uniform"]) == 2
    assert "is being written by another process" in capsys.readouterr().err
    lock.release()


def test_a_folder_without_rows_has_no_table(tmp_path, capsys):
    assert main(["latency", "--table", str(tmp_path)]) == 2
    assert "has no rows in latency.jsonl" in capsys.readouterr().err
    assert main(["latency", "--table", str(tmp_path), "repeats=2"]) == 2
    assert "it takes no repeats=2" in capsys.readouterr().err


def test_rows_are_plain_json_lines(measured, tmp_path):
    latency(tmp_path, "method=uniform", "retention=.5")
    lines = (tmp_path / "latency.jsonl").read_text().splitlines()
    full, row = map(json.loads, lines)
    assert (full["method"], row["method"], row["fields"]) == ("full", "uniform", {"retention": 0.5})
    assert row["seconds"]["prefill"]["n"] == 2
