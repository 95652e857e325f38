"""Real files through a tiny backbone: what comes from the store is what encoding gives, bit by bit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.conftest import World
from store.conftest import same

from cacovid.backbones import LlavaOnevision, load_backbone
from cacovid.lmms.arguments import Arguments
from cacovid.lmms.clips import shared_worker
from cacovid.lmms.encoding import EncodedClip
from cacovid.lmms.shared import Shared
from cacovid.records import NEEDS, Need
from cacovid.registry import build_method
from cacovid.store import Counters, Entry
from cacovid.video import VideoError

NONE: frozenset[Need] = frozenset()
KEYS: frozenset[Need] = frozenset({"keys"})
Load = Callable[..., Shared]


@pytest.fixture
def load(world: World, tmp_path: Path) -> Load:
    """A `Shared` on the disk store of this test; a new one knows no more than another process would."""

    def loaded(needs: frozenset[Need] = NONE, **arguments: Any) -> Shared:
        given = {"device": "cpu", "max_frames_num": 4, "store": "disk", "store_dir": str(tmp_path / "store")}
        return Shared.load(Arguments(pretrained=str(world.checkpoint), **{**given, **arguments}), needs)

    return loaded


def parts(clip: EncodedClip) -> Entry:
    return Entry(clip.facts, {"features": clip.encoded.features, **clip.encoded.captured})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hit_is_bit_equal_to_a_miss(load: Load, world: World, dtype: str) -> None:
    plain = load(store="off", dtype=dtype).encoder.encode(world.videos[0], NEEDS)
    first = load(dtype=dtype)
    miss = first.encoder.encode(world.videos[0], NEEDS)
    second = load(dtype=dtype)
    hit = second.encoder.encode(world.videos[0], NEEDS)
    memory = load(store="memory", dtype=dtype)
    kept = [memory.encoder.encode(world.videos[0], NEEDS) for _ in range(2)]

    names = ("features", *NEEDS)
    for other in (miss, hit, *kept):
        assert same(parts(other), parts(plain), *names) and other.stamp == plain.stamp
    assert hit.encoded.features.dtype == getattr(torch, dtype)
    assert all(part.data_ptr() % 64 == 0 for part in parts(hit).parts.values()), "aligned as torch's own memory"
    assert set(plain.seconds) == set(miss.seconds) == {"read", "vision"} and set(hit.seconds) == {"store"}
    assert first.counters == Counters(decoded=1, encoded=1) and second.counters == Counters(hits=1)
    assert memory.counters == Counters(decoded=1, encoded=1, hits=1)


@pytest.mark.parametrize("method", ["visionzip", "attention_topk"])
def test_answers_on_stored_videos_are_the_same(load: Load, world: World, method: str) -> None:
    built = build_method(method, retention=0.3)
    logits = []
    for shared in (load(store="off"), load(), load()):
        clip = shared.encoder.encode(world.videos[1], built.needs)
        prompt = shared.backbone.template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is it?"}]}]
        )
        video = shared.backbone.ask(clip.encoded, prompt, clip.facts.sha256)
        (answer,) = shared.backbone.answer_encoded([video], [prompt], built, max_new_tokens=3, keep_logits=True)
        logits.append(torch.stack(answer.logits))
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_a_hit_neither_decodes_nor_encodes(load: Load, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    load().encoder.encode(world.videos[0], KEYS)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the video was decoded or encoded")

    shared = load()
    monkeypatch.setattr(type(shared_worker()), "read", never)
    monkeypatch.setattr(LlavaOnevision, "encode_pixels", never)
    assert set(shared.encoder.encode(world.videos[0], KEYS).encoded.captured) == {"keys"}
    assert not shared.encoder.encode(world.videos[0], NONE).encoded.captured, "exactly what was asked for"
    with pytest.raises(AssertionError, match="decoded or encoded"):
        shared.encoder.encode(world.videos[1], NONE)


def test_a_later_method_adds_what_it_needs(load: Load, world: World, tmp_path: Path) -> None:
    first = load()
    plain = first.encoder.encode(world.videos[0], NONE)
    (features,) = (tmp_path / "store").rglob("*.safetensors")
    written = features.stat().st_ino
    second = load()
    added = second.encoder.encode(world.videos[0], KEYS)
    assert second.counters == Counters(decoded=1, encoded=1)
    assert torch.equal(plain.encoded.features, added.encoded.features) and features.stat().st_ino == written
    third = load()
    assert same(parts(third.encoder.encode(world.videos[0], KEYS)), parts(added), "features", "keys")
    assert third.counters == Counters(hits=1)
    third.encoder.encode(world.videos[0], frozenset({"patches"}))
    assert third.counters == Counters(decoded=1, encoded=1, hits=1)


def test_one_encoding_serves_all_methods_of_a_job(load: Load, world: World) -> None:
    shared = load(frozenset({"keys", "received_attention"}))
    wanted: list[frozenset[Need]] = [NONE, KEYS, frozenset({"received_attention"})]
    for needs in wanted:
        assert set(shared.encoder.encode(world.videos[0], needs).encoded.captured) == needs
    assert shared.counters == Counters(decoded=1, encoded=1, hits=2)


def test_without_a_store_only_what_is_asked_for_is_captured(
    load: Load, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, asked, real = load(NEEDS, store="off"), [], LlavaOnevision.encode_pixels
    monkeypatch.setattr(
        LlavaOnevision, "encode_pixels", lambda self, pixels, needs: asked.append(needs) or real(self, pixels, needs)
    )
    for needs in (NONE, KEYS):
        shared.encoder.encode(world.videos[0], needs)
    assert asked == [NONE, KEYS] and shared.counters == Counters(decoded=1, encoded=2)


def test_content_counts_and_not_the_name(load: Load, world: World, tmp_path: Path) -> None:
    shared, copy = load(), tmp_path / "copy.mp4"
    copy.write_bytes(Path(world.videos[0]).read_bytes())
    shared.encoder.encode(world.videos[0], NONE)
    assert set(shared.encoder.encode(str(copy), NONE).seconds) == {"store"}
    copy.write_bytes(Path(world.videos[1]).read_bytes())
    os.utime(copy, ns=(1, 1))
    changed = shared.encoder.encode(str(copy), NONE)
    assert set(changed.seconds) == {"read", "vision"}
    assert changed.facts.sha256 == shared.encoder.encode(world.videos[1], NONE).facts.sha256
    assert shared.counters == Counters(decoded=2, encoded=2, hits=2)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_method_that_writes_into_its_input_harms_nobody(load: Load, world: World, kind: str) -> None:
    shared = load(store=kind)
    good = shared.encoder.encode(world.videos[0], NONE).encoded.features.clone()
    for _ in range(2):
        found = shared.encoder.encode(world.videos[0], NONE).encoded.features
        assert torch.equal(found, good)
        found.zero_()


def test_files_that_cannot_be_read_are_refused_as_without_a_store(load: Load, world: World, tmp_path: Path) -> None:
    encoder = load().encoder
    with pytest.raises(VideoError, match="no such file"):
        encoder.encode(str(tmp_path / "gone.mp4"), NONE)
    with pytest.raises(VideoError, match="is a folder, expected a video file"):
        encoder.encode(str(tmp_path), NONE)
    with pytest.raises(VideoError, match="fetch the file again"):
        encoder.encode(world.broken, NONE)
    assert encoder.counters == Counters()


def test_parts_are_contiguous(world: World) -> None:
    """Pooling leaves keys in another layout; from a store they come back contiguous, and kernels round by layout."""
    backbone = load_backbone("llava_ov", str(world.checkpoint), device="cpu")
    frames = torch.zeros(3, 40, 40, 3, dtype=torch.uint8).numpy()
    encoded = backbone.encode_frames(frames, NEEDS)
    assert all(part.is_contiguous() for part in (encoded.features, *encoded.captured.values()))
