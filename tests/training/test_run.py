"""The training command: configs, data, and several processes, by the real command line."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import pytest

from cacovid.training.problems import ProblemError, load_problems
from cacovid.training.run import ConfigError, Data, questions, read_run
from cacovid.training.settings import Settings
from tiny import tiny_model, tiny_processor


def test_the_papers_config_is_the_papers() -> None:
    run = read_run("video_r1", ["out=x"])
    assert run.settings == Settings(steps=1000)
    assert (run.settings.sampler.token_rollouts, run.settings.sampler.frame_rollouts) == (23, 8)
    assert (run.settings.iterations, run.settings.rate.start) == (5, 0.02)


def test_every_ablation_changes_one_thing_of_the_test_beds_config() -> None:
    plain = asdict(read_run("testbed", ["out=x"]).settings)
    names = [Path(file.name).stem for file in (resources.files("cacovid.training.conf") / "ablation").iterdir()]
    assert len(names) >= 9
    for name in names:
        changed = asdict(read_run("testbed", ["out=x", f"+ablation={name}"]).settings)
        # Memory and rate do nothing in a single iteration: what switches them off is compared with `iterations`.
        if name in ("no_memory", "fixed_rate"):
            changed["iterations"] = plain["iterations"]
        assert sum(changed[part] != plain[part] for part in plain) == 1, name


def test_overrides_reach_nested_settings() -> None:
    run = read_run("video_r1", ["out=x", "settings.rate.start=0.1", "settings.validation.retentions=[0.1,0.25]"])
    assert run.settings.rate.start == 0.1
    assert run.settings.validation.retentions == (0.1, 0.25)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "Missing mandatory value: out"),
        (["out=x", "settings.stepz=3"], "stepz"),
        (["out=x", "+settings.stepz=3"], r"settings.stepz=3: Unexpected keyword argument"),
        (["out=x", "settings.sampler.exploration=chance"], r"exploration='chance': Input should be 'ocss', 'multi"),
        (["out=x", "settings.steps=many"], r"settings.steps='many': Input should be a valid integer"),
    ],
)
def test_bad_settings_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_run("video_r1", overrides)
    with pytest.raises(ConfigError, match="no_such"):
        read_run("no_such", ["out=x"])


def row(**changes: object) -> dict[str, object]:
    plain = {"problem": "Which?", "problem_type": "multiple choice", "solution": "<answer>A</answer>", "path": "a.mp4"}
    return {"problem_id": 7, "data_type": "video", "options": ["A. red", "B. blue"], **plain, **changes}


def test_video_r1_rows_become_problems(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([row(), row(data_type="image"), row(problem_type="numerical", solution="3")]))
    first, second = load_problems(file, tmp_path / "videos")
    assert first.video == str(tmp_path / "videos" / "a.mp4")
    assert first.text.splitlines()[:3] == ["Which?", "A. red", "B. blue"]
    assert "single option letter" in first.text and "numerical value" in second.text
    released = {"problem": "Which?\nA. red", "video": "a.mp4", "modality_type": "video", "options": ["A. red"]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row() | released | {"path": None}) + "\n")
    (third,) = load_problems(tmp_path / "data.jsonl")
    assert third.text.count("A. red") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[{]", "no valid JSON"),
        (json.dumps([row(data_type="image")]), "holds no video problem among 1 rows"),
        (json.dumps([row(), row(solution="")]), "row 1 of .* lacks solution"),
        (json.dumps([row(path=None)]), "row 0 of .* lacks path"),
        (json.dumps([row(problem_type="essay")]), "problem_type 'essay', expected one of 'multiple choice'"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(ProblemError, match=words):
        load_problems(tmp_path / "data.json")
    with pytest.raises(ProblemError, match="no file"):
        load_problems(tmp_path / "other.json")


def test_held_out_questions_share_no_video(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([row(problem_id=i, path=f"{i // 2}.mp4") for i in range(7)]))
    data = Data(source="video_r1", file=str(file), held_out=2)
    train, held_out = questions(data)
    assert [p.id for p in held_out] == ["5", "6"]
    assert [p.id for p in train] == ["0", "1", "2", "3"], "question 4 is about the video of question 5"
    with pytest.raises(ConfigError, match="held_out=7 of 7 questions leaves none"):
        questions(replace(data, held_out=7))
    with pytest.raises(ConfigError, match=r"data\.file is not given"):
        questions(Data(source="video_r1"))


def test_questions_answered_right_without_the_video_are_dropped(tmp_path: Path, capsys, monkeypatch) -> None:
    from cacovid.commands.line import main
    from cacovid.training import blind

    tiny_model().save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    file, out = tmp_path / "data.json", tmp_path / "kept.json"
    command = ["blind-filter", str(file), "-o", str(out), "--pretrained", str(tmp_path / "model"), "--device", "cpu"]
    file.write_text(json.dumps([row(problem_id=i, problem=f"Which? {i}", problem_type="OCR") for i in range(3)]))
    assert main(command) == 0
    replies = [json.loads(line)["reply"] for line in (tmp_path / "kept.json.replies.jsonl").read_text().splitlines()]
    (tmp_path / "kept.json.replies.jsonl").unlink()
    rows = json.loads(file.read_text())
    rows[1]["solution"] = replies[1]  # what the model says without having seen anything
    file.write_text(json.dumps([*rows, row(data_type="image")]))
    calls = []
    real = blind.blind_reply
    monkeypatch.setattr(blind, "blind_reply", lambda *words: calls.append(1) or real(*words))
    assert main(command) == 0
    assert "2 of 3 questions kept" in capsys.readouterr().out
    assert [kept["problem_id"] for kept in json.loads(out.read_text())] == [0, 2]
    assert main(command) == 0
    assert len(calls) == 3, "what was asked before is not asked again"


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    from training.test_trainer import write_video

    model = tiny_model()
    model.config.cacovid_frames = 6
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", number)
    rows = [row(problem_id=i, path=f"{i}.mp4", problem_type="regression", solution=str(i + 1)) for i in range(3)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    settings = ["steps=2", "questions=2", "iterations=2", "max_new_tokens=1", "sampler.token_rollouts=6"]
    words = [f"settings.{word}" for word in settings] + ["settings.optimisation.lr=0.001", "data.held_out=1"]
    words += [f"pretrained={tmp_path / 'model'}", f"data.file={tmp_path / 'data.json'}", "device=cpu"]
    runs = []
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", f"--num_processes={processes}"]
        command = [*launch, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "-m", "cacovid", "train"]
        done = subprocess.run(
            [*command, *words, f"out={out}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert str(out / "best") in done.stdout
        runs.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert len(runs[0]) == len(runs[1]) == 2
    for one, two in zip(*runs, strict=True):
        assert one == pytest.approx(two, abs=1e-4)
