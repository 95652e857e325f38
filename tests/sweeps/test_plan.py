"""`python -m sweeps run`: what is left to do, sweep.json, the lock, `--dry` and its estimate."""

import json
import re
from pathlib import Path

import pytest

from cacovid.sizes import SIZES, TEXT
from made_sweeps import made_event, write_events
from sweeps.commands.line import main
from sweeps.config import compose_sweep
from sweeps.estimate import ANSWER, estimate
from sweeps.folder import Folder, FolderError
from sweeps.jobs import Job
from sweeps.plan import Plan, alone
from sweeps.settings import ConfigError, Executor

SMALL = ["method=uniform,random", "retention=.25,.1", "executor=debug"]
TABLE1 = ["+experiment=table1", "backbone=llava_ov_0_5b", "task=videomme", "retention=.25", "shards=2"]


def planned(path: Path, *overrides: str) -> Plan:
    return Plan.of(compose_sweep([*SMALL, f"results={path}", *overrides]))


def finish(plan: Plan, shard: str = "1-of-1", number: int | None = None, kind: str = "done") -> None:
    plan.folder.events("job", 0).parent.mkdir(parents=True, exist_ok=True)
    write_events(plan.folder, "job", [made_event(kind, cell.id, shard) for cell in plan.cells[:number]])


def test_finished_shards_of_cells_are_skipped_and_failed_ones_are_not(tmp_path: Path):
    plan = planned(tmp_path, "shards=2")
    assert [(job.shard.name, len(job.cells)) for job in plan.jobs] == [("1-of-2", 4), ("2-of-2", 4)]
    finish(plan, "1-of-2", 3)
    finish(plan, "2-of-2", 1, kind="failed")
    plan = planned(tmp_path, "shards=2")
    assert [(job.shard.name, len(job.cells)) for job in plan.jobs] == [("1-of-2", 1), ("2-of-2", 4)]
    assert (plan.done, plan.failed) == ([], plan.cells[:1])
    # Cut otherwise, what is done of a finer cut still counts.
    assert [(job.shard.name, len(job.cells)) for job in planned(tmp_path, "shards=4").jobs] == [
        ("1-of-4", 1),
        ("2-of-4", 1),
        ("3-of-4", 4),
        ("4-of-4", 4),
    ]
    finish(plan, "2-of-2")
    assert planned(tmp_path).done == plan.cells[:3]


def test_sweep_json_keeps_the_cells_of_earlier_calls(tmp_path: Path):
    planned(tmp_path).record()
    second = planned(tmp_path, "method=downsample")
    second.record()
    told = Folder(tmp_path).read()
    assert [cell["label"] for cell in told["cells"]] == ["uniform"] * 2 + ["random"] * 2 + ["downsample"] * 2
    assert told["grid"] == [cell.id for cell in second.cells]
    assert told["config"]["methods"].keys() == {"downsample"}


def test_a_folder_of_another_version_is_refused(tmp_path: Path):
    Folder(tmp_path).sweep.write_text(json.dumps({"schema": 0}))
    with pytest.raises(FolderError, match="has schema 0, expected 1"):
        planned(tmp_path)


def test_two_runs_on_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = Folder(tmp_path / "new")
    with alone(folder):
        assert main(["run", *SMALL, "--results", str(folder.path)]) == 2
    assert "is at work in" in (words := capsys.readouterr().err)
    assert "--results DIR" in words
    assert not folder.sweep.exists()
    with alone(folder):
        pass


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Job], Executor, bool]]:
    """Calls of a launcher that does every job at once."""
    calls = []

    def launch(folder: Folder, jobs: list[Job], executor: Executor, *, wait: bool) -> int:
        calls.append((jobs, executor, wait))
        assert folder.read()["grid"], "sweep.json is there before a job is"
        with pytest.raises(FolderError), alone(folder):
            pass
        folder.events("job", 0).parent.mkdir(exist_ok=True)
        write_events(folder, "job", [made_event("done", c.id, job.shard.name) for job in jobs for c in job.cells])
        return 0

    monkeypatch.setattr("sweeps.launch.launch", launch)
    return calls


def test_run_does_what_is_not_done(tmp_path: Path, launched, capsys: pytest.CaptureFixture[str]):
    # Overrides may stand on both sides of options.
    command = ["run", *SMALL, "--results", str(tmp_path / "here"), "seeds=3", "shards=2"]
    assert main(command) == 0
    assert "4 cells" in (out := capsys.readouterr().out)
    assert f"python -m analysis summary {tmp_path}/here/runs" in out
    [(jobs, executor, wait)] = launched
    assert ([len(job.cells) for job in jobs], executor.kind, wait) == ([4, 4], "debug", True)
    assert main(command) == 0
    assert launched[1][0] == [], "nothing was left"
    assert main([*command, "retention=.25,.1,.5"]) == 0
    assert [len(job.cells) for job in launched[2][0]] == [2, 2]
    assert main([*command, "seeds=4", "executor=slurm"]) == 0
    assert launched[3][2] is False, "nobody waits for a queue unless asked to"
    assert main([*command, "seeds=5", "executor=slurm", "--wait"]) == 0
    assert launched[4][2] is True


