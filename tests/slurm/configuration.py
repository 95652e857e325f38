"""The files that a one-node Slurm on loopback is configured by."""

import os
import socket
from contextlib import ExitStack
from getpass import getuser
from pathlib import Path

HOST = socket.gethostname().split(".")[0]
KILL_WAIT_S = 3  # between the signal that asks a job to end and SIGKILL
REQUEUE_DELAY_S = 6  # until a requeued job may start again; Slurm's own is 121

# Neither cgroups nor a slurm user are needed with these. `config_overrides`: the node has what it claims; its GPUs are
# empty files, so that jobs can ask for them.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={cred_expire}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MaxArraySize=1000
KillWait={kill_wait}
SlurmdTimeout=120
MessageTimeout=30
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:{cpus}
PartitionName=low Nodes={host} Default=YES PriorityTier=1 MaxTime=60
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=60
"""

ACCOUNTING_CONFIG = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket
"""

DBD_CONFIG = """
DbdHost=localhost
DbdPort={accounting_port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser=root
"""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def configure(folder: Path, *, cpus: int, accounting: bool) -> None:
    """Write all that the daemons read into an empty `folder`."""
    names = ("controller_port", "node_port", "accounting_port")
    values = {
        **dict(zip(names, free_ports(len(names)), strict=True)),
        "host": HOST,
        "user": getuser(),
        "folder": folder,
        "cpus": cpus,
        "kill_wait": KILL_WAIT_S,
        "cred_expire": REQUEUE_DELAY_S - 1,
    }
    config = CONFIG + (ACCOUNTING_CONFIG if accounting else "")
    (folder / "slurm.conf").write_text(config.format(**values))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(cpus):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{cpus - 1}]\n")
    _write_secret(folder / "munge.key", os.urandom(128))
    if accounting:
        _write_secret(folder / "slurmdbd.conf", DBD_CONFIG.format(**values).encode())


def _write_secret(path: Path, content: bytes) -> None:
    """The daemons refuse these files where others can read them."""
    path.touch(mode=0o600)
    path.write_bytes(content)
