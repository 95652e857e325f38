"""Stock transformers checkpoints: read, checked for their family and for weights that are not there."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from cacovid.errors import CheckpointError


def read_config(pretrained: str, revision: str | None = None) -> Any:
    """A checkpoint's configuration. Raises CheckpointError where there is none."""
    if Path(pretrained).is_absolute() and not Path(pretrained, "config.json").is_file():
        raise CheckpointError(f"no checkpoint at {pretrained}: expected a folder with config.json, or a hub id")
    try:
        return AutoConfig.from_pretrained(pretrained, revision=revision)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"pretrained={pretrained!r} could not be read: {error}. Expected a checkpoint folder, a hub id, "
            f"or `testbed` for the embedded test bed"
        ) from error


def load_model(
    model_class: Any,
    model_type: str,
    example: str,
    pretrained: str,
    *,
    dtype: str,
    attn_implementation: str,
    revision: str | None,
) -> Any:
    """A model of `model_class`, safetensors only, no remote code; `example` is a checkpoint of its family.

    Raises CheckpointError if it is missing, of another family, or lacks weights.
    """
    kind = read_config(pretrained, revision).model_type
    if kind != model_type:
        raise CheckpointError(f"{pretrained} is a {kind} checkpoint, expected {model_type} (such as {example})")
    model, info = model_class.from_pretrained(
        pretrained,
        revision=revision,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        attn_implementation=attn_implementation,
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"{pretrained} lacks {len(missing)} weights, first {missing[:3]}; they would be random. "
            f"Download the checkpoint again"
        )
    return model
