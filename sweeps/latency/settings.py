"""What a latency run is: the overrides of a sweep that choose backbones and rows, and the protocol's own keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from yaml import YAMLError

from cacovid.sizes import TEXT
from sweeps.config import compose_sweep
from sweeps.settings import ConfigError, Sweep

QUOTABLE = 20
"""Repeats below which a table says that its figures are not for quoting."""

SHARED = ("backbone", "backbones", "method", "methods", "retention", "grid", "budget", "seeds", "frames", "sampling")
"""Keys and groups of `sweeps/conf` that mean the same here."""


@dataclass(frozen=True)
class Protocol:
    """How times are taken: the keys that `sweeps run` does not have."""

    weights: Literal["pretrained", "random"] = "pretrained"  # random: the architecture alone, made on the device
    pretrained: str | None = None  # folder or hub id in place of the backbone's own
    device: str | None = None  # in place of the backbone's own
    batch: list[int] = field(default_factory=lambda: [1])  # samples that go through the LLM together
    repeats: int = QUOTABLE  # timed rounds, each on an input of its own
    warmup: int = 2  # untimed passes of every row before them
    decode_tokens: int = 16  # decode steps; an end token does not stop them
    prompt_tokens: int = TEXT  # around the video, chat template included
    width: int = 640  # pixels of the videos that are made
    height: int = 360
    end_to_end: bool = True  # False: stages alone, where one vision tower takes minutes
    limit_s: float | None = None  # seconds after which no row and no round is begun
    seed: int = 0  # of videos, prompts and random weights

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        least = {"repeats": 1, "warmup": 1, "decode_tokens": 1, "prompt_tokens": 1, "width": 16, "height": 16}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)}, expected at least {low}")
        if not self.batch or min(self.batch) < 1:
            raise ConfigError(f"batch={self.batch}, expected sizes of at least 1, as in batch=1,4")
        if self.width % 2 or self.height % 2:
            raise ConfigError(f"width={self.width}, height={self.height}: expected even numbers, as H.264 has them")
        if self.limit_s is not None and not self.limit_s > 0:
            raise ConfigError(f"limit_s={self.limit_s}, expected seconds above 0")
        if self.weights == "random" and self.pretrained is not None:
            raise ConfigError(f"pretrained={self.pretrained} has weights; drop it or weights=random")


def compose_latency(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[Sweep, Protocol]:
    """The rows to time, as a sweep without a task of its own, and the protocol.

    Raises ConfigError for what is unknown here, with what is known.
    """
    own = [field.name for field in fields(Protocol)]
    mine, shared = [], []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~").partition("@")[0]
        if key in own:
            mine.append(text)
        elif key.partition(".")[0] in SHARED:
            shared.append(text)
        else:
            raise ConfigError(f"{text}: no key {key!r} of a latency run; known: {', '.join(sorted((*own, *SHARED)))}")
    protocol, sweep = _protocol(mine), compose_sweep(shared, config_dir)
    if protocol.pretrained is not None and len(sweep.backbones) != 1:
        raise ConfigError(f"pretrained= with {len(sweep.backbones)} backbones, expected one: it replaces its weights")
    changed = {name: value for name in ("device", "pretrained") if (value := getattr(protocol, name)) is not None}
    backbones = {name: replace(backbone, **changed) for name, backbone in sweep.backbones.items()}
    return replace(sweep, backbones=backbones), protocol


def _protocol(overrides: Sequence[str]) -> Protocol:
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key.startswith(("+", "~")):
            raise ConfigError(f"{text}: expected {key.lstrip('+~')}=VALUE")
        if key == "batch" and not value.startswith("["):
            value = f"[{value}]"
        try:
            values[key] = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))[key]  # type: ignore[index,call-overload]
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"{text}: {error}") from error
    try:
        return TypeAdapter(Protocol).validate_python(values)
    except ValidationError as error:
        told = (f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in error.errors())
        raise ConfigError("; ".join(told)) from error
