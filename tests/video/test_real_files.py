"""Files from the wild, where they lie beside the project."""

from pathlib import Path

import numpy as np
import pytest

from cacovid.video import VideoError, VideoWorker, read_clip

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"
SOUND = {  # frames, (H, W) upright
    "flipping_a_pancake.mkv": (310, (240, 426)),
    "unordered.mov": (4, (50, 50)),
    "video_0.mov": (3, (320, 568)),
    "video_90.mov": (3, (568, 320)),
    "video_180.mov": (3, (320, 568)),
    "video_270.mov": (3, (568, 320)),
}

pytestmark = pytest.mark.skipif(not VIDEOS.is_dir(), reason="no ../shared/videos beside the project")


@pytest.mark.parametrize("name", SOUND)
def test_sound_files(name):
    total, size = SOUND[name]
    clips = [read_clip(VIDEOS / name, 16, backend=backend) for backend in ("auto", "pyav")]
    for clip in clips:
        assert clip.total_frames == total
        assert clip.frames.shape == (min(total, 16), *size, 3)
        assert list(clip.seconds) == sorted(set(clip.seconds))
    assert [clip.backend for clip in clips] == ["decord", "pyav"]
    assert np.array_equal(clips[0].frames, clips[1].frames)


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_the_damaged_file_ends_in_an_error(backend):
    with VideoWorker() as worker:
        with pytest.raises(VideoError) as caught:
            worker.read(VIDEOS / "corrupted.mp4", backend=backend, timeout=30)
        assert caught.value.reason == "undecodable"
        assert worker.read(VIDEOS / "unordered.mov", timeout=30).total_frames == 4
