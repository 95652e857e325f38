"""The benchmark runs, and what it times gives the same as the transcription."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_step_agrees_with_its_transcription():
    sizes = ["--frames", "6", "--size", "25", "--width", "16", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "benchmarks/methods.py", *sizes], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len({row.split(" | ")[0] for row in rows}) == 9, "every published method has a step here"
    assert "DIFFERS" not in done.stdout
