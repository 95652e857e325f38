"""Everything that holds results, into one frame: the same run whichever way it comes, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.compatible import check_compatible
from analysis.load import load
from analysis.published import FOLDER
from analysis.results import RUN_COLUMNS, SAMPLE_COLUMNS, ResultsError, ResultsWarning
from made_runs import write_run
from sweeps.parquet import collect

DUMMY = Path(__file__).parent / "lmms_eval_dummy"
"""What `lmms-eval --model dummy --tasks evidence_vqa --log_samples` of lmms-eval 0.7.3 wrote."""


def test_shards_become_one_run_and_an_answer_wins_over_a_failure(tmp_path: Path) -> None:
    write_run(tmp_path / "1-of-2", "a", "full", [1, None])
    write_run(tmp_path / "2-of-2", "a", "full", [0, 1], documents=range(1, 3))
    found = load(tmp_path)
    assert found.runs["run"].tolist() == ["a"]
    assert found.samples["score"].tolist() == [1, 0, 1] and found.samples["failure"].isna().all()


def test_unfinished_runs_and_missing_shards_are_left_out_with_words(tmp_path: Path) -> None:
    write_run(tmp_path, "whole", "full", [1, 1])
    write_run(tmp_path, "part", "random", [1], state="running", retention=0.25)
    write_run(tmp_path / "2-of-3", "shard", "random", [1, 1], retention=0.25)
    with pytest.warns(ResultsWarning) as caught:
        assert load(tmp_path).runs["run"].tolist() == ["whole"]
    words = sorted(str(warning.message) for warning in caught)
    assert "run part" in words[0] and "running" in words[0] and "expected done" in words[0]
    assert "run shard" in words[1] and "only shards 2-of-3 are there" in words[1]


def test_damaged_and_foreign_schema_are_refused_by_name(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1], schema=7)
    with (write_run(tmp_path, "b", "full", [1, 1]) / "samples.jsonl").open("a") as file:
        file.write('{"task": ')
    with pytest.raises(ResultsError, match=r"a/run.json has schema 7, expected 1.*b/samples.jsonl, line 3 is damaged"):
        load(tmp_path)
    with pytest.raises(ResultsError, match=r"samples.jsonl is neither a folder of results nor a published table"):
        load(tmp_path / "b" / "samples.jsonl")


def test_a_sweep_names_its_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "a", "fastv", [1, 1], retention=0.25, layer=2)
    write_run(tmp_path / "runs", "b", "fastv", [1, 1], retention=0.25, layer=3)
    (tmp_path / "sweep.json").write_text(
        json.dumps({"schema": 1, "cells": [{"id": "x", "label": "FastV, as printed"}]})
    )
    (tmp_path / "events").mkdir()
    event = {"event": "done", "cell": "x", "shard": "1-of-1", "runs": ["runs/a"]}
    (tmp_path / "events" / "j.0.jsonl").write_text(json.dumps(event) + '\n{"event": "sta')
    assert load(tmp_path).runs["label"].tolist() == ["FastV, as printed", "fastv"]
    assert load(tmp_path / "runs").runs["label"].tolist() == ["FastV, as printed", "fastv"]


def test_labels_say_what_sets_rows_apart_and_not_the_seed(tmp_path: Path) -> None:
    for layer, seed in ((2, 0), (2, 1), (3, 0)):
        write_run(tmp_path, f"{layer}{seed}", "fastv", [1, 1], retention=0.25, layer=layer, seed=seed)
    runs = load(tmp_path).runs
    assert runs["label"].tolist() == ["fastv (layer=2)", "fastv (layer=2)", "fastv (layer=3)"]
    assert runs["seed"].tolist() == [0, 1, 0]


def test_collected_parquet_is_the_same_frame(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "a", "full", [1, 0, None, 1])
    told = [{"mlvu_percetion_score": {"task_type": t, "pred_answer": p, "answer": "A"}} for t, p in ("xA", "xB", "yA")]
    write_run(
        tmp_path / "runs", "b", "random", [None] * 3, retention=0.25, seed=1, setup={"task": "mlvu_dev"}, metrics=told
    )
    collect([tmp_path / "runs"], tmp_path / "out")
    records, collected = load(tmp_path / "runs"), load(tmp_path / "out")
    pd.testing.assert_frame_equal(records.runs, collected.runs)
    pd.testing.assert_frame_equal(records.samples, collected.samples)
    assert list(records.runs) == list(RUN_COLUMNS)
    assert [c for c in records.samples if not c.startswith("seconds_")] == [c for c in SAMPLE_COLUMNS if "<" not in c]
    of_mlvu = collected.samples[collected.samples["run"] == "b"]
    assert of_mlvu["score"].tolist() == [1, 0, 1] and of_mlvu["category"].tolist() == ["x", "x", "y"]
    assert collected.samples["score"].isna().sum() == 1, "the failed sample has no score, not 0"


def test_a_run_of_stock_lmms_eval_loads_and_appears(tmp_path: Path) -> None:
    found = load(DUMMY)
    run = found.runs.iloc[0]
    assert (run["kind"], run["label"], run["task"], run["documents"]) == ("lmms_eval", "dummy", "evidence_vqa", 14)
    reported = json.loads(next(DUMMY.glob("*_results.json")).read_text())["results"]["evidence_vqa"]["accuracy,none"]
    assert found.samples["score"].mean() == reported
    assert found.samples["video"].nunique() == 2 and found.samples["category"].nunique() == 7
    write_run(tmp_path, "a", "full", [1, 1])
    assert sorted(load(DUMMY, tmp_path).runs["kind"]) == ["cacovid", "lmms_eval"]


def _output(folder: Path, task: str, results: dict[str, float], rows: list[dict[str, object]]) -> None:
    folder.mkdir()
    config = {"model": "llava_onevision", "model_args": "pretrained=a/b,max_frames_num=8"}
    body = {"results": {task: results}, "configs": {task: {"task": task}}, "config": config, "date": "20250101_000000"}
    (folder / "x_results.json").write_text(json.dumps(body))
    lines = "".join(json.dumps({"target": "A", "filtered_resps": "A", **row}) + "\n" for row in rows)
    (folder / f"x_samples_{task}.jsonl").write_text(lines)


def test_units_of_lmms_eval_are_shares(tmp_path: Path) -> None:
    _output(tmp_path / "lvb", "longvideobench_val_v", {"lvb_acc,none": 0.56}, [])
    _output(tmp_path / "mme", "videomme", {"videomme_perception_score,none": 58.6}, [])
    runs = load(tmp_path).runs.set_index("task")
    assert runs["score"].to_dict() == {"longvideobench_val_v": 0.56, "videomme": pytest.approx(0.586)}
    assert set(runs["checkpoint"]) == {"a/b"} and set(runs["frames"]) == {8}


def test_what_samples_say_counts_and_a_difference_is_told(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"doc_id": i, "mlvu_percetion_score": {"task_type": kind, "pred_answer": answer, "answer": "A"}}
        for i, (kind, answer) in enumerate(["xA", "xA", "xA", "yB"])
    ]
    _output(tmp_path / "same", "mlvu_dev", {"mlvu_percetion_score,none": 50.0}, rows)
    assert load(tmp_path).samples["score"].tolist() == [1, 1, 1, 0], "macro over kinds: as reported, no warning"
    _output(tmp_path / "other", "mlvu_dev", {"mlvu_percetion_score,none": 75.0}, rows)
    with pytest.warns(ResultsWarning, match=r"mlvu_dev reports 75.00, its 4 samples give 50.00"):
        load(tmp_path)
    _output(tmp_path / "twice", "mlvu_dev", {}, [rows[0], rows[0]])
    with pytest.raises(ResultsError, match="holds document 0 twice: two runs that began in the same second"):
        load(tmp_path / "twice")


def test_lmms_evals_output_of_a_record_is_that_run(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1], setup={"task": "videomme"})
    rows: list[dict[str, object]] = [{"doc_id": i, "token_counts": [{"run": "a"}]} for i in range(2)]
    _output(tmp_path / "out", "videomme", {}, rows)
    assert load(tmp_path).runs["run"].tolist() == ["a"]
    assert load(tmp_path / "out").runs["kind"].tolist() == ["lmms_eval"]


def test_published_numbers_are_rows_too() -> None:
    runs = load(FOLDER / "cacovid_main_table.csv").runs.set_index(["backbone", "method", "retention_asked", "task"])
    assert len(runs) == 49 * 7
    assert runs.loc[("llava_onevision_7b", "cacovid", 0.25, "videomme/short"), "score"] == pytest.approx(0.707)


def test_runs_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1])
    write_run(tmp_path, "b", "random", [1, 1], retention=0.25, setup={"frames": 8, "versions": {"torch": "1"}})
    write_run(tmp_path, "c", "random", [1, 1], retention=0.25, setup={"task": "other", "dtype": "bfloat16"})
    runs = load(tmp_path).runs
    words = (
        r"runs of t on llava_ov .*: frames is 16 in run a \(full, .*\) and 8 in run b .*versions.torch is 2 in run a"
    )
    with pytest.raises(ResultsError, match=words) as caught:
        check_compatible(runs)
    assert str(caught.value).endswith("--allow frames,versions.torch")
    check_compatible(runs, allow=("frames", "versions"))
    with pytest.raises(ResultsError, match="--allow frame: no such setting in these runs; known: attention, "):
        check_compatible(runs, allow=("frame",))


def test_what_lmms_eval_does_not_tell_is_no_difference(tmp_path: Path) -> None:
    shutil.copytree(DUMMY, tmp_path / "plain")
    write_run(tmp_path, "a", "full", [1, 1], setup={"task": "evidence_vqa"}, hub="dummy")
    check_compatible(load(tmp_path).runs.assign(backbone="x", checkpoint="y"))


def test_analysis_needs_its_own_extra_alone() -> None:
    """Every module imports, and the paper's tables print, where nothing else of the suite can be imported."""
    code = """
import importlib, pkgutil, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "lmms_eval", "cacovid", "baselines", "sweeps", "datasets"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import analysis
for module in pkgutil.walk_packages(analysis.__path__, "analysis."):
    importlib.import_module(module.name) if not module.name.endswith("__main__") else None
from analysis.__main__ import main
sys.exit(main(["tables", "--paper", "cacovid"]))
"""
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
