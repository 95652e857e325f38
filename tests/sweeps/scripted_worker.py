"""In place of `sweeps.worker`, without a model: it does for each cell what `script.json` in the sweep's folder says.

{"<label>": "ok"} finishes the cell; "die" dies over it; "die 3" dies the first three times; "rows 4" writes a sample of
a run and dies, four times; "hang" does not heed SIGTERM; "exit" ends with status 7 before any cell is begun.
"""

import json
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from cacovid.runs.files import Journal
from sweeps.folder import CellState, Folder, states
from sweeps.journal import note, now
from sweeps.shards import Shard


def main() -> None:
    """Take the arguments of `sweeps.worker`."""
    folder, job, worker = Folder(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    plan, script = json.loads(folder.job(job).read_text()), json.loads((folder.path / "script.json").read_text())
    shard = Shard(**plan["shard"]).part(worker, plan["executor"]["workers"]).name
    print("a worker starts, OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS"), flush=True)
    if "exit" in script.values():
        sys.exit(7)
    folder.events(job, worker).parent.mkdir(exist_ok=True)
    with closing(Journal(folder.events(job, worker))) as journal:
        for cell in plan["cells"]:
            known = states(folder.read_events()).get(cell["id"], CellState())
            if not known.covers(shard) and shard not in known.failed:
                note(journal, "start", cell["id"], shard)
                _act(folder.path, script[cell["label"]], cell["label"], shard)
                note(journal, "done", cell["id"], shard, run=None, counts={}, reasons={}, metrics={}, seconds=1.0)


def _act(folder: Path, word: str, label: str, shard: str) -> None:
    count = folder / f"{label}.{shard}.count"
    before = len(count.read_text()) if count.exists() else 0
    count.write_text("x" * (before + 1))
    what, _, times = word.partition(" ")
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / "hangs").touch()
        time.sleep(60)
    if what == "rows" and before < int(times):
        run = folder / "runs" / label
        run.mkdir(parents=True, exist_ok=True)
        (run / "lock").write_text(f"{os.getpid()}\n")
        with open(run / "samples.jsonl", "a") as file:
            file.write(json.dumps({"written": now()}) + "\n")
    if what in ("die", "rows") and before < int(times or 1000):
        os.kill(os.getpid(), signal.SIGKILL)


main()
