"""FastV's scores the plain way: the whole attention matrix of one layer, head by head, then its rows averaged."""

from functools import cache

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from baselines._attention_rows import row_scores as fast
from cacovid.backbones.decoder import Decoder
from cacovid.state import PrefillState

BEFORE, AFTER = 14, 21  # prompt rows around the video, the newline token among them


def row_scores(state, rows):
    layer = state.layers[state.layer - 1]
    attention, width = layer.self_attn, layer.self_attn.head_dim
    normed = layer.input_layernorm(state.inputs[state.layer - 1])
    query, key = attention.q_proj(normed), attention.k_proj(normed)
    cos, sin = state.rotary(state.positions)
    behind = torch.ones(len(normed), len(normed), dtype=torch.bool).triu(1)
    scores = []
    for head in range(query.shape[1] // width):
        shared = head // attention.num_key_value_groups
        q, k = query[:, head * width : (head + 1) * width], key[:, shared * width : (shared + 1) * width]
        q, k = apply_rotary_pos_emb(q[None, None], k[None, None], cos[None], sin[None])
        logits = q[0, 0].float() @ k[0, 0].float().T * width**-0.5
        whole = logits.masked_fill_(behind, float("-inf")).softmax(-1)
        scores.append(whole[rows].mean(0))
    return torch.stack(scores).mean(0)[state.span]


@cache
def decoder(width):
    """One random Qwen2 layer; at 896 with the heads of Qwen2-0.5B."""
    heads = max(width // 64, 1)
    config = Qwen2Config(
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=2 - heads % 2,
        vocab_size=8,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).requires_grad_(False)
    return Decoder(model.model, model.lm_head)


def state_of(hidden):
    """Before layer 1 of `decoder`, with a video between the prompt's halves."""
    stack, video = decoder(hidden.shape[1]), len(hidden) - BEFORE - AFTER
    return PrefillState(
        video=None,
        layer=1,
        layers=stack.layers,
        inputs={0: hidden},
        current=hidden,
        positions=torch.arange(len(hidden)),
        span=slice(BEFORE, BEFORE + video),
        flat=torch.arange(video),
        rotary=stack.rotary,
        shape=stack.shape,
        lookups=[],
    )


def _inputs(frames, size, width):
    decoder(width)
    rows = BEFORE + frames * size + AFTER
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)),)


def _last_row(scores):
    def run(hidden):
        state = state_of(hidden)
        return scores(state, state.last_row)

    return run


CASES = {"last row": (_inputs, _last_row(fast), _last_row(row_scores))}
