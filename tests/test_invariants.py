"""Equalities that hold for every method: with the stock model at r = 1, between batch sizes, with masking."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from each_family import both_families
from hypothesis import given, settings
from hypothesis import strategies as st

from cacovid.backbones import VideoRequest
from cacovid.method import Method
from cacovid.records import Compressed, LayerCut, VideoTokens
from cacovid.registry import build_method

TOKENS = 6


@pytest.fixture(scope="module")
def generated():
    """Stock results, one run a backbone."""
    return {}


@both_families
def test_r_1_is_bit_identical_to_the_stock_model(each_backbone, ask, stock, generated, case, count):
    request = ask(each_backbone)
    if id(each_backbone) not in generated:
        generated[id(each_backbone)] = stock(each_backbone, request, max_new_tokens=TOKENS)
    expected = generated[id(each_backbone)]
    ours = each_backbone.answer([request], case.build(1.0), max_new_tokens=TOKENS, keep_logits=True)[0]
    assert ours.ids == expected.ids
    assert ours.text == expected.text
    assert len(ours.logits) == len(expected.logits)
    for row, reference in zip(ours.logits, expected.logits, strict=True):
        assert torch.equal(row, reference)
    assert set(ours.spent.layers) == {count(6)}
    assert ours.spent.flops.prefill == ours.spent.flops_full.prefill


@both_families
def test_the_reference_depends_on_every_part_of_the_request(backbone, ask, stock):
    """Guards the test above: a model that ignored video or question would make it pass for nothing."""
    base = stock(backbone, ask(backbone), max_new_tokens=2).logits[0]
    assert not torch.equal(base, stock(backbone, ask(backbone, seed=1), max_new_tokens=2).logits[0])
    assert not torch.equal(base, stock(backbone, ask(backbone, text="Which is it?"), max_new_tokens=2).logits[0])


@pytest.fixture(scope="module")
def mixed():
    """Four requests that share neither length nor frame count nor size."""
    return [
        (6, "What is it?", (40, 60)),
        (1, "Which colour comes after the red ball?", (60, 40)),
        (9, "Why?", (40, 40)),
        (3, "Where is the cup?", (24, 80)),
    ]


@both_families
@pytest.mark.parametrize("retention", [0.5, 0.3, 0.25, 0.1, 0.05])
@pytest.mark.parametrize("attention", ["backbone", "eager"])
def test_batch_4_equals_batch_1(request, attention, ask, mixed, case, retention):
    backbone = request.getfixturevalue(attention)
    method = case.build(1.0 if case.name == "full" else retention)
    requests = [ask(backbone, f, text, seed=i, clip=str(i), size=size) for i, (f, text, size) in enumerate(mixed)]
    batch = backbone.answer(requests, method, max_new_tokens=TOKENS, keep_logits=True)
    for together, alone in zip(
        batch,
        (backbone.answer([r], method, max_new_tokens=TOKENS, keep_logits=True)[0] for r in requests),
        strict=True,
    ):
        assert together.text == alone.text
        assert together.ids == alone.ids
        assert torch.equal(together.compressed.tokens, alone.compressed.tokens), "features bit-equal"
        assert torch.equal(together.kept, alone.kept)
        assert together.spent == alone.spent
        for a, b in zip(together.logits, alone.logits, strict=True):
            # float32: a batch of another shape sums in another order; at the other ratios past 1e-5 in a few cases.
            bound = 1e-5 if retention == 0.3 else 2e-5
            assert (a - b).abs().max() < bound * alone.logits[0].abs().max().clamp_min(1)


def test_whole_frames_are_what_the_stock_model_reads_when_given_only_these(backbone, ask, stock):
    request = ask(backbone, 7)
    method = build_method("fewer_frames", retention=3 / 7, partial=False)
    ours = backbone.answer([request], method, max_new_tokens=TOKENS, keep_logits=True)[0]
    chosen = np.round(np.linspace(0, 6, 3)).astype(int)
    fewer = VideoRequest(request.frames[chosen], request.prompt, request.clip)
    expected = stock(backbone, fewer, max_new_tokens=TOKENS)
    assert ours.ids == expected.ids
    for row, reference in zip(ours.logits, expected.logits, strict=True):
        torch.testing.assert_close(row, reference, rtol=1e-5, atol=1e-5)


# --- dropping equals masking ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Drop(Method):
    """Toy: keeps the given tokens, at layer 0 = before the LLM, with the given positions."""

    index: tuple[int, ...]
    layer: int = 0
    positions: str = "original"

    def compress(self, video, budget):
        index = self.index if self.layer == 0 else range(len(video))
        return Compressed.keep(video, torch.tensor(list(index)))

    def prune_layer(self, layer, state, budget):
        return LayerCut(torch.tensor(self.index)) if layer == self.layer > 0 else None


@contextmanager
def masks_by_layer(layers, masks):
    """Within the block, stock decoder layer l attends under `masks[l]` (L, L), True = may read."""
    handles = []
    for layer, allowed in zip(layers, masks, strict=True):
        additive = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

        def swap(_module, args, kwargs, mask=additive[None, None]):
            return args, {**kwargs, "attention_mask": mask}

        handles.append(layer.register_forward_pre_hook(swap, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def masked_reference(backbone, rows, hidden_from, positions):
    """Logits of the stock language model over all `rows` (L, D), no cache: column j unread by other rows from
    layer hidden_from[j] on."""
    length = len(rows)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    masks = []
    for layer in range(len(backbone.decoder.layers)):
        gone = torch.tensor([layer >= start for start in hidden_from])
        masks.append(causal & ~gone | torch.eye(length, dtype=torch.bool))
    model = backbone.model.model.language_model
    with torch.inference_mode(), masks_by_layer(model.layers, masks):
        hidden = model(inputs_embeds=rows[None], position_ids=positions, use_cache=False).last_hidden_state[0]
        return backbone.model.lm_head(hidden)


def made_up_video(backbone, frames, seed):
    """VideoTokens of noise in the LLM's own scale, with a short prompt around them."""
    generator = torch.Generator().manual_seed(seed)
    embed = backbone.model.get_input_embeddings().weight
    prompt = torch.randint(0, 200, (9,), generator=generator)
    features = torch.randn(frames, 16, embed.shape[1], generator=generator) * embed.std()
    return VideoTokens(
        features=features,
        grid=(4, 4),
        prefix=embed[prompt[:3]],
        newline=embed[prompt[3:4]][: len(backbone.newline)],
        suffix=embed[prompt[4:]],
        question=slice(0, 5),
        clip="made up",
        axes=backbone.axes(prompt[:3], prompt[4:], (frames, 4, 4), 0.5),
    )


