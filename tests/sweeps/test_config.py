"""`sweeps/conf` and its composition: what experiments hold, which overrides are taken, how the others are refused."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from baselines.attention_topk import AttentionTopk
from cacovid.backbones import TESTBEDS
from cacovid.policy.checkpoint import TESTBED_POLICIES
from cacovid.registry import method_names
from sweeps.cells import Cell, cells_of
from sweeps.config import compose_sweep, options
from sweeps.settings import ConfigError

PAPER = [0.25, 0.2, 0.15, 0.1]
SHARED = {"retention", "budget", "sampling", "batch_size", "read_timeout"}


def cells(*overrides: str) -> list[Cell]:
    return cells_of(compose_sweep(overrides))


def settings(cell: Cell) -> dict[str, object]:
    """The method's own."""
    return {key: value for key, value in cell.arguments.items() if key not in SHARED}


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        cells_of(compose_sweep(overrides, config_dir))
    return str(caught.value)


def test_the_demo_has_the_reference_points_and_cacovid_at_five_ratios():
    a1, b = {"variant": "A1"}, {"layer": 2}
    rows = {
        ("uniform", "uniform", ()),
        ("fewer frames", "fewer_frames", ()),
        ("downsample", "downsample", ()),
        ("attention top-k A1, per frame", "attention_topk", tuple({**a1, "scope": "frame"}.items())),
        ("attention top-k A1, global", "attention_topk", tuple({**a1, "scope": "global"}.items())),
        ("attention top-k B1, layer 2", "attention_topk", tuple({"variant": "B1", **b}.items())),
        ("attention top-k B3, layer 2", "attention_topk", tuple({"variant": "B3", **b}.items())),
        ("CaCoVID", "cacovid", (("policy", "testbed"),)),
    }
    expected = {(1.0, "all tokens", "full", ())} | {(r, *row) for r in [1.0, *PAPER] for row in rows}
    for seed in range(3):
        ratios = PAPER if seed else [1.0, *PAPER]
        expected |= {(r, f"random (seed {seed})", "random", (("seed", seed),)) for r in ratios}
    sweep = compose_sweep(["+experiment=demo"])
    found = cells_of(sweep)
    assert len(found) == len(expected) == 54
    assert {(c.arguments["retention"], c.label, c.method, tuple(settings(c).items())) for c in found} == expected
    assert {cell.arguments["budget"] for cell in found} == {"nominal"}
    assert sweep.tasks["evidence_vqa"].environment == {"CACOVID_TESTBED_VIDEOS": "8"}
    assert (sweep.tasks["evidence_vqa"].documents, sweep.results, sweep.shards) == (56, "results/demo", 2)
    assert (sweep.executor.kind, sweep.executor.parallel, sweep.executor.threads) == ("local", 2, 1)
    assert sweep.store.kind == "disk"


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_the_comparison_has_every_policy_every_method_and_every_variant_at_every_ratio(testbed: str):
    found = cells("+experiment=comparison", f"backbone={testbed}")
    assert len(found) == 154
    policies = {name for name in TESTBED_POLICIES if name.partition("-")[0] == testbed}
    variants = set(get_args(get_type_hints(AttentionTopk)["variant"]))
    for retention in PAPER:
        here = [cell for cell in found if cell.arguments["retention"] == retention]
        assert {settings(cell)["policy"] for cell in here if cell.method == "cacovid"} == policies
        assert {settings(cell)["similarity"] for cell in here if cell.method == "framefusion"} == {testbed}
        assert {settings(cell)["variant"] for cell in here if cell.method == "attention_topk"} == variants
        assert {cell.method for cell in here} == set(method_names()) - {"full", "fewer_frames"}
    assert [cell.arguments["retention"] for cell in found if cell.method == "full"] == [1.0]
    assert {cell.task.environment["CACOVID_TESTBED_VIDEOS"] for cell in found} == {"250"}


def test_layer_averages_below_a_floor_are_no_cells():
    asked = [c for c in cells("+experiment=comparison", "grid=dense") if c.arguments["budget"] == "layer_average"]
    assert {"fastv", "attention_topk", "prunevid", "holitom"} == {cell.method for cell in asked}
    for cell in asked:
        if cell.method in ("fastv", "attention_topk"):
            assert cell.arguments["layer"] / 8 < cell.arguments["retention"], "one of eight layers is whole"
    assert min(cell.arguments["retention"] for cell in asked) == 0.03, "the others have no floor"


def test_table1_is_the_papers_grid():
    sweep = compose_sweep(["+experiment=table1"])
    found = cells_of(sweep)
    tasks = {"longvideobench_val_v", "mlvu_dev", "mlvu_test", "videomme"}
    methods = {"fastv", "visionzip", "divprune", "prunevid", "framefusion", "cacovid"}
    assert {cell.task.name for cell in found} == tasks
    assert len(found) == 2 * len(tasks) * (1 + len(methods) * len(PAPER))
    assert {cell.method for cell in found} == methods | {"full"}
    assert {cell.arguments["max_frames_num"] for cell in found} == {32}
    assert sweep.executor.kind == "slurm"
    assert list(sweep.backbones) == ["llava_ov_7b", "qwen2_5_vl_3b"]
    policies = {cell.backbone.family: cell.arguments["policy"] for cell in found if cell.method == "cacovid"}
    assert policies == {"llava_ov": "policies/llava_ov_7b", "qwen2_5_vl": "policies/qwen2_5_vl_3b"}


@pytest.mark.parametrize(
    ("experiment", "count"), [("efficiency", 1 + 17 * 4), ("ablations", 1 + 12 * 4), ("seeds", 1 + (5 + 3) * 4)]
)
def test_the_other_experiments(experiment: str, count: int):
    assert len(cells(f"+experiment={experiment}")) == count


