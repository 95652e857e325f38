"""Video reading: uniformly sampled frames out of one file, exactly those asked for, or a clear error.

`read_clip` reads in this process, `VideoWorker` in a killable one with a time limit for each file. Neither
needs torch; decord and PyAV are imported when the first file is read.
"""

from cacovid.video.clip import Clip, sample_indices
from cacovid.video.errors import VideoError
from cacovid.video.reader import read_clip
from cacovid.video.worker import VideoWorker

__all__ = ["Clip", "VideoError", "VideoWorker", "read_clip", "sample_indices"]
