"""Encoded videos that are asked about again: the vision tower runs once for all questions of a video."""

from collections import OrderedDict
from collections.abc import Callable

from cacovid.records import VideoTokens


class EncodedVideos:
    """The most recently used videos whose features fit into `limit` bytes together; 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[str, VideoTokens] = OrderedDict()

    def get(self, name: str, encode: Callable[[], VideoTokens]) -> VideoTokens:
        """A video by name; `encode` makes it where it is not here."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        video = encode()
        self._kept[name] = video
        self.size += video.features.nbytes
        while self.size > self.limit:
            self.size -= self._kept.popitem(last=False)[1].features.nbytes
        return video
