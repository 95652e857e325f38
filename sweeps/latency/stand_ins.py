"""Weights that belong to a method, made at random in the right shapes where the backbone's weights are random.

They are written once, in the project's own and the published layouts, into a folder of the caller: the methods load
them as they load any other.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacovid.backbones import Backbone
from cacovid.policy.checkpoint import save_policy
from cacovid.policy.network import CompressionPolicy

RANDOM = "random weights"


def with_random_weights(method: str, settings: dict[str, Any], backbone: Backbone, folder: Path) -> dict[str, Any]:
    """The method's settings with what it loads replaced by random weights, saved below `folder`."""
    if method not in _MAKERS:
        return settings
    field, make = _MAKERS[method]
    if field == "head" and (settings.get("saliency", "head") != "head" or not _has_siglip(backbone)):
        return settings  # a stand-in was asked for, or there is no tower that had such a head
    path = folder / f"{method}_{field}"
    if not path.is_dir():
        make(backbone, path)
    return {**settings, field: str(path)}


def in_words(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, str]:
    """What a record says of the fields that `with_random_weights` replaced: where they lay is gone after the run."""
    return {field: RANDOM for field, value in given.items() if settings.get(field) != value}


def _has_siglip(backbone: Backbone) -> bool:
    return backbone.model.config.vision_config.model_type == "siglip_vision_model"


def _policy(backbone: Backbone, folder: Path) -> None:
    policy = CompressionPolicy.from_llm(backbone.decoder.model)
    save_policy(policy, folder, made_from="random weights, for timing alone")


def _siglip_head(backbone: Backbone, folder: Path) -> None:
    """A SigLIP vision model as wide as the tower, with the pooling head; its layers are not read, so it has one."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    tower = backbone.model.config.vision_config
    config = SiglipVisionConfig(
        hidden_size=tower.hidden_size,
        intermediate_size=tower.intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=tower.num_attention_heads,
        image_size=tower.image_size,
        patch_size=tower.patch_size,
    )
    SiglipVisionModel(config).save_pretrained(folder)


_MAKERS: dict[str, tuple[str, Callable[[Backbone, Path], None]]] = {
    "cacovid": ("policy", _policy),
    "fastvid": ("head", _siglip_head),
}
"""Method -> the field that names its weights, and what makes them."""
