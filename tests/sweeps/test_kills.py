"""kill -9 in the middle of a sweep: no sample is lost, none is there twice, none is another one."""

from pathlib import Path

import pytest

from benchmarks.kills import Killer, answers, cells_on, disturbed, metrics, run
from cacovid.runs.files import read_lines
from sweeps.folder import Folder
from sweeps.settings import Executor


@pytest.mark.slow
def test_a_sweep_survives_kill_9(tmp_path: Path) -> None:
    """Of a worker, which is started again, and of a supervisor, whose workers end and whose sweep is started again."""
    cells = cells_on(4, ["random", "attention_topk"])
    assert run(tmp_path / "whole", cells, Executor("debug", threads=1)) == 0
    killer = Killer(tmp_path / "killed", ["worker", "supervisor"], in_loading=0)
    executor = Executor("local", workers=2, threads=1)
    launches = disturbed(tmp_path / "killed", cells, executor, 1, killer)
    assert killer.killed == {"worker": 1, "supervisor": 1} and launches == 2
    expected = answers(tmp_path / "whole")
    assert len(expected) == 2 * 28 and answers(tmp_path / "killed") == expected
    numbers = metrics(tmp_path / "whole")
    assert None not in numbers.values() and metrics(tmp_path / "killed") == numbers
    codes = {row["code"] for row in read_lines(tmp_path / "killed" / "submitted.jsonl")[0]}
    assert codes == {path.name for path in (tmp_path / "killed" / "code").iterdir()}
    done = [event for event in Folder(tmp_path / "killed").read_events() if event["event"] == "done"]
    assert len(done) == len({(event["cell"], event["shard"]) for event in done}) == 4
