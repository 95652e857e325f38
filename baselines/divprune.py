"""DivPrune: the most diverse tokens of the whole video, by greedy max-min selection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cacovid.method import Method, Positions
from cacovid.records import Compressed, VideoTokens

Duplicates = Literal["masked", "released"]
Row = Callable[[Int64[Tensor, "1"]], Float[Tensor, " N"]]

SAME = 1e-6
"""Cosine distances up to this are 0: it is what float32 leaves between equal rows, whichever kernel sums them."""
BLOCK = 512  # rows whose distances are computed in one product
HELD = 2**28
"""Most distances that are held at once (1 GiB, 16384 tokens); a longer video has its rows computed pick by pick."""


@dataclass(frozen=True, kw_only=True)
class DivPrune(Method):
    """Keep the tokens that lie farthest apart: each pick is the one least like all picks before it.

    Cosine distance between the tokens as the LLM would read them. The first pick is the token whose nearest other
    token is farthest; each further one has the largest distance to its nearest pick, the earlier token winning ties.
    One selection over the whole video, without attention, question or time.

    Ours differs: a picked token cannot be picked again (`duplicates="masked"`), where the release spends the rest of
    its budget on tokens that it already has once every other one equals a pick; distances are float32 where the
    release takes the model's half precision; zero rows are orthogonal to everything where the release gets NaN;
    LLaVA-OneVision's newline is no candidate and always stays.
    """

    duplicates: Duplicates = "masked"
    """`released`: picked tokens stay candidates, as in the release, so that rows of a static video may repeat."""

    source: ClassVar[str] = "DivPrune (arXiv 2503.02175), github.com/vbdi/divprune"
    positions: ClassVar[Positions] = "compact"

    @property
    def repeats(self) -> bool:  # type: ignore[override]
        return self.duplicates == "released"

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        picks = farthest_first(video.flat, budget, duplicates=self.duplicates)
        return _keep(video, picks.sort().values)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        total, width = len(video), video.flat.shape[1]
        if budget >= total:
            return 0
        products = sum(min(BLOCK, total - start) * (total - start) for start in range(0, total, BLOCK))
        if not _held(total):
            products += (budget - 1) * total
        return 2 * products * width


def farthest_first(
    features: Float[Tensor, "N D"],
    count: int,
    *,
    duplicates: Duplicates = "masked",
    first: Int64[Tensor, "1"] | None = None,
) -> Int64[Tensor, " K"]:
    """`count` <= N rows in the order in which they are picked (llava_arch.py:DivPrune); float32, no host sync.

    Keeps the distance from every row to its nearest pick, so that a pick costs O(N) and not O(K N). `first`
    replaces the first pick. With "released" a picked row stays at distance 0 and may be picked again.
    """
    row, nearest = distances(features, own=-1.0 if duplicates == "masked" else 0.0)
    pick = nearest.argmax(0, keepdim=True) if first is None else first
    picks, gap = [pick], torch.full_like(nearest, float("inf"))  # gap: to the nearest pick
    for _ in range(count - 1):
        torch.minimum(gap, row(pick), out=gap)
        pick = gap.argmax(0, keepdim=True)
        picks.append(pick)
    return torch.cat(picks)[:count]


def distances(features: Float[Tensor, "N D"], own: float = 0.0) -> tuple[Row, Float[Tensor, " N"]]:
    """Cosine distances between rows: a look-up of one row of them, and the distance to the nearest other row.

    The look-up gives `own` as a row's distance to itself. The matrix is symmetric: only products on and above the
    diagonal are computed, block by block. A single row alone is infinitely far from any other.
    """
    unit = nn.functional.normalize(features.float(), dim=-1)
    total = len(unit)
    matrix = unit.new_empty(total, total) if _held(total) else None
    nearest = unit.new_full((total,), float("inf"))
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        block = _distance(unit[start:stop] @ unit[start:].T)  # (rows, N - start)
        block.fill_diagonal_(float("inf"))
        torch.minimum(nearest[start:stop], block.amin(1), out=nearest[start:stop])
        torch.minimum(nearest[start:], block.amin(0), out=nearest[start:])
        if matrix is not None:
            block.fill_diagonal_(own)
            matrix[start:stop, start:] = block
            matrix[stop:, start:stop] = block[:, stop - start :].T

    def held(pick: Int64[Tensor, "1"]) -> Float[Tensor, " N"]:
        assert matrix is not None
        return matrix.index_select(0, pick)[0]

    def computed(pick: Int64[Tensor, "1"]) -> Float[Tensor, " N"]:
        return _distance(unit @ unit.index_select(0, pick)[0]).index_fill_(0, pick, own)

    return (computed if matrix is None else held), nearest


def _held(total: int) -> bool:
    """Whether the distances between `total` rows are few enough to be held."""
    return total**2 <= HELD


def _distance(similarity: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """1 - similarity, in place; what is below rounding becomes 0, so that copies tie and the earliest wins."""
    return torch.threshold_(similarity.neg_().add_(1), SAME, 0.0)


def _keep(video: VideoTokens, index: Int64[Tensor, " K"]) -> Compressed:
    """The tokens at `index`, which may hold a position several times: its first output row is the owner."""
    rows = torch.arange(len(index), device=index.device)
    owner = torch.full((len(video),), len(index), device=index.device)
    owner = owner.scatter_reduce(0, index, rows, "amin")
    return Compressed(video.flat[index], index, owner.where(owner < len(index), -1))
