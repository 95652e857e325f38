"""`python benchmarks/methods.py`: each method's compression step against a straight transcription of its formula.

Both are timed in one run, one after the other, on the same inputs, and must agree: indices equal, numbers to 1e-4. The
transcriptions are `tests/naive/`. Times are medians of wall-clock seconds; on a shared machine only ratios mean much.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

TESTS = Path(__file__).parents[1] / "tests"
MODULES = ("fastv", "visionzip", "dycoke", "divprune", "prunevid", "framefusion", "holitom", "fastvid", "flashvid")


def main() -> int:
    """Print a table; the exit status is 1 where two results differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=196, help="tokens a frame (default: %(default)s)")
    parser.add_argument("--width", type=int, default=896, help="of the LLM (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of each; the transcription stops after 20 s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=MODULES, default=MODULES)
    args = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    torch.set_num_threads(args.threads)
    print(f"{args.frames} x {args.size} x {args.width} on {args.device}, {args.threads} threads\n")
    print("| method | step | transcription, ms | ours, ms | ratio | largest difference |\n|---|---|---|---|---|---|")
    wrong = 0
    for name in args.methods:
        for step, (make, fast, naive) in import_module(f"naive.{name}").CASES.items():
            inputs = [_to(part, args.device) for part in make(args.frames, args.size, args.width)]
            theirs, slow = timed(naive, inputs, args.repeats)
            ours, quick = timed(fast, inputs, 3 * args.repeats)
            apart = difference(ours, theirs)
            wrong += apart > 1e-4
            ratio = f"{slow / quick:.1f}" + (" DIFFERS" if apart > 1e-4 else "")
            print(f"| {name} | {step} | {1000 * slow:.1f} | {1000 * quick:.2f} | {ratio} | {apart:.1e} |", flush=True)
    return int(wrong > 0)


def timed(step: Callable[..., Any], inputs: list[Any], repeats: int, most: float = 20.0) -> tuple[Any, float]:
    """The result and the median seconds of at most `repeats` calls, or as many as fit into `most` seconds."""
    seconds: list[float] = []
    result = None
    while len(seconds) < repeats and sum(seconds) < most:
        fresh = [part.clone() if isinstance(part, Tensor) else part for part in inputs]
        _synchronise(inputs)
        start = time.perf_counter()
        result = step(*fresh)
        _synchronise(inputs)
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def difference(ours: Any, theirs: Any) -> float:
    """Largest absolute difference of all tensors of two results; infinite where shapes or indices differ."""
    worst = 0.0
    for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        if a.shape != b.shape or (not a.is_floating_point() and not torch.equal(a.long().cpu(), b.long().cpu())):
            return float("inf")
        if a.numel() and a.is_floating_point():
            worst = max(worst, (a.double().cpu() - b.double().cpu()).abs().max().item())
    return worst


def _to(part: Any, device: str) -> Any:
    return part.to(device) if isinstance(part, Tensor) else part


def _synchronise(inputs: list[Any]) -> None:
    if any(isinstance(part, Tensor) and part.is_cuda for part in inputs):
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