def run_decoder(backbone, video, method, tokens):
    """Our prefill and decode steps: logits after the prompt and after each of `tokens`."""
    compressed = method.compress(video, 0)
    sequence = backbone.sequence(video, compressed, 0, method)
    state = backbone.decoder.prefill([sequence])
    logits = [state.logits[0]]
    for step, token in enumerate(tokens):
        logits.append(backbone.decoder.decode(state, torch.tensor([token]), step)[0])
    return torch.stack(logits)


def all_rows(backbone, video, tokens):
    return torch.cat([video.embeds, backbone.model.get_input_embeddings()(torch.tensor(tokens))])


def all_positions(video, tokens):
    """What the stock language model takes as `position_ids`; None: it counts."""
    if video.axes is None:
        return None
    following = video.axes[-1].max() + 1 + torch.arange(len(tokens))
    return torch.cat([video.axes, following[:, None].expand(-1, 3)]).T[:, None]


@both_families
@pytest.mark.parametrize("attention", ["backbone", "eager"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_dropping_with_original_positions_equals_masking(request, family, attention, data):
    backbone = request.getfixturevalue(attention)
    frames = data.draw(st.integers(1, 4), "frames")
    index = data.draw(st.sets(st.integers(0, frames * 16 - 1), min_size=1), "kept")
    layer = data.draw(st.integers(0, 3), "layer")  # 0: before the LLM
    tokens = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=3), "decoded")
    video = made_up_video(backbone, frames, data.draw(st.integers(0, 99), "seed"))
    ours = run_decoder(backbone, video, Drop(index=tuple(sorted(index)), layer=layer), tokens)
    rows = all_rows(backbone, video, tokens)
    hidden_from = [99] * len(rows)
    for n in set(range(len(video))) - index:
        hidden_from[3 + n] = layer
    expected = masked_reference(backbone, rows, hidden_from, all_positions(video, tokens))[-len(tokens) - 1 :]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_compact_positions_are_another_computation(backbone):
    """Guards the property above: with gaps closed the same tokens give other logits."""
    video = made_up_video(backbone, 4, 0)
    index = tuple(range(0, 64, 5))
    original = run_decoder(backbone, video, Drop(index=index), [7])
    compact = run_decoder(backbone, video, Drop(index=index, positions="compact"), [7])
    assert (original - compact).abs().max() > 0.1


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True, scope="session")
def test_three_axes_are_never_closed_up(backbone):
    """Where a token has a place in time, height and width it keeps it, whatever the method does elsewhere."""
    video = made_up_video(backbone, 4, 0)
    index = tuple(range(0, 64, 5))
    original = run_decoder(backbone, video, Drop(index=index), [7])
    assert torch.equal(original, run_decoder(backbone, video, Drop(index=index, positions="compact"), [7]))
    counted = replace(video, axes=torch.arange(video.rows)[:, None].expand(-1, 3))
    assert (original - run_decoder(backbone, counted, Drop(index=index), [7])).abs().max() > 0.1, "the axes matter"


