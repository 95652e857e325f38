"""FastV against worked examples, the stock model's own attention maps, and the budget that it says it spends."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from baselines import _attention_rows
from baselines._attention_rows import row_scores, rows_that_see
from baselines.attention_topk import AttentionTopk
from baselines.fastv import FastV, kept_tokens
from baselines.uniform import Uniform
from cacovid.compose import Composed
from cacovid.errors import BudgetError, MethodError
from cacovid.records import VideoTokens
from naive import fastv as naive


def before_layer(layers: int, weights: torch.Tensor, start: int = 0) -> SimpleNamespace:
    """A prefill state whose attention, row by row of the prompt, is `weights` (L, H, K)."""
    rows, _, total = weights.shape
    return SimpleNamespace(
        attention=lambda which: weights[which],
        last_row=torch.tensor([rows - 1]),
        positions=torch.arange(rows),
        span=slice(start, start + total),
        layers=[None] * layers,
        flat=torch.arange(total),
    )


def video_of(frames: int, size: int) -> VideoTokens:
    row = torch.zeros(1, 8)
    return VideoTokens(torch.randn(frames, size, 8), (1, size), row, row, row, slice(0, 1), "clip")


def prefill(backbone, request, method):
    """Our prefill: its state and the sample's sequence, and the prompt's rows."""
    video = backbone.encode([request], method.needs)[0]
    budget = method.budget(len(video))
    sequence = backbone.sequence(video, method.compress(video, budget), budget, method)
    rows = sequence.embeds
    return backbone.decoder.prefill([sequence]), sequence, rows


def eager_map(eager, rows, layer):
    """(H, L, L) attention of the stock model."""
    model = eager.model.model.language_model
    with torch.inference_mode():
        return model(inputs_embeds=rows[None], output_attentions=True, use_cache=False).attentions[layer][0]


def test_t1_mean_over_heads_of_the_last_row():
    row = torch.tensor(
        [[0.10, 0.06, 0.04, 0.14, 0.24, 0.02, 0.10, 0.30], [0.10, 0.06, 0.08, 0.16, 0.02, 0.22, 0.06, 0.30]]
    )
    weights = torch.full((8, 2, 4), 9.0)
    weights[-1] = row[:, 2:6]
    state = before_layer(4, weights, start=2)
    torch.testing.assert_close(row_scores(state, state.last_row), torch.tensor([0.06, 0.15, 0.13, 0.12]))
    keep = FastV().prune_layer(2, state, 2).keep
    assert (2 + keep).tolist() == [3, 4]
    assert row[:, 2:6].amax(0).topk(2).indices.sort().values.tolist() == [2, 3], "the maximum keeps others: {4, 5}"


@pytest.mark.parametrize(
    ("retention", "total", "rounded", "floored"),
    [(1 - 0.9, 10, 1, 0), (0.5, 5, 2, 2), (0.15, 6272, 941, 940), (0.10, 6272, 627, 627), (1.0, 6272, 6272, 6272)],
)
def test_t2_roundings_of_the_sources(retention, total, rounded, floored):
    assert kept_tokens(retention, total, "round") == rounded
    assert kept_tokens(retention, total, "floor") == floored
    video = video_of(1, total)
    assert FastV(retention=retention).slack(video) == 0
    lesser = FastV(retention=retention, rounding="floor")
    assert lesser.slack(video) == rounded - max(floored, 1)
    assert lesser.schedule(video, 3) == [total, total, max(floored, 1)], "at least one token stays"


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_t3_what_stays_is_what_eager_attention_says(backbone, eager, ask, layer):
    _, sequence, rows = prefill(backbone, ask(backbone), FastV(layer=layer, retention=0.25))
    span = slice(len(sequence.video.prefix), len(sequence.video.prefix) + 96)
    scores = eager_map(eager, rows, layer - 1)[:, -1, span].mean(0)
    ordered = scores.sort(descending=True).values
    assert ordered[23] - ordered[24] > 1e-5, "guards the comparison: no tie at the cut"
    assert sequence.flat.tolist() == scores.topk(24).indices.sort().values.tolist()


def test_t4_positions_stay_and_caches_differ_in_length(backbone, ask):
    state, sequence, rows = prefill(backbone, ask(backbone), FastV(retention=0.25))
    start, full = len(sequence.video.prefix), len(rows)
    outside = [*range(start), *range(start + 96, full)]
    assert sorted({*outside, *(start + sequence.flat).tolist()}) == sequence.positions.tolist()
    assert start + 96 in sequence.positions.tolist(), "the newline token"
    assert sequence.next_position == full, "decoding goes on from the full length"
    lengths = [layer.keys.shape[2] for layer in state.cache.layers]
    assert lengths == [full] * 2 + [full - 72] * 2


@pytest.mark.parametrize("rows", ["last", "all"])
@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_t5_r_1_cuts_nothing(rows, rounding):
    state = before_layer(4, torch.rand(8, 2, 4))
    state.video = video_of(1, 4)
    assert FastV(rows=rows, rounding=rounding).prune_layer(2, state, 4) is None


@pytest.mark.parametrize("layer", [1, 2])
def test_all_rows_are_the_mean_of_the_whole_matrix(backbone, eager, ask, layer, monkeypatch):
    method = FastV(layer=layer, rows="all", retention=0.25)
    _, sequence, rows = prefill(backbone, ask(backbone), method)
    span = slice(len(sequence.video.prefix), len(sequence.video.prefix) + 96)
    scores = eager_map(eager, rows, layer - 1).mean((0, 1))[span]  # rows before the video are in this mean
    expected = scores.topk(24).indices.sort().values
    assert sequence.flat.tolist() == expected.tolist()
    last = prefill(backbone, ask(backbone), FastV(layer=layer, retention=0.25))[1]
    assert not torch.equal(last.flat, sequence.flat), "guards the above: the last row alone keeps others"
    monkeypatch.setattr(_attention_rows, "ROWS_AT_ONCE", 7)
    assert torch.equal(prefill(backbone, ask(backbone), method)[1].flat, sequence.flat)


def test_all_rows_favour_early_frames_under_a_causal_mask():
    """Attention that is perfectly uniform over what a row sees, 32 frames of 4 tokens: nothing but position decides."""
    total = 128
    uniform = torch.ones(total, total).tril() / torch.arange(1, total + 1)[:, None]
    state = before_layer(4, uniform[:, None])
    keep = FastV(rows="all").prune_layer(2, state, total // 4).keep
    assert (keep // 4 < 8).all(), "all within frames 0 to 7"


@pytest.mark.parametrize("which", ["last_row", "all"])
@pytest.mark.parametrize("sizes", [(2, 9, 64), (3, 16, 256)])
def test_chunks_of_rows_equal_the_whole_matrix(which, sizes, monkeypatch):
    (hidden,) = naive.CASES["last row"][0](*sizes)
    state = naive.state_of(hidden)
    rows = state.last_row if which == "last_row" else rows_that_see(state)
    expected = naive.row_scores(state, rows)
    assert expected.std() > 1e-4, "guards the comparison: the scores differ"
    for at_once in (5, 128):
        monkeypatch.setattr(_attention_rows, "ROWS_AT_ONCE", at_once)
        torch.testing.assert_close(row_scores(state, rows), expected, rtol=1e-5, atol=1e-7)


def test_half_precision_models_are_scored_in_float32():
    (hidden,) = naive.CASES["last row"][0](20, 49, 64)
    state = naive.state_of(hidden.bfloat16())
    state.layers = deepcopy(state.layers).bfloat16()
    scores = row_scores(state, state.last_row)
    assert scores.dtype == torch.float32
    assert len(scores.unique()) > 2 * len(scores.bfloat16().unique()), "guards the reason: bfloat16 scores tie"


def test_one_top_k_over_the_whole_video():
    weights = torch.zeros(13, 1, 12)
    weights[-1, 0] = torch.tensor([0, 0, 0, 0, 9, 8, 7, 6, 1, 1, 1, 1]) / 100
    assert FastV().prune_layer(2, before_layer(4, weights), 5).keep.tolist() == [4, 5, 6, 7, 8], "no quota a frame"


@pytest.mark.parametrize("layer", range(4))
def test_the_cut_is_made_before_layer_k_and_nowhere_else(layer):
    cut = FastV(layer=2).prune_layer(layer, before_layer(4, torch.rand(8, 2, 4)), 2)
    assert (cut is not None) == (layer == 2)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("settings", [{}, {"rows": "all", "layer": 1}, {"layer": 3, "rounding": "floor"}])
def test_the_schedule_is_what_is_spent(backbone, ask, frames, settings):
    total = frames * 16
    for retention in (1 / total, 0.3, (total - 1) / total):
        method = FastV(retention=retention, **settings)
        spent = backbone.answer([ask(backbone, frames)], method, max_new_tokens=2)[0].spent
        assert list(spent.layers) == method.schedule(video_of(frames, 16), 4)
        assert spent.kept >= 1
        assert spent.decode_visible == pytest.approx(sum(spent.layers) / 4)
        assert spent.flops.compressor > 0, "looking up attention is counted"


def test_the_layer_average_is_solved_for_and_has_a_floor(backbone, ask):
    """a = (K + (L - K) r) / L: half of the video on average, of 4 layers the first whole, is r = 1/3."""
    method = FastV(layer=1, retention=0.5)
    spent = backbone.answer([ask(backbone)], method, budget="layer_average", max_new_tokens=1)[0].spent
    assert spent.layers == (96, 32, 32, 32)
    with pytest.raises(BudgetError, match=r"FastV cannot meet retention=0.3 as layer_average"):
        backbone.answer([ask(backbone)], FastV(layer=2, retention=0.3), budget="layer_average")


@pytest.mark.parametrize("layer", [2, 3])
def test_layer_averages_of_a_28_layer_model(layer):
    video = video_of(32, 196)

    def average(kept):
        return sum(FastV(layer=layer, retention=kept / 6272).schedule(video, 28)) / 28 / 6272

    assert average(1) == pytest.approx(layer / 28, abs=2e-4), "the floor"
    for asked, kept in {2: [(0.10, 193), (0.25, 1206), (0.50, 2895)], 3: [(0.15, 301), (0.25, 1004)]}[layer]:
        assert average(kept) == pytest.approx(asked, abs=0.5 / 6272 + 1e-9)


def test_after_a_pre_llm_method(backbone, ask):
    method = Composed(retention=0.25, first=Uniform(retention=0.5), second=FastV(retention=0.25))
    answer = backbone.answer([ask(backbone)], method, max_new_tokens=2)[0]
    assert answer.spent.layers == (48, 48, 24, 24)
    assert set(answer.kept.tolist()) < set(answer.compressed.position.tolist())


def test_variant_b1_of_attention_topk_is_the_same_cut(backbone, ask):
    for layer in (1, 3):
        ours, theirs = (
            backbone.answer([ask(backbone)], method, max_new_tokens=3, keep_logits=True)[0]
            for method in (
                FastV(layer=layer, retention=0.2),
                AttentionTopk(variant="B1", layer=layer, retention=0.2),
            )
        )
        assert torch.equal(ours.kept, theirs.kept)
        assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))


def test_every_setting_changes_what_is_kept(backbone, ask):
    settings = [{}, {"layer": 1}, {"layer": 3}, {"rows": "all"}, {"rounding": "floor"}]
    kept = {
        tuple(backbone.answer([ask(backbone)], FastV(retention=0.204, **s), max_new_tokens=1)[0].kept.tolist())
        for s in settings
    }
    assert len(kept) == len(settings), "0.204 x 96 = 19.6 rounds to 20, and down to 19"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": 0}, r"layer=0, expected >= 1: the scores come from the layer before it"),
        ({"layer": "2"}, r"layer='2' is a str, expected int"),
        ({"rows": "mean"}, r"rows='mean', expected one of 'last', 'all'"),
        ({"rounding": "ceil"}, r"rounding='ceil', expected one of 'round', 'floor'"),
    ],
)
def test_bad_settings_are_refused_with_words(settings, words):
    with pytest.raises(MethodError, match=words):
        FastV(**settings)


def test_refusals_at_run_time(backbone, ask):
    with pytest.raises(MethodError, match=r"layer=4, expected 1 <= layer < 4: this model has 4 decoder layers"):
        backbone.answer([ask(backbone)], FastV(layer=4, retention=0.5))
    with pytest.raises(BudgetError, match=r"of 96 video tokens is a budget below one token"):
        backbone.answer([ask(backbone)], FastV(retention=0.004))
