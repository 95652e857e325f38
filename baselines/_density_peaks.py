"""Density-peak clustering with k nearest neighbours (DPC-KNN), batched: PruneVid, HoliTom, FlashVID and FastVID.

Points that are dense, and far from any denser point, become centres; every other point joins its nearest centre.
All functions take `*B N ...`: any batch of point sets of one size N. Distances and scores are float32 whatever
comes in. The authors add uniform noise of 1e-6 to the densities to break ties; here the lower index counts as
denser, so that nothing is random. Source: Rodriguez and Laio, Science 344 (2014); Du et al., arXiv 1610.01625 (KNN).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.select import ranks

ROUNDING = 1e-6
"""Squared distances below this share of the two squared norms are rounding of the matrix product: they become 0."""


class Clusters(NamedTuple):
    """Which points are centres, and whose every point is."""

    centres: Int64[Tensor, "*B m"]  # index of each centre, in descending order of score; its rank is its cluster
    labels: Int64[Tensor, "*B N"]  # cluster of each point, 0..m-1


def distances(x: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N N"]:
    """Euclidean distance / sqrt(D) between all pairs, float32, the diagonal exactly 0.

    By a matrix product of the centred points: features share a large mean, which would eat the small differences.
    """
    x = x.float()
    x = x - x.mean(-2, keepdim=True)
    products = x @ x.transpose(-1, -2)
    norms = products.diagonal(dim1=-2, dim2=-1)  # from the same product: equal points cancel exactly
    pairs = norms[..., :, None] + norms[..., None, :]
    squared = pairs - 2 * products
    squared = torch.maximum(squared, squared.transpose(-1, -2))  # bit-equal both ways, so that ties are ties
    squared = squared.masked_fill(squared <= ROUNDING * pairs, 0)
    squared.diagonal(dim1=-2, dim2=-1).zero_()
    return (squared / x.shape[-1]).sqrt()


def density(dist: Float[Tensor, "*B N N"], k: int) -> Float[Tensor, "*B N"]:
    """exp(-mean of the `k` smallest squared distances of each point), itself (0) included; `k` > N means N."""
    nearest = dist.topk(min(k, dist.shape[-1]), dim=-1, largest=False).values  # sorted: equal sets, equal sums
    return nearest.square().mean(-1).neg().exp()


def separation(dist: Float[Tensor, "*B N N"], rho: Float[Tensor, "*B N"]) -> Float[Tensor, "*B N"]:
    """Distance to the nearest denser point; for the densest the largest distance of its set.

    Of two points of equal density `rho` the one with the lower index counts as denser.
    """
    rank = ranks(rho)
    denser = rank[..., None, :] < rank[..., :, None]  # [i, j]: j is denser than i
    nearest = dist.masked_fill(~denser, float("inf")).amin(-1)
    return torch.where(rank == 0, dist.amax((-2, -1))[..., None], nearest)


def peaks(dist: Float[Tensor, "*B N N"], centres: int, k: int) -> Int64[Tensor, "*B m"]:
    """The `centres` points with the largest density * separation, largest first; ties go to the lower index.

    Raises ValueError unless 1 <= centres <= N.
    """
    points = dist.shape[-1]
    if not 1 <= centres <= points:
        raise ValueError(f"{centres} centres of {points} points, expected 1..{points}")
    rho = density(dist, k)
    score = rho * separation(dist, rho)
    return score.argsort(dim=-1, descending=True, stable=True)[..., :centres]


def assign(dist: Float[Tensor, "*B N N"], centres: Int64[Tensor, "*B m"]) -> Int64[Tensor, "*B N"]:
    """Rank (column of `centres`) of the centre nearest to each point, ties to the first; a centre is its own."""
    to_centre = dist.gather(-1, centres[..., None, :].expand(*dist.shape[:-1], -1))  # (*B, N, m)
    own = torch.arange(centres.shape[-1], device=centres.device).expand_as(centres)
    return to_centre.argmin(-1).scatter(-1, centres, own)


def cluster(x: Float[Tensor, "*B N D"], centres: int, k: int) -> Clusters:
    """DPC-KNN of each set of N points into `centres` clusters, with densities over `k` neighbours.

    Cost: one N x N x D product a set. Raises ValueError unless 1 <= centres <= N.
    """
    dist = distances(x)
    chosen = peaks(dist, centres, k)
    return Clusters(chosen, assign(dist, chosen))


def means(x: Float[Tensor, "*B N D"], labels: Int64[Tensor, "*B N"], clusters: int) -> Float[Tensor, "*B m D"]:
    """Unweighted mean of the points of each cluster, float32; an empty cluster is 0."""
    sums = x.new_zeros(*x.shape[:-2], clusters, x.shape[-1], dtype=torch.float32)
    sums.scatter_add_(-2, labels[..., None].expand_as(x), x.float())
    counts = torch.zeros(sums.shape[:-1], dtype=torch.float32, device=x.device)
    counts.scatter_add_(-1, labels, torch.ones_like(labels, dtype=torch.float32))
    return sums / counts.clamp_min(1)[..., None]
