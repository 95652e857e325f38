"""Load a backbone by family name, with the choices that every command and evaluation makes alike."""

from pathlib import Path

import torch

import cacovid
from cacovid.backbones.base import Backbone
from cacovid.backbones.checkpoint import read_config
from cacovid.backbones.llava_onevision import LlavaOnevision
from cacovid.backbones.qwen2_5_vl import Qwen2_5_VL
from cacovid.errors import CheckpointError, DeviceError

BACKBONES: dict[str, type[Backbone]] = {cls.family: cls for cls in (LlavaOnevision, Qwen2_5_VL)}

TESTBEDS = {
    name: Path(cacovid.__file__).parent / "testbed" / folder
    for name, folder in {"testbed": "checkpoint", "testbed_qwen2_5_vl": "checkpoint_qwen2_5_vl"}.items()
}
"""The shipped test-bed checkpoints: what `pretrained=testbed` means, and its like of another family."""


def checkpoint_folder(pretrained: str) -> str:
    """Folder or hub id that `pretrained` names; a name of TESTBEDS is a shipped checkpoint."""
    return str(TESTBEDS.get(pretrained, pretrained))


def family_of(source: str, revision: str | None = None) -> type[Backbone]:
    """The adapter for a checkpoint folder or hub id. Raises CheckpointError for one that none reads."""
    kinds = {cls.model_type: cls for cls in BACKBONES.values()}
    if (kind := read_config(source, revision).model_type) not in kinds:
        raise CheckpointError(f"{source} is a {kind} checkpoint, expected one of {', '.join(kinds)}")
    return kinds[kind]


def load_backbone(
    family: str,
    pretrained: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "sdpa",
    revision: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Backbone:
    """Load a checkpoint; with family `auto` as what its config says that it is. Device `auto` is the first CUDA device
    if there is one.

    On a CPU dtype `auto` is float32: half precision is slow there, and rounds otherwise.
    `min_pixels` and `max_pixels`: see `Backbone.limit_pixels`.
    Raises DeviceError for a device or attention backend that is not there, CheckpointError.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise DeviceError(f"device={device!r}, expected cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device={device}, but torch sees no CUDA device; use cpu, or see `python -m cacovid doctor`")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"device={device} cannot be used: {str(error).splitlines()[0]}") from error
    if attn_implementation == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if kind != "cuda" or not is_flash_attn_2_available():
            raise DeviceError(
                "attn_implementation=flash_attention_2 needs a CUDA device and the package flash-attn; use sdpa"
            )
    source = checkpoint_folder(pretrained)
    backbone = (family_of(source, revision) if family == "auto" else BACKBONES[family]).load(
        source,
        device=device,
        dtype="float32" if dtype == "auto" and kind == "cpu" else dtype,
        attn_implementation=attn_implementation,
        revision=revision,
    )
    backbone.limit_pixels(min_pixels, max_pixels)
    return backbone
