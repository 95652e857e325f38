"""PruneVid and density-peak clustering: worked examples, the step-by-step form, exact budgets, and the pruned LLM."""

from types import SimpleNamespace

import pytest
import torch

from baselines._density_peaks import cluster, density, distances, means, separation
from baselines._prunevid_plan import Plan, clusters_of, fit, proportional, released, select
from baselines._prunevid_split import refine, run_lengths, similarity
from baselines.prunevid import PruneVid, merge
from cacovid.attention import decoder_rows
from cacovid.errors import BudgetError, MethodError
from cacovid.records import LayerCut, VideoTokens
from naive import prunevid as naive


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def video_of(features: torch.Tensor) -> VideoTokens:
    row = features.new_zeros(1, features.shape[-1])
    return VideoTokens(features, (1, features.shape[1]), row, row, row, slice(0, 1), "clip")


def tiny(**settings) -> PruneVid:
    """For models of four layers: selection after layer 1."""
    return PruneVid(**{"layer": 1, **settings})


def at_angles(*degrees: float) -> torch.Tensor:
    """One grid position, a unit vector in each frame."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)[:, None]


LINE = torch.tensor([0, 0.1, 0.3, 1, 1.15, 2, 2.04, 2.09])[:, None]


# Density-peak clustering


@pytest.mark.parametrize("width", [1, 4])
def test_b_points_on_a_line(width):
    x = torch.cat([LINE, torch.zeros(8, width - 1)], 1)
    centres, labels = cluster(x, 3, 3)
    assert centres.tolist() == [6, 1, 3], "by falling score"
    assert labels.tolist() == [1, 1, 1, 2, 2, 0, 0, 0]
    torch.testing.assert_close(means(x, labels, 3)[:, 0], torch.tensor([2.04333, 0.13333, 1.075]), rtol=0, atol=1e-5)
    if width == 1:
        dist = distances(x)
        rho = density(dist, 3)
        by_hand = [0.96722, 0.98347, 0.95759, 0.84296, 0.7801, 0.99677, 0.99863, 0.99647]
        torch.testing.assert_close(rho, torch.tensor(by_hand), rtol=0, atol=1e-5)
        by_hand = [0.1, 1.9, 0.2, 0.7, 0.15, 0.04, 2.09, 0.05]
        torch.testing.assert_close(separation(dist, rho), torch.tensor(by_hand), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("points", "width", "clusters", "k"), [(30, 8, 7, 7), (12, 4, 12, 7), (9, 5, 2, 20), (1, 3, 1, 7)]
)
def test_clustering_is_that_of_the_formula_and_a_batch_is_its_members(points, width, clusters, k):
    sets = noise(5, points, width, seed=points)
    batch = cluster(sets, clusters, k)
    for x, centres, labels in zip(sets, *batch, strict=True):
        assert (centres.tolist(), labels.tolist()) == naive.cluster(x, clusters, k)
    nested = cluster(sets.view(5, 1, points, width), clusters, k)
    assert torch.equal(nested.labels[:, 0], batch.labels)


def test_of_equal_points_the_earlier_is_the_centre_and_nothing_is_nan():
    for x in (torch.zeros(5, 4), torch.full((5, 4), 7.3), torch.full((5, 4), 1e4, dtype=torch.float16)):
        centres, labels = cluster(x, 3, 7)
        assert centres.tolist() == [0, 1, 2]
        assert labels.tolist() == [0, 1, 2, 0, 0], "nearest centre, the first on ties; a centre is its own"
    pairs = torch.tensor([0.0, 0.0, 3.0, 3.0, 7.0, 7.0])[:, None]
    centres, labels = cluster(pairs, 3, 2)
    assert centres.tolist() == [0, 4, 2], "every density is 1: index 0 is the densest, then by distance to it"
    assert labels.tolist() == [0, 0, 2, 2, 1, 1]


def test_close_points_under_a_large_common_mean_keep_their_distances():
    x = noise(40, 256, seed=3)
    torch.testing.assert_close(distances(x + 300), distances(x), rtol=1e-3, atol=0)
    torch.testing.assert_close(distances(x), torch.cdist(x.double(), x.double()).float() / 16, rtol=1e-5, atol=1e-6)
    assert distances(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("clusters", [0, 9])
def test_a_number_of_centres_that_the_points_cannot_give_is_refused(clusters):
    with pytest.raises(ValueError, match=rf"{clusters} centres of 8 points, expected 1..8"):
        cluster(LINE, clusters, 3)


def test_means_are_float32_and_an_empty_cluster_is_zero():
    x = torch.tensor([[1.0, 2], [3, 4], [5, 9]], dtype=torch.float16)
    out = means(x, torch.tensor([0, 0, 2]), 3)
    assert out.dtype == torch.float32
    assert out.tolist() == [[2, 3], [0, 0], [5, 9]]


# Segments and the split


@pytest.mark.parametrize(
    ("labels", "refined", "lengths"),
    [
        ([0, 0, 1, 0, 0, 2, 2, 1], [0, 0, 0, 0, 0, 2, 2, 2], [5, 3]),
        ([3, 3, 0, 3, 3, 3, 1, 1], [3] * 6 + [1, 1], [6, 2]),
        ([0, 1, 2, 3], [0, 0, 0, 0], [4]),
        ([0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [2, 2, 2]),
        ([2, 0, 0, 0, 2, 1, 1], [0, 0, 0, 0, 0, 1, 1], [5, 2]),
        ([5], [0], [1]),
        ([], [], []),
    ],
)
def test_a_refinement(labels, refined, lengths):
    assert refine(labels) == refined
    assert run_lengths(refined) == lengths


def test_refinement_is_that_of_the_formula_and_leaves_no_single_frame():
    for seed in range(300):
        g = torch.Generator().manual_seed(seed)
        frames = int(torch.randint(2, 33, (1,), generator=g))
        labels = torch.randint(0, 2 + seed % 5, (frames,), generator=g).tolist()
        assert refine(labels) == naive.refine(labels), labels
        assert min(run_lengths(refine(labels))) >= 2


@pytest.mark.parametrize(
    ("angles", "cosine"), [((0, 30, 60), 0.744017), ((0, 20, 40), 0.881810), ((0, 36), 0.809017), ((0, 37), 0.798636)]
)
def test_c_mean_cosine_without_the_diagonal(angles, cosine):
    assert similarity(at_angles(*angles), [len(angles)]).item() == pytest.approx(cosine, abs=1e-6)


def test_c_a_static_row_is_the_plain_mean():
    clip = torch.tensor([[[3.0, 0.0]], [[1.0, 0.2]]])
    out = merge(clip, Plan([2], similarity(clip, [2]) > 0.8, 0.5))
    torch.testing.assert_close(out.tokens, torch.tensor([[2, 0.1]]))
    assert out.position.tolist() == [0]
    assert out.owner.tolist() == [0, 0]


def test_similarity_is_that_of_all_pairs():
    features = noise(11, 7, 12)
    lengths = [4, 2, 5]
    torch.testing.assert_close(similarity(features, lengths), naive.similarity(features, lengths), rtol=0, atol=1e-6)


def test_zeros_and_single_frames_are_dynamic():
    assert similarity(torch.zeros(3, 2, 4), [3]).tolist() == [[-0.5, -0.5]], "as released: no diagonal to subtract"
    assert similarity(noise(1, 2, 4), [1]).tolist() == [[-1, -1]]


# Merging


@pytest.mark.parametrize(
    ("static", "frames", "rows"),
    [(100, 4, 242), (14, 4, 378), (15, 4, 367), (182, 4, 147), (181, 4, 118), (196, 32, 98), (0, 32, 3136)],
)
def test_d_counts(static, frames, rows):
    mask = torch.arange(196)[None] < static
    plan = Plan([frames], mask, 0.5)
    assert plan.rows() == sum(plan.blocks()) == rows
    assert len(plan.blocks()) == 1 + frames


def test_d_identical_frames_become_98_rows():
    features = noise(1, 196, 8).expand(32, -1, -1)
    method = PruneVid(knobs="paper", retention=0.5)
    out = method.compress(video_of(features), 3136)
    assert method.plan(video_of(features), 3136).lengths == [32]
    assert len(out) == 98
    assert (out.position < 196).all(), "a static row stands in the segment's first frame"


@pytest.mark.parametrize(("frames", "size", "width"), [(8, 16, 12), (12, 40, 24), (9, 15, 6), (2, 30, 8), (1, 20, 8)])
def test_stage_one_is_that_of_the_formula(frames, size, width):
    make, fast, slow = naive.CASES["stage 1"]
    torch.testing.assert_close(fast(*make(frames, size, width)), slow(*make(frames, size, width)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("order", ["blocks", "raster"])
def test_a_row_is_the_mean_of_what_it_owns_and_stands_at_one_of_them(dtype, order):
    (features,) = naive.scenes(12, 30, 16)
    video = video_of(features.to(dtype))
    out = PruneVid(order=order, retention=0.1).compress(video, 36)
    assert out.tokens.dtype == dtype
    assert torch.equal(out.owner[out.position], torch.arange(len(out)))
    assert sorted(set(out.owner.tolist())) == list(range(len(out))), "nothing is dropped before the LLM"
    mean = means(video.flat, out.owner, len(out))
    torch.testing.assert_close(out.tokens.float(), mean, rtol=1e-2 if dtype != torch.float32 else 1e-5, atol=1e-5)
    alone = out.owner.bincount() == 1
    assert alone.any() and torch.equal(out.tokens[alone], video.flat[out.position[alone]]), "bit-equal"
    assert (out.position.diff() > 0).all() == (order == "raster")
    frame = out.position // 30
    assert order == "raster" or (frame.diff() >= 0).all(), "blocks rise in time"


def test_raster_order_holds_the_same_rows():
    video = video_of(naive.scenes(12, 30, 16)[0])
    blocks, raster = (PruneVid(order=order, retention=0.1).compress(video, 36) for order in ("blocks", "raster"))
    order = blocks.position.argsort()
    assert torch.equal(raster.tokens, blocks.tokens[order])
    assert torch.equal(raster.tokens[raster.owner], blocks.tokens[blocks.owner])


# Selection


def test_e_selection_by_the_largest_attention():
    q0 = [0.01, 0.05, 0.02, 0.09, 0.03, 0.1, 0.2, 0.15, 0.02, 0.01, 0.04, 0.3, 0.25, 0.2, 0.5, 0.4, 0.1, 0.6]
    q1 = [0.06, 0.01, 0.02, 0.01, 0.08, 0.02, 0.01, 0.01, 0.07, 0.3, 0.01, 0.01, 0.26, 0.01, 0.01, 0.45, 0.01, 0.01]
    other = torch.stack([torch.full((18,), 0.01), torch.full((18,), 0.02)])
    weights = torch.stack([torch.tensor([q0, q1]), other], 1)  # (queries, heads, tokens)
    sizes = [5, 3, 3, 3, 2, 2]
    block = torch.arange(6).repeat_interleave(torch.tensor(sizes))
    quota = released(sizes, 0.4)
    assert quota == [2, 1, 1, 1, 0, 0], "two tokens and fewer keep none"

    def state_with(attention):
        rows = torch.arange(19, 21)
        return SimpleNamespace(
            span=slice(0, 18), positions=torch.arange(21), rows_after_video=rows, attention=lambda _rows, **_: attention
        )

    scores = PruneVid().question_scores(state_with(weights))
    assert select(scores, block, quota).tolist() == [3, 4, 6, 9, 11]
    assert select(weights.mean((0, 1)), block, quota).tolist() == [3, 4, 6, 9, 12], "the wrong reduction"


def test_f_scores_before_rotary_embedding_and_without_mask():
    table = torch.tensor([[1.0, 0], [0, 2], [0.5, 0.5], [3, 0], [0, 3]])
    queries = torch.tensor([[0.0, 0]] * 3 + [[1, 0], [0, 1]])
    attention = SimpleNamespace(
        q_proj=lambda x: queries[x[:, 0].long()],
        k_proj=lambda x: table[x[:, 0].long()],
        head_dim=2,
        num_key_value_groups=1,
        scaling=2**-0.5,
    )
    layer = SimpleNamespace(self_attn=attention, input_layernorm=lambda x: x)
    none = torch.ones(5, 2)

    def scores(causal):
        rows = torch.tensor([3, 4])
        hidden = torch.arange(5.0)[:, None]
        return decoder_rows(layer, hidden, none, 0 * none, rows, rope=False, causal=causal).amax((0, 1))[:3]

    torch.testing.assert_close(scores(False), torch.tensor([0.1470, 0.2590, 0.1032]), rtol=0, atol=1e-4)
    torch.testing.assert_close(scores(True), torch.tensor([0.1585, 0.2590, 0.1113]), rtol=0, atol=1e-4)


def test_the_variants_ask_for_the_attention_that_they_name():
    asked = []

    def attention(rows, **how):
        asked.append((rows.tolist(), how))
        return torch.rand(len(rows), 2, 4)

    state = SimpleNamespace(
        span=slice(3, 7), positions=torch.arange(11), rows_after_video=torch.arange(8, 11), attention=attention
    )
    PruneVid().question_scores(state)
    PruneVid(scores="causal_rope").question_scores(state)
    PruneVid(newline_asks=True).question_scores(state)
    assert asked == [
        ([8, 9, 10], {"rope": False, "causal": False}),
        ([8, 9, 10], {"rope": True, "causal": True}),
        ([7, 8, 9, 10], {"rope": False, "causal": False}),
    ]


@pytest.mark.parametrize(("frames", "size"), [(6, 10), (1, 5), (9, 1)])
def test_selection_is_that_of_the_formula(frames, size):
    make, fast, slow = naive.CASES["selection"]
    assert torch.equal(fast(*make(frames, size, 0)), slow(*make(frames, size, 0)))


def test_equal_scores_go_to_the_earlier_row_and_one_row_is_always_left():
    block = torch.tensor([0, 0, 1, 1, 0])
    assert select(torch.ones(5), block, [2, 1]).tolist() == [0, 1, 2]
    assert select(torch.tensor([0.1, 0.2, 0.5, 0.5, 0.3]), block, [0, 0]).tolist() == [2]


# The budget


def test_shares_are_exact_and_rounded_down_or_up():
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        blocks = torch.randint(0, 40, (30,), generator=g).tolist()
        total = sum(blocks)
        budget = int(torch.randint(1, total + 1, (1,), generator=g))
        quota = proportional(blocks, budget)
        assert sum(quota) == budget
        for rows, kept in zip(blocks, quota, strict=True):
            assert 0 <= kept <= rows
            assert abs(kept - rows * budget / total) < 1


def halves() -> tuple[Plan, torch.Tensor]:
    """16 frames of 40 positions in two segments, half of the positions static: 20 + 8 * 20 tokens a segment."""
    likeness = torch.linspace(-1, 1, 80).view(40, 2).T.contiguous()  # the later a position, the more alike
    return Plan([8, 8], likeness > 0, 0.5), likeness


def test_beta_stays_where_it_leaves_enough():
    plan, likeness = halves()
    assert plan.rows() == 2 * (10 + 8 * 10)
    for budget in (1, 100, 180):
        assert fit(plan, likeness, budget, None).beta == 0.5


@pytest.mark.parametrize("budget", [181, 200, 300, 359, 360])
def test_beta_rises_just_as_far_as_it_must(budget):
    plan, likeness = halves()
    fitted = fit(plan, likeness, budget, None)
    assert torch.equal(fitted.static, plan.static)
    assert fitted.rows() >= budget > fitted.rows(fitted.beta - 1e-9)
    assert 0.5 < fitted.beta <= 1


@pytest.mark.parametrize("budget", [361, 400, 500, 639])
def test_a_video_that_is_too_static_for_its_budget_gives_up_the_least_alike_positions(budget):
    plan, likeness = halves()
    fitted = fit(plan, likeness, budget, None)
    freed = plan.static & ~fitted.static
    assert fitted.rows(1.0) >= budget > fitted.rows(1.0) - 7, "not one position more"
    assert (fitted.static <= plan.static).all()
    assert not fitted.static.any() or likeness[freed].max() <= likeness[fitted.static].min()


@pytest.mark.parametrize("budget", [20, 60, 100, 140])
def test_solving_beta_keeps_alpha(budget):
    plan, likeness = halves()
    fitted = fit(plan, likeness, budget, 0.4)
    if budget / 0.4 <= 360:
        assert budget / 0.4 <= fitted.rows() <= budget / 0.4 + 16, "all frames of a segment step at once"
    else:
        assert fitted.rows() == 360, "all that beta = 1 gives; alpha rises instead"


@pytest.mark.parametrize("knobs", ["solved", "solved_beta"])
@pytest.mark.parametrize("frames", [1, 2, 5, 9])
def test_the_budget_is_met_to_the_token(backbone, ask, frames, knobs):
    for retention in (0.93, 0.55, 0.3, 1 / (16 * frames)):
        method = tiny(knobs=knobs, retention=retention)
        spent = backbone.answer([ask(backbone, frames)], method, max_new_tokens=2)[0].spent
        assert spent.kept == spent.asked == round(retention * frames * 16)
        assert spent.layers[0] == spent.layers[1] >= spent.layers[2] == spent.layers[3] == spent.kept
        assert spent.decode_visible == spent.kept, "the caches of the first layers are cut, too"


def test_identical_and_empty_frames_meet_the_budget():
    for features in (noise(1, 20, 8).expand(7, -1, -1), torch.zeros(7, 20, 8), torch.full((7, 20, 8), 3.0).half()):
        for budget in (1, 10, 70, 139):
            method = PruneVid(retention=budget / 140)
            out = method.compress(video_of(features), budget)
            assert len(out) >= budget
            assert sum(method.quota(method.plan(video_of(features), budget), budget)) == budget
            assert torch.isfinite(out.tokens).all()


@pytest.mark.parametrize("knobs", ["solved", "solved_beta", "paper"])
def test_r_1_is_the_identity(knobs, backbone, ask):
    video = video_of(noise(6, 20, 8))
    out = PruneVid(knobs=knobs).compress(video, 120)
    assert torch.equal(out.tokens, video.flat) and torch.equal(out.owner, torch.arange(120))
    spent = backbone.answer([ask(backbone)], PruneVid(knobs=knobs), max_new_tokens=1)[0].spent
    assert spent.layers == (96,) * 4, "and nothing asks for layer 10"
    assert not PruneVid(knobs=knobs).adaptive


def test_the_papers_numbers_give_the_videos_own_count(backbone, ask):
    counts = []
    for retention in (0.5, 0.2):
        method = tiny(knobs="paper", retention=retention)
        assert method.adaptive
        spent = backbone.answer([ask(backbone)], method, max_new_tokens=1)[0].spent
        counts.append(spent.layers)
    video = backbone.encode([ask(backbone)], frozenset())[0]
    blocks = method.plan(video, 0).blocks()
    assert counts[0] == counts[1] == (sum(blocks),) * 2 + (sum(int(0.4 * b) for b in blocks),) * 2


def test_the_schedule_is_what_is_spent(backbone, ask):
    for settings in ({}, {"knobs": "solved_beta"}, {"knobs": "paper"}, {"layer": 0}, {"retention": 1.0}):
        method = tiny(**{"retention": 0.25, **settings})
        spent = backbone.answer([ask(backbone)], method, max_new_tokens=1)[0].spent
        video = backbone.encode([ask(backbone)], frozenset())[0]
        assert method.schedule(video, 4) == list(spent.layers)


def test_r_as_layer_average_and_as_flops(backbone, ask):
    for mode in ("layer_average", "flops"):
        spent = backbone.answer([ask(backbone)], tiny(retention=0.4), budget=mode, max_new_tokens=1)[0].spent
        figure = spent.layer_average if mode == "layer_average" else spent.equivalent / 96
        assert figure == pytest.approx(0.4, abs=0.04)
        assert spent.kept != round(0.4 * 96)
    with pytest.raises(BudgetError, match=r"PruneVid cannot meet retention=0.1 as layer_average: with one token left"):
        backbone.answer([ask(backbone)], tiny(retention=0.1), budget="layer_average")


def test_solving_beta_reaches_lower_layer_averages():
    video = video_of(noise(8, 40, 16))

    def average(knobs):
        return sum(PruneVid(knobs=knobs, retention=0.05).schedule(video, 28)) / 28 / 320

    assert average("solved_beta") < 0.1 < average("solved")


def test_flops_are_the_distances_of_frames_and_clustered_blocks():
    video = video_of(naive.scenes(12, 30, 16)[0])
    method = PruneVid(retention=0.1)
    pairs = 12 * 12
    for frames, static, dynamic in method.plan(video, 36).segments():
        pairs += (static**2 if static > 14 else 0) + frames * (dynamic**2 if dynamic > 14 else 0)
    assert method.compressor_flops(video, 36) == 2 * pairs * 16
    assert method.compressor_flops(video, 360) == 0
    assert [clusters_of(size, 0.5) for size in (0, 1, 14, 15, 16)] == [0, 1, 14, 7, 8]


# In the LLM


def test_the_pruned_prefill_and_decode_are_those_of_masks(eager, ask):
    """No token is dropped here: its columns are masked, in the first layers for the decoded token alone."""
    method = tiny(retention=0.25)
    video = eager.encode([ask(eager)], frozenset())[0]
    budget = method.budget(len(video))
    merged = method.compress(video, budget)
    sequence = eager.sequence(video, merged, budget, method)
    embeds, span, rows = sequence.embeds, sequence.span, len(sequence.embeds)
    prefilled = eager.decoder.prefill([sequence])
    ours = torch.stack([prefilled.logits[0], eager.decoder.decode(prefilled, torch.tensor([7]), 0)[0]])

    kept = sequence.positions  # compact before the cut: positions are row numbers
    dropped = torch.ones(rows + 1, dtype=torch.bool)
    dropped[torch.cat([kept, torch.tensor([rows])])] = False
    assert dropped.sum() == len(merged) - budget > 0
    assert not dropped[: span.start].any() and not dropped[span.stop :].any(), "text and newline stay"
    model = eager.decoder.model
    with torch.inference_mode():
        hidden = torch.cat([embeds, model.embed_tokens(torch.tensor([7]))])[None]
        rotary = model.rotary_emb(hidden, torch.arange(rows + 1)[None])
        for index, layer in enumerate(model.layers):
            hides = torch.ones(rows + 1, rows + 1).triu(1).bool()
            hides[0 if index > 1 else rows :] |= dropped
            mask = torch.zeros(hides.shape).masked_fill(hides, torch.finfo(torch.float32).min)
            hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
        logits = eager.decoder.lm_head(model.norm(hidden))[0, -2:]
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert {layer.keys.shape[2] for layer in prefilled.cache.layers} == {len(kept) + 1}


def test_a_batch_is_its_members(backbone, ask):
    requests = [ask(backbone), ask(backbone, 3, text="And this, or that?", seed=5, clip="other")]
    method = tiny(retention=0.3)
    together = backbone.answer(requests, method, max_new_tokens=4, keep_logits=True)
    for request, answer in zip(requests, together, strict=True):
        alone = backbone.answer([request], method, max_new_tokens=4, keep_logits=True)[0]
        assert torch.equal(answer.kept, alone.kept)
        torch.testing.assert_close(torch.stack(answer.logits), torch.stack(alone.logits), rtol=1e-4, atol=1e-4)


def test_another_question_keeps_other_tokens(backbone, ask):
    kept = [
        backbone.answer([ask(backbone, text=text)], tiny(retention=0.15), max_new_tokens=1)[0].kept.tolist()
        for text in ("What is it?", "0123456789 zebras")
    ]
    assert kept[0] != kept[1]


def test_every_setting_changes_what_is_left(build_backbone, ask):
    backbone = build_backbone(image=48)  # 36 tokens a frame: blocks large enough to be clustered

    def left(**settings):
        method = tiny(**{"retention": 0.2, **settings})
        answer = backbone.answer([ask(backbone, 8)], method, max_new_tokens=1)[0]
        return (*answer.kept.tolist(), answer.spent.entering)

    settings = [
        {},
        {"knobs": "solved_beta"},
        {"knobs": "solved_beta", "alpha": 0.9},
        {"knobs": "paper"},
        {"tau": 0.95},
        {"gamma": 0.5},
        {"beta": 0.9},
        {"layer": 2},
        {"scores": "causal_rope"},
        {"order": "raster"},
    ]  # `newline_asks` adds one row to some thirty, and need not win: what it asks for is tested above
    found = {left(**s): s for s in settings}
    assert len(found) == len(settings), f"only these differ: {list(found.values())}"


# Refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau": 1.1}, r"tau=1.1, expected -1 <= tau <= 1: a mean cosine"),
        ({"tau": float("nan")}, r"tau=nan, expected -1"),
        ({"beta": 0.0}, r"beta=0.0, expected 0 < beta <= 1: a share"),
        ({"gamma": 2.0}, r"gamma=2.0, expected 0 < gamma <= 1: a share"),
        ({"alpha": 0.0}, r"alpha=0.0, expected 0 < alpha <= 1: a share"),
        ({"layer": -1}, r"layer=-1, expected an integer >= 0 or None: tokens are cut after it"),
        ({"knobs": "beta"}, r"knobs='beta', expected one of 'solved', 'solved_beta', 'paper'"),
        ({"scores": "mean"}, r"scores='mean', expected one of 'code', 'causal_rope'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(MethodError, match=words):
        PruneVid(**settings)


@pytest.mark.parametrize("layer", [3, 10])
def test_a_layer_without_one_behind_it_is_refused(backbone, ask, layer):
    words = rf"layer={layer}, expected 0 <= layer < 3: .* this model has 4 decoder layers"
    with pytest.raises(MethodError, match=words):
        backbone.answer([ask(backbone)], PruneVid(layer=layer, retention=0.5))
    with pytest.raises(MethodError, match=words):
        PruneVid(layer=layer, retention=0.5).schedule(video_of(noise(2, 4, 8)), 4)


def test_a_prompt_without_text_behind_the_video_is_refused():
    state = SimpleNamespace(span=slice(0, 4), positions=torch.arange(5), rows_after_video=torch.arange(0))
    with pytest.raises(MethodError, match=r"selects by the text after the video, but the prompt ends with the video"):
        PruneVid().question_scores(state)


def test_another_cut_before_the_selection_is_refused(backbone, ask):
    class Cuts(PruneVid):
        def prune_layer(self, layer, state, budget):
            return LayerCut(torch.arange(20)) if layer == 1 else super().prune_layer(layer, state, budget)

    with pytest.raises(MethodError, match=r"selects among the \d+ rows .* but 20 video tokens are left at layer 2"):
        backbone.answer([ask(backbone)], Cuts(layer=1, retention=0.1))
