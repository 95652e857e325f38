"""Read clips in a process that can be killed, so that no file can hang or crash the evaluation."""

import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np

import cacovid
from cacovid.video import wire
from cacovid.video.clip import Clip, Sampling
from cacovid.video.errors import VideoError
from cacovid.video.reader import Decoder, check_request

_START_LIMIT = 120.0  # seconds for a fresh process to import its decoders from a cold network disk


class VideoWorker:
    """One persistent reader process; started at the first read, replaced after a time-out or crash.

    The process is a fresh interpreter, not a fork (torch's threads do not survive one) and not a spawn (which
    would run the caller's main module again). Pixels come back through a socket: nothing is left in /dev/shm
    or on disk, whoever dies first. Use as a context manager, or `close()`; at interpreter exit it is closed
    anyway, and if the parent is killed the process ends by itself. Several workers may be open; one worker
    serves one read at a time, threads queue.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._finalizer: weakref.finalize[..., VideoWorker] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the reader process, None while there is none."""
        return self._process.pid if self._process else None

    def read(
        self,
        path: str | os.PathLike[str],
        frames: int = 32,
        *,
        sampling: Sampling = "round",
        backend: Decoder = "auto",
        threads: int = 2,
        timeout: float = 60.0,
    ) -> Clip:
        """As `read_clip`, within `timeout` seconds from the request to the last pixel.

        Raises as `read_clip`, and VideoError "timeout" (the process was killed) or "crashed" (it died, or ran
        out of memory); the next read works again.
        """
        check_request(frames, sampling, backend)
        if not timeout > 0:
            raise ValueError(f"timeout={timeout}, expected seconds above 0")
        name = os.fsdecode(path)
        request = {
            "path": os.path.abspath(name),
            "frames": frames,
            "sampling": sampling,
            "backend": backend,
            "threads": threads,
        }
        with self._lock:
            try:
                return self._exchange(name, request, timeout)
            except VideoError as error:
                if error.reason in ("timeout", "crashed"):
                    self._stop()
                raise
            except BaseException:  # Ctrl-C as well: an answer may be half read
                self._stop()
                raise

    def _exchange(self, name: str, request: dict[str, Any], timeout: float) -> Clip:
        link = self._ensure_started()
        deadline = time.monotonic() + timeout
        link.settimeout(timeout)
        try:
            wire.send(link, request)
            answer = wire.receive(link, deadline)
            if "reason" in answer:
                raise VideoError(answer["reason"], name, answer["detail"])
            pixels = np.empty(answer["shape"], dtype=np.uint8)
            wire.receive_into(link, pixels.data.cast("B"), deadline)
        except TimeoutError:
            detail = f"not read within {timeout:g} s, the reader process was killed; raise `timeout` if it is only long"
            raise VideoError("timeout", name, detail) from None
        except (EOFError, ConnectionError):
            detail = f"the reader process died ({self._epitaph()}); the file may have crashed its decoder"
            raise VideoError("crashed", name, detail) from None
        plain = answer["clip"] | {"path": name}
        plain["indices"], plain["seconds"] = tuple(plain["indices"]), tuple(plain["seconds"])
        return Clip(frames=pixels, **plain)

    def _ensure_started(self) -> socket.socket:
        if self._link is not None and self._process is not None:
            if self._process.poll() is None:
                return self._link
            self._stop()  # died between two files, of something else than a file
        ours, theirs = socket.socketpair()
        # The package must be found wherever the parent found it; -P keeps the working directory out.
        places = [str(Path(cacovid.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cacovid.video.child", str(theirs.fileno())],
            stdin=subprocess.PIPE,  # never written to: its closing tells the child that we are gone
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
            start_new_session=True,  # the terminal's Ctrl-C is for the parent alone
        )
        theirs.close()
        self._link = ours
        self._finalizer = weakref.finalize(self, _end, self._process, ours, os.getpid())
        try:
            wire.receive(ours, time.monotonic() + _START_LIMIT)
        except (EOFError, ConnectionError, TimeoutError):
            status = self._epitaph()
            self._stop()
            raise RuntimeError(f"the video reader process did not start ({status}); its error is on stderr") from None
        return ours

    def _epitaph(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "still running"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._link = self._finalizer = None

    def kill(self) -> None:
        """End the process at once, from any thread: a read that it serves raises VideoError "crashed"."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process after its read; a later read starts a new one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes], link: socket.socket, owner: int) -> None:
    link.close()
    if os.getpid() != owner:  # a forked copy of the parent: the process is not its own
        return
    process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()
