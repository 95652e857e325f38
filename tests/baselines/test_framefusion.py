"""FrameFusion: the method card's worked examples, the budget in every kind of run, and refusals."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines._framefusion_calibrate import main as calibrate
from baselines._framefusion_calls import (
    Progress,
    chain_similarity,
    median_similarity,
    merge_runs,
    merging_call,
    need,
    pruning_call,
)
from baselines.framefusion import SIMILARITIES, FrameFusion
from cacovid.backbones import TESTBEDS, VideoRequest
from cacovid.errors import BudgetError, MethodError
from cacovid.records import VideoTokens
from naive.framefusion import CASES, naive_call, tokens


def unit(degrees):
    return torch.stack([torch.tensor(degrees).deg2rad().cos(), torch.tensor(degrees).deg2rad().sin()], -1)


# --- worked examples of the method card -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fractions", "cost", "expected"),
    [
        ((), 0.3, 0.7),
        ((), 0.1, 0.9),
        ((0.5,), 0.3, 0.414815),
        ((0.5, 0.2), 0.3, 0.278846),
        ((0.05,), 0.10, 0.927875),
        ((0.05,), 0.15, 0.873294),
        ((0.05,), 0.20, 0.818713),
        ((0.05,), 0.25, 0.764133),
        ((0.9,), 0.3, 0.0),
        ((0.4, 0.3, 0.05), 0.2, 0.580852),
        ((0.2, 0.15, 0.15, 0.12), 0.1, 0.980884),
        ((1.0,), 0.3, 0.0),
    ],
)
def test_need(fractions, cost, expected):
    assert need(fractions, cost) == pytest.approx(expected, abs=5e-7)


def test_need_is_refused_where_the_budget_is_spent():
    with pytest.raises(
        BudgetError, match=r"retention 0.1 over 28 layers is spent: 5 layers .* at most 2.8; use overrun"
    ):
        need((0.2, 0.15, 0.15, 0.12, 0.1), 0.1)
    with pytest.raises(BudgetError, match=r"4 merging calls, expected fewer than the LLM's 4 layers"):
        need((0.1,) * 4, 1.0, layers=4)


def test_need_counts_the_layers_that_the_model_has():
    assert need((0.5,), 0.3, layers=4) == pytest.approx(1 - (1.2 - 0.5) / (3 * 0.5))
    assert need((0.5,), 0.3, layers=4) != need((0.5,), 0.3)


@pytest.mark.parametrize(("cost", "left"), [(0.1, 628), (0.15, 941), (0.2, 1255), (0.25, 1568), (0.3, 1882)])
def test_identical_frames_meet_the_budget_in_the_first_call(cost, left):
    hidden = torch.randn(196, 8, generator=torch.Generator().manual_seed(0)).repeat(32, 1)
    cut, progress = merging_call(
        hidden, torch.arange(196).repeat(32), Progress(), cost, similarity=0.6, merge_ratio=0.1
    )
    assert len(cut.keep) == left
    assert progress == Progress((), merged=True, pruned=True)
    assert torch.equal(cut.keep[:196], torch.arange(196)), "the first frame is never merged away"
    torch.testing.assert_close(cut.hidden, hidden[cut.keep])


ANGLES = [[0.0, 0.0], [10.0, 90.0], [20.0, 100.0], [120.0, 112.0], [125.0, 200.0]]  # 5 frames of 2 patches


@pytest.mark.parametrize(
    ("cost", "keep", "values", "progress"),
    [
        (
            0.3,
            [0, 1, 3, 6, 9],
            {0: (0.9748, 0.1719), 1: (1, 0), 3: (-0.1828, 0.9707), 6: (-0.5368, 0.8426), 9: (-0.9397, -0.3420)},
            Progress((0.5,)),
        ),
        (0.6, [0, 1, 3, 6, 7, 9], {3: (-0.0868, 0.9924), 7: (-0.3746, 0.9272)}, Progress((), True, True)),
    ],
)
def test_runs_collapse_into_the_earliest_token(cost, keep, values, progress):
    cut, after = merging_call(
        unit(ANGLES).flatten(0, 1), torch.arange(2).repeat(5), Progress(), cost, similarity=0.6, merge_ratio=0.1
    )
    assert cut.keep.tolist() == keep
    for position, value in values.items():
        assert cut.hidden[keep.index(position)].tolist() == pytest.approx(value, abs=5e-5)
    assert after == progress


def test_what_was_averaged_before_counts_once():
    settings = {"similarity": 0.95, "merge_ratio": 0.1}
    first = torch.tensor([(1, 0), (1, 0), (0.8, 0.6), (0, 1)])
    cut, progress = merging_call(first, torch.zeros(4, dtype=torch.int64), Progress(), 0.3, **settings)
    assert cut.keep.tolist() == [0, 2, 3]
    assert progress.fractions == (0.25,)
    second = torch.tensor([(1, 0), (0.99, 0.1), (0, 1)])
    cut, progress = merging_call(second, torch.zeros(3, dtype=torch.int64), progress, 0.3, **settings)
    assert cut.keep.tolist() == [0, 2]
    assert cut.hidden[0].tolist() == pytest.approx((0.995, 0.05))
    assert progress.fractions == pytest.approx((0.25, 1 / 3))
    assert need(progress.fractions, 0.3) == pytest.approx(0.45)


def test_merging_ends_without_pairs_and_attention_prunes():
    patch = torch.tensor([0, 1, 0, 1, 0, 1])
    cut, progress = merging_call(torch.eye(6), patch, Progress(), 0.5, similarity=0.6, merge_ratio=0.3)
    assert torch.equal(cut.keep, torch.arange(6)) and torch.equal(cut.hidden, torch.eye(6))
    assert progress == Progress((0.0,), merged=True)
    attention = torch.tensor([(0.02, 0.10, 0.04, 0.06, 0.01, 0.08), (0.08, 0.02, 0.10, 0.06, 0.05, 0.02)])
    share = need(progress.fractions, 0.5)
    assert share == pytest.approx(0.518519, abs=5e-7)
    assert pruning_call(attention, 6 * (1 - share)).tolist() == [1, 2, 3]


def test_thresholds_are_inclusive_for_pairs_and_strict_for_shares():
    pair = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # cosine exactly 0
    patch = torch.zeros(2, dtype=torch.int64)
    cut, progress = merging_call(pair, patch, Progress(), 0.3, similarity=0.0, merge_ratio=0.5)
    assert cut.keep.tolist() == [0]
    assert progress == Progress((0.5,)), "a share of exactly merge_ratio goes on"
    _, progress = merging_call(pair, patch, Progress(), 0.5, similarity=0.0, merge_ratio=0.5)
    assert progress == Progress((), True, True), "a share of exactly what is needed meets the budget"


def test_pruning_rounds_halves_to_even_and_keeps_one():
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    assert pruning_call(attention, 2.5).tolist() == [1, 3]
    assert pruning_call(attention, 3.5).tolist() == [0, 1, 2, 3]
    assert pruning_call(attention, 0.2).tolist() == [1]
    assert pruning_call(attention[None], 1).tolist() == [1], "mean over queries and heads"


# --- fast == naive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 9, 5), (2, 1, 5), (7, 12, 5), (30, 25, 16)], ids=str)
@pytest.mark.parametrize("name", sorted(CASES))
def test_fast_is_naive(name, size):
    make, fast, naive = CASES[name]
    inputs = make(*size)
    ours, expected = fast(*inputs), naive(*inputs)
    if name == "similarity":
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        return
    assert torch.equal(ours[0], expected[0])
    torch.testing.assert_close(ours[1], expected[1], rtol=0, atol=1e-5)


def test_whole_calls_are_naive_ones_whatever_was_cut_before():
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for trial in range(60):
        hidden, patch = tokens(8, 6, 12)
        hidden = hidden + 0.2 * torch.randn(hidden.shape, generator=generator)
        some = torch.rand(len(patch), generator=generator) < 0.7
        hidden, patch = hidden[some], patch[some]
        fractions = [(), (0.4,), (0.3, 0.15)][trial % 3]
        settings = {
            "similarity": [0.3, 0.7, 0.95][trial // 3 % 3],
            "merge_ratio": [0.05, 0.4][trial % 2],
            "layers": [8, 28][trial // 2 % 2],
        }
        cost = [0.35, 0.5, 0.8][trial // 9 % 3]
        keep, rows, *rest = naive_call(hidden, patch, fractions, cost, **settings)
        cut, progress = merging_call(hidden, patch, Progress(fractions), cost, **settings)
        assert torch.equal(cut.keep, keep)
        torch.testing.assert_close(cut.hidden, rows, rtol=0, atol=1e-5)
        assert [progress.fractions, progress.merged, progress.pruned] == rest
        seen.add((progress.merged, progress.pruned))
    assert seen == {(False, False), (True, False), (True, True)}, "every way in which a call can end"


# --- odd input --------------------------------------------------------------------------------------------------


def test_zero_vectors_are_like_nothing():
    hidden = torch.zeros(6, 4)
    hidden[:2] = 1
    similarity = chain_similarity(hidden, torch.arange(2).repeat(3))
    assert similarity.tolist() == [-2, -2, 0, 0, 0, 0]
    assert chain_similarity(hidden[:1], torch.zeros(1, dtype=torch.int64)).tolist() == [-2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    hidden = torch.full((300, 2), 1.0).to(dtype)
    hidden[0] = 257.0 if dtype is torch.float16 else 256.0  # a half-precision sum would lose the ones that follow
    hidden[-1] = torch.tensor([-3.1, 0.7])
    merging = torch.ones(300, dtype=torch.bool)
    merging[[0, 299]] = False
    keep, rows = merge_runs(hidden, torch.zeros(300, dtype=torch.int64), merging)
    assert rows.dtype == dtype and keep.tolist() == [0, 299]
    assert torch.equal(rows[0], ((hidden[0].float() + 298) / 299).to(dtype))
    assert torch.equal(rows[1], hidden[299]), "what nothing joins stays bit-equal"
    similarity = chain_similarity(hidden * 100, torch.zeros(300, dtype=torch.int64))
    assert similarity.dtype == torch.float32 and similarity[1:299].min() > 0.99999


def test_more_rows_than_one_pass_holds():
    hidden, patch = tokens(30, 40, 3)  # 1200 rows
    torch.testing.assert_close(
        chain_similarity(hidden, patch)[40:],
        torch.cosine_similarity(hidden[40:], hidden[:-40], dim=-1),
        rtol=0,
        atol=1e-5,
    )


# --- calls through the hooks ------------------------------------------------------------------------------------


@dataclass
class Toy:
    """An LLM that adds noise: calls the hooks as the decoder does, and counts tokens layer by layer."""

    layers: int
    method: FrameFusion
    looked: list = field(default_factory=list)

    def run(self, features, seed=0):
        generator = torch.Generator().manual_seed(seed)
        size = features.shape[1]
        hidden, flat, memo, counts = features.flatten(0, 1), torch.arange(features.shape[:2].numel()), {}, []
        budget = self.method.budget(len(flat))

        def ask(hook, layer):
            nonlocal hidden, flat
            weights = torch.rand(1, 2, len(flat), generator=generator)
            state = SimpleNamespace(
                layers=range(self.layers),
                layer=layer,
                flat=flat,
                hidden=hidden,
                memo=memo,
                lookups=[],
                last_row=torch.tensor([99]),
                video=SimpleNamespace(tokens_per_frame=size),
                attention=lambda rows, layer: self.looked.append((hook, layer)) or weights,
            )
            cut = getattr(self.method, hook)(layer, state, budget)
            if cut is not None:
                assert (cut.keep.diff() > 0).all() and len(cut.keep) >= 1
                hidden = hidden[cut.keep] if cut.hidden is None else cut.hidden
                flat = flat[cut.keep]

        for layer in range(self.layers):
            ask("prune_layer", layer)
            counts.append(len(flat))
            ask("prune_after_attention", layer)
            hidden = hidden + 0.3 * torch.randn(hidden.shape, generator=generator)
        return counts, budget


def test_the_layer_average_is_met_to_a_token_in_every_kind_of_run():
    ends = set()
    for trial in range(120):
        layers = [1, 2, 4, 28][trial % 4]
        method = FrameFusion(
            retention=[1 / 42, 0.06, 0.1, 0.15, 0.3, 0.6, 0.95][trial % 7],
            similarity=[0.2, 0.6, 0.9][trial % 3],
            merge_ratio=[0.0, 0.02, 0.1, 0.5][trial // 4 % 4],
        )
        toy = Toy(layers, method)
        counts, budget = toy.run(tokens(7, 6, 12)[0].unflatten(0, (7, 6)), trial)
        assert abs(sum(counts) / layers - budget) < 1, (counts, method)
        assert counts == sorted(counts, reverse=True)
        assert len(toy.looked) <= 1, "attention is looked up once or never"
        ends.add(toy.looked[0][0] if toy.looked else "merged")
    assert ends == {"merged", "prune_layer", "prune_after_attention"}


def test_pruning_is_one_call_after_merging_and_reads_that_layer():
    toy = Toy(28, FrameFusion(retention=0.3, similarity=0.9))
    counts, budget = toy.run(torch.randn(7, 6, 12, generator=torch.Generator().manual_seed(0)))
    assert counts[0] == 42, "nothing alike: merging ends with the first call"
    assert toy.looked == [("prune_after_attention", 0)]
    assert set(counts[1:]) == {round((28 * budget - 42) / 27)}


def test_too_slow_merging_prunes_in_the_same_call_or_is_refused():
    features = torch.randn(7, 6, 12, generator=torch.Generator().manual_seed(0))
    toy = Toy(4, FrameFusion(retention=0.2, similarity=0.9))
    assert toy.run(features)[0] == [8, 8, 8, 8], "layer 0 alone would cost 42 of 4 x 8 tokens"
    assert toy.looked == [("prune_layer", 0)]
    with pytest.raises(BudgetError, match=r"retention 0.1905 over 4 layers is spent: 1 layers of slow merging"):
        Toy(4, FrameFusion(retention=0.2, similarity=0.9, overrun="refuse")).run(features)


def test_a_call_that_merges_and_prunes_weighs_the_merged_rows():
    hidden = torch.tensor([(1.0, 0, 0, 0), (0, 1, 0, 0), (0.9, 0.1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, -1)])
    weights = torch.tensor([0.2, 0.01, 0.9, 0.1, 0.3, 0.02])
    state = SimpleNamespace(
        layers=range(3),
        layer=0,
        flat=torch.arange(6),
        hidden=hidden,
        memo={},
        last_row=torch.tensor([9]),
        video=SimpleNamespace(tokens_per_frame=2),
        attention=lambda rows, layer: weights[None, None],
    )
    cut = FrameFusion(retention=1 / 3).prune_layer(0, state, 2)
    assert cut.keep.tolist() == [0, 4], "row 2 went into row 0 whatever attention it gets"
    torch.testing.assert_close(cut.hidden[0], (hidden[0] + hidden[2]) / 2)
    assert torch.equal(cut.hidden[1], hidden[4])


def test_merging_may_become_too_slow_deep_in_the_llm():
    features = torch.randn(7, 6, 12, generator=torch.Generator().manual_seed(1)).cumsum(0)
    settings = {"retention": 0.1, "similarity": 0.9, "merge_ratio": 0.0}
    toy = Toy(28, FrameFusion(**settings))
    counts, budget = toy.run(features)
    ((hook, layer),) = toy.looked
    assert hook == "prune_after_attention" and layer >= 1
    assert counts[layer + 1 :] == [counts[-1]] * (27 - layer), "the call that prunes is the last one"
    assert abs(sum(counts) / 28 - budget) < 1
    with pytest.raises(BudgetError, match="layers of slow merging"):
        Toy(28, FrameFusion(overrun="refuse", **settings)).run(features)


def test_early_pruning_is_never_done_where_the_release_goes_on():
    features = tokens(7, 6, 12)[0].unflatten(0, (7, 6))
    runs = 0
    for retention in (0.1, 0.2, 0.3, 0.5):
        for similarity in (0.3, 0.6, 0.9):
            runs_of = [
                Toy(28, FrameFusion(retention=retention, similarity=similarity, overrun=overrun))
                for overrun in ("prune", "refuse")
            ]
            try:
                released = runs_of[1].run(features)
            except BudgetError:
                continue
            assert runs_of[0].run(features) == released
            runs += 1
    assert runs >= 8


# --- through a backbone -----------------------------------------------------------------------------------------


def still(backbone, frames):
    """A video whose frames are all the same."""
    pixels = np.random.default_rng(3).integers(0, 256, (1, 40, 60, 3), dtype=np.uint8)
    content = [{"type": "video"}, {"type": "text", "text": "What is it?"}]
    prompt = backbone.template([{"role": "user", "content": content}])
    return VideoRequest(pixels.repeat(frames, 0), prompt, "still")


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("retention", [0.0625, 0.2, 0.3, 0.55, 0.9])
def test_the_budget_is_the_mean_over_layers(backbone, ask, retention, frames):
    for similarity in (0.6, 0.9):
        method = FrameFusion(retention=retention, similarity=similarity)
        answer = backbone.answer([ask(backbone, frames)], method, max_new_tokens=2)[0]
        assert abs(sum(answer.spent.layers) / 4 - round(retention * frames * 16)) < 1
        assert (answer.kept.diff() > 0).all()
        assert len(answer.kept) == answer.spent.layers[-1]


def test_a_still_video_is_merged_before_the_first_layer(backbone):
    answer = backbone.answer([still(backbone, 6)], FrameFusion(retention=0.3), max_new_tokens=2)[0]
    assert set(answer.spent.layers) == {29}
    assert answer.kept[:16].tolist() == list(range(16)), "all of the first frame"


def test_one_token(backbone, ask):
    answer = backbone.answer([ask(backbone)], FrameFusion(retention=1 / 96), max_new_tokens=2)[0]
    assert answer.spent.layers == (1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Spy(FrameFusion):
    """Notes what every call saw and did."""

    notes: list = field(default_factory=list)

    def _call(self, call, state, budget):
        cut = super()._call(call, state, budget)
        self.notes.append((call, state.flat, state.hidden, state.positions, cut))
        return cut


def test_calls_see_what_the_calls_before_left(backbone, ask):
    spy = Spy(retention=0.6, similarity=0.9)
    request = ask(backbone)
    video = backbone.encode([request], frozenset())[0]
    backbone.answer([request], spy, max_new_tokens=1)
    assert [note[0] for note in spy.notes] == [0, 1, 2, 3, 4]
    _, flat, hidden, positions, cut = spy.notes[0]
    assert torch.equal(hidden, video.flat), "the first call works on the LLM's input"
    keep, rows = merge_runs(hidden, flat % 16, chain_similarity(hidden, flat % 16) >= 0.9)
    assert torch.equal(cut.keep, keep) and torch.equal(cut.hidden, rows)
    _, flat, _, later, _ = spy.notes[1]
    assert torch.equal(flat, keep)
    start = len(video.prefix)
    assert torch.equal(later[start : start + len(keep)], positions[start + keep]), "survivors keep their positions"
    assert torch.equal(later[start + len(keep) :], positions[start + 96 :]), "and so does the text"
    assert [len(note[1]) for note in spy.notes] == [96, 71, 70, 45, 45]


def test_pruned_tokens_have_the_least_attention_of_the_last_row(backbone, ask):
    @dataclass(frozen=True, kw_only=True)
    class Watching(FrameFusion):
        seen: list = field(default_factory=list)

        def prune_after_attention(self, layer, state, budget):
            cut = super().prune_after_attention(layer, state, budget)
            if cut is not None:
                self.seen.append((layer, cut.keep, state.attention(state.last_row, layer=layer).mean((0, 1))))
            return cut

    method = Watching(retention=0.5, similarity=0.99)
    backbone.answer([ask(backbone)], method, max_new_tokens=1)
    ((layer, keep, attention),) = method.seen
    dropped = torch.ones(len(attention), dtype=torch.bool).index_fill_(0, keep, False)
    assert layer == 0 and len(keep) == round((4 * 48 - 96) / 3)
    assert attention[keep].min() >= attention[dropped].max()


def test_a_batch_is_its_samples(backbone, ask):
    method = FrameFusion(retention=0.6, similarity=0.9)
    requests = [ask(backbone, f, seed=f, clip=str(f)) for f in (5, 1, 3)] + [still(backbone, 4)]
    together = backbone.answer(requests, method, max_new_tokens=3)
    for request, ours in zip(requests, together, strict=True):
        alone = backbone.answer([request], method, max_new_tokens=3)[0]
        assert ours.ids == alone.ids and ours.spent == alone.spent
        assert torch.equal(ours.kept, alone.kept)


def test_r_1_is_the_identity(backbone, ask, stock):
    request = ask(backbone)
    spy = Spy(retention=1.0)
    ours = backbone.answer([request], spy, max_new_tokens=3, keep_logits=True)[0]
    expected = stock(backbone, request, max_new_tokens=3)
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, expected.logits, strict=True))
    assert all(note[-1] is None for note in spy.notes)
    assert ours.spent.flops.compressor == 0


def test_every_setting_changes_what_is_kept(backbone, ask):
    def kept(**settings):
        answer = backbone.answer([ask(backbone)], FrameFusion(retention=0.6, **settings), max_new_tokens=1)[0]
        return answer.spent.layers, tuple(answer.kept.tolist())

    settings = [{}, {"similarity": 0.9}, {"similarity": 0.93}, {"similarity": 0.9, "merge_ratio": 0.5}]
    assert len({kept(**s) for s in settings}) == len(settings)


def test_the_schedule_spends_the_budget_and_knows_the_first_layer(backbone, ask):
    for request in (ask(backbone), still(backbone, 6), ask(backbone, 1)):
        video = backbone.encode([request], frozenset())[0]
        for retention in (1 / len(video), 0.2, 0.5, 0.8, 1.0):
            for similarity in (0.6, 0.9):
                method = FrameFusion(retention=max(retention, 1 / len(video)), similarity=similarity)
                plan = method.schedule(video, 4)
                spent = backbone.answer([request], method, max_new_tokens=1)[0].spent
                assert sum(plan) == 4 * method.budget(len(video))
                assert plan[0] == spent.layers[0]
    assert FrameFusion(retention=0.5).schedule(video, 1) == [8]


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"similarity": "qwen"},
            r"similarity='qwen', expected a cosine in \[-1, 1\] or one of 'llava_video', .*'testbed_qwen2_5_vl'",
        ),
        ({"similarity": 1.5}, r"similarity=1.5, expected a cosine in \[-1, 1\]"),
        ({"similarity": float("nan")}, r"similarity=nan, expected a cosine"),
        ({"similarity": True}, r"similarity=True is a bool, expected float or a model's name"),
        ({"similarity": [0.5]}, r"similarity=\[0.5\] is a list, expected float or a model's name"),
        ({"merge_ratio": 1.1}, r"merge_ratio=1.1, expected a share of the tokens in \[0, 1\]"),
        ({"merge_ratio": "0.1"}, r"merge_ratio='0.1' is a str, expected float"),
        ({"overrun": "stop"}, r"overrun='stop', expected one of 'prune', 'refuse'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(MethodError, match=words):
        FrameFusion(**settings)


def test_a_threshold_goes_by_the_models_name():
    assert FrameFusion().threshold == 0.6 == FrameFusion(similarity="llava_video").threshold
    for name, value in SIMILARITIES.items():
        method = FrameFusion(similarity=name)
        assert method.threshold == value
        assert method.identity() == {"similarity": value}, "a run is named by the number"


def test_median_similarity():
    features = unit(ANGLES)  # neighbours are 10, 10, 100, 5 and 90, 10, 12, 88 degrees apart
    assert np.cos(np.deg2rad(12)) - 1e-6 <= median_similarity(features) <= np.cos(np.deg2rad(10)) + 1e-6
    assert median_similarity(features[:, :1]) == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-6)
    with pytest.raises(MethodError, match=r"a video of 1 frame has no adjacent frames, expected at least 2"):
        median_similarity(features[:1])


@pytest.mark.parametrize("testbed", TESTBEDS)
def test_the_calibration_prints_a_threshold(capsys, testbed):
    calibrate(["--pretrained", testbed, "--split", "train", "--videos", "2"])
    line = capsys.readouterr().out
    value = float(line.split("similarity=")[1].split()[0])
    assert "(2 train videos" in line
    assert value == pytest.approx(SIMILARITIES[testbed], abs=1e-4)


def test_one_frame_or_all_tokens_leave_nothing_to_miss():
    def video(frames):
        return VideoTokens(torch.zeros(frames, 4, 2), (2, 2), *[torch.zeros(1, 2)] * 3, slice(0, 1), "x")

    assert [FrameFusion(retention=0.5).slack(video(f)) for f in (1, 2, 9)] == [0, 1, 1]
    assert FrameFusion().slack(video(9)) == 0
