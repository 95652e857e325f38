"""What is read: the asked frames, the same from both decoders, upright, in the right colours."""

import hashlib
import subprocess
import sys

import decord
import numpy as np
import pytest
from video.conftest import DENSE, FILMS, TRAPS
from video.films import COUNT, copy_from, damaged, draw, film, numbers, turned

from cacovid.video import VideoError, read_clip, sample_indices


@pytest.mark.parametrize("threads", [1, 2, 0])
@pytest.mark.parametrize("name", FILMS)
def test_both_decoders_give_the_asked_frames_bit_for_bit(films, name, threads):
    clips = {b: read_clip(films / name, 17, backend=b, threads=threads) for b in ("decord", "pyav")}
    for backend, clip in clips.items():
        assert clip.backend == backend
        assert clip.total_frames == COUNT
        assert clip.indices == tuple(sample_indices(COUNT, 17).tolist())
        assert numbers(clip.frames) == list(clip.indices)
    assert np.array_equal(clips["decord"].frames, clips["pyav"].frames)
    assert clips["decord"].seconds == clips["pyav"].seconds


@pytest.mark.parametrize("count", [1, 2, 9, 99, 100])
@pytest.mark.parametrize("name", TRAPS)
def test_traps_are_read_rightly(films, name, count):
    clip = read_clip(films / name, count)
    assert (clip.backend, clip.total_frames) == ("pyav", COUNT)
    assert numbers(clip.frames) == list(clip.indices) == sample_indices(COUNT, count).tolist()
    assert np.allclose(clip.seconds, np.array(clip.indices) / 25, atol=2e-3)


@pytest.mark.parametrize("name", DENSE)
def test_close_key_frames_lead_no_decoder_astray(tmp_path, name):
    path = film(tmp_path / name, 20, **DENSE[name])
    for count in (3, 7, 20):
        clips = [read_clip(path, count, backend=backend) for backend in ("auto", "pyav")]
        assert numbers(clips[1].frames) == list(clips[1].indices) == sample_indices(20, count).tolist()
        assert np.array_equal(clips[0].frames, clips[1].frames)


@pytest.mark.parametrize(
    "name", ["open_gop.mp4", "open_gop.mkv", "open_hevc.mp4", "b_frames.ts", "b_frames.avi", "mpeg1.mpg"]
)
def test_decord_alone_returns_other_frames_without_a_word(films, name):
    """Why `auto` does not take decord for these; if this fails, decord has learnt it and the rule can go."""
    path, indices = films / name, sample_indices(COUNT, 9)
    reader = decord.VideoReader(str(path), num_threads=1)
    assert len(reader) == COUNT
    assert numbers(reader.get_batch(indices).asnumpy()) != indices.tolist()
    with pytest.raises(VideoError, match=r"decord reads it wrongly: .*; use backend='auto' or 'pyav'"):
        read_clip(path, 9, backend="decord")


def test_frames_hidden_by_an_edit_list_do_not_count(films):
    clip = read_clip(films / "edit_list.mp4", 8)
    assert clip.total_frames == COUNT - 38, "shown from 1.52 s on, frame 38"
    assert numbers(clip.frames) == [38 + i for i in clip.indices]
    with pytest.raises(VideoError, match="its edit list hides frames"):
        read_clip(films / "edit_list.mp4", 8, backend="decord")
    reader = decord.VideoReader(str(films / "edit_list.mp4"), num_threads=1)
    assert len(reader) == COUNT - 30, "decord counts the hidden frames and repeats the last to make up for them"


def test_a_cut_that_starts_inside_an_open_group_begins_at_its_key_frame(films, tmp_path):
    clip = read_clip(copy_from(films / "open_gop.mp4", tmp_path / "cut.mp4", first=1.0, start=0.0), 200)
    found = numbers(clip.frames)
    assert found == list(range(found[0], COUNT))
    assert found[0] >= 25


