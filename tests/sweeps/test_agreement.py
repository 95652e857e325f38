"""`benchmarks/agreement.py`: two runs of the latency protocol side by side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def write(folder: Path, block: str, prefill: float, label: str = "uniform") -> Path:
    """A run of the uncompressed model and one method; every other time is the same in both."""
    folder.mkdir()

    def row(method: str, label: str, prefill: float) -> dict:
        samples = {"compress": [0.001] * 20, "prefill": [prefill] * 20, "ttft": [0.1] * 20, "end_to_end": [0.2] * 20}
        about = {"label": label, "budget": "nominal", "backbone": "testbed", "frames": 16, "batch": 1, "block": block}
        state = {"key": label, "status": "measured", "complete": True, "retention": 1.0 if method == "full" else 0.25}
        return {"method": method, "samples": samples, **about, **state}

    rows = [row("full", "all tokens", 0.039), row("uniform", label, prefill)]
    (folder / "latency.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "env.jsonl").write_text(json.dumps({"block": block}) + "\n")
    return folder


def agreement(*folders: Path) -> tuple[int, str]:
    words = [sys.executable, "benchmarks/agreement.py", *map(str, folders)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("prefill", "status"), [(0.0193, 0), (0.0173, 1)])
def test_speed_ups_are_compared_and_not_times(tmp_path: Path, prefill: float, status: int) -> None:
    one, other = write(tmp_path / "one", "a", prefill), write(tmp_path / "other", "b", 0.019)
    code, said = agreement(one, other)
    assert code == status, said
    assert f"| compressor + prefill | {20 / (1000 * prefill + 1):.3f} |" in said
    assert f"| {20 / (1000 * prefill + 1):.3f} | uniform, r = 0.25 | {status} |" in said
    assert "| end to end | 1.000 | 1.000 | uniform, r = 0.25 | 0 |" in said


def test_runs_of_other_rows_do_not_agree(tmp_path: Path) -> None:
    code, said = agreement(write(tmp_path / "one", "a", 0.02), write(tmp_path / "other", "b", 0.02, "random"))
    assert code == 1 and "have no row in common" in said
