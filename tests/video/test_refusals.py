"""What is not read, and in which words it is refused."""

import os
import pickle

import decord
import numpy as np
import pytest
from video.films import damaged, film, first_half, numbers, sound

from cacovid.video import VideoError, read_clip
from cacovid.video.libav_log import decord_errors

both = pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])


def refused(path, reason, match, backend="auto", frames=8):
    with pytest.raises(VideoError, match=match) as caught:
        read_clip(path, frames, backend=backend)
    assert caught.value.reason == reason
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)


@both
def test_missing(tmp_path, backend):
    refused(tmp_path / "no.mp4", "missing", "no such file; check the path", backend)


@both
def test_empty(tmp_path, backend):
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "empty", "0 bytes, expected a video file", backend)


def test_folder_and_pipe(tmp_path):
    refused(tmp_path, "undecodable", "is a folder, expected a video file")
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    refused(tmp_path / "pipe.mp4", "undecodable", "is a pipe or device, expected a video file")


@both
@pytest.mark.parametrize("name", ["notes.mp4", "notes.mkv"])
def test_text(tmp_path, name, backend):
    (tmp_path / name).write_text("no video\n" * 200)
    refused(tmp_path / name, "undecodable", "cannot be opened as a video .*; check that the file is one", backend)


@both
def test_text_that_ffmpeg_would_render(tmp_path, backend):
    (tmp_path / "notes.txt").write_text("no video\n" * 200)
    refused(tmp_path / "notes.txt", "undecodable", "is text, of which FFmpeg would render a video", backend)


def test_playlist(films, tmp_path):
    """Its hash would not be that of the frames, and it could name any file of the machine."""
    film(tmp_path / "part.ts", 10)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n"
    (tmp_path / "list.m3u8").write_text(f"{head}#EXTINF:0.4,\npart.ts\n#EXT-X-ENDLIST\n")
    refused(tmp_path / "list.m3u8", "undecodable", "is a playlist, whose content lies in other files")


@both
@pytest.mark.parametrize("name,codec", [("sound.m4a", "aac"), ("sound.wav", "pcm_s16le"), ("sound.mkv", "aac")])
def test_sound_only(tmp_path, name, codec, backend):
    path = sound(tmp_path / name, codec)
    refused(path, "no_video_stream", "holds audio, expected a video stream", backend)


def test_no_frames(tmp_path):
    path = sound(tmp_path / "frameless.mkv", "aac", silent_video=True)
    refused(path, "no_frames", "holds no frame, expected at least one")


@both
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
@pytest.mark.parametrize(
    "name", ["plain.mp4", "index_first.mp4", "fragments.mp4", "h264.mkv", "vp9.webm", "b_frames.avi"]
)
def test_truncated(films, tmp_path, name, share, backend):
    path = first_half(films / name, tmp_path / name, share)
    refused(
        path, "truncated", r"the file ends at byte [\d,]+, its .* runs to byte [\d,]+; fetch the file again", backend
    )


def test_without_index(films, tmp_path):
    data = (films / "plain.mp4").read_bytes()
    path = tmp_path / "killed_recorder.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    refused(path, "truncated", "no 'moov' box, the index of all frames")


def test_matroska_with_a_hole(films, tmp_path):
    """The demuxer jumps over it, and decord takes what is left for the whole film."""
    path = damaged(films / "h264.mkv", tmp_path / "hole.mkv", start=0.5, length=8000)
    refused(path, "undecodable", "its structure is damaged .*; fetch the file again")
    assert len(decord.VideoReader(str(path), num_threads=1)) < 70


def test_matroska_that_breaks_off_in_the_middle(films, tmp_path):
    """Its structure is sound: all from a cluster of frames on is overwritten by one padding element."""
    data = (films / "h264.mkv").read_bytes()
    at = data.index(b"\x1f\x43\xb6\x75", len(data) // 2)
    padding = b"\xec\x01" + (len(data) - at - 9).to_bytes(7, "big")
    path = tmp_path / "padded.mkv"
    path.write_bytes((data[:at] + padding).ljust(len(data), b"\0"))
    refused(path, "truncated", r"its data ends after [\d.]+ s of the 4\.00 s that it states")


def test_unknown_codec(films, tmp_path):
    path = tmp_path / "codec.mp4"
    path.write_bytes((films / "plain.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    refused(path, "undecodable", "its video codec is unknown here; convert the file")


@both
def test_damaged_frames(films, tmp_path, backend):
    path = damaged(films / "index_first.mp4", tmp_path / "hurt.mp4", start=0.5, length=8000)
    refused(path, "undecodable", "the decoder stops|decord stops", backend)


def reported(path, indices):
    """Errors that decord's decoder reports of a file that it reads all the same; 0 where it stops."""
    with decord_errors() as errors:
        try:
            decord.VideoReader(str(path), num_threads=1).get_batch(indices)
        except decord.DECORDError:
            return 0
    return errors.value


def test_concealed_frames_are_refused(films, tmp_path):
    """Single bytes flipped: decord conceals what its decoder reports, and returns it as if nothing were wrong."""
    indices = np.arange(100)
    size = (films / "index_first.mp4").stat().st_size
    concealed = 0
    for at in np.random.default_rng(0).integers(size // 10, size - 100, 30):
        path = damaged(films / "index_first.mp4", tmp_path / "flip.mp4", start=at / size, length=1, fill=None)
        if reported(path, indices) and reported(
            path, indices
        ):  # twice: a count by a thread that is just ending is none
            concealed += 1
            refused(path, "undecodable", "damage|the decoder stops", frames=100)
            refused(path, "undecodable", "frames may be concealed", "decord", frames=100)
    assert concealed >= 3, "the trap was there"


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(VideoError("empty", "a.mp4", "0 bytes")))
    assert (error.reason, str(error)) == ("empty", "a.mp4: 0 bytes [empty]")


def test_arguments_are_checked(films):
    with pytest.raises(ValueError, match="'gpu', expected one of auto, decord, pyav"):
        read_clip(films / "plain.mp4", backend="gpu")
    with pytest.raises(ValueError, match="frames=0"):
        read_clip(films / "plain.mp4", 0)


def test_complete_files_of_unstated_length_are_read(tmp_path):
    live = film(tmp_path / "live.mkv", 10, container={"live": "1"})
    assert numbers(read_clip(live, 32).frames) == list(range(10))
