"""A one-node Slurm on loopback, as one user, all of it in one folder; nothing of the machine's own is touched."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from slurm.configuration import HOST, configure
from slurm.processes import kill, processes, start_reaper

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "squeue", "scontrol")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr")


class ClusterError(RuntimeError):
    """A daemon that did not come up, or a command that failed; with the end of the logs."""


def missing(programs: tuple[str, ...] = PROGRAMS) -> list[str]:
    """Those of `programs` that are not installed."""
    return [name for name in programs if shutil.which(name) is None]


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = 60, explain: Callable[[], str] = str
) -> None:
    """Wait for `condition`. Raises ClusterError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(f"waited {timeout_s:.0f} s in vain until {what}\n{explain()}")
        time.sleep(0.1)


@dataclass
class Cluster:
    """As a context manager: running inside, and every process of it gone afterwards, jobs included.

    `folder` must be empty, and short: its sockets' paths may have 107 characters. `environment` is what a process
    needs to use the cluster.
    """

    folder: Path
    cpus: int = 4
    accounting: bool = False
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _reaper: subprocess.Popen[bytes] = field(init=False)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Self:
        configure(self.folder, cpus=self.cpus, accounting=self.accounting)
        self._reaper = start_reaper(self.folder)
        try:
            self._start("munged", "--foreground", "--force", *self._munge_paths())
            wait_until((self.folder / "munge.socket").exists, "munged listens", explain=self.logs)
            if self.accounting:
                self._start_accounting()
            self._start("slurmctld", "-D")
            self.start_node()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _munge_paths(self) -> list[str]:
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        return [f"--{option}={self.folder / name}" for option, name in files.items()]

    def _start_accounting(self) -> None:
        data, sock = self.folder / "database", self.folder / "database.socket"
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal")
        options = ("--skip-networking", "--innodb-flush-log-at-trx-commit=0", f"--user={getuser()}")
        self._start("mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={sock}", *options)
        wait_until(sock.exists, "mariadbd listens", explain=self.logs)
        self._start("slurmdbd", "-D", MYSQL_UNIX_PORT=str(sock))
        wait_until(lambda: self._succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd answers", explain=self.logs)
        self.run("sacctmgr", "-i", "add", "cluster", "test")

    def _start(self, program: str, *arguments: str, **environment: str) -> None:
        with open(self.folder / f"{program}.out", "ab") as log:
            self._daemons[program] = subprocess.Popen(
                [program, *arguments],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for us
            )

    def start_node(self) -> None:
        """Start slurmd and wait until it takes jobs."""
        self._start("slurmd", "-D")
        wait_until(lambda: self._succeeds("scontrol", "show", "slurmd", HOST), "slurmd answers", explain=self.logs)
        wait_until(lambda: self.node_state() in ("idle", "mixed", "allocated"), "the node is up", explain=self.logs)

    def stop_node(self) -> None:
        """Stop slurmd, as a restart of the service does: running jobs go on."""
        daemon = self._daemons.pop("slurmd")
        daemon.terminate()
        daemon.wait(30)

    def lose_node(self) -> None:
        """Kill slurmd and all jobs on it at once, as a power cut does, and have the controller notice."""
        daemon = self._daemons.pop("slurmd")
        daemon.kill()
        daemon.wait()
        kill([p for p in self.processes() if p.info["name"] == "slurmstepd" or "SLURM_JOB_ID" in p.info["environ"]])
        # By itself it does after SlurmdTimeout, which has to be long enough for a slow machine.
        self.run("scontrol", "update", f"NodeName={HOST}", "State=DOWN", "Reason=lost")

    def recover_node(self) -> None:
        """Start slurmd on a node that was lost."""
        self.run("scontrol", "update", f"NodeName={HOST}", "State=RESUME")
        self.start_node()

    def node_state(self) -> str:
        """As sinfo names it; empty while the controller does not answer."""
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%T", "--partition=low"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return answer.stdout.strip()

    def run(self, *command: str) -> str:
        """A command's output. Raises ClusterError if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}{self.logs()}")
        return done.stdout

    def _succeeds(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True).returncode == 0

    def queue(self) -> dict[str, str]:
        """State of every job that is not over (and of those over that Slurm remembers), array tasks each."""
        rows = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(row.split() for row in rows)

    def processes(self) -> list[psutil.Process]:
        """All processes of this cluster."""
        return processes(self.folder)

    def job_processes(self, job: str) -> list[psutil.Process]:
        """Processes that a job (`7`) or array task (`7_2`) runs on the node, parents first; not Slurm's own."""
        out = []
        for process in self.processes():
            variables = process.info["environ"]
            array = f"{variables.get('SLURM_ARRAY_JOB_ID')}_{variables.get('SLURM_ARRAY_TASK_ID')}"
            if job in (variables.get("SLURM_JOB_ID"), array):
                out.append(process)
        return sorted(out, key=lambda process: process.create_time())

    def logs(self) -> str:
        """The end of every daemon's log."""
        files = sorted(self.folder.glob("*.out"))
        return "\n".join(f"--- {file.name}\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files)

    def _end(self) -> None:
        self._reaper.communicate()  # closes its input
        for daemon in self._daemons.values():
            daemon.wait()
