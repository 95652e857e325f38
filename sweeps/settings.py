"""What a sweep is made of: every key of `sweeps/conf`, typed, with its default."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cacovid.budget import BudgetMode
from cacovid.lmms.arguments import StoreKind


class ConfigError(ValueError):
    """A sweep that names something unknown, a value of the wrong kind, or an empty grid."""


@dataclass(frozen=True)
class Backbone:
    """A checkpoint and how it is loaded: the model arguments that all methods share."""

    family: str  # suffix of the lmms-eval model ids, e.g. llava_ov
    pretrained: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    sizes: str | None = None  # architecture by name, for the estimate (`sweeps.estimate`)


@dataclass(frozen=True)
class Rows:
    """A method with its settings: one row of a table at every retention ratio."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    retention: list[float] | None = None  # None: the sweep's
    budget: list[BudgetMode] | None = None  # None: the sweep's
    seeds: bool = False  # one row for each of the sweep's seeds, as the method's field `seed`
    only: list[str] | None = None  # names of the backbones that it runs on; None: all


@dataclass(frozen=True)
class Task:
    """An lmms-eval task."""

    name: str
    include_path: str | None = None  # folder of the task's YAML; "cacovid": those that come with the suite
    limit: int | None = None  # the first documents alone
    environment: dict[str, str] = field(default_factory=dict)  # set in the job before the task is loaded
    documents: int | None = None  # known size, for the estimate
    videos: int | None = None


@dataclass(frozen=True)
class Store:
    """Encoded videos shared by all cells."""

    kind: StoreKind = "disk"
    folder: str | None = None  # None: `store` in the sweep's folder
    gib: float = 50.0  # least recently used entries go above it


@dataclass(frozen=True)
class Executor:
    """Where jobs run. What a kind does not use is refused, not ignored."""

    kind: Literal["debug", "local", "slurm"]
    parallel: int = 1  # jobs at a time: processes (local), running array tasks (slurm)
    workers: int = 1  # processes inside a job, each with its share of the job's documents and its own GPU
    threads: int | None = None  # CPU threads a worker computes with; None: torch's choice
    retries: int = 3  # new starts of a worker that dies without a further sample, and tries of a cell that fails
    timeout_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)  # shell lines before the job
    max_timeouts: int = 100  # requeues after running out of time
    signal_delay_s: int = 90  # seconds before the time limit at which the job checkpoints
    extra: dict[str, Any] = field(default_factory=dict)  # any other sbatch option: {"mail-type": "END"}


@dataclass(frozen=True)
class Sweep:
    """A grid: every backbone x row x retention x budget x task (x seed), and how it runs."""

    name: str
    backbones: dict[str, Backbone]
    methods: dict[str, Rows]  # by label: the name of the row in tables
    tasks: dict[str, Task]
    executor: Executor
    retention: list[float] = field(default_factory=lambda: [0.25, 0.2, 0.15, 0.1])
    budget: list[BudgetMode] = field(default_factory=lambda: ["nominal"])
    seeds: list[int] = field(default_factory=lambda: [0])
    frames: int | None = None  # None: as the checkpoint says, else 32
    sampling: Literal["round", "floor"] = "round"
    batch_size: int = 1
    read_timeout: float = 60.0
    shards: int = 1  # stretches of documents that each cell is cut into, each in a job of its own
    cells_per_job: int | None = None  # None: all cells of a backbone and task
    store: Store = field(default_factory=Store)
    results: str = "results/${name}"  # the sweep's folder
