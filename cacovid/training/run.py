"""From a Hydra config to a training run: which backbone, which questions, which settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from cacovid.backbones.loading import load_backbone
from cacovid.training.objective import Objective
from cacovid.training.problems import Problem, load_problems, testbed_problems
from cacovid.training.rate import AdaptiveRate
from cacovid.training.sampling import Sampler
from cacovid.training.settings import Optimisation, Settings, Validation
from cacovid.training.trainer import Trainer


class ConfigError(ValueError):
    """A training config that names something unknown, or a value of the wrong kind."""


@dataclass(frozen=True)
class Data:
    """Where the questions come from.

    `testbed`: its train and validation splits. `video_r1`: a file in the Video-R1 layout, of which the videos of
    the last `held_out` questions are never trained on.
    """

    source: Literal["testbed", "video_r1"] = "testbed"
    file: str | None = None
    videos: str | None = None  # the folder that the file's paths are relative to; None: where the file is
    held_out: int = 200
    limit_videos: int | None = None  # of the test bed


@dataclass(frozen=True)
class Run:
    """Everything that a training run is made of."""

    out: str
    pretrained: str = "testbed"
    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    data: Data = field(default_factory=Data)
    settings: Settings = field(default_factory=lambda: Settings(steps=1))


for _part in (Run, Data, Settings, Optimisation, Validation, Sampler, Objective, AdaptiveRate):
    setattr(_part, "__pydantic_config__", ConfigDict(extra="forbid"))  # noqa: B010  mypy knows no such attribute

ConfigStore.instance().store("every_setting", OmegaConf.create(asdict(Run(out="???"))))


def read_run(config: str, overrides: Sequence[str]) -> Run:
    """Compose a config of `cacovid.training.conf` with `key=value` overrides.

    Raises ConfigError with what was got and what is known.
    """
    try:
        with initialize_config_module("cacovid.training.conf", version_base="1.3"):
            composed = compose(config, list(overrides))
        values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        return TypeAdapter(Run).validate_python(values)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"config {config!r} with {list(overrides)}: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from error


def questions(data: Data) -> tuple[list[Problem], list[Problem]]:
    """The problems to train on, and the held-out ones, which share no video with them."""
    if data.source == "testbed":
        return testbed_problems("train", data.limit_videos), testbed_problems("validation", data.limit_videos)
    if data.file is None:
        raise ConfigError("data.file is not given; expected a JSON or JSONL file in the Video-R1 layout")
    problems = load_problems(Path(data.file), None if data.videos is None else Path(data.videos))
    held_out = problems[len(problems) - data.held_out :] if data.held_out else []
    seen = {problem.video for problem in held_out}
    rest = [problem for problem in problems if problem.video not in seen]
    if not rest:
        raise ConfigError(f"data.held_out={data.held_out} of {len(problems)} questions leaves none to train on")
    return rest, held_out


def train(run: Run) -> Path:
    """Train and return the folder with `best/`, `last/` and `metrics.jsonl`."""
    accelerator = Accelerator(cpu=run.device == "cpu")
    device = str(accelerator.device) if run.device == "auto" else run.device
    backbone = load_backbone(
        "auto", run.pretrained, device=device, dtype=run.dtype, attn_implementation=run.attn_implementation
    )
    folder = Path(run.out)
    Trainer(backbone, *questions(run.data), folder, run.settings, accelerator).train()
    return folder
