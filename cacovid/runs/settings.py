"""The identity of a run: every setting that can change one of its numbers, and nothing else."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cacovid.runs.digest import digest, known_sha256

SCHEMA = 1
"""Version of run.json and samples.jsonl; part of the identity."""

_PACKAGES = ("cacovid", "torch", "transformers", "lmms-eval", "decord", "av")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run's name hashes.

    The batch size is in: padding changes the shapes that a kernel sees, and in bfloat16 that can flip a near
    tie. Limits and offsets are out: they choose documents, and no sample's number depends on the others. Time
    limits are out: a file that failed is tried again by the next run. The commit is out: `source` says exactly
    which code could matter.
    """

    method: str
    fields: dict[str, Any]  # all of the method's hyper-parameters, defaults included
    budget: str  # what the retention ratio means: "nominal", "layer_average" or "flops"
    backbone: str
    checkpoint: dict[str, Any]  # as `checkpoint_identity` says
    dtype: str  # as loaded, never "auto"
    attention: str
    device: str  # "cpu" or "cuda"
    frames: int
    sampling: str
    pixels: tuple[int, int] | None = None  # least and largest area of a frame, where a family keeps its resolution
    form: str  # request form of lmms-eval: "simple" or "chat"
    batch_size: int
    task: str
    task_sha256: str  # the task's configuration, with the source of its functions
    generation: list[dict[str, Any]]  # what was made of the task's generation arguments
    source: str  # `source_sha256` of the code that ran
    versions: dict[str, str]

    @property
    def id(self) -> str:
        """Sixteen hex digits: the name of the run's directory."""
        return digest({"schema": SCHEMA, **asdict(self)})[:16]


def package_versions() -> dict[str, str]:
    """Installed versions of the packages whose change can change a number."""
    return {name: version(name) for name in _PACKAGES}


def checkpoint_identity(pretrained: str, commit: str | None) -> dict[str, Any]:
    """What names the weights: the hub's commit, or for a folder the hash of its files' content.

    Folders are hashed in full, once a process (about a second a gigabyte): another process cannot know from size
    and date alone that a fine-tuning is the one that it hashed.
    """
    folder = Path(pretrained)
    if not folder.is_dir():
        return {"hub": pretrained, "commit": commit}
    kinds = {".safetensors", ".json", ".txt", ".jinja", ".model"}
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in kinds)
    return {"folder": digest({p.name: known_sha256(p) for p in files})}
