"""Attention top-k against worked examples: received or given, per frame or global, pooled scores, rows in the LLM."""

from math import ceil, floor
from types import SimpleNamespace

import pytest
import torch

from cacovid.attention import received
from cacovid.errors import MethodError
from cacovid.records import VideoTokens
from cacovid.registry import build_method
from cacovid.select import top_k

PER_HEAD = torch.tensor(
    [
        [[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.4, 0.1, 0.4, 0.1], [0.1, 0.1, 0.1, 0.7]],
        [[0.1, 0.1, 0.1, 0.7], [0.2, 0.2, 0.2, 0.4], [0.1, 0.3, 0.2, 0.4], [0.1, 0.1, 0.7, 0.1]],
    ]
)  # (heads, queries, keys)
FRAMES = torch.tensor([[0.30, 0.25, 0.20, 0.15, 0.10], [0.22, 0.21, 0.20, 0.19, 0.18], [0.90, 0.04, 0.03, 0.02, 0.01]])


def video_with(scores: torch.Tensor) -> VideoTokens:
    """Random features whose tower attention is `scores` (F, S)."""
    features = torch.randn(*scores.shape, 8, generator=torch.Generator().manual_seed(0))
    row = features.new_zeros(1, 8)
    captured = {"received_attention": scores}
    return VideoTokens(features, (1, scores.shape[1]), row, row, row, slice(0, 1), "clip", captured)


def test_t1_attention_received_not_given():
    # logits log(p) against unit keys give exactly the maps above
    query, key = PER_HEAD.log()[None], torch.eye(4).expand(1, 2, 4, 4)
    scores = received(query, key, scaling=1.0)[0]
    torch.testing.assert_close(scores, torch.tensor([0.2625, 0.1625, 0.25, 0.325]), rtol=0, atol=1e-6)
    assert scores.sum().item() == pytest.approx(1)
    assert top_k(scores, 2).tolist() == [0, 3]
    torch.testing.assert_close(PER_HEAD.mean((0, 2)), torch.full((4,), 0.25)), "given attention tells nothing"
    without = (PER_HEAD * (1 - torch.eye(4))).sum(1).mean(0) / 3
    assert top_k(without, 2).tolist() == [2, 3], "leaving out the diagonal is another method"


@pytest.mark.parametrize(
    ("scope", "tied", "kept"),
    [
        ("frame", True, [0, 1, 5, 6, 10, 11]),
        ("global", False, [0, 1, 5, 6, 7, 10]),
        ("global", True, [0, 1, 2, 5, 6, 10]),  # tokens 2 and 7 tie for the last place: the earlier one wins
    ],
)
def test_t2_global_or_per_frame(scope, tied, kept):
    scores = FRAMES.clone()
    if not tied:
        scores[0, 2] -= 0.01
    method = build_method("attention_topk", scope=scope, retention=6 / 15)
    assert method.compress(video_with(scores), 6).position.tolist() == kept


