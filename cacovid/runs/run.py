"""One run: its directory, opened for writing, resumed, and closed as done or failed."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cacovid.runs.errors import RunError
from cacovid.runs.files import Journal, Lock, write_errors, write_json
from cacovid.runs.sample import Sample
from cacovid.runs.settings import SCHEMA, RunSettings
from cacovid.runs.strikes import Strikes


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def spans(ids: Sequence[int]) -> list[list[int]]:
    """Document ids as [first, last] stretches, both included.

    >>> spans([0, 1, 2, 7])
    [[0, 2], [7, 7]]
    """
    out: list[list[int]] = []
    for number in ids:
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return out


class Run:
    """The directory `<results_dir>/<id>` with run.json and samples.jsonl.

    As a context manager: leaving it writes state "done", or "failed" with the reason; kill -9 leaves "running".
    A sample that is written again (a failure tried anew, a changed document) appends a line, and the last line
    counts; a finished run holds exactly one line a sample.
    """

    def __init__(
        self,
        results_dir: str | Path,
        settings: RunSettings,
        *,
        asked: Sequence[int],
        documents: int | None = None,
        about: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
        resume: bool = True,
    ) -> None:
        """Open or create the directory and take its lock.

        Args:
            asked: ids of the documents that this evaluation will answer.
            documents: how many the task has in all.
            about: what else run.json shall say; not part of the identity.
            provenance: commit, versions and hardware of this attempt; a later attempt may be on another machine.
            resume: False sets the answers that are there aside (samples-<time>.jsonl), forgets strikes, and starts
                anew.

        Raises RunLockedError while another process writes it, RunError if it is damaged, RunWriteError.
        """
        self.settings, self.asked, self.documents = settings, list(asked), documents
        self.folder = Path(results_dir) / settings.id
        self.about = about or {}
        with write_errors(self.folder, "nothing new was computed"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.folder / "lock")
            try:
                self._open(resume, provenance)
            except BaseException:
                self._lock.release()
                raise

    def _open(self, resume: bool, provenance: dict[str, Any] | None) -> None:
        path = self.folder / "samples.jsonl"
        if not resume and path.exists():
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            path.rename(path.with_name(f"samples-{stamp}.jsonl"))
        self.strikes = Strikes(self.folder, forget=not resume)
        self._journal = Journal(path)
        self._samples: dict[int, Sample] = {}
        self.computed: list[Sample] = []
        for number, row in enumerate(self._journal.rows, start=1):
            try:
                sample = Sample.from_json(row)
            except (TypeError, KeyError, AttributeError) as error:
                raise RunError(f"{path}, line {number} is no sample of schema {SCHEMA}: {error}") from error
            self._samples[sample.doc_id] = sample
        self._past = self._attempts()
        self.attempt: dict[str, Any] = {
            "started": now(),
            "ended": None,
            "taken": 0,
            "computed": 0,
            "failed": 0,
            "provenance": provenance,
        }
        self._write("running")

    def _attempts(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self.folder / "run.json").read_text())["attempts"])
        except (FileNotFoundError, ValueError, KeyError):  # run.json is rewritten below; answers are elsewhere
            return []

    def stored(self, doc_id: int) -> Sample | None:
        """The answer that is already there; None for a document without one, and for a failed one."""
        sample = self._samples.get(doc_id)
        return sample if sample is not None and sample.failure is None else None

    @property
    def held(self) -> int:
        """How many of the asked documents have an answer."""
        return sum(self.stored(doc) is not None for doc in self.asked)

    def take(self) -> None:
        """Count one stored answer as used."""
        self.attempt["taken"] += 1

    def record(self, sample: Sample) -> None:
        """Write one sample; it is on disk when this returns. Raises RunWriteError."""
        with write_errors(self._journal.path, f"{len(self._samples)} finished samples are kept in {self.folder}"):
            self._journal.append(sample.to_json())
        self._samples[sample.doc_id] = sample
        self.computed.append(sample)
        self.attempt["computed"] += 1
        self.attempt["failed"] += sample.failure is not None

    def failures(self) -> list[Sample]:
        """The asked documents that have no answer, in order."""
        rows = [self._samples[doc] for doc in self.asked if doc in self._samples]
        return [row for row in rows if row.failure is not None]

    def counts(self) -> dict[str, int | None]:
        """Row counts of the asked documents."""
        present = sum(doc in self._samples for doc in self.asked)
        failed = len(self.failures())
        return {
            "documents": self.documents,
            "asked": len(self.asked),
            "answered": present - failed,
            "failed": failed,
            "missing": len(self.asked) - present,
        }

    def _write(self, state: str, error: str | None = None) -> None:
        write_json(
            self.folder / "run.json",
            {
                "schema": SCHEMA,
                "id": self.settings.id,
                "state": state,
                "error": error,
                "counts": self.counts(),
                "started": (self._past or [self.attempt])[0]["started"],
                "ended": self.attempt["ended"],
                "settings": asdict(self.settings),
                "asked": spans(self.asked),
                "attempts": [*self._past, self.attempt],
                **self.about,
            },
        )

    def _close(self, error: BaseException | None) -> None:
        self.attempt["ended"] = now()
        if error is None and len(self._journal.rows) > len(self._samples):
            self._journal.replace([sample.to_json() for sample in self._samples.values()])
        missing = self.counts()["missing"]
        if error is None and not missing:
            self._write("done")
        else:
            self._write("failed", f"{type(error).__name__}: {error}" if error else f"{missing} samples missing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with write_errors(self.folder, f"{len(self._samples)} finished samples are kept in {self.folder}"):
                self._close(error)
        except OSError:
            if error is None:  # otherwise the first error is the one to hear about
                raise
        finally:
            self._journal.close()
            self._lock.release()
