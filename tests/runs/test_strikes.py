"""Documents that kill their process: struck, asked alone, then no more; nobody else pays."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs.examples import SETTINGS, sample

from cacovid.lmms.evaluation import Evaluation, Item
from cacovid.lmms.generation import Generation
from cacovid.lmms.prompt import Prompt
from cacovid.runs import Run, Sample
from cacovid.runs.strikes import Strikes


def die(folder: Path, documents: Sequence[int]) -> None:
    """What a process leaves that was killed while it answered these documents."""
    Strikes(folder)
    (folder / "asking.json").write_text(json.dumps(documents))


def test_three_deaths_quarantine_a_document(tmp_path: Path) -> None:
    for deaths in range(3):
        strikes = Strikes(tmp_path)
        assert strikes.failure(4) is None and strikes.alone([3, 4]) == (deaths >= 2)
        die(tmp_path, [4])
    failure = Strikes(tmp_path).failure(4)
    assert failure is not None and (failure.kind, failure.reason) == ("Quarantined", "quarantined")
    assert "3 processes died while they answered it; delete strikes.json" in failure.message
    assert Strikes(tmp_path).failure(4) is not None, "a look costs no strike"
    assert Strikes(tmp_path).failure(3) is None
    assert Strikes(tmp_path, forget=True).failure(4) is None and Strikes(tmp_path).failure(4) is None


def test_only_death_is_a_strike(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Strikes(tmp_path).asking([1]):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "asking.json").write_text("[1")  # killed while it noted
    assert Strikes(tmp_path).alone([1]) is False


def test_an_answer_forgets_strikes(tmp_path: Path) -> None:
    die(tmp_path, [1, 2])
    die(tmp_path, [1, 2])
    with Strikes(tmp_path).asking([1]):
        pass
    assert json.loads((tmp_path / "strikes.json").read_text()) == {"2": 2}


def test_kill_9_leaves_the_note_and_an_orderly_end_does_not(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib; from cacovid.runs.strikes import Strikes\n"
        "with Strikes(pathlib.Path(sys.argv[1])).asking([7]): os.kill(os.getpid(), getattr(signal, sys.argv[2]))"
    )
    for name, status, left in [("SIGINT", -signal.SIGINT, False), ("SIGKILL", -signal.SIGKILL, True)]:
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path), name], stderr=subprocess.DEVNULL)
        assert done.returncode == status and (tmp_path / "asking.json").exists() == left


class Fragile(Evaluation):
    """Answers with letters; document 2 kills its process."""

    def _prepare(self, request: Any, generation: Generation, documents: Any) -> Item:
        return Item(request, generation, {}, "d", Prompt("text", "text", None, []))

    def _stored(self, item: Item) -> Sample | None:
        return self.run.stored(item.request.doc_id)

    def _answer(self, items: list[Item]) -> None:
        asked = [item.request.doc_id for item in items if item.failure is None]
        with open(self.run.folder / "asked", "a") as file:
            file.write(f"{json.dumps(asked)}\n")
        if 2 in asked:
            os._exit(9)

    def _sample(self, item: Item) -> Sample:
        return sample(item.request.doc_id, prediction=None if item.failure else "A", failure=item.failure)


def attempt(results: Path, batch_size: int) -> int:
    """Exit status of a process that asks six documents."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        with Run(results, SETTINGS, asked=range(6)) as run:
            clips = SimpleNamespace(ahead=0, stop=lambda: None)
            encoder, method = SimpleNamespace(clips=clips, prefetch=lambda *_: None), SimpleNamespace(needs=frozenset())
            evaluation = Fragile(None, method, encoder, run, False, batch_size)  # type: ignore[arg-type]
            work = [(SimpleNamespace(doc_id=n), Generation(max_new_tokens=4, until=())) for n in range(6)]
            list(evaluation.samples(work, None))  # type: ignore[arg-type]
        os._exit(0)
    finally:
        os._exit(1)  # an error must not go on as a second pytest


@pytest.mark.parametrize(
    ("batch_size", "asked"),
    [
        (1, [[0], [1], [2], [2], [2], [], [3], [4], [5]]),
        (4, [[0, 1, 2, 3], [0, 1, 2, 3], [0], [1], [2], [], [3], [4, 5]]),
    ],
)
def test_a_document_that_kills_costs_itself_alone(tmp_path: Path, batch_size: int, asked: list[list[int]]) -> None:
    assert [attempt(tmp_path, batch_size) for _ in range(4)] == [9, 9, 9, 0]
    folder = tmp_path / SETTINGS.id
    assert [json.loads(line) for line in (folder / "asked").read_text().splitlines()] == asked
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(row["doc_id"], (row["failure"] or {}).get("reason")) for row in rows] == [
        (n, "quarantined" if n == 2 else None) for n in range(6)
    ]
    assert json.loads((folder / "run.json").read_text())["counts"]["failed"] == 1

    with Run(tmp_path, SETTINGS, asked=range(6), resume=False) as run:
        assert run.strikes.failure(2) is None, "a new beginning forgets strikes"
