"""One task: prepare, take what a former run answered, compute the rest, record every sample as it is done."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cacovid.backbones import Answer, Backbone
from cacovid.budget import BudgetMode
from cacovid.errors import BudgetError, PromptError
from cacovid.evidence import token_frames
from cacovid.lmms.clips import stamp
from cacovid.lmms.encoding import ClipEncoder, EncodedClip
from cacovid.lmms.generation import Generation
from cacovid.lmms.prefetch import looking_ahead
from cacovid.lmms.prompt import Prompt, Request, build_prompt
from cacovid.lmms.scoring import Score, score
from cacovid.lmms.uncompressed import answer_uncompressed
from cacovid.method import Method
from cacovid.records import VideoTokens
from cacovid.runs import Failure, Run, Sample
from cacovid.runs.digest import digest, file_sha256, text_sha256
from cacovid.runs.run import now
from cacovid.video import VideoError

FARTHEST = 64
"""Batches that are prepared before their turn at most, where many questions are on the videos that are read ahead."""

SAMPLE_ERRORS = (PromptError, BudgetError, VideoError, OSError)
"""What ends one sample and not the run: unreadable media, and requests that this model cannot take."""


@dataclass(slots=True, eq=False)
class Item:
    """One document on its way to an answer."""

    request: Request
    generation: Generation
    document: Any
    sha256: str
    prompt: Prompt | None = None
    clip: EncodedClip | None = None
    video: VideoTokens | None = None
    failure: Failure | None = None
    answer: Answer | None = None
    fields: dict[str, Any] = field(default_factory=dict)  # of the Sample, as far as known

    def fail(self, error: Exception) -> None:
        """Mark the sample; others go on."""
        reason = getattr(error, "reason", "missing" if isinstance(error, FileNotFoundError) else "refused")
        self.failure = Failure(kind=type(error).__name__, reason=reason, message=str(error))


Batch = list[tuple[Item, Sample | None]]
"""Items that are answered together, each with its stored answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How one task's requests are answered."""

    backbone: Backbone
    method: Method
    encoder: ClipEncoder
    run: Run
    simple: bool
    batch_size: int
    budget: BudgetMode = "nominal"

    def samples(self, work: Sequence[tuple[Request, Generation]], documents: Any) -> Iterator[Sample]:
        """One sample for each request, in order.

        Batches are cut from the whole list, answered samples or not, so that a resumed run computes a sample in
        the same company, and with the same rounding, as a run that went through.
        """
        starts = range(0, len(work), self.batch_size)
        batches = (self._prepared(work[start : start + self.batch_size], documents) for start in starts)
        try:
            for parts, following in looking_ahead(batches, self._far_enough):
                soon = _distinct([*self._videos(parts), *self._next_videos(following)])
                self.encoder.prefetch(soon, self.method.needs)
                for part in parts:
                    yield from self._batch(part)
        finally:
            self.encoder.clips.stop()

    def _prepared(self, work: Sequence[tuple[Request, Generation]], documents: Any) -> list[Batch]:
        """One batch; as many as it has items if they are to be answered one by one."""
        items = [self._prepare(request, made, documents) for request, made in work]
        batch = [(item, self._stored(item)) for item in items]
        alone = self.run.strikes.alone([item.request.doc_id for item in items])
        return [[pair] for pair in batch] if alone else [batch]

    def _far_enough(self, following: Sequence[list[Batch]]) -> bool:
        """Whether enough is prepared. Pictures end the look ahead: they are decoded when a prompt is prepared."""
        if len(following) >= (FARTHEST if self.encoder.clips.ahead else 0):
            return True
        last = [item for part in following[-1] for item, _ in part] if following else []
        if any(item.prompt is not None and item.prompt.images for item in last):
            return True
        return len(self._next_videos(following)) >= self.encoder.clips.ahead

    def _next_videos(self, following: Sequence[list[Batch]]) -> list[str]:
        return _distinct(path for parts in following for path in self._videos(parts))[: self.encoder.clips.ahead]

    def _videos(self, parts: list[Batch]) -> Iterator[str]:
        """Files that will be encoded for these batches, or taken from the store."""
        for part in parts:
            if any(old is None for _, old in part):
                for item, _ in part:
                    struck = item.failure or self.run.strikes.failure(item.request.doc_id)
                    if struck is None and item.prompt is not None and item.prompt.video is not None:
                        yield item.prompt.video

    def _batch(self, batch: Batch) -> Iterator[Sample]:
        """Samples of items that are computed together, each with its stored answer; none is computed if all are."""
        asked = [item for item, old in batch if old is None]
        for item in asked:
            item.failure = item.failure or self.run.strikes.failure(item.request.doc_id)
        with self.run.strikes.asking([item.request.doc_id for item in asked if item.failure is None]):
            if asked:
                self._answer([item for item, _ in batch])
            for item, old in batch:
                if old is not None:
                    self.run.take()
                    yield old
                else:
                    sample = self._sample(item)
                    self.run.record(sample)
                    yield sample

    def _prepare(self, request: Request, generation: Generation, documents: Any) -> Item:
        document = documents[request.doc_id]
        item = Item(request, generation, document, digest(document))
        try:
            item.prompt = build_prompt(request.messages(document, self.simple), self.backbone)
        except SAMPLE_ERRORS as error:
            item.fail(error)
        return item

    def _stored(self, item: Item) -> Sample | None:
        """The former answer, if document, prompt and video are what they were."""
        old = self.run.stored(item.request.doc_id)
        if old is None or item.prompt is None or old.doc_sha256 != item.sha256:
            return None
        if old.prompt_sha256 != text_sha256(item.prompt.text):
            return None
        if old.video is not None and item.prompt.video is not None:
            found = stamp(item.prompt.video)
            if found is not None and found != (old.video["bytes"], old.video["mtime_ns"]):
                same = file_sha256(item.prompt.video) == old.video["sha256"]
                return old if same else None
        return old

    def _answer(self, items: list[Item]) -> None:
        """Fill in answers: videos as one batch, the rest one by one."""
        videos = []
        for item in items:
            if item.failure is not None or item.prompt is None:
                continue
            if item.prompt.modality == "video":
                try:
                    item.clip = self.encoder.encode(str(item.prompt.video), self.method.needs)
                    facts = item.clip.facts
                    item.video = self.backbone.ask(item.clip.encoded, item.prompt.text, facts.sha256, facts.rate)
                except (VideoError, PromptError) as error:
                    item.fail(error)
                else:
                    videos.append(item)
            else:
                self._plain(item)
        for group in _same_generation(videos):
            self._compressed(group)

    def _plain(self, item: Item) -> None:
        assert item.prompt is not None
        plain = answer_uncompressed(self.backbone, item.prompt, item.generation)
        item.fields = {
            "prediction": plain.text,
            "input_tokens": plain.input_tokens,
            "output_tokens": plain.output_tokens,
            "seconds": plain.seconds,
        }

    def _compressed(self, items: list[Item]) -> None:
        generation = items[0].generation
        try:
            answers = self.backbone.answer_encoded(
                [item.video for item in items if item.video is not None],
                [item.prompt.text for item in items if item.prompt is not None],
                self.method,
                budget=self.budget,
                max_new_tokens=generation.max_new_tokens,
                stop_strings=generation.until,
            )
        except BudgetError as error:
            if len(items) == 1:
                items[0].fail(error)
                return
            for item in items:  # find the one that it was
                self._compressed([item])
            return
        for item, answer in zip(items, answers, strict=True):
            item.answer = answer
            item.fields = self._audit(item, answer)

    def _audit(self, item: Item, answer: Answer) -> dict[str, Any]:
        assert item.clip is not None and item.video is not None
        text_rows = item.video.rows - len(item.video)  # and the newline token
        rows, columns = answer.grid
        return {
            "compressed": True,
            "prediction": answer.text,
            "input_tokens": text_rows + answer.spent.entering,
            "output_tokens": len(answer.ids),
            "spent": answer.spent.to_json(),
            "seconds": {**item.clip.seconds, **answer.seconds},
            "grid": [answer.spent.video_tokens // (rows * columns), rows, columns],
            "kept": answer.kept.tolist(),
            "merged": merged_tokens(answer),
            "evidence": evidence_cells(item.document, item.clip.facts.indices, answer),
            "evidence_recall": evidence_recall(item.document, item.clip.facts.indices, answer),
        }

    def _sample(self, item: Item) -> Sample:
        prediction = item.fields.get("prediction")
        found: Score = score(item.request.owner, item.document, prediction)
        return Sample(
            task=item.request.task,
            doc_id=item.request.doc_id,
            doc_sha256=item.sha256,
            prompt_sha256=text_sha256(item.prompt.text) if item.prompt else None,
            modality=item.prompt.modality if item.prompt else None,
            video=_video(item),
            question=item.request.context or None,
            failure=item.failure,
            target=found.target,
            score=found.score,
            parsed=found.parsed,
            metrics=found.metrics,
            written=now(),
            **item.fields,
        )


def evidence_cells(document: Any, indices: tuple[int, ...], answer: Answer) -> list[int] | None:
    """Flat positions of the document's evidence cells; None where unknown.

    The document says on which frames of the file its [frame, patch] cells lie (`evidence_frames`), by how many frames
    another one may miss those and still show the same (`evidence_reach`), and how many patches a frame has
    (`evidence_patches`); with other frames or another grid they mean nothing. Where several frames are one frame of
    tokens, a cell is that of the frame that it went into.
    """
    if not isinstance(document, dict) or not document.get("evidence"):
        return None
    patches, (rows, columns) = document.get("evidence_patches"), answer.grid
    if patches != rows * columns:
        return None
    merged = -(-len(indices) * patches // answer.spent.video_tokens)
    frames = token_frames(document["evidence_frames"], indices, merged, document.get("evidence_reach", 0))
    return frames and sorted({frames[frame] * patches + patch for frame, patch in document["evidence"]})


def evidence_recall(document: Any, indices: tuple[int, ...], answer: Answer) -> float | None:
    """Share of the document's evidence cells whose own flat position is among those kept; None where unknown.

    A token that was merged into another cell's does not count: `kept` names the cell that a merged token stands for.
    """
    cells = evidence_cells(document, indices, answer)
    if cells is None:
        return None
    kept = set(answer.kept.tolist())
    return sum(cell in kept for cell in cells) / len(cells)


def merged_tokens(answer: Answer) -> str | None:
    """Base64 of a bitset, position 0 in the lowest bit: tokens merged before the LLM into one that is still kept.

    None where there are none. Tokens that methods merge inside the LLM leave no trace of where they went.
    """
    position, owner = answer.compressed.position, answer.compressed.owner
    kept = torch.isin(position, answer.kept)
    merged = (owner >= 0) & kept[owner.clamp(min=0)]
    merged[answer.kept] = False
    if not merged.any():
        return None
    return b64encode(np.packbits(merged.cpu().numpy(), bitorder="little").tobytes()).decode()


def _video(item: Item) -> dict[str, Any] | None:
    """What was read, for the record; the path alone where nothing could be."""
    if item.prompt is None or item.prompt.video is None:
        return None
    if item.clip is None:
        return {"path": item.prompt.video}
    facts, (size, changed) = item.clip.facts, item.clip.stamp
    return {
        "path": item.prompt.video,
        "sha256": facts.sha256,
        "bytes": size,
        "mtime_ns": changed,
        "indices": list(facts.indices),
        "total_frames": facts.total_frames,
        "fps": facts.fps,
        "decoder": facts.decoder,
    }


def _distinct(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _same_generation(items: list[Item]) -> Iterator[list[Item]]:
    """Items by their generation settings, in order: a task's are all alike unless its code says otherwise."""
    groups: dict[Generation, list[Item]] = {}
    for item in items:
        groups.setdefault(item.generation, []).append(item)
    yield from groups.values()
