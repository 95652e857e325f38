"""Backbones by family name."""

from cacovid.backbones.base import Answer, Backbone, Encoded, VideoRequest
from cacovid.backbones.llava_onevision import LlavaOnevision
from cacovid.backbones.loading import BACKBONES, TESTBED, checkpoint_folder, load_backbone
from cacovid.backbones.qwen2_5_vl import Qwen2_5_VL

__all__ = [
    "BACKBONES",
    "TESTBED",
    "Answer",
    "Backbone",
    "Encoded",
    "LlavaOnevision",
    "Qwen2_5_VL",
    "VideoRequest",
    "checkpoint_folder",
    "load_backbone",
]
