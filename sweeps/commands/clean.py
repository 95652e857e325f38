"""`clean`: remove what a sweep no longer needs, after showing it with its size."""

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.folder import Folder

KINDS = {
    "stale": "runs of cells that the last call's grid has no more",
    "logs": "logs of finished jobs; sbatch scripts stay",
    "code": "code snapshots that no job in the queue or at work uses",
    "store": "encoded videos; they are encoded anew when needed",
}


@dataclass(frozen=True)
class Found:
    """Something to remove."""

    path: Path
    kind: str

    @property
    def size(self) -> int:
        """Bytes of the files at or below it."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return self.path.stat().st_size


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("clean", help="remove old runs, logs, code snapshots, the store")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the sweep's")
    for kind, words in KINDS.items():
        parser.add_argument(f"--{kind}", action="store_true", help=words)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry", action="store_true", help="only show what would go")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show, ask, remove; the exit status is 1 if something was left in place."""
    from sweeps.folder import Folder, FolderError

    wanted = [kind for kind in KINDS if getattr(args, kind)]
    if not wanted:
        raise FolderError(f"nothing was chosen; expected some of {', '.join('--' + kind for kind in KINDS)}")
    with undisturbed(Folder(args.folder), wanted):
        return clean(args, wanted)


@contextmanager
def undisturbed(folder: "Folder", wanted: list[str]) -> Iterator[None]:
    """Keep `sweeps run` out of a folder whose code or store may be removed. Raises FolderError while there is one."""
    from cacovid.runs.errors import RunLockedError
    from cacovid.runs.files import Lock
    from sweeps.folder import FolderError

    folder.read()
    shared = [f"--{kind}" for kind in ("code", "store") if kind in wanted]
    if not shared:
        yield
        return
    try:
        lock = Lock(folder.path / "lock")
    except RunLockedError as error:
        raise FolderError(
            f"`python -m sweeps run` is at work in {folder.path}, and the jobs that it starts next need what "
            f"{' and '.join(shared)} may remove; wait for it, or clean without"
        ) from error
    try:
        yield
    finally:
        lock.release()


def clean(args: argparse.Namespace, wanted: list[str]) -> int:
    """`run`, for kinds that were chosen."""
    from sweeps.folder import Folder

    found = list(find(Folder(args.folder), wanted))
    for kind in wanted:
        mine = [(some, some.size) for some in found if some.kind == kind]
        print(f"{len(mine)} {KINDS[kind]}: {sum(size for _, size in mine) / 2**20:,.1f} MiB")
        for some, size in mine:
            print(f"  {size / 2**20:10,.1f} MiB  {some.path}")
    if args.dry or not found:
        return 0
    if not args.yes and not agreed():
        print("nothing was removed")
        return 1
    left = [some for some in found if not remove(some)]
    print(f"{len(found) - len(left)} of {len(found)} removed")
    return int(bool(left))


