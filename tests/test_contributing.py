"""The guide's example method, as written there: one file outside the repository, one entry point."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who installed the example: its file and entry point, taken from the guide."""
    code, entry = re.search(r"```python\n(.*?)```.*?```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL).groups()
    assert len(code.splitlines()) <= 40
    folder = tmp_path_factory.mktemp("example")
    (folder / "frame_change.py").write_text(code)
    info = folder / "frame_change-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frame_change\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cacovid.methods]\n" + entry.splitlines()[1].replace('"', "") + "\n")
    return {**os.environ, "PYTHONPATH": str(folder), "CACOVID_TESTBED_VIDEOS": "1", "OMP_NUM_THREADS": "1"}


def test_it_is_listed(installed: dict[str, str]) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "cacovid", "methods", "--json"],
        env=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    example = next(m for m in json.loads(out.stdout) if m["name"] == "frame_change")
    assert example["summary"] == "Keep the patches that changed most since the previous frame."
    assert example["stages"] == ["pre-LLM"]


@pytest.mark.slow
def test_it_runs_in_lmms_eval(installed: dict[str, str], tmp_path: Path) -> None:
    tasks = subprocess.run(
        [sys.executable, "-m", "cacovid", "tasks"], env=installed, capture_output=True, text=True, check=True
    ).stdout.strip()
    arguments = f"pretrained=testbed,retention=0.25,floor=0.01,device=cpu,results_dir={tmp_path / 'runs'}"
    out = subprocess.run(
        [
            str(Path(sys.executable).parent / "lmms-eval"),
            *("--model", "frame_change_llava_ov", "--model_args", arguments),
            *("--tasks", "evidence_vqa", "--include_path", tasks),
            *("--batch_size", "1", "--output_path", str(tmp_path / "out"), "--log_samples"),
        ],
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stdout + out.stderr
    samples = [json.loads(line) for p in (tmp_path / "out").rglob("*_samples_*.jsonl") for line in p.open()]
    assert len(samples) >= 4
    spent = samples[0]["token_counts"][0]["spent"]
    assert (spent["video_tokens"], spent["asked"], spent["kept"], spent["entering"]) == (400, 100, 100, 100)
