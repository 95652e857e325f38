"""SigLIP's attention-pooling head, which a LLaVA-OneVision checkpoint does not hold, on the patches of its tower.

A learned probe attends to the patches of a frame. Its attention is FastVID's saliency, what it pools is the frame's
descriptor. The probe is one fixed query: it is multiplied into the key projection once, and the patches are averaged
before the value projection, which gives the head's own numbers for h / E of the products.
h heads, d = E / h, M width of the head's MLP.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import layer_norm, linear
from transformers import AutoConfig
from transformers.activations import ACT2FN

from cacovid.errors import CheckpointError, MethodError
from cacovid.weights import finder

PUBLISHED: Final = "google/siglip-so400m-patch14-384"
"""The SigLIP whose head FastVID takes for LLaVA-OneVision (its tower is the first 26 of the 27 layers, fine-tuned)."""

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_ADVICE = f"give a stock SigLIP checkpoint, for the published LLaVA-OneVision {PUBLISHED}"
FRAMES_AT_ONCE = 32


class PoolingHead:
    """`post_layernorm` and `head` of a SigLIP vision model, float32."""

    def __init__(self, weights: dict[str, Tensor], heads: int, eps: float, activation: Callable) -> None:
        self.weights, self.heads, self.eps, self.activation = weights, heads, eps, activation
        query, key = weights["head.attention.in_proj_weight"].chunk(3)[:2]  # (E, E)
        bias = weights["head.attention.in_proj_bias"].chunk(3)[0]
        probe = linear(weights["head.probe"].flatten(), query, bias).unflatten(0, (heads, -1))  # (h, d)
        # the key bias adds the same to every logit of a head, which the softmax takes away again
        scale = probe.shape[1] ** -0.5
        self.probe: Float[Tensor, "h E"] = scale * torch.einsum("hd,hde->he", probe, key.unflatten(0, (heads, -1)))

    @property
    def width(self) -> int:
        """E, the width of the tower."""
        return self.probe.shape[1]

    def flops(self, frames: int, patches: int) -> int:
        """Matrix products of reading `frames` frames (one multiply-add = 2)."""
        width, mlp = self.width, self.weights["head.mlp.fc1.weight"].shape[0]
        return 2 * frames * (2 * patches * self.heads * width + 2 * width * width + 2 * width * mlp)

    def __call__(self, patches: Float[Tensor, "F P E"]) -> tuple[Float[Tensor, "F P"], Float[Tensor, "F E"]]:
        """Attention of the probe to each patch (mean over heads, rows sum to 1), and what the head pools; float32.

        Raises MethodError for patches of another width.
        """
        if patches.shape[-1] != self.width:
            raise MethodError(
                f"the head is for a tower of width {self.width}, this tower has width {patches.shape[-1]}: "
                f"give head= the SigLIP that the backbone's tower was made from"
            )
        parts = [self._read(part.float()) for part in patches.split(FRAMES_AT_ONCE)]
        attention, pooled = zip(*parts, strict=True)
        return torch.cat(attention), torch.cat(pooled)

    def _read(self, x: Float[Tensor, "f P E"]) -> tuple[Float[Tensor, "f P"], Float[Tensor, "f E"]]:
        w = self.weights
        x = self._norm(x, "post_layernorm")
        attention = (x @ self.probe.T).softmax(1)  # (f, P, h)
        means = attention.transpose(1, 2) @ x  # (f, h, E)
        value, bias = (w[f"head.attention.in_proj_{name}"].chunk(3)[2] for name in ("weight", "bias"))
        values = torch.einsum("fhe,hde->fhd", means, value.unflatten(0, (self.heads, -1))).flatten(1) + bias
        pooled = linear(values, w["head.attention.out_proj.weight"], w["head.attention.out_proj.bias"])
        inner = linear(self._norm(pooled, "head.layernorm"), w["head.mlp.fc1.weight"], w["head.mlp.fc1.bias"])
        pooled = pooled + linear(self.activation(inner), w["head.mlp.fc2.weight"], w["head.mlp.fc2.bias"])
        return attention.mean(2), pooled

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(x, (self.width,), weight, bias, self.eps)


@lru_cache(maxsize=4)
def load_head(source: str, device: torch.device) -> PoolingHead:
    """The head of a stock SigLIP checkpoint, a folder or a hub id; reads none of its other weights.

    Raises CheckpointError where there is no checkpoint, or where it lacks the head or has it in other shapes.
    """
    find = finder(source, "head", _ADVICE)
    config = find("config.json")
    files = _files(source, find)
    if config is None or not files:
        raise CheckpointError(f"head={source!r} has no config.json with {_WHOLE} or {_INDEX}; {_ADVICE}")
    whole: Any = AutoConfig.from_pretrained(config.parent)
    vision = getattr(whole, "vision_config", whole)
    if vision.model_type != "siglip_vision_model":
        raise CheckpointError(f"head={source!r} is a {whole.model_type} checkpoint, expected siglip; {_ADVICE}")
    expected = _shapes(vision.hidden_size, vision.intermediate_size)
    weights: dict[str, Tensor] = {}
    for path in files:
        weights |= _read_file(path, expected)
    if missing := sorted(set(expected) - set(weights)):
        raise CheckpointError(
            f"head={source!r} lacks {len(missing)} of {len(expected)} weights of the attention-pooling head, first "
            f"{missing[0]} (LLaVA checkpoints drop it); {_ADVICE}"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            got = tuple(weights[name].shape)
            raise CheckpointError(f"head={source!r} has {name} {got}, expected {shape} by its config.json; {_ADVICE}")
    weights = {name: weight.to(device, torch.float32) for name, weight in weights.items()}
    return PoolingHead(weights, vision.num_attention_heads, vision.layer_norm_eps, ACT2FN[vision.hidden_act])


@lru_cache(maxsize=4)
def fingerprint(source: str) -> str:
    """SHA-256 of a head's weights: another checkpoint in the same folder is another run."""
    total = sha256()
    for name, weight in sorted(load_head(source, torch.device("cpu")).weights.items()):
        total.update(name.encode() + b"\0" + weight.contiguous().numpy().tobytes())
    return total.hexdigest()