def test_times_are_those_of_presentation(films):
    clip = read_clip(films / "uneven.mp4", 200)
    assert clip.seconds[0] == 0
    gaps = np.diff(clip.seconds)
    assert 0.0079 < gaps.min() < gaps.max() < 0.1601
    assert clip.fps == pytest.approx((COUNT - 1) / clip.seconds[-1])
    assert read_clip(films / "plain.mp4", 4).fps == pytest.approx(25)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_short_videos_give_each_frame_once(tmp_path, backend):
    one = read_clip(film(tmp_path / "one.mp4", 1), 32, backend=backend)
    assert (one.indices, one.seconds, one.total_frames) == ((0,), (0.0,), 1)
    assert numbers(one.frames) == [0]
    assert numbers(read_clip(film(tmp_path / "five.mkv", 5), 32, backend=backend).frames) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_applied(films, tmp_path, degrees, backend):
    stored = read_clip(films / "plain.mp4", 4, backend=backend).frames
    upright = read_clip(turned(films / "plain.mp4", tmp_path / "turned.mp4", degrees), 4, backend=backend).frames
    assert np.array_equal(upright, np.rot90(stored, -degrees // 90, axes=(1, 2)))


@pytest.mark.parametrize("backend", ["decord", "pyav"])
@pytest.mark.parametrize("name", ["plain.mp4", "bt709.mp4", "full_range.mp4", "ten_bits_full_range.mp4"])
def test_colours_are_those_that_were_drawn(films, name, backend):
    """PyAV's own to_ndarray is up to 35 levels off on BT.709."""
    frame = read_clip(films / name, 1, backend=backend).frames[0].astype(int)
    for column in (8, 24, 40):  # the middles of the red, green and blue block
        assert np.abs(frame[40, column] - draw(0)[40, column]).max() <= 8


def test_the_sampling_rule_is_followed_and_recorded(films):
    clips = [read_clip(films / "plain.mp4", 9, sampling=rule) for rule in ("round", "floor")]
    assert [clip.sampling for clip in clips] == ["round", "floor"]
    assert clips[0].indices != clips[1].indices
    for clip in clips:
        assert numbers(clip.frames) == list(clip.indices) == sample_indices(COUNT, 9, clip.sampling).tolist()


def test_the_hash_is_that_of_the_bytes(films):
    clip = read_clip(films / "plain.mp4", 1)
    assert clip.sha256 == hashlib.sha256((films / "plain.mp4").read_bytes()).hexdigest()
    assert clip.path == str(films / "plain.mp4")


def test_damage_where_no_frame_is_wanted_does_not_matter(films, tmp_path):
    path = damaged(films / "index_first.mp4", tmp_path / "hurt.mp4", start=0.5, length=400)
    for backend in ("auto", "pyav"):
        assert numbers(read_clip(path, 2, backend=backend).frames) == [0, COUNT - 1]


def test_decord_that_gives_up_on_the_last_frames_is_replaced(films, monkeypatch):
    """As its default does on a busy machine: one poll, and the decoder threads are never that fast."""
    monkeypatch.setenv("DECORD_EOF_RETRY_MAX", "1")
    for _ in range(5):
        assert numbers(read_clip(films / "b_frames.mp4", COUNT, threads=4).frames) == list(range(COUNT))


def test_decords_bridge_to_torch_does_no_harm(films):
    decord.bridge.set_bridge("torch")
    try:
        assert isinstance(read_clip(films / "plain.mp4", 2, backend="decord").frames, np.ndarray)
    finally:
        decord.bridge.set_bridge("native")


@pytest.mark.parametrize("name", ["a:b.mp4", "spa ce.mp4", "per%03d.mp4", "ümlaut.mp4"])
def test_names_that_mean_something_to_ffmpeg_are_just_names(films, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes((films / "plain.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    for backend in ("decord", "pyav"):
        assert numbers(read_clip(name, 2, backend=backend).frames) == [0, COUNT - 1]


def test_importing_loads_neither_torch_nor_a_decoder():
    code = "import sys, cacovid.video; print(sorted({'torch', 'decord', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
