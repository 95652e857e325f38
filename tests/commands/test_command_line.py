"""The frame around the commands: cheap start, exit statuses, errors on one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from cacovid.commands import tasks
from cacovid.commands.line import main


def cacovid(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cacovid", *words], capture_output=True, text=True, timeout=120)


def test_tasks_prints_a_folder_and_nothing_else():
    done = cacovid("tasks")
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.removesuffix("\n"))
    assert "\n" not in str(folder) and list(folder.rglob("*.yaml"))


def test_a_command_that_does_not_exist_is_named():
    done = cacovid("method")
    assert done.returncode == 2 and "invalid choice: 'method'" in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen([sys.executable, "-m", "cacovid", "tasks"], stdout=-1, stderr=-1) as process:
        process.stdout.close()
        words = process.stderr.read()
    assert (process.returncode, words) == (0, b"")


def test_start_up_imports_nothing_heavy():
    code = "import sys, cacovid.commands.line as c; c.build_parser(); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "transformers", "matplotlib", "numpy", "rich", "lmms_eval", "av", "decord"}
    assert "cacovid.commands" in loaded and not heavy & set(loaded)


def test_an_error_is_one_line_and_status_2(monkeypatch, capsys):
    def refuse(args):
        raise ValueError("got 3,\n  expected 4")

    monkeypatch.setattr(tasks, "run", refuse)
    assert main(["tasks"]) == 2
    said = capsys.readouterr()
    assert said.err == "cacovid tasks: error: got 3, expected 4\n" and said.out == ""
    with pytest.raises(ValueError, match="got 3"):
        main(["--debug", "tasks"])


def test_ctrl_c_is_status_130_without_a_traceback(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "run", interrupt)
    assert main(["tasks"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_of_ours_is_not_taken_for_the_users(monkeypatch):
    monkeypatch.setattr(tasks, "run", lambda args: [][0])
    with pytest.raises(IndexError):
        main(["tasks"])
