"""Backbones by family name."""

from cacovid.backbones.base import Answer, Backbone, Encoded, VideoRequest
from cacovid.backbones.llava_onevision import LlavaOnevision
from cacovid.backbones.loading import BACKBONES, TESTBED, checkpoint_folder, load_backbone

__all__ = [
    "BACKBONES",
    "TESTBED",
    "Answer",
    "Backbone",
    "Encoded",
    "LlavaOnevision",
    "VideoRequest",
    "checkpoint_folder",
    "load_backbone",
]
