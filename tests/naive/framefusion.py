"""FrameFusion's merging call as a straight program, one token at a time: the reference for the real one."""

from collections.abc import Callable

import torch
from torch import Tensor

from baselines._framefusion_calls import chain_similarity, merge_runs


def naive_similarity(hidden: Tensor, patch: Tensor) -> Tensor:
    """Cosine with the token before of the same patch, looked for backwards; -2 where there is none."""
    out = torch.full((len(patch),), -2.0)
    types = patch.tolist()
    for i, own in enumerate(types):
        before = next((j for j in range(i - 1, -1, -1) if types[j] == own), None)
        if before is not None:
            a, b = hidden[i].float(), hidden[before].float()
            size = a.norm() * b.norm()
            out[i] = a @ b / size if size > 0 else 0.0
    return out


def naive_merge(hidden: Tensor, patch: Tensor, merging: Tensor) -> tuple[Tensor, Tensor]:
    """Walk each chain in time: a merging token joins the group that is open, any other one opens the next group."""
    groups: dict[int, list[int]] = {}  # anchor -> members, itself among them
    open_group: dict[int, int] = {}  # patch -> anchor
    for i, own in enumerate(patch.tolist()):
        if merging[i]:
            groups[open_group[own]].append(i)
        else:
            open_group[own] = i
            groups[i] = [i]
    keep = sorted(groups)
    rows = []
    for anchor in keep:
        members = groups[anchor]
        total = torch.zeros(hidden.shape[1])
        for member in members:
            total = total + hidden[member].float()
        rows.append(hidden[anchor] if len(members) == 1 else (total / len(members)).to(hidden.dtype))
    return torch.tensor(keep), torch.stack(rows)


def naive_call(
    hidden: Tensor,
    patch: Tensor,
    fractions: tuple[float, ...],
    cost: float,
    *,
    similarity: float,
    merge_ratio: float,
    layers: int,
) -> tuple[Tensor, Tensor, tuple[float, ...], bool, bool]:
    """One merging call: what stays, its values, the shares merged so far, merging finished, everything finished."""
    retained, spent = 1.0, 0.0
    for fraction in fractions:
        retained *= 1 - fraction
        spent += retained
    drop = max(0.0, 1 - (layers * cost - spent) / ((layers - len(fractions)) * retained))
    alike = naive_similarity(hidden, patch)
    pairs = [i for i in range(len(patch)) if alike[i] >= similarity]
    share = len(pairs) / len(patch)
    merged = pruned = False
    if share < drop:
        fractions = (*fractions, share)
        merged = share < merge_ratio
    else:
        pairs = sorted(pairs, key=lambda i: -float(alike[i]))[: int(drop * len(patch) + 1e-9)]
        merged = pruned = True
    merging = torch.zeros(len(patch), dtype=torch.bool)
    for i in pairs:
        merging[i] = True
    return *naive_merge(hidden, patch, merging), fractions, merged, pruned


def tokens(frames: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """A video in which half of the patches stay much as they were: hidden rows (F*S, D) and their patch numbers."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(size, width, generator=generator)]
    for _ in range(frames - 1):
        fresh = torch.randn(size, width, generator=generator)
        still = torch.rand(size, 1, generator=generator) < 0.5
        rows.append(torch.where(still, rows[-1] + 0.3 * fresh, fresh))
    return torch.cat(rows), torch.arange(size).repeat(frames)


def tokens_and_pairs(frames: int, size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and which of the tokens merge."""
    hidden, patch = tokens(frames, size, width)
    return hidden, patch, chain_similarity(hidden, patch) >= 0.6


CASES: dict[str, tuple[Callable, Callable, Callable]] = {
    "similarity": (tokens, chain_similarity, naive_similarity),
    "merging": (tokens_and_pairs, merge_runs, naive_merge),
}
"""Label -> (frames, size, width -> inputs), fast, naive."""
