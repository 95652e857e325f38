"""An encoded video's name changes with everything that can change one of its bits."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.scene import save_checkpoint

from cacovid.backbones import LlavaOnevision
from cacovid.store import EncoderIdentity, encoder_identity
from cacovid.store import key as key_module
from cacovid.video import read_clip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tmp_path_factory.mktemp("key") / "checkpoint"))


def identity(backbone: LlavaOnevision, checkpoint: str, **settings: Any) -> EncoderIdentity:
    return encoder_identity(backbone, checkpoint, **{"frames": 4, "sampling": "round", **settings})


@pytest.mark.parametrize("name", [f.name for f in fields(EncoderIdentity)])
def test_every_field_and_the_file_are_in_the_key(backbone: LlavaOnevision, checkpoint: str, name: str) -> None:
    one = identity(backbone, checkpoint)
    other: dict[type, Any] = {str: "other", int: 99, dict: {"x": 1}}
    changed = replace(one, **{name: other[type(getattr(one, name))]})
    assert one.key("f" * 64) == identity(backbone, checkpoint).key("f" * 64) != changed.key("f" * 64)
    assert one.key("f" * 64) != one.key("e" * 64)


def test_what_is_loaded_is_seen(build_backbone: Any, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_backbone()
    first = identity(backbone, checkpoint)

    def changed() -> set[str]:
        now = identity(backbone, checkpoint)
        return {f.name for f in fields(now) if getattr(now, f.name) != getattr(first, f.name)}

    assert not changed()
    assert identity(backbone, checkpoint, frames=8).frames == 8
    assert identity(backbone, checkpoint, sampling="floor").sampling == "floor"
    backbone.model.to(torch.bfloat16)
    assert changed() == {"dtype"}
    backbone.model.float()
    backbone.model.set_attn_implementation("eager")
    assert changed() == {"attention"}
    backbone.model.set_attn_implementation("sdpa")
    backbone.processor.video_processor.image_mean = [0.4, 0.5, 0.5]
    assert changed() == {"processor"}
    first = identity(backbone, checkpoint)
    monkeypatch.setattr(key_module, "version", lambda name: "0")
    assert changed() == {"versions"}
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert changed() == {"device"}
    monkeypatch.undo()
    weights = Path(checkpoint) / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert changed() == {"checkpoint"}


def test_the_code_that_reads_and_encodes_is_seen(backbone: LlavaOnevision, checkpoint: str) -> None:
    from cacovid.runs.source import source_sha256

    source = identity(backbone, checkpoint).source
    assert source == source_sha256([LlavaOnevision.__module__, read_clip.__module__])
    assert source != source_sha256([LlavaOnevision.__module__])
