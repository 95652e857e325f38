"""`retry`: have cells tried again that failed, that were lost, or that quarantined documents."""

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.folder import Folder

KINDS = ("failed", "lost", "quarantined")
"""What can be wrong with a cell's shard, and the options that choose it; quarantined is a failure's reason, too."""


@dataclass(frozen=True)
class Again:
    """One shard of a cell that is to be tried again."""

    cell: dict[str, Any]
    shard: str
    why: str  # failed, lost, quarantined, chosen
    runs: list[Path]  # its run directories, where it is done

    def __str__(self) -> str:
        row = f"{self.cell['label']}, r={self.cell['arguments'].get('retention')}, {self.cell['task']['name']}"
        return f"{self.why}: {self.cell['id']} ({row}), {self.shard}"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("retry", help="have the next `run` take up cells again")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the sweep's")
    parser.add_argument("--failed", action="store_true", help="cells whose last start ended in an error")
    parser.add_argument("--lost", action="store_true", help="cells whose worker is gone without a word")
    parser.add_argument(
        "--quarantined", action="store_true", help="cells with documents that killed processes: these are asked again"
    )
    parser.add_argument(
        "--cells",
        nargs="+",
        metavar="ID",
        help="of these cells alone; without another choice, all that is known of them",
    )
    parser.add_argument("--dry", action="store_true", help="only say what would be done")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write `retry` events, forget quarantine, and say how to go on."""
    from sweeps.folder import Folder, FolderError
    from sweeps.progress import unfinished_runs

    wanted = {kind for kind in KINDS if getattr(args, kind)}
    if not wanted and not args.cells:
        raise FolderError("nothing was chosen; expected --failed, --lost, --quarantined or --cells ID...")
    folder = Folder(args.folder)
    chosen = list(choose(folder, wanted, args.cells))
    struck = [run for again in chosen if again.why == "quarantined" for run in again.runs if run.exists()]
    if "quarantined" in wanted and not args.cells:
        # Of a shard that did not end, no event names the run.
        struck += [run for run in unfinished_runs(folder, done_runs(folder)) if (run / "strikes.json").exists()]
    if not args.dry:
        busy = {run for run in struck if not forget(run)}
        struck = [run for run in struck if run not in busy]
        chosen = [again for again in chosen if again.why != "quarantined" or busy.isdisjoint(again.runs)]
        note(folder, chosen)
    for again in chosen:
        print(again)
    if struck:
        print(f"{len(struck)} runs whose documents are asked again, whatever processes they killed")
    if not (chosen or struck):
        print(f"nothing to try again in {folder.path}; `python -m sweeps status {folder.path}` tells how far it is")
    elif args.dry:
        print(f"{len(chosen)} to be tried again; nothing was done (--dry)")
    else:
        print(f"{len(chosen)} to be tried again; go on with the `python -m sweeps run ...` that made {folder.path}")
    return 0


def choose(folder: "Folder", wanted: set[str], only: list[str] | None) -> Iterator[Again]:
    """What is to be tried again; without `wanted` kinds all that is known of the cells `only`.

    Shards at work are left alone, and said. Raises FolderError for cells that are not there.
    """
    from sweeps.folder import CellState, FolderError, states
    from sweeps.overview import liveness

    cells = {cell["id"]: cell for cell in folder.read()["cells"]}
    if unknown := [id for id in only or () if id not in cells]:
        raise FolderError(
            f"no cell {', '.join(unknown)} in {folder.path}; "
            f"`python -m sweeps status {folder.path} --json` tells the ids of its cells"
        )
    known, alive = states(folder.read_events()), liveness(folder)
    for id in only or cells:
        state = known.get(id, CellState())
        for shard in dict.fromkeys([*state.started, *state.failed, *state.done]):
            started, done = state.started.get(shard), state.done.get(shard)
            if started and alive(started):
                print(f"at work, left alone: {id}, {shard}")
                continue
            quarantined = done is not None and done["reasons"].get("quarantined", 0) > 0
            holds = {"failed": shard in state.failed, "lost": started is not None, "quarantined": quarantined}
            why = next((kind for kind in KINDS if holds[kind] and kind in wanted), None if wanted else "chosen")
            if why:
                yield Again(cells[id], shard, why, [folder.path / run for run in done["runs"]] if done else [])


def done_runs(folder: "Folder") -> set[str]:
    """Run directories, relative to the sweep's folder, that `done` events name."""
    return {run for event in folder.read_events() if event["event"] == "done" for run in event["runs"]}


def forget(run: Path) -> bool:
    """Forget a run's strikes and quarantined samples; False, said, where it is being written."""
    from cacovid.runs.errors import RunLockedError
    from cacovid.runs.files import Journal, Lock, write_json
    from cacovid.runs.strikes import Strikes

    try:
        lock = Lock(run / "lock")
    except RunLockedError as error:
        print(f"left alone: {error}")
        return False
    try:
        Strikes(run, forget=True)
        with closing(Journal(run / "samples.jsonl")) as journal:
            rows = [row for row in journal.rows if (row["failure"] or {}).get("reason") != "quarantined"]
            if len(rows) == len(journal.rows):
                return True
            told = json.loads((run / "run.json").read_bytes())
            write_json(run / "run.json", told | {"state": "failed", "error": "quarantined samples are asked again"})
            journal.replace(rows)
    finally:
        lock.release()
    return True


def note(folder: "Folder", chosen: list[Again]) -> None:
    """Append the `retry` events."""
    from cacovid.runs.files import Journal, Lock

    if not chosen:
        return
    lock = Lock(folder.path / "events" / "retry.lock")
    try:
        with closing(Journal(folder.events("retry", 0))) as journal:
            for again in chosen:
                time = datetime.now(UTC).isoformat(timespec="microseconds")
                journal.append({"event": "retry", "cell": again.cell["id"], "shard": again.shard, "time": time})
    finally:
        lock.release()