def _shapes(width: int, mlp: int) -> dict[str, tuple[int, ...]]:
    """Names, without prefix, and shapes of what is read."""
    return {
        "post_layernorm.weight": (width,),
        "post_layernorm.bias": (width,),
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
        "head.attention.out_proj.weight": (width, width),
        "head.attention.out_proj.bias": (width,),
        "head.layernorm.weight": (width,),
        "head.layernorm.bias": (width,),
        "head.mlp.fc1.weight": (mlp, width),
        "head.mlp.fc1.bias": (mlp,),
        "head.mlp.fc2.weight": (width, mlp),
        "head.mlp.fc2.bias": (width,),
    }


def _bare(name: str) -> str:
    """A weight's name without the prefix that whole SigLIP models have and lone vision models of transformers v5 not.

    The text model has weights called `head.*` too: its prefix stays on.
    """
    return name.removeprefix("vision_model.")


def _files(source: str, find: Callable[[str], Path | None]) -> list[Path]:
    """The weight files that hold the head, whole or sharded."""
    index = find(_INDEX)
    if index is None:
        whole = find(_WHOLE)
        return [] if whole is None else [whole]
    table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    wanted = _shapes(1, 1).keys()
    names = sorted({file for name, file in table.items() if _bare(name) in wanted})
    if not names:
        raise CheckpointError(f"head={source!r} holds no attention-pooling head (LLaVA checkpoints drop it); {_ADVICE}")
    paths = {name: find(name) for name in names}
    if lacking := [name for name, path in paths.items() if path is None]:
        raise CheckpointError(f"head={source!r} lacks the shards {', '.join(lacking)}; download it again")
    return [path for path in paths.values() if path is not None]


def _read_file(path: Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {_bare(n): file.get_tensor(n) for n in file.keys() if _bare(n) in wanted}  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}; download it again") from error
