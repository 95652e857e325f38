"""The model families that a test bed is trained of, one file each."""

from typing import Final

from cacovid.testbed.families.base import WIDTH, Family, VideoModel, Wrapping
from cacovid.testbed.families.llava_ov import LLAVA_OV
from cacovid.testbed.families.qwen2_5_vl import QWEN2_5_VL

FAMILIES: Final[dict[str, Family]] = {family.name: family for family in (LLAVA_OV, QWEN2_5_VL)}

__all__ = ["FAMILIES", "LLAVA_OV", "QWEN2_5_VL", "WIDTH", "Family", "VideoModel", "Wrapping"]
