"""CaCoVID's selection as a straight program, one frame and one token at a time: the reference for the real one.

`python tests/naive_select.py` prints how much faster the real one is, both timed in one run.
"""

from itertools import product
from statistics import median

import torch
from torch.utils.benchmark import Timer

from cacovid.policy.select import Quota, select


def naive_counts(scores: torch.Tensor, quota: Quota) -> list[int]:
    """The release's allocation, one token at a time."""
    frames = len(scores)
    scores = scores / scores.abs().max() * 3
    share = scores.softmax(0).clip(1 / (2 * frames), quota.ceiling)
    share = share / share.sum()
    count = (share * quota.scale).round().clip(1, quota.cap).long()
    while count.sum() > quota.important:
        count[count.argmax()] -= 1
    while count.sum() < quota.important:
        count[count.argmin()] += 1
    return count.tolist()


def naive_select(token_logits: torch.Tensor, frame_logits: torch.Tensor, quota: Quota) -> torch.Tensor:
    """The release's selection, frame by frame."""
    frames = len(frame_logits)
    scores = (token_logits[:, 1] - token_logits[:, 0]).view(frames, -1)
    kept = torch.zeros(scores.shape, dtype=torch.bool)
    for frame, count in enumerate(naive_counts(frame_logits[:, 1] - frame_logits[:, 0], quota)):
        kept[frame, scores[frame].argsort(descending=True, stable=True)[:count]] = True
    kept = kept.flatten()
    rest = (~kept).nonzero().flatten()
    missing = quota.keep - int(kept.sum()) if quota.important < quota.keep else 0
    at = [round(i * (len(rest) - 1) / (missing - 1)) if missing > 1 else 0 for i in range(missing)]
    kept[rest[at]] = True
    return kept


def main(frames: int = 32, size: int = 196, share: float = 0.5, rounds: int = 30) -> None:
    """LLaVA-OneVision's 32 frames of 14 x 14 tokens, as the paper runs them: random logits, float32.

    Both take turns, so that a machine's other work falls on both alike; medians of their rounds.
    """
    print("| threads | videos | r | loops, ms | ours, ms | ratio |\n|---|---|---|---|---|---|")
    for threads, videos, retention in product((1, 2), (1, 8), (0.25, 0.2, 0.15, 0.1)):
        torch.manual_seed(0)
        tokens, scores = torch.randn(videos, frames * size, 2), torch.randn(videos, frames, 2)
        quota = Quota.of(retention, frames, size, share, 1.5 * retention)
        ours = select(tokens, scores, quota)
        assert all(torch.equal(naive_select(t, f, quota), o) for t, f, o in zip(tokens, scores, ours, strict=True))
        names = {"t": tokens, "f": scores, "quota": quota, "naive_select": naive_select, "select": select}
        loops = Timer("for pair in zip(t, f): naive_select(*pair, quota)", globals=names, num_threads=threads)
        once = Timer("select(t, f, quota)", globals=names, num_threads=threads)
        runs = [(loops.timeit(10).mean, once.timeit(50).mean) for _ in range(rounds)]
        slow, fast = (1000 * median(column) for column in zip(*runs, strict=True))
        print(f"| {threads} | {videos} | {retention:g} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |", flush=True)


if __name__ == "__main__":
    main()