def test_t3_scores_are_pooled_like_features_before_top_k(build_backbone):
    core = build_backbone(image=16).model.model  # 4 x 4 patches
    scores = torch.tensor([[0.9, 0, 0, 0], [0, 0, 0.4, 0.4], [0, 0, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])
    pooled = core.apply_pooling(scores.reshape(1, 16, 1))[..., 0]
    torch.testing.assert_close(pooled, torch.tensor([[0.225, 0.2, 0.1, 0.3]]))
    assert build_method("attention_topk").compress(video_with(pooled), 1).position.tolist() == [3]


@pytest.mark.parametrize("scope", ["frame", "global"])
def test_t8_kept_features_are_bit_equal_and_r_1_is_the_identity(scope):
    video = video_with(FRAMES)
    out = build_method("attention_topk", scope=scope).compress(video, 6)
    assert torch.equal(out.tokens, video.flat[out.position])
    whole = build_method("attention_topk", scope=scope).compress(video, 15)
    assert torch.equal(whole.tokens, video.flat)


@pytest.mark.parametrize("retention", [0.05, 0.10, 0.15, 0.20, 0.25])
@pytest.mark.parametrize("rounding", ["exact", "round", "floor", "ceil"])
def test_authors_roundings_and_the_slack_they_cost(retention, rounding):
    video = video_with(torch.rand(32, 196, generator=torch.Generator().manual_seed(1)))
    method = build_method("attention_topk", retention=retention, rounding=rounding)
    budget = method.budget(len(video))
    counts = method.compress(video, budget).position.div(196, rounding_mode="floor").bincount(minlength=32)
    assert abs(int(counts.sum()) - budget) == method.slack(video)
    if rounding == "exact":
        assert counts.sum() == budget
        assert counts.max() - counts.min() <= 1
    else:
        share = {"round": round, "floor": floor, "ceil": ceil}[rounding](retention * 196)
        assert set(counts.tolist()) == {share}
        assert method.slack(video) <= (16 if rounding == "round" else 32)


def lookup(weights: torch.Tensor) -> SimpleNamespace:
    """A prefill state whose attention (Q, H, K) is given, before layer 2 of 4."""
    return SimpleNamespace(
        attention=lambda rows: weights[-len(rows) :],
        last_row=torch.tensor([9]),
        rows_after_video=torch.arange(10 - len(weights), 10),
        layers=[None] * 4,
        flat=torch.arange(weights.shape[-1]),
    )


def test_b1_is_the_last_row_mean_over_heads():
    weights = torch.tensor([[[0.9, 0.0, 0.0, 0.0]] * 2, [[0.08, 0.14, 0.24, 0.02], [0.04, 0.16, 0.02, 0.22]]])
    cut = build_method("attention_topk", variant="B1").prune_layer(2, lookup(weights), 2)
    assert cut.keep.tolist() == [1, 2], "head mean [.06, .15, .13, .12]; head max would keep [2, 3]"


def test_b3_is_the_mean_over_all_text_rows_after_the_video():
    weights = torch.tensor([[[0.1, 0.6, 0.1], [0.3, 0.0, 0.1]], [[0.1, 0.1, 0.1], [0.3, 0.1, 0.2]]])
    method = build_method("attention_topk", variant="B3")
    assert method.prune_layer(2, lookup(weights), 2).keep.tolist() == [0, 1], "mean [.2, .2, .125]"
    assert build_method("attention_topk", variant="B1").prune_layer(2, lookup(weights), 2).keep.tolist() == [0, 2]


@pytest.mark.parametrize("variant", ["A1", "B1", "B3"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_the_cut_is_made_before_layer_k_and_nowhere_else(variant, layer):
    method = build_method("attention_topk", variant=variant, layer=2)
    cut = method.prune_layer(layer, lookup(torch.rand(2, 2, 4)), 2)
    assert (cut is not None) == (variant != "A1" and layer == 2)


def test_variants_declare_where_they_act_and_what_they_need():
    for variant, stages, needs in (
        ("A1", ("pre-LLM",), {"received_attention"}),
        ("B1", ("in-LLM",), set()),
        ("B3", ("in-LLM",), set()),
    ):
        method = build_method("attention_topk", variant=variant)
        assert method.stages == stages
        assert method.needs == needs


def test_cuts_inside_the_llm_spend_what_they_say(backbone, ask):
    for layer in (1, 3):
        method = build_method("attention_topk", variant="B1", layer=layer, retention=0.25)
        spent = backbone.answer([ask(backbone)], method, max_new_tokens=4)[0].spent
        assert spent.layers == (96,) * layer + (24,) * (4 - layer)
        assert spent.layer_average == pytest.approx((layer + (4 - layer) * 0.25) / 4)
        assert spent.decode_visible == pytest.approx(sum(spent.layers) / 4)


def test_every_setting_changes_what_is_kept(backbone, ask):
    def kept(**settings):
        method = build_method("attention_topk", retention=0.2, **settings)
        return tuple(backbone.answer([ask(backbone)], method, max_new_tokens=1)[0].kept.tolist())

    settings = [
        {},
        {"scope": "global"},
        {"rounding": "ceil"},
        {"rounding": "floor"},
        {"variant": "B1"},
        {"variant": "B1", "layer": 3},
        {"variant": "B3"},
    ]
    assert len({kept(**s) for s in settings}) == len(settings)


def test_a_layer_that_the_model_has_not_is_refused(backbone, ask):
    with pytest.raises(MethodError, match=r"layer=4, expected 1 <= layer < 4: this model has 4 decoder layers"):
        backbone.answer([ask(backbone)], build_method("attention_topk", variant="B1", layer=4, retention=0.5))


def test_b3_without_text_after_the_video_is_refused():
    state = lookup(torch.rand(1, 2, 4))
    state.rows_after_video = torch.arange(0)
    with pytest.raises(MethodError, match=r"B3 reads the text rows after the video, but the prompt ends"):
        build_method("attention_topk", variant="B3").prune_layer(2, state, 2)
