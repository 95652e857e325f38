"""The process behind `VideoWorker`: `python -m cacovid.video.child FD`, FD its end of a socket pair."""

import os
import signal
import socket
import sys
import threading
from typing import Any

from cacovid.video import wire
from cacovid.video.errors import VideoError
from cacovid.video.reader import read_clip


def main() -> None:
    """Answer requests until the parent hangs up."""
    # The parent's to handle. A cluster sends them to all processes of a job: a reader that ended before its parent
    # does would be taken for one that a file has crashed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    link = socket.socket(fileno=int(sys.argv[1]))
    import av  # noqa: F401  # loaded before "ready", so that the first file's time limit is not spent on it

    wire.send(link, {"ready": True})
    while True:
        try:
            request = wire.receive(link)
        except EOFError:
            return
        _answer(link, request)


def _die_with_parent() -> None:
    """The parent holds the other end of stdin; it closes when the parent ends, however it ends."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _answer(link: socket.socket, request: dict[str, Any]) -> None:
    try:
        clip = read_clip(**request)
    except VideoError as error:
        wire.send(link, {"reason": error.reason, "detail": error.detail})
        return
    except Exception as error:  # the parent reports it for this file; the next file may work
        wire.send(link, {"reason": "crashed", "detail": f"reading failed with {type(error).__name__}: {error}"})
        return
    plain = {name: getattr(clip, name) for name in clip.__slots__ if name != "frames"}
    wire.send(link, {"clip": plain, "shape": clip.frames.shape})
    link.sendall(clip.frames.data.cast("B"))


if __name__ == "__main__":
    main()