def test_refusals_come_before_anything_is_written(tmp_path: Path, launched, capsys: pytest.CaptureFixture[str]):
    for wrong in ("executor.partition=gpu", "method=fastw", "retention=0"):
        assert main(["run", *SMALL, wrong, "--results", str(tmp_path / "new")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "executor debug has no use for partition" in errors[0]
    assert not (launched or (tmp_path / "new" / "sweep.json").exists())
    with pytest.raises(SystemExit):
        main(["run", "--dri"])


def test_help_lists_the_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# @package methods\nmine: {method: fastv}\n")
    assert main(["run", "--help", "--config-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "executor: debug, local, slurm" in out
    assert "mine" in out


def test_table1_dry(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["executor.partition=a100", "executor.extra={mail-type: END}", "executor.setup=[module load cuda]"]
    assert main(["run", "+experiment=table1", *options, "--dry", "--results", str(tmp_path / "t"), "--tflops=200"]) == 0
    out = capsys.readouterr().out
    assert "table1: 200 cells, 0 of them done" in out
    assert "64 jobs for executor slurm, 32 at a time" in out
    assert "25 cells, longvideobench_val_v, shard 1-of-8, 167 documents" in out
    for line in ("--array=0-63%32", "--partition=a100", "--mail-type=END", "--time=240", "--job-name=t-SUBMISSION"):
        assert f"#SBATCH {line}\n" in out
    assert "\nmodule load cuda\n" in out
    hours = re.search(r"estimate: (\S+) GPU hours", out)
    assert hours and float(hours[1]) == pytest.approx(6.76, rel=0.02)
    assert "at an assumed 200 TFLOP/s" in out
    assert not (tmp_path / "t").exists(), "a dry run leaves nothing behind"


def test_the_estimate_is_the_flops_over_the_rate():
    sizes = SIZES["qwen2-0.5b"]
    rows = [TEXT + 1 + 32 * 14 * 14] * sizes.decoder.layers
    question = sizes.decoder.prefill(rows) + sizes.decoder.decode([[n + t for n in rows] for t in range(1, ANSWER)])
    found = estimate(Plan.of(compose_sweep([*TABLE1, "method=full"])), tflops=50)
    assert found.llm == pytest.approx(2700 * question / 50e12)
    assert found.vision == pytest.approx(900 * sizes.vision.video(32, sizes.grid) / 50e12)
    assert found.hours == pytest.approx((found.llm + found.vision) / 3600)
    assert not (found.assumed or found.unknown or found.measured)
    # Without a store every question of every cell encodes its video.
    found = estimate(Plan.of(compose_sweep([*TABLE1, "method=full,uniform", "store=off"])), tflops=50)
    assert found.vision == pytest.approx(2 * 2700 * sizes.vision.video(32, sizes.grid) / 50e12)
    limited = estimate(Plan.of(compose_sweep([*TABLE1, "method=full", "task=videomme_100"])), tflops=50)
    assert limited.llm == pytest.approx(100 * question / 50e12)
    assert limited.vision == pytest.approx(34 * sizes.vision.video(32, sizes.grid) / 50e12)


def test_the_estimate_says_what_it_does_not_know():
    found = estimate(Plan.of(compose_sweep([*TABLE1, "task=mlvu_dev", "method=uniform", "retention=1e-5"])))
    assert found.llm == 0
    assert found.unknown == {"uniform at r=1e-05: retention=1e-05 of 6272 video tokens is a budget below one token": 2}
    assert found.assumed == {"a video for every question of mlvu_dev"}
    unsized = estimate(Plan.of(compose_sweep([*TABLE1, "method=full", "backbones.llava_ov_0_5b.sizes=null"])))
    assert list(unsized.unknown) == [
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf: its backbone has no sizes=, and it is no folder to read them from"
    ]
    with pytest.raises(ConfigError, match=r"sizes='qwen9' of a backbone; known: qwen2-7b, qwen2-0.5b"):
        estimate(Plan.of(compose_sweep([*TABLE1, "method=full", "backbones.llava_ov_0_5b.sizes=qwen9"])))
    assert "device=cpu: give --tflops" in str(estimate(Plan.of(compose_sweep(SMALL))).unknown)
    assert estimate(Plan.of(compose_sweep(SMALL)), tflops=0.02).llm > 0, "its sizes are in the folder"


def test_finished_cells_say_what_the_others_will_take(tmp_path: Path):
    finish(planned(tmp_path), number=2)  # 10 documents in 10 seconds each
    found = estimate(planned(tmp_path, "tasks.evidence_vqa.documents=40"))
    assert found.measured == pytest.approx(2 * 40 * 1.0)
    assert (found.llm, found.vision, len(found.finished)) == (0, 0, 2)
