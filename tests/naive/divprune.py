"""DivPrune step by step: every pick looks at the distances of all picks so far again, O(K^2 N)."""

import torch

from baselines.divprune import farthest_first as fast


def farthest_first(features, count, *, duplicates="masked", first=None):
    rows = features.float()
    rows = rows / rows.norm(dim=1, keepdim=True)
    distance = 1 - rows @ rows.T
    picks = []
    for _ in range(count):
        if picks:
            score = distance.index_select(0, torch.tensor(picks)).min(0).values
        elif first is not None:
            picks.append(int(first))
            continue
        else:
            score = distance.topk(2, dim=0, largest=False).values[1]  # the smallest is the row itself
        if duplicates == "masked":
            score[picks] = -1
        picks.append(int(score.argmax()))
    return torch.tensor(picks, dtype=torch.int64)


def exact_rows(frames, size, width):
    """Sparse rows of +-1 whose distances are exact in float32 in any order of summation: ties are ties.

    4^m entries are set, so that norms are powers of two; with random reals, picks whose scores differ by
    rounding alone would be swapped between two kernels.
    """
    generator = torch.Generator().manual_seed(0)
    total, entries = frames * size, 4
    while entries * 4 <= width // 2:
        entries *= 4
    at = torch.rand(total, width, generator=generator).argsort(1)[:, :entries]
    sign = torch.randint(0, 2, (total, entries), generator=generator) * 2.0 - 1
    return torch.zeros(total, width).scatter_(1, at, sign)


def _quarter(select):
    """The selection as it is timed, at r = 0.25."""
    return lambda rows: select(rows, len(rows) // 4)


CASES = {"farthest_first": (lambda *sizes: (exact_rows(*sizes),), _quarter(fast), _quarter(farthest_first))}