def test_there_is_an_option_for_every_method_and_all_of_them_are_in_all():
    known = options()
    assert set(method_names()) <= set(known["method"])
    assert {rows.method for rows in compose_sweep(["method=all"]).methods.values()} == set(method_names())


def test_every_option_composes():
    known = options()
    several = [f"{group}=[{','.join(known[group])}]" for group in ("backbone", "method", "task")]
    assert len(compose_sweep(several).backbones) == len(known["backbone"])
    for group in ("executor", "grid", "store"):
        for option in known[group]:
            compose_sweep([f"{group}={option}"])


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ("method=fastv", 4),
        ("method=fastv,visionzip", 8),
        ("method=[fastv,visionzip] task=videomme,mlvu_dev", 16),
        ("method=fastv backbone=testbed,llava_ov_7b", 8),
        ("method=fastv retention=.5", 1),
        ("method=fastv retention=.25,.20", 2),
        ("method=fastv grid=dense", 14),
        ("method=fastv budget=nominal,flops", 8),
        ("method=random seeds=[0,1,2]", 12),
        ("method=random seeds=7", 4),
        ("method=fastv methods.fastv.retention=.5", 1),
        ("method=fastv +methods.mine={method:fastv,settings:{layer:3}}", 8),
        ("+experiment=demo method=fastv", 5),
        ("+experiment=demo method=demo,fastv", 59),
        ("+experiment=demo grid=paper", 45),
    ],
)
def test_overrides(overrides: str, count: int):
    assert len(cells(*overrides.split())) == count


def test_values_arrive_typed():
    sweep = compose_sweep(
        [
            "method=fastv",
            "methods.fastv.settings.layer=3",
            "tasks.evidence_vqa.environment.CACOVID_TESTBED_VIDEOS=2",
            "executor=slurm",
            "executor.extra={mail-type: END}",
            "executor.setup=[module load cuda, source it]",
            "store.gib=3",
            "name=mine",
            "frames=8",
        ]
    )
    assert sweep.methods["fastv"].settings == {"layer": 3}
    assert sweep.tasks["evidence_vqa"].environment == {"CACOVID_TESTBED_VIDEOS": "2"}
    assert (sweep.tasks["evidence_vqa"].videos, sweep.tasks["evidence_vqa"].documents) == (2, 14)
    assert sweep.executor.extra == {"mail-type": "END"}
    assert sweep.executor.setup == ["module load cuda", "source it"]
    assert (sweep.store.gib, sweep.results, sweep.frames) == (3.0, "results/mine", 8)
    assert compose_sweep(["store=off"]).store.kind == "off"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("method=fastw", "group method: no option 'fastw' (did you mean 'fastv'?); known: ablations, all, "),
        ("+experiment=nope", "group experiment: no option 'nope'; known: ablations, comparison, demo, "),
        ("+experimen=demo", "no key 'experimen' (did you mean 'experiment'?); known: backbone, "),
        ("retentoin=.5", "no key 'retentoin' (did you mean 'retention'?)"),
        ("executor.partitio=x", "no key 'partitio' (did you mean 'partition'?); known: account, "),
        ("+methods.mine={metod:fastv}", "methods.mine.metod='fastv': no key 'metod' (did you mean 'method'?)"),
        ("+methods.mine={method:fastw}", "row 'mine' at r=0.25: no method 'fastw' (did you mean 'fastv'?)"),
        ("method=fastv methods.fastv.settings.layr=3", "row 'fastv' at r=0.25: unknown model argument 'layr'"),
        ("executor.kind=pbs", "executor.kind='pbs': Input should be 'debug', 'local' or 'slurm'"),
        ("retention=many", "retention.0='many': Input should be a valid number"),
        ("retention=25", "row 'random (seed 0)' at r=25.0: retention=25.0, expected 0 < retention <= 1"),
        ("retention=[]", "retention is empty; expected at least one"),
        ("method=[]", "the grid is empty: expected at least one each of backbone, task, method"),
        ("~task", "the grid is empty"),
        ("method=glob(*)", "method=glob(*): a sweep is one run, not a multirun; give a list: method=[...]"),
        ("hydra.job.name=x", "there is no Hydra job whose settings could be changed; see --config-dir"),
        ("experiment=demo", "To append to your default list use +experiment=demo"),
        ("demo", "expected group=option, key=value, +key=value or ~key"),
        ("method=fastv +methods.twin={method:fastv}", "rows 'fastv' and 'twin' are the same cell"),
    ],
)
def test_refusals(overrides: str, words: str):
    assert words in refusal(*overrides.split())


def test_a_folder_of_ones_own_adds_options(tmp_path: Path):
    (tmp_path / "method").mkdir()
    (tmp_path / "experiment").mkdir()
    row = "# @package methods\nmine: {method: fastv, settings: {layer: 3}}\n"
    (tmp_path / "method" / "mine.yaml").write_text(row)
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: [mine, uniform]\n  - _self_\nname: own\n"
    )
    sweep = compose_sweep(["+experiment=own"], tmp_path)
    assert list(sweep.methods) == ["mine", "uniform"]
    assert sweep.results == "results/own"
    assert "own" in options(tmp_path)["experiment"]
    assert "mine" in refusal("method=mime", config_dir=tmp_path), "known options are those of both folders"
    assert "no such folder" in refusal(config_dir=tmp_path / "absent")
    (tmp_path / "method" / "mine.yaml").write_text(row.partition("\n")[2])
    assert "no key 'method' (did you mean 'methods'?)" in refusal("method=mine", config_dir=tmp_path)
    (tmp_path / "method" / "fastv.yaml").write_text(row)
    assert "there is an option of that name; rename yours" in refusal(config_dir=tmp_path)
