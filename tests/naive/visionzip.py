"""VisionZip frame by frame and token by token, as its ports are structured: the reference of `baselines.visionzip`."""

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.visionzip import DOMINANT_SHARE, Order, zip_frames


def naive_zip_frames(
    features: Tensor,  # (F, S, D)
    scores: Tensor,  # (F, S)
    metric: Tensor,  # (F, S, d)
    quota: list[int],
    share: float = DOMINANT_SHARE,
    order: Order = "dominant_first",
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (K, D), flat position (K,) and owner (N,) of `baselines.visionzip.zip_frames`."""
    tokens, position, owner = [], [], [-1] * scores.numel()
    for f, kept in enumerate(quota):
        dominants = int(kept * share + 1e-9)
        rows, members = naive_frame(features[f], scores[f].tolist(), metric[f], dominants, kept - dominants)
        if order == "raster":
            by_slot = sorted(range(kept), key=lambda i: members[i][0])
            rows, members = [rows[i] for i in by_slot], [members[i] for i in by_slot]
        start = f * scores.shape[1]
        for row, slots in zip(rows, members, strict=True):
            for slot in slots:
                owner[start + slot] = len(tokens)
            position.append(start + slots[0])
            tokens.append(row)
    return torch.stack(tokens), torch.tensor(position), torch.tensor(owner)


def naive_frame(
    features: Tensor, scores: list[float], metric: Tensor, dominants: int, contextuals: int
) -> tuple[list[Tensor], list[list[int]]]:
    """Output rows of one frame, and the slots that went into each, the one that it stands for first."""
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:dominants]
    chosen = sorted(best)
    left = [i for i in range(len(scores)) if i not in best]
    rows, members = [features[i] for i in chosen], [[i] for i in chosen]
    if contextuals == 0:
        return rows, members
    step = max(1, len(left) // contextuals)
    targets = left[::step][:contextuals]
    groups: list[list[int]] = [[] for _ in targets]
    for i in left:
        if i not in targets:
            cosines = [float(_unit(metric[i]) @ _unit(metric[t])) for t in targets]
            groups[next(c for c, cosine in enumerate(cosines) if cosine >= max(cosines) - 1e-6)].append(i)
    for target, group in zip(targets, groups, strict=True):
        row = features[target].float()
        if group:
            row = row + torch.stack([features[i].float() for i in group]).mean(0)
        rows.append(row.to(features.dtype))
        members.append([target, *group])
    return rows, members


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp_min(1e-12)


def quarter(frames: int, size: int) -> list[int]:
    """Tokens a frame at r = 0.25."""
    return [max(size // 4, 1)] * frames


def inputs(frames: int, size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, scores and metric (72 channels, as in SigLIP) of random frames with `size` tokens."""
    generator = torch.Generator().manual_seed(frames + size + width)
    features = torch.randn(frames, size, width, generator=generator)
    scores = torch.rand(frames, size, generator=generator)
    return features, scores, torch.randn(frames, size, 72, generator=generator)


CASES: dict[str, tuple[Callable, Callable, Callable]] = {
    "dominant and contextual tokens, r = 0.25": (
        inputs,
        lambda f, s, m: zip_frames(f, s, m, quarter(*s.shape)),
        lambda f, s, m: naive_zip_frames(f, s, m, quarter(*s.shape)),
    )
}
