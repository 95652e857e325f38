"""Density-peak diversity: which tokens stand for many others and are far from any that stand for more."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NEIGHBOURS = 4
"""Nearest tokens, itself among them, whose distances make up a token's density."""
JITTER = 1e-6
"""Uniform noise that keeps equal tokens from having equal densities."""


def most_diverse(
    tokens: Float[Tensor, "B n D"], keep: int, generator: torch.Generator | None = None
) -> Bool[Tensor, "B n"]:
    """True at the `keep` tokens of highest density x distance to the nearest denser token.

    d = Euclidean distance / sqrt(D); density = exp(-mean of the four smallest d^2), the token's own 0 among them;
    the densest token's distance is the largest of all. Source: the release's div_sample. Without `generator` there
    is no jitter.
    """
    tokens = tokens.float()
    distance = torch.cdist(tokens, tokens) / tokens.shape[-1] ** 0.5  # (B, n, n)
    near = distance.topk(min(NEIGHBOURS, tokens.shape[1]), dim=-1, largest=False).values
    density = (-near.square().mean(-1)).exp()
    if generator is not None:
        density = density + JITTER * torch.rand(density.shape, generator=generator, device=density.device)
    denser = density[:, None, :] > density[:, :, None]
    farthest = distance.amax((1, 2))[:, None, None]
    apart = torch.where(denser, distance, farthest).amin(-1)
    best = (apart * density).topk(min(keep, tokens.shape[1]), dim=-1).indices
    return torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter_(1, best, True)
