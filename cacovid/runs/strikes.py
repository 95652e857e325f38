"""Documents that were being answered when their process died: struck, then asked alone, then no more."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cacovid.runs.files import write_errors, write_json
from cacovid.runs.sample import Failure

ALONE = 2
"""Strikes from which a document's batch is asked one by one: who is guilty shows. The first death changes nothing,
so a process that was killed for another reason costs no document its company, and no answer its rounding."""
LIMIT = 3
"""Strikes at which a document is not asked again."""


class Strikes:
    """The deaths of one run's processes, by document; its files are in the run's folder, under the run's lock.

    asking.json    the documents being answered now; found on opening, it says what the last process died over
    strikes.json   document -> deaths over it since it was last answered
    """

    def __init__(self, folder: Path, *, forget: bool = False) -> None:
        """Read what is known; a note that was left behind is one strike for each document in it.

        Args:
            forget: drop everything that is known.
        """
        self._note, self._file = folder / "asking.json", folder / "strikes.json"
        if forget:
            self._file.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._counts = {int(doc): count for doc, count in (_read(self._file) or {}).items()}
        if left := _read(self._note):
            for doc in left:
                self._counts[doc] = self._counts.get(doc, 0) + 1
            self._save()
        self._note.unlink(missing_ok=True)

    def failure(self, doc_id: int) -> Failure | None:
        """Why a document is not asked; None for one that is."""
        count = self._counts.get(doc_id, 0)
        if count < LIMIT:
            return None
        return Failure(
            kind="Quarantined",
            reason="quarantined",
            message=f"{count} processes died while they answered it; delete strikes.json here to have it asked again",
        )

    def alone(self, doc_ids: Sequence[int]) -> bool:
        """Whether these documents, a batch, are to be asked one by one."""
        return any(self._counts.get(doc, 0) >= ALONE for doc in doc_ids)

    @contextmanager
    def asking(self, doc_ids: Sequence[int]) -> Iterator[None]:
        """These documents are answered and recorded in the block. Any way out of it but death is no strike."""
        if not doc_ids:
            yield
            return
        # Not flushed to disk: what takes the machine down is no document's fault, kill -9 leaves the note.
        with write_errors(self._note, f"finished samples are kept in {self._note.parent}"):
            self._note.write_text(json.dumps(list(doc_ids)))
        try:
            yield
        finally:
            self._note.unlink(missing_ok=True)
        if struck := [doc for doc in doc_ids if doc in self._counts]:
            for doc in struck:
                del self._counts[doc]
            self._save()

    def _save(self) -> None:
        write_json(self._file, {str(doc): count for doc, count in sorted(self._counts.items())})


def _read(path: Path) -> Any:
    """What a file holds; None for one that is missing, or whose process died before it had written it."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
