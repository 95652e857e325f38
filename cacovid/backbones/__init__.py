"""Backbones by family name."""

from cacovid.backbones.base import Answer, Backbone, Encoded, Pixels, VideoRequest
from cacovid.backbones.llava_onevision import LlavaOnevision
from cacovid.backbones.loading import BACKBONES, TESTBEDS, checkpoint_folder, family_of, load_backbone
from cacovid.backbones.qwen2_5_vl import Qwen2_5_VL

__all__ = [
    "BACKBONES",
    "TESTBEDS",
    "Answer",
    "Backbone",
    "Encoded",
    "LlavaOnevision",
    "Pixels",
    "Qwen2_5_VL",
    "VideoRequest",
    "checkpoint_folder",
    "family_of",
    "load_backbone",
]
