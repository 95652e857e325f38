"""CaCoVID against the release: logits, kept sets, capping, objective and its gradients."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config

from baselines.fidelity.checks import Check, close, same
from cacovid.policy.network import CompressionPolicy
from cacovid.policy.select import Quota, select
from cacovid.training.capping import cap_probability
from cacovid.training.objective import Objective

LOGITS, CAPPED, LOSSES = 1e-5, 1e-6, 1e-9
"""Largest absolute differences."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `cacovid`."""
    checks: list[Check] = []
    for path in sorted(folder.glob("policy_*.json")):
        checks += _policy(path)
    for number, case in enumerate(json.loads((folder / "cap_probability.json").read_text(encoding="utf-8"))):
        ours = cap_probability(torch.tensor(case["p"]), case["cap"])
        checks.append(close(f"cap_probability[{number}]", ours, torch.tensor(case["capped"]), CAPPED))
    for path in sorted(folder.glob("objective_*.safetensors")):
        checks += _objective(path)
    return checks


def _policy(path: Path) -> list[Check]:
    case = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(path.with_suffix(".safetensors"))
    config = Qwen2Config(
        hidden_size=case["hidden_size"],
        num_attention_heads=case["num_attention_heads"],
        num_key_value_heads=case["num_key_value_heads"],
        intermediate_size=case["intermediate_size"],
        rms_norm_eps=case["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": case["rope_theta"]},
    )
    frames, height, width = case["grid"]
    span = slice(case["video_start"], case["newline_index"])
    weights = {name.removeprefix("weight."): value for name, value in tensors.items() if name.startswith("weight.")}
    checks = []
    for attention in ("bidirectional", "causal"):
        policy = CompressionPolicy(config, attention)
        policy.load_state_dict(weights)
        with torch.inference_mode():
            logits = policy(tensors["inputs_embeds"], span, frames)
        for name, ours in zip(("token_logits", "frame_logits"), logits, strict=True):
            checks.append(close(f"{path.stem} {attention} {name}", ours[0], tensors[f"{attention}.{name}"], LOGITS))
    for setting in case["selections"]:
        stored = [tensors[f"{setting['attention']}.{name}"][None] for name in ("token_logits", "frame_logits")]
        quota = Quota.of(setting["retention"], frames, height * width, setting["imp_ratio"], setting["max_frame_ratio"])
        kept = select(stored[0], stored[1], quota)[0]
        checks.append(same(f"{path.stem} {setting['name']}", kept, tensors[setting["name"]]))
    return checks


def _objective(path: Path) -> list[Check]:
    t = load_file(path)
    tokens, frames = t["token_logits"].requires_grad_(), t["frame_logits"].requires_grad_()
    objective = Objective()
    token_loss = objective.tokens(tokens, t["old_token_logits"], t["token_masks"], t["token_rewards"])
    frame_loss = objective.frames(frames, t["old_frame_logits"], t["frame_masks"], t["frame_rewards"])
    (token_loss + frame_loss).backward()
    assert tokens.grad is not None and frames.grad is not None
    ours = {
        "token_loss": token_loss.detach()[None],
        "frame_loss": frame_loss.detach()[None],
        "grad_token_logits": tokens.grad,
        "grad_frame_logits": frames.grad,
    }
    return [close(f"{path.stem} {name}", value, t[name], LOSSES) for name, value in ours.items()]
