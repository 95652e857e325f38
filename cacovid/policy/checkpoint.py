"""Policies on disk: our own folder, and the layout of the authors' release.

Ours: `policy.safetensors` (the policy's weights alone) and `policy.json` (the LLM's sizes, the attention that it was
trained with, and whatever else made it). The release: a whole LLaVA-OneVision checkpoint, with the policy's
weights under `compression_policy.`, in one file or in shards with an index.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

import cacovid
from cacovid.errors import CheckpointError
from cacovid.policy.network import Attention, CompressionPolicy, Habit
from cacovid.weights import finder

FORMAT: Final = 1
PREFIX: Final = "compression_policy."
WEIGHTS, SETTINGS = "policy.safetensors", "policy.json"
_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"

_TESTBEDS: Final = {"testbed": "policy", "testbed_qwen2_5_vl": "policy_qwen2_5_vl"}
TESTBED_POLICIES: Final = {
    f"{testbed}-{seed}" if seed else testbed: Path(cacovid.__file__).parent / "testbed" / folder / str(seed)
    for testbed, folder in _TESTBEDS.items()
    for seed in range(3)
}
"""Name -> folder of the policies that come with the package: three seeds of one training for each test-bed LLM."""

Choice = Literal["auto", "bidirectional", "causal"]
"""Which attention a loaded policy runs with; `auto` is what it was trained with."""


def save_policy(policy: CompressionPolicy, folder: Path, **settings: Any) -> None:
    """Write weights and settings, each beside and renamed. `settings`: plain data to keep with them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in policy.state_dict().items()}
    record = {
        "format": FORMAT,
        "attention": policy.attention,
        "text_config": policy.text_config.to_diff_dict() | {"model_type": policy.text_config.model_type},
        "settings": settings,
    }
    save_file(weights, folder / f"{WEIGHTS}.part")
    (folder / f"{SETTINGS}.part").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name in (WEIGHTS, SETTINGS):
        os.replace(folder / f"{name}.part", folder / name)


def load_policy(source: str, attention: Choice = "auto") -> CompressionPolicy:
    """Load a policy from a folder, a hub id or a name of TESTBED_POLICIES; float32, on the CPU.

    With `attention="auto"` one of ours runs as it was trained, and one of the release `causal`, which is what the
    released code really computes (see `CompressionPolicy`). Its `habit` is the selection that it was validated with.
    Raises CheckpointError if there is none, or if weights are missing, unknown or of another shape.
    """
    names = ", ".join(TESTBED_POLICIES)
    expected = f"a folder with {SETTINGS} or with a released checkpoint, a hub id, or one of {names}"
    find = finder(str(TESTBED_POLICIES.get(source, source)), "policy", f"expected {expected}")
    if (settings := find(SETTINGS)) is not None:
        record = json.loads(settings.read_text(encoding="utf-8"))
        if record.get("format") != FORMAT:
            raise CheckpointError(f"{settings} has format {record.get('format')!r}, expected {FORMAT}")
        path = find(WEIGHTS)
        if path is None:
            raise CheckpointError(f"policy={source!r} has {SETTINGS} but no {WEIGHTS}; copy or train it again")
        text = AutoConfig.for_model(**record["text_config"])
        weights, trained = load_file(path), record["attention"]
        validated = record["settings"].get("validation", {})  # the selection that it was chosen by
        habit = Habit(**{name: validated[name] for name in Habit.__slots__ if name in validated})
    else:
        text, weights = _release(source, find)
        trained, habit = "causal", Habit()
    policy = CompressionPolicy(text, trained if attention == "auto" else attention)
    _fill(policy, weights, source)
    policy.habit = habit
    return policy.eval().requires_grad_(False)


def _release(source: str, find: Callable[[str], Path | None]) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
    """Text configuration and policy weights of a checkpoint in the release's layout; reads no other weights."""
    config, index, whole = find("config.json"), find(_INDEX), find(_WHOLE)
    if config is None or (index is None and whole is None):
        raise CheckpointError(
            f"policy={source!r} holds neither {SETTINGS} nor a checkpoint (config.json with {_INDEX} or {_WHOLE})"
        )
    if index is not None:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({file for name, file in table.items() if name.startswith(PREFIX)})
        paths = {file: find(file) for file in files}
        if lacking := [file for file, path in paths.items() if path is None]:
            raise CheckpointError(f"policy={source!r} lacks the shards {', '.join(lacking)}; download it again")
        shards: Iterable[Path] = [path for path in paths.values() if path is not None]
    else:
        shards = [whole] if whole is not None else []
    weights: dict[str, Tensor] = {}
    for path in shards:
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118  no mapping
                weights |= {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}; download it again") from error
    if not weights:
        raise CheckpointError(f"policy={source!r} is a checkpoint without a policy: no weight starts with {PREFIX!r}")
    return AutoConfig.from_pretrained(config.parent).get_text_config(), weights


def _fill(policy: CompressionPolicy, weights: dict[str, Tensor], source: str) -> None:
    """Load all weights, naming whatever does not fit."""
    expected = policy.state_dict()
    problems = []
    if missing := sorted(set(expected) - set(weights)):
        problems.append(f"missing: {', '.join(missing)}")
    if extra := sorted(set(weights) - set(expected)):
        problems.append(f"unknown: {', '.join(extra)}")
    shapes = [
        f"{name} {tuple(weights[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(weights))
        if weights[name].shape != expected[name].shape
    ]
    if shapes:
        problems.append(f"of another shape: {'; '.join(shapes)}")
    if problems:
        raise CheckpointError(f"policy={source!r} does not fit its own configuration. " + ". ".join(problems))
    policy.load_state_dict({name: weight.to(torch.float32) for name, weight in weights.items()})


__all__ = ["PREFIX", "Attention", "Choice", "load_policy", "save_policy"]
