"""Several questions behind one video, packed into one sequence that the stock language model reads.

A packed row is  head | kept video tokens | newline | question 0 | question 1 | ...  with a newline where the model
has one. Each question sees the head, the video and itself, not the other questions (a 4-D mask), and its positions
go on right after the video, so that each reads exactly as it would alone. That is what makes training on two cores
possible: the video is read once for seven questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.families import Family, VideoModel, Wrapping
from cacovid.testbed.scene import CELLS, MOMENTS

VIDEO_TOKENS = MOMENTS * CELLS


@dataclass(frozen=True)
class Asked:
    """A question as the whole text after the video, with the text that answers it."""

    text: str
    answer: str
    kind: str


@dataclass
class Packed:
    """A batch of packed rows, ready for the language model.

    ids: (B, L) token ids, with any id at the video places; video_at: (B, L) bool, True at the kept video
    tokens; newline_at: (B,) place of the newline, or (0,); positions: (A, B, L), an id an axis; block: (B, L), 0 for
    head and video, q for question q, -1 for padding; mask: (B, 1, L, L) bool, True where attention may go; targets:
    (B, L) id of the next token to learn, -100 elsewhere; first: (n, 2) row and place of each question's answer, in the
    order in which the questions were given.
    """

    ids: Tensor
    video_at: Tensor
    newline_at: Tensor
    positions: Tensor
    block: Tensor
    mask: Tensor
    targets: Tensor
    first: Tensor

    def to(self, device: torch.device) -> "Packed":
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


def pack(
    family: Family,
    tokenizer: PreTrainedTokenizerFast,
    kept: Sequence[np.ndarray],
    questions: Sequence[Sequence[Asked]],
    wrapping: Wrapping | None = None,
    compact: bool = False,
) -> Packed:
    """Pack a batch. `kept[b]` are the flat positions (frame-major, ascending) of video b's kept tokens.

    `wrapping`: what the questions were put with; without it the family's own. With `compact` the kept tokens stand at
    consecutive positions, else at their original ones.
    """
    places = family.places
    head = tokenizer((wrapping or family.chat).head).input_ids
    flat = [asked for row in questions for asked in row]
    texts = tokenizer([asked.text for asked in flat]).input_ids
    answers = tokenizer([asked.answer for asked in flat]).input_ids
    stop = tokenizer.eos_token_id
    starts = np.cumsum([0] + [len(row) for row in questions])
    spans = [[(texts[i], answers[i]) for i in range(starts[b], starts[b + 1])] for b in range(len(questions))]
    fixed = len(head) + int(places.newline)
    lengths = [fixed + len(kept[b]) + sum(len(t) + len(a) for t, a in spans[b]) for b in range(len(spans))]
    # Whole multiples of 16: each new length costs the CPU kernels a compilation.
    rows, longest = len(spans), -(-max(lengths) // 16) * 16
    ids = np.zeros((rows, longest), dtype=np.int64)
    positions = np.zeros((len(places.video), rows, longest), dtype=np.int64)
    targets = np.full((rows, longest), -100, dtype=np.int64)
    video_at = np.zeros((rows, longest), dtype=bool)
    block = np.full((rows, longest), -1, dtype=np.int64)
    newline_at, first = [], []
    for b, row in enumerate(spans):
        count, begin = len(kept[b]), len(head)
        ids[b, :begin] = head
        positions[:, b, :begin] = np.arange(begin)
        place = begin + count
        positions[:, b, begin:place] = begin + (np.arange(count) if compact else places.video[:, kept[b]])
        video_at[b, begin:place] = True
        after = begin + (count if compact else places.after)
        if places.newline:
            newline_at.append(place)
            positions[:, b, place] = after
            place, after = place + 1, after + 1
        block[b, :place] = 0
        for q, (text, answer) in enumerate(row, start=1):
            whole = text + answer
            end = place + len(whole)
            ids[b, place:end] = whole
            positions[:, b, place:end] = after + np.arange(len(whole))
            block[b, place:end] = q
            asked_at = place + len(text) - 1
            targets[b, asked_at:end] = [*answer, stop]
            first.append((b, asked_at))
            place = end
    blocks = torch.from_numpy(block)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    same = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
    return Packed(
        ids=torch.from_numpy(ids),
        video_at=torch.from_numpy(video_at),
        newline_at=torch.tensor(newline_at, dtype=torch.long),
        positions=torch.from_numpy(positions),
        block=blocks,
        mask=(same & causal)[:, None],
        targets=torch.from_numpy(targets),
        first=torch.tensor(first),
    )


def answer_logits(model: VideoModel, packed: Packed, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stock language model over packed rows.

    video: (kept tokens of all rows in order, D). Returns the logits at every place with a target, those
    targets, and for each question the row of its answer's first token in the logits.
    """
    core = model.model
    embeds = core.get_input_embeddings()(packed.ids)
    embeds = embeds.masked_scatter(packed.video_at[..., None], video.to(embeds.dtype))
    if len(packed.newline_at):
        rows = torch.arange(len(embeds), device=embeds.device)
        newline = core.image_newline.to(embeds.dtype)
        embeds = embeds.index_put((rows, packed.newline_at), newline.expand(len(rows), -1))
    positions = packed.positions if len(packed.positions) > 1 else packed.positions[0]
    hidden = core.language_model(
        inputs_embeds=embeds, attention_mask=packed.mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    wanted = packed.targets != -100
    where = wanted.flatten().cumsum(0) - 1
    length = packed.ids.shape[1]
    return (
        model.lm_head(hidden[wanted]),
        packed.targets[wanted],
        where[packed.first[:, 0] * length + packed.first[:, 1]],
    )


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the answer tokens and the stop token behind them."""
    return nn.functional.cross_entropy(logits.float(), targets)
