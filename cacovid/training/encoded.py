"""Encoded videos that are asked about again: the vision tower runs once for all questions of a video."""

from collections.abc import Callable
from dataclasses import dataclass

from cacovid.backbones import Encoded
from cacovid.store.recent import Recent


@dataclass(frozen=True, slots=True, eq=False)
class EncodedVideo:
    """An encoded video; `clip` and `rate` as in `VideoRequest`."""

    encoded: Encoded
    clip: str
    rate: float


class EncodedVideos:
    """The most recently used videos whose features fit into `limit` bytes together; 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self._kept: Recent[str, EncodedVideo] = Recent(limit)

    @property
    def size(self) -> int:
        """Bytes of the features that are kept."""
        return self._kept.size

    def get(self, name: str, encode: Callable[[], EncodedVideo]) -> EncodedVideo:
        """A video by name; `encode` makes it where it is not here."""
        video = self._kept.get(name)
        if video is None:
            video = encode()
            self._kept.put(name, video, video.encoded.features.nbytes)
        return video
