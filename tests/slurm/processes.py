"""The processes of a cluster: finding them, and ending them when whoever started it is gone, however it went."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil


def processes(folder: Path) -> list[psutil.Process]:
    """All processes of the cluster in `folder`: those with its SLURM_CONF in their environment.

    slurmstepd overwrites its environment; the daemons work in the cluster's folder, which it inherits. Each has
    `info` with name, environ (never None) and cwd.
    """
    configuration, work = str(folder / "slurm.conf"), str(folder)
    out = []
    for process in psutil.process_iter(["name", "environ", "cwd"]):
        process.info["environ"] = process.info["environ"] or {}
        if process.info["environ"].get("SLURM_CONF") == configuration or process.info["cwd"] == work:
            out.append(process)
    return out


def kill(some: list[psutil.Process]) -> None:
    """Kill them; those that have ended by themselves are none's loss."""
    for process in some:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def start_reaper(folder: Path) -> subprocess.Popen[bytes]:
    """A process that kills all of the cluster's once its standard input is closed: at the latest by our own end."""
    return subprocess.Popen([sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True)


if __name__ == "__main__":
    sys.stdin.read()
    while found := processes(Path(sys.argv[1])):  # one may just have started another
        kill(found)
        time.sleep(0.1)