def agreed() -> bool:
    """Ask on the terminal; no answer is a no."""
    try:
        return input("remove all of this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def find(folder: "Folder", wanted: list[str]) -> Iterator[Found]:
    """What there is to remove of the wanted kinds. Raises FolderError where there is no sweep."""
    sweep = folder.read()
    finders = {"stale": stale_runs, "logs": old_logs, "code": old_code, "store": own_store}
    for kind in wanted:
        yield from (Found(path, kind) for path in finders[kind](folder, sweep))


def stale_runs(folder: "Folder", sweep: dict[str, Any]) -> list[Path]:
    """Run directories of cells of earlier calls. Once the grid is done, those that never ended are among them: until
    then nothing tells whose they are."""
    from sweeps.folder import CellState, states
    from sweeps.progress import readable, unfinished_runs

    last, events = set(sweep["grid"]), list(folder.read_events())
    done = [event for event in events if event["event"] == "done"]
    mine = {run for event in done if event["cell"] in last for run in event["runs"]}
    others = {run for event in done for run in event["runs"]} - mine
    paths = [folder.path / run for run in sorted(others) if (folder.path / run).exists()]
    known = states(events)
    if all(known.get(id, CellState()).covers("1-of-1") for id in last):
        unnamed = readable(unfinished_runs(folder, mine | others))
        paths += sorted(path for path, run in unnamed if run["state"] != "done")
    return paths


def old_logs(folder: "Folder", sweep: dict[str, Any]) -> list[Path]:
    """Logs and pickles of jobs that are not at work and have no cell to do."""
    from cacovid.runs.files import read_lines
    from sweeps.folder import CellState, states
    from sweeps.live import living
    from sweeps.shards import Shard

    last, busy, known = set(sweep["grid"]), set(living(folder)), states(folder.read_events())

    def finished(job: str) -> bool:
        plan = json.loads(folder.job(job).read_bytes())
        shard = Shard(**plan["shard"]).name
        cells = [cell["id"] for cell in plan["cells"] if cell["id"] in last]
        return job not in busy and all(known.get(id, CellState()).covers(shard) for id in cells)

    over = {path.stem: finished(path.stem) for path in (folder.path / "jobs").glob("*.json")}
    # A worker's log begins with the job's name, submitit's files with Slurm's or the process's number.
    names = dict(over)
    for row in read_lines(folder.path / "submitted.jsonl")[0]:
        number = row["slurm"] or str(row["pid"])
        names[number] = names.get(number, True) and over.get(row["job"], False)
    paths = sorted(folder.log.iterdir()) if folder.log.exists() else []
    return [path for path in paths if path.suffix != ".sh" and _names(path, names)]


def _names(path: Path, names: dict[str, bool]) -> bool:
    """Whether the file is of a job that is over: `job.0.out`, `123_4_0_log.out`, `123_4_submitted.pkl`."""
    words = path.name.split("_")
    return any(names.get(name, False) for name in (path.name.partition(".")[0], words[0], "_".join(words[:2])))


def old_code(folder: "Folder", sweep: dict[str, Any]) -> list[Path]:
    """Snapshots that no job in the queue or at work runs: the next call makes its own."""
    from sweeps.live import cut_off, living, submitted

    intents = cut_off(folder)
    codes = {job: intent["code"] for intent in intents for job in intent["jobs"]}
    codes |= {some.row["job"]: some.row.get("code") for some in submitted(folder)}
    used = {codes.get(job) for job in living(folder)} | {intent["code"] for intent in intents}
    if None in used:
        print("code snapshots are left in place: jobs are queued or at work, and it is not told which they run")
        return []
    paths = sorted(folder.code.iterdir()) if folder.code.exists() else []
    return [path for path in paths if path.name not in used]


def own_store(folder: "Folder", sweep: dict[str, Any]) -> list[Path]:
    """The store, if it is the sweep's own. Raises FolderError for another, and while jobs use it."""
    from sweeps.folder import FolderError
    from sweeps.live import living

    if elsewhere := sweep["config"].get("store", {}).get("folder"):
        raise FolderError(f"the store is {elsewhere}: other sweeps may use it; remove that folder yourself")
    if busy := sorted(set(living(folder))):
        raise FolderError(f"jobs {', '.join(busy)} are queued or at work and use the store; wait for them")
    return [folder.path / "store"] if (folder.path / "store").exists() else []


def remove(found: Found) -> bool:
    """Remove it; False, said, for a run that is being written."""
    from cacovid.runs.errors import RunLockedError
    from cacovid.runs.files import Lock

    if not found.path.is_dir():
        found.path.unlink()
    elif found.kind != "stale":
        shutil.rmtree(found.path)
    else:
        try:
            lock = Lock(found.path / "lock")
        except RunLockedError as error:
            print(f"left in place: {error}")
            return False
        try:
            shutil.rmtree(found.path)
        finally:
            lock.release()
    return True
