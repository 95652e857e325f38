"""The policy network: what it may see, what it starts from, and in which precision it scores."""

from pathlib import Path

import pytest
import torch

from cacovid.policy.checkpoint import load_policy, save_policy
from cacovid.policy.network import CompressionPolicy, keep_scores
from tiny import tiny_model, tiny_policy
from tiny_qwen import tiny_qwen_model

SPAN = slice(4, 4 + 6 * 16)


def logits(policy: CompressionPolicy, embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return policy(embeds, SPAN, 6)


@pytest.fixture
def two_questions() -> tuple[torch.Tensor, torch.Tensor]:
    """The same prefix and video, other words behind it."""
    torch.manual_seed(0)
    first = torch.randn(1, 120, 48)
    second = first.clone()
    second[:, SPAN.stop + 1 :] = torch.randn(1, 120 - SPAN.stop - 1, 48)
    return first, second


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_only_bidirectional_attention_sees_the_question(attention: str, two_questions) -> None:
    policy = tiny_policy(attention)
    (tokens, frames), (other_tokens, other_frames) = (logits(policy, embeds) for embeds in two_questions)
    assert torch.equal(tokens, other_tokens) == (attention == "causal")
    assert torch.equal(frames, other_frames) == (attention == "causal")


def test_the_layer_starts_as_the_llms_first() -> None:
    llm = tiny_model().model.language_model
    policy = CompressionPolicy.from_llm(llm)
    for name, weight in llm.layers[0].state_dict().items():
        assert torch.equal(policy.layers[0].state_dict()[name], weight)
    with torch.no_grad():
        policy.layers[0].mlp.up_proj.weight.zero_()
    assert llm.layers[0].mlp.up_proj.weight.any(), "a copy, not the LLM's own weights"


@pytest.mark.parametrize("llm", [tiny_model, tiny_qwen_model])
@pytest.mark.parametrize("rope_theta", [None, 77.0, 1e6])
def test_its_rotary_base_can_be_another_one_and_is_saved(llm, rope_theta, tmp_path: Path) -> None:
    llm = llm().model.language_model
    base = llm.config.rope_parameters["rope_theta"]
    policy = CompressionPolicy.from_llm(llm, rope_theta=rope_theta)
    assert llm.config.rope_parameters["rope_theta"] == base, "the LLM keeps its own"
    save_policy(policy, tmp_path)
    wanted, size = rope_theta or base, policy.rotary.inv_freq.numel()
    for one in (policy, load_policy(str(tmp_path))):
        expected = torch.tensor([wanted ** -(i / size) for i in range(size)])
        torch.testing.assert_close(one.rotary.inv_freq, expected)


def test_a_batch_equals_its_rows() -> None:
    torch.manual_seed(0)
    embeds, policy = torch.randn(3, 120, 48), tiny_policy()
    together = logits(policy, embeds)
    for row in range(3):
        for ours, alone in zip(together, logits(policy, embeds[row : row + 1]), strict=True):
            torch.testing.assert_close(ours[row], alone[0], atol=1e-5, rtol=1e-5)


def test_scores_stay_apart_in_bfloat16() -> None:
    torch.manual_seed(0)
    policy = tiny_policy().to_backbone(torch.empty(0, dtype=torch.bfloat16))
    tokens, frames = logits(policy, torch.randn(1, 120, 48).bfloat16())
    assert tokens.dtype == frames.dtype == torch.float32
    assert len(keep_scores(tokens).unique()) == 96


def test_a_kernel_that_needs_a_full_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel='eager', expected one of sdpa, flash_attention_2"):
        CompressionPolicy(tiny_model().model.language_model.config, "causal", kernel="eager")
