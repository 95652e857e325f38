"""Attention backends, each run on a small random decoder and compared with eager attention."""

from typing import TYPE_CHECKING

from cacovid.commands.checks.result import Check, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOLERANCE = 2e-2  # largest difference of hidden states of order 1; bfloat16 keeps 8 bits


def check_attention() -> list[Check]:
    """eager and sdpa are required, flash_attention_2 is faster where there is a CUDA device."""
    import torch

    try:
        expected = _run("eager", "cpu", torch.float32)
    except Exception as error:
        return [Check(name="eager", state="problem", detail=reason(error), get="reinstall torch and transformers")]
    done = Check(name="eager", state="ok", detail="ran on the CPU")
    return [done, _compare("sdpa", "cpu", expected), _flash(expected)]


def _run(attention: str, device: str, dtype: "torch.dtype") -> "Tensor":
    """Last hidden states (L, D) of a two-layer decoder with grouped queries; the same weights in every call."""
    import torch
    from transformers import Qwen2Config, Qwen2Model

    config = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=32,
    )
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2Model(config).eval()
    model = model.to(device=device, dtype=dtype)
    with torch.inference_mode():
        return model(torch.arange(32, device=device)[None]).last_hidden_state[0].float().cpu()


def _compare(attention: str, device: str, expected: "Tensor", *, required: bool = True) -> Check:
    import torch

    get = "reinstall torch and transformers" if required else "reinstall flash-attn for this torch build"
    try:
        found = _run(attention, device, torch.float32 if device == "cpu" else torch.bfloat16)
    except Exception as error:
        return Check(name=attention, state="problem", detail=reason(error), get=get, required=required)
    difference = (found - expected).abs().max().item()
    if not difference < (TOLERANCE if device == "cpu" else 10 * TOLERANCE):
        detail = f"differs from eager attention by up to {difference:.2g}"
        return Check(name=attention, state="problem", detail=detail, get=get, required=required)
    detail = f"ran on {device}, at most {difference:.1g} from eager attention"
    return Check(name=attention, state="ok", detail=detail, required=required)


def _flash(expected: "Tensor") -> Check:
    import torch
    from transformers.utils import is_flash_attn_2_available

    name = "flash_attention_2"
    if not torch.cuda.is_available():
        detail, get = "needs a CUDA device; sdpa is used on a CPU", "a machine with an NVIDIA GPU (Ampere or newer)"
    elif not is_flash_attn_2_available():
        detail, get = "the package flash-attn is not installed", "pip install flash-attn --no-build-isolation"
    else:
        return _compare(name, "cuda", expected, required=False)
    return Check(name=name, state="missing", detail=detail, get=get, required=False)
