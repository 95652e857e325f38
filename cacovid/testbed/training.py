"""What all training stages share: precision, optimiser, resumable state, progress bar and log."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cacovid.testbed.families import VideoModel
from cacovid.testbed.muon import Muon

_ATTENTION = "sdpa_float32"


def _attention_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """SDPA in float32 inside bf16 autocast: the bf16 kernel's backward is twice as slow on CPUs."""
    groups = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        out = nn.functional.scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(groups, 1),
            value.float().repeat_interleave(groups, 1),
            attn_mask=mask,
            scale=options.get("scaling"),
        )
    return out.transpose(1, 2).contiguous(), None


def use_training_attention(model: VideoModel) -> None:
    """Let the language model attend in float32 while it is trained; the saved files do not know of it."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention_float32)
    model.model.language_model.config._attn_implementation = _ATTENTION


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """bf16 autocast where the hardware has fast bf16 (AMX, CUDA), else float32."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def worker() -> tuple[int, int]:
    """This process's number and how many processes train together."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def share(total: int) -> int:
    """One worker's part of a batch."""
    return max(1, total // worker()[1])


def _average_gradients(weights: Sequence[Tensor]) -> None:
    """Make every worker step along the mean of all workers' gradients."""
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([part.flatten() for part in parts])
    torch.distributed.all_reduce(flat)
    flat /= worker()[1]
    for weight, part in zip(weights, flat.split([part.numel() for part in parts]), strict=True):
        weight.grad = part.view_as(weight)


class Run:
    """One stage of training: a step function called `steps` times, saved and logged on the way.

    `step(number)` returns the loss; it draws its own data from the step and the worker alone, so that a
    resumed run sees what an unbroken one would see. `modules` holds all that learns: the matrices of linear
    layers by Muon at twenty times the rate `peak`, all else (and whatever is called a probe) by AdamW at `peak`.
    """

    def __init__(self, name: str, folder: Path, modules: dict[str, nn.Module], peak: float, steps: int) -> None:
        self.name, self.folder, self.modules, self.steps = name, folder, modules, steps
        weights = {id(p): p for module in modules.values() for p in module.parameters() if p.requires_grad}
        self.weights = list(weights.values())
        hidden = {
            id(part.weight)
            for name, module in modules.items()
            if not name.startswith("probe")
            for part in module.modules()
            if isinstance(part, nn.Linear)
        }
        matrices = [weight for key, weight in weights.items() if key in hidden]
        others = [weight for key, weight in weights.items() if key not in hidden]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(matrices, lr=20 * peak),
            "adamw": torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.01),
        }
        self.state: dict[str, Any] = {}
        """Further JSON-like state of the stage (such as a curriculum's level), saved with the rest."""
        self.clock = 0.0
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def finished(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.name}.part.pt"

    def log(self, step: int, **values: Any) -> None:
        """Add a line to the run's log; only the first worker does."""
        if worker()[0]:
            return
        row = {"stage": self.name, "step": step, "seconds": round(self.clock, 1), **values}
        with open(self.folder / f"{self.name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _save(self, path: Path, step: int, whole: bool) -> None:
        if worker()[0]:
            return
        data: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        data |= {"step": step, "state": self.state, "clock": self.clock}
        if whole:
            data["optimizers"] = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        temporary = path.with_suffix(".tmp")
        torch.save(data, temporary)
        os.replace(temporary, path)

    def _load(self, path: Path) -> int:
        data = torch.load(path, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(data[name])
        for name, state in data.get("optimizers", {}).items():
            self.optimizers[name].load_state_dict(state)
        self.state, self.clock = data["state"], data["clock"]
        return int(data["step"])

    def _rate(self, step: int, warmup: int, decay: float) -> float:
        """Share of the peak rates: up, hold, then fall linearly to a twentieth over the last share `decay`."""
        left = (self.steps - step) / max(1.0, decay * self.steps)
        return min(1.0, (step + 1) / warmup, max(left, 0.05))

    def fit(
        self, step_loss: Callable[[int], Tensor], warmup: int = 50, decay: float = 0.3, save_every: int = 50
    ) -> None:
        """Train, or resume, or only load what an earlier run finished."""
        if worker()[1] > 1:
            torch.distributed.barrier()
        if self.finished.exists():
            self._load(self.finished)
            return
        begin = self._load(self.partial) if self.partial.exists() else 0
        peaks = [float(optimizer.defaults["lr"]) for optimizer in self.optimizers.values()]
        bar: Iterable[int] = tqdm(
            range(begin, self.steps), desc=self.name, initial=begin, total=self.steps, disable=worker()[0] > 0
        )
        for step in bar:
            started = time.monotonic()
            loss = step_loss(step)
            for weight in self.weights:
                weight.grad = None
            loss.backward()
            if worker()[1] > 1:
                _average_gradients(self.weights)
            nn.utils.clip_grad_norm_(self.weights, 1.0)
            for optimizer, peak in zip(self.optimizers.values(), peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * self._rate(step, warmup, decay)
                optimizer.step()
            self.clock += time.monotonic() - started
            if (step + 1) % save_every == 0:
                self._save(self.partial, step + 1, whole=True)
        self._save(self.finished, self.steps, whole=False)
        if worker()[0] == 0:
            self.partial.unlink(missing_ok=True)
