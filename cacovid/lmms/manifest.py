"""Entry point `lmms_eval.models`: which model ids there are. Cheap (no torch), and it never raises.

lmms-eval loads all plugins in one try: an exception here would take every other plugin's models away, too. So
lmms_eval is imported late: at the top, importing this module first would start lmms-eval's own start-up, which
loads this entry point from the half-made module.
"""

import warnings
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

FAMILIES = ("llava_ov", "qwen2_5_vl")  # as `cacovid.backbones.BACKBONES`, without importing torch


def manifests() -> "list[ModelManifest]":
    """`<method>_<family>` for every registered method. No method is imported, so a broken one harms nobody."""
    try:
        from cacovid.registry import GROUP, method_names

        try:
            names = method_names()
        except Exception as error:  # two methods of one name: building one says so, listing must go on
            warnings.warn(f"cacovid: {error}", stacklevel=2)
            names = sorted({entry.name for entry in entry_points(group=GROUP)})
        return [_manifest(name, family) for name in names for family in FAMILIES if name.isidentifier()]
    except Exception as error:
        warnings.warn(f"cacovid: no models registered with lmms-eval: {error!r}", stacklevel=2)
        return []


def _manifest(name: str, family: str) -> "ModelManifest":
    """lmms-eval imports the module and takes the last part of the path from it by getattr."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=f"{name}_{family}",
        simple_class_path=f"cacovid.lmms.models.simple__{family}__{name}",
        chat_class_path=f"cacovid.lmms.models.chat__{family}__{name}",
    )
