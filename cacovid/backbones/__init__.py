"""Backbones by family name."""

from cacovid.backbones.base import Answer, Backbone, VideoRequest
from cacovid.backbones.llava_onevision import LlavaOnevision

BACKBONES: dict[str, type[LlavaOnevision]] = {LlavaOnevision.family: LlavaOnevision}

__all__ = ["BACKBONES", "Answer", "Backbone", "LlavaOnevision", "VideoRequest"]
