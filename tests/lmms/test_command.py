"""The real `lmms-eval` command: killed and taken up again, exit status, and the test bed's task."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lmms.conftest import World
from lmms.scene import UTILS, document, write_task

from cacovid.backbones import TESTBEDS, family_of

pytestmark = pytest.mark.slow

SLOW = UTILS.replace(
    "def visual(doc):", "import os, time\n\n\ndef visual(doc):\n    time.sleep(float(os.environ['SLOW']))"
)
NOT_TIMED = ("prediction", "failure", "score", "metrics", "spent", "kept", "prompt_sha256", "doc_sha256", "doc_id")


def command(world: World, *words: str, slow: float = 0, **env: str) -> subprocess.Popen[str]:
    """Start `lmms-eval` from beside this Python."""
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "lmms-eval"), "--batch_size", "1", *words],
        env={**os.environ, "SLOW": str(slow), "HF_HOME": str(world.root / "hub"), "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("runs/*/samples.jsonl") for line in path.read_text().splitlines()]


def wait_for_lines(process: subprocess.Popen[str], folder: Path, count: int, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while sum(path.read_text().count("\n") for path in folder.glob("runs/*/samples.jsonl")) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)


def test_killed_and_run_again_gives_the_same_numbers(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broken file in the middle, so that the status says that not all is well."""
    documents = [document(n, video=world.videos[n % 3]) for n in range(10)]
    documents[4]["video"] = world.broken
    through, killed = tmp_path / "through", tmp_path / "killed"
    tasks = write_task(killed / "tasks", "small", documents, utils=SLOW)
    model_args = f"pretrained={world.checkpoint},retention=0.25,device=cpu,max_frames_num=4"
    words = [
        *("--model", "random_llava_ov", "--model_args", f"{model_args},results_dir={killed / 'runs'}"),
        *("--tasks", "small", "--include_path", str(tasks)),
        *("--output_path", str(killed / "out"), "--log_samples"),
    ]
    process = command(world, *words, slow=0.5)
    wait_for_lines(process, killed, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    early = lines(killed)
    assert 3 <= len(early) < 10
    with open(next(killed.glob("runs/*/samples.jsonl")), "a") as file:
        file.write('{"task": "sma')  # as if killed in the middle of a line

    again = command(world, *words)
    output, status = again.communicate()[0], again.returncode
    assert status == 1, output
    assert f"{len([r for r in early if not r['failure']])} of 10 samples have an answer in" in output
    assert "1 of 10 samples HAVE NO ANSWER" in output and "1 samples have no answer, see above; exit status 1" in output

    monkeypatch.setenv("SLOW", "0")
    reference = world.evaluate(through, documents, files={"utils": SLOW})
    rows, others = ([{k: row[k] for k in NOT_TIMED} for row in lines(folder)] for folder in (killed, through))
    assert rows == others and [r["doc_id"] for r in rows] == list(range(10)), "no sample twice, none missing"
    assert [r["doc_id"] for r in rows if r["failure"]] == [4]
    written = next(killed.glob("out/*/*_samples_small.jsonl")).read_text().splitlines()
    for one, two in zip(map(json.loads, written), reference["samples"]["small"], strict=True):
        assert one["filtered_resps"].strip() == two["filtered_resps"][0].strip() and one["right"] == two["right"]
        assert one["token_counts"][0]["spent"] == two["token_counts"][0]["spent"]
    results = json.loads(next(killed.glob("out/*/*_results.json")).read_text())["results"]["small"]
    assert results["right,none"] == reference["results"]["small"]["right,none"]


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_the_test_beds_task(testbed: str, world: World, tmp_path: Path) -> None:
    """The command of the README on one video, and an error that must not end with status 0."""
    tasks = subprocess.run([sys.executable, "-m", "cacovid", "tasks"], capture_output=True, text=True, check=True)
    words = [
        *("--model", f"attention_topk_{family_of(str(TESTBEDS[testbed])).family}"),
        *("--tasks", "evidence_vqa", "--include_path", tasks.stdout.strip()),
        *("--output_path", str(tmp_path / "out"), "--log_samples"),
    ]
    arguments = f"pretrained={testbed},retention=0.25,device=cpu,results_dir={tmp_path / 'runs'}"
    cache = {"CACOVID_CACHE": str(world.root / "cache"), "CACOVID_TESTBED_VIDEOS": "1"}
    process = command(world, *words, "--model_args", arguments, **cache)
    wrong = command(world, *words, "--model_args", f"{arguments},layr=3", **cache)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    samples = [json.loads(line) for line in next(tmp_path.glob("out/*/*_samples_*")).read_text().splitlines()]
    assert len(samples) == 7 and len({s["accuracy"]["kind"] for s in samples}) == 7
    for sample in samples:
        audit = sample["token_counts"][0]
        assert audit["spent"]["video_tokens"] == 16 * 25 and audit["spent"]["kept"] == 100 == len(audit["kept"])
        assert 0 <= audit["evidence_recall"] <= 1
    rows = lines(tmp_path)
    assert all(r["parsed"] is not None and r["score"] in (0.0, 1.0) and r["target"] in "ABCD" for r in rows)
    results = json.loads(next(tmp_path.glob("out/*/*_results.json")).read_text())["results"]["evidence_vqa"]
    assert results["accuracy,none"] == sum(r["score"] for r in rows) / 7
    assert {"parsed,none", "accuracy_color,none", "accuracy_stderr_clustered,none"} <= set(results)

    output = wrong.communicate()[0]
    assert wrong.returncode == 1 and "cacovid: error: unknown model argument 'layr'; every method takes" in output
    assert "Traceback" not in output
