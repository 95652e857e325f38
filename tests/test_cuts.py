"""Cuts inside the LLM: in the middle of a layer, and out of the caches of layers that already ran."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from cacovid.errors import MethodError
from cacovid.method import Method
from cacovid.records import LayerCut


@dataclass(frozen=True, kw_only=True)
class Cut(Method):
    """Toy: keep the first `budget` video tokens at one place, with or without eviction."""

    where: str = "prune_layer"
    layer: int = 1
    evict: bool = False
    again: bool = False
    adaptive: ClassVar[bool] = True  # cutting again leaves one less

    def _at(self, where, layer, state, budget):
        if (where, layer) != (self.where, self.layer) and not (self.again and layer == self.layer + 1):
            return None
        keep = torch.arange(min(budget, len(state.flat) - self.again))
        return LayerCut(keep, evict=self.evict and (not self.again or layer > self.layer))

    def prune_layer(self, layer, state, budget):
        return self._at("prune_layer", layer, state, budget)

    def schedule(self, video, layers):
        return [len(video)] * self.layer + [self.budget(len(video))] * (layers - self.layer)


@dataclass(frozen=True, kw_only=True)
class InnerCut(Cut):
    """Toy: the same between attention and feed-forward part."""

    where: str = "prune_after_attention"

    def prune_after_attention(self, layer, state, budget):
        return self._at("prune_after_attention", layer, state, budget)


def test_a_layer_in_two_halves_is_the_stock_layer(each_backbone, ask):
    request = ask(each_backbone)
    whole = each_backbone.answer([request], Method(), max_new_tokens=4, keep_logits=True)[0]
    halves = each_backbone.answer([request], InnerCut(), max_new_tokens=4, keep_logits=True)[0]
    assert all(torch.equal(a, b) for a, b in zip(whole.logits, halves.logits, strict=True)), "bit-identical"


def test_a_cut_after_the_attention_is_a_cut_before_the_next_layer(backbone, ask):
    """No later token reads what was cut, and the feed-forward part is row by row: only its cost differs."""
    request = ask(backbone)
    inner = backbone.answer([request], InnerCut(retention=0.25), max_new_tokens=4, keep_logits=True)[0]
    outer = backbone.answer([request], Cut(retention=0.25, layer=2), max_new_tokens=4, keep_logits=True)[0]
    for a, b in zip(inner.logits, outer.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert inner.spent.layers == outer.spent.layers
    assert inner.spent.kept == 24
    saved = outer.spent.flops.prefill - inner.spent.flops.prefill
    shape = backbone.decoder_shape
    assert saved == 2 * 72 * 3 * shape.width * shape.feed_forward, "layer 1 fed 24 of 96 video tokens"


def test_eviction_equals_masking(backbone, ask):
    """Layers before the cut computed all tokens; a decoded token must not see the dropped ones there."""
    request = ask(backbone)

    class Hide(Cut):
        def visible(self, layer, step, state, budget):
            return torch.arange(budget) if layer < self.layer else None

    evicted = backbone.answer([request], Cut(retention=0.25, evict=True), max_new_tokens=5, keep_logits=True)[0]
    hidden = backbone.answer([request], Hide(retention=0.25), max_new_tokens=5, keep_logits=True)[0]
    stays = backbone.answer([request], Cut(retention=0.25), max_new_tokens=5, keep_logits=True)[0]
    for a, b in zip(evicted.logits, hidden.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert (evicted.logits[1] - stays.logits[1]).abs().max() > 1e-4, "without eviction layer 0 shows all tokens"
    assert evicted.spent.layers == stays.spent.layers, "what was computed stays computed"
    assert evicted.spent.decode_visible == 24
    assert stays.spent.decode_visible > 24


@pytest.mark.parametrize("evict", [False, True])
@pytest.mark.parametrize("kind", [Cut, InnerCut])
def test_a_batch_equals_single_requests(backbone, ask, kind, evict):
    requests = [ask(backbone, frames, seed=frames) for frames in (6, 2, 4)]
    method = kind(retention=0.25, evict=evict)
    batch = backbone.answer(requests, method, max_new_tokens=4, keep_logits=True)
    for request, together in zip(requests, batch, strict=True):
        alone = backbone.answer([request], method, max_new_tokens=4, keep_logits=True)[0]
        assert alone.ids == together.ids
        for a, b in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=5e-5)


def test_an_eviction_after_another_cut_is_refused(backbone, ask):
    with pytest.raises(MethodError, match=r"Cut evicts 1 of \d+ rows, but an earlier layer holds \d+; .* first cut"):
        backbone.answer([ask(backbone)], Cut(retention=0.25, layer=1, evict=True, again=True), max_new_tokens=2)
