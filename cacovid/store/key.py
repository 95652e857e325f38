"""The name of an encoded video: a hash of everything that can change one of its bits."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from cacovid.backbones import Backbone, checkpoint_folder
from cacovid.runs.digest import digest
from cacovid.runs.settings import checkpoint_identity
from cacovid.runs.source import source_sha256

SCHEMA = 2
"""Version of the stored files; part of every key."""

_PACKAGES = ("torch", "torchvision", "transformers", "decord", "av")  # that decode, preprocess and encode


@dataclass(frozen=True, kw_only=True)
class EncoderIdentity:
    """How videos are turned into features: all but the file itself."""

    checkpoint: dict[str, Any]  # as `checkpoint_identity` says
    processor: dict[str, Any]  # configuration of the pixels' preprocessing
    dtype: str
    attention: str  # of the vision tower
    device: str  # its type and model: another one rounds otherwise
    frames: int  # asked for; with the file and the sampling rule this gives the frame indices
    sampling: str
    source: str  # `source_sha256` of the adapter and the video reader
    versions: dict[str, str]

    def key(self, file_sha256: str) -> str:
        """64 hex digits for the file with that hash. Nothing is decoded for it."""
        return digest({"schema": SCHEMA, "file": file_sha256, **asdict(self)})


def encoder_identity(backbone: Backbone, pretrained: str, *, frames: int, sampling: str) -> EncoderIdentity:
    """The identity of a loaded backbone; `pretrained` as it was loaded by."""
    config = backbone.model.config
    return EncoderIdentity(
        checkpoint=checkpoint_identity(checkpoint_folder(pretrained), getattr(config, "_commit_hash", None)),
        processor=backbone.processor.video_processor.to_dict(),
        dtype=str(backbone.model.dtype).removeprefix("torch."),
        attention=config.vision_config._attn_implementation,
        device=_device(backbone.device),
        frames=frames,
        sampling=sampling,
        source=source_sha256([type(backbone).__module__, "cacovid.video.reader"]),
        versions={name: version(name) for name in _PACKAGES},
    )


def _device(device: torch.device) -> str:
    """An accelerator's name, or the vector instructions that torch uses on the CPU."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {model}"