@both_families
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_not_cutting_is_another_computation(backbone, layer):
    video = made_up_video(backbone, 4, 0)
    cut = run_decoder(backbone, video, Drop(index=(5, 40), layer=layer), [7])
    whole = run_decoder(backbone, video, Drop(index=tuple(range(64))), [7])
    assert ((cut - whole).abs().amax(1) > 0.01).all(), "prompt and decoded token alike"


def test_decoding_goes_on_from_the_matching_position(backbone):
    """Compact: the stock model on the shorter sequence. Original: positions count on from the full length."""
    video = made_up_video(backbone, 4, 1)
    index, tokens = tuple(range(0, 64, 7)), [11, 12, 13]
    model = backbone.model.model.language_model
    rows = all_rows(backbone, video, tokens)
    kept = torch.tensor([*range(3), *(3 + i for i in index), *range(67, len(rows))])
    for positions, ids in (("compact", torch.arange(len(kept))), ("original", kept)):
        ours = run_decoder(backbone, video, Drop(index=index, positions=positions), tokens)
        with torch.inference_mode():
            hidden = model(
                inputs_embeds=rows[kept][None],
                position_ids=ids[None],
                attention_mask=torch.ones(1, 1, len(kept), len(kept), dtype=torch.bool).tril(),
                use_cache=False,
            ).last_hidden_state[0]
            expected = backbone.model.lm_head(hidden)[-len(tokens) - 1 :]
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@both_families
@pytest.mark.parametrize("attention", ["backbone", "eager"])
def test_hiding_at_decode_equals_masking_and_tokens_come_back(request, family, attention, hide_half):
    backbone = request.getfixturevalue(attention)
    video = made_up_video(backbone, 3, 2)
    tokens = [11, 12, 13]
    ours = run_decoder(backbone, video, hide_half, tokens)
    rows = all_rows(backbone, video, tokens)
    length, causal = len(rows), torch.ones(len(rows), len(rows), dtype=torch.bool).tril()
    hiding = causal.clone()
    for step in range(len(tokens)):
        hiding[length - len(tokens) + step, 3 : 3 + len(video)] = torch.arange(len(video)) % 2 == step % 2
    model = backbone.model.model.language_model
    with torch.inference_mode(), masks_by_layer(model.layers, [causal, hiding, hiding, hiding]):
        positions = all_positions(video, tokens)
        hidden = model(inputs_embeds=rows[None], position_ids=positions, use_cache=False).last_hidden_state[0]
        expected = backbone.model.lm_head(hidden)[-len(tokens) - 1 :]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    whole = run_decoder(backbone, video, build_method("full"), tokens)
    assert ((ours - whole).abs().amax(1)[1:] > 0.01).all(), "hiding changes every decoded token"
    assert torch.equal(ours[0], whole[0]), "and nothing of the prompt"
