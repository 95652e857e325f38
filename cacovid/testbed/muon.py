"""Muon: momentum whose update of each weight matrix is made orthogonal.

Source: K. Jordan 2024, "Muon: an optimizer for hidden layers in neural networks" (quintic Newton-Schulz
iteration, Nesterov momentum). torch.optim.Muon iterates in bfloat16, matrix by matrix, which took longer
than the model's own step on CPUs without bfloat16 hardware; this one works in float32 on all matrices of a
shape at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration, chosen by its author for a steep slope at zero."""
_ITERATIONS: Final = 5


def orthogonalise(batch: Tensor) -> Tensor:
    """About the nearest semi-orthogonal matrix to each of (n, rows, columns): singular values 0.7 to 1.2."""
    a, b, c = _QUINTIC
    tall = batch.shape[1] > batch.shape[2]
    x = batch.mT if tall else batch
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For 2-D weights of hidden layers; embeddings, norms and biases belong to AdamW.

    The step is scaled by sqrt(max(1, rows / columns)), as its author does.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        assert closure is None, "Muon does not evaluate closures"
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append((weight, weight.grad))
            for shape, pairs in shapes.items():
                weights, gradients = [weight for weight, _ in pairs], [gradient for _, gradient in pairs]
                for weight in weights:
                    if "momentum" not in self.state[weight]:
                        self.state[weight]["momentum"] = torch.zeros_like(weight)
                momenta = [self.state[weight]["momentum"] for weight in weights]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
                steps = orthogonalise(torch.stack(list(ahead))) * max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, list(steps.unbind()), alpha=-group["lr"])
