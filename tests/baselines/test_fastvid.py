"""FastVID against worked examples, transformers' own pooling head, and its naive form."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipModel, SiglipVisionModel

from baselines._fastvid_head import load_head
from baselines._fastvid_plan import anchor_quota, make_plan, segment_lengths, transitions
from baselines.fastvid import FastVID, merge_into, merge_video, pool_attention
from baselines.fidelity.fastvid import check
from cacovid.errors import CheckpointError, MethodError
from cacovid.records import VideoTokens
from naive.fastvid import CASES, naive_context, naive_merge_video, naive_segments
from tiny import tiny_siglip, tiny_siglip_folder

GOLDEN = Path(__file__).parents[1] / "golden" / "fastvid"
CPU = torch.device("cpu")
STAND_IN = "received_attention"
WIDTH = 32  # of the tiny backbone's tower


@pytest.fixture(scope="session")
def siglip() -> SiglipModel:
    return tiny_siglip()


@pytest.fixture(scope="session")
def head() -> str:
    return tiny_siglip_folder()


def official(siglip, patches):
    """The modules of transformers: post_layernorm, then the pooling head and its attention to the probe."""
    vision = siglip.vision_model
    with torch.inference_mode():
        normed = vision.post_layernorm(patches)
        probe = vision.head.probe.repeat(len(patches), 1, 1)
        return vision.head.attention(probe, normed, normed)[1][:, 0], vision.head(normed)


def video_of(features, saliency, **captured):
    row = features.new_zeros(1, features.shape[2])
    grid = (1, features.shape[1])
    captured = {"received_attention": saliency, **captured}
    return VideoTokens(features, grid, row, row, row, slice(0, 1), "clip", captured)


def noise(frames=6, slots=16, width=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, slots, width, generator=generator).to(dtype)
    return video_of(features, torch.rand(frames, slots, generator=generator))


def run(video, retention, **settings):
    method = FastVID(retention=retention, saliency=STAND_IN, **settings)
    return method.compress(video, method.budget(len(video)))


# worked examples of the card


@pytest.mark.parametrize(("cuts", "lengths"), [(1, [2, 4]), (2, [2, 4]), (3, [2, 2, 2]), (4, [2, 2, 1, 1])])
def test_t1_segments_are_forced_cuts_and_all_below_tau(cuts, lengths):
    assert segment_lengths(torch.tensor([0.99, 0.5, 0.98, 0.95, 0.97]), cuts, 0.9) == lengths


def test_t1_below_tau_is_strict_and_ties_cut_the_earlier_transition():
    assert segment_lengths(torch.tensor([0.5, 0.25, 0.5]), 1, 0.5) == [2, 2]
    assert segment_lengths(torch.tensor([1.0, 1.0, 1.0]), 2, 0.9) == [1, 3]
    assert segment_lengths(torch.tensor([]), 8, 0.9) == [1], "one frame"
    assert segment_lengths(torch.ones(3), 8, 0.9) == [1, 1, 1, 1], "fewer frames than segments"


@pytest.mark.parametrize(
    ("length", "quota"),
    [
        (1, [7]),
        (2, [0, 14]),
        (4, [0, 0, 0, 28]),
        (5, [17, 0, 0, 0, 17]),
        (6, [0, 21, 0, 0, 0, 21]),
        (9, [21, 0, 0, 0, 21, 0, 0, 0, 21]),
        (13, [22, 0, 0, 0] * 3 + [22]),
        (32, [0, 0, 0, 28] * 8),
    ],
)
def test_t2_anchor_frames_counted_from_the_last(length, quota):
    assert make_plan([length], 196, 19, total=None, context_share=0.4, every=4).context == quota
    assert naive_context([length], 7, 4) == quota
    whole = anchor_quota(length, 7 * length, 4, 184, whole=False)
    assert sum(whole) == 7 * length, "exact: nothing is lost"
    assert all(q <= w <= q + 1 and (w > 0) == (q > 0) for q, w in zip(quota, whole, strict=True))


@pytest.mark.parametrize(("retention", "kept", "salient", "total"), [(0.1, 19, 12, 608), (0.25, 49, 30, 1568)])
def test_released_counts_of_32_frames(retention, kept, salient, total):
    method = FastVID(retention=retention, rounding="floor", saliency=STAND_IN)
    assert method.kept_a_frame(196) == kept
    plan = make_plan([4] * 8, 196, kept, total=None, context_share=method.context_share, every=method.anchor_every)
    assert (plan.salient, len(plan)) == (salient, total)


def test_t3_an_anchor_is_a_member_of_its_own_group():
    pool = torch.tensor([[2.0, 0], [4, 0], [0, 1]])
    rows, group = merge_into(pool, torch.tensor([0, 2]), 0.6)
    torch.testing.assert_close(rows, torch.tensor([[2.4, 0], [0, 1]]))
    assert group.tolist() == [0, 0, 1]


def test_t3_an_anchor_without_a_group_stays_and_small_beta_gives_way_to_the_group_size():
    pool = torch.tensor([[1.0, 0], [1, 0], [4, 0]])
    rows, group = merge_into(pool, torch.tensor([0, 1]), 0.1)
    assert group.tolist() == [0, 0, 0], "of equal cosines the first anchor"
    torch.testing.assert_close(rows, torch.tensor([[0.25 * 1 + 0.75 * 2, 0], [1, 0]]), msg="w = 1 / (3 + 1)")


def test_t4_whole_example():
    f, i, k = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (6, 12, 8)), indexing="ij")
    x = torch.sin(0.9 * (i + 1) * (k + 1) + 0.3 * i**2) + (0.02 + 0.09 * i) * torch.sin(1.7 * f * (k + 1) + 0.4 * i)
    x = x + 0.5 + 1.5 * (f >= 4) * torch.cos(1.1 * (k + i))
    saliency = ((torch.sin(2.1 * i + 0.8 * f) + 1.1) / 100)[..., 0]
    assert x.sum().item() == pytest.approx(260.187, abs=1e-3)
    assert saliency.sum().item() == pytest.approx(0.79256, abs=1e-5)
    angle = torch.tensor([0, 0.1, 0.9, 1.0, 1.15, 2.2])
    lengths = segment_lengths(transitions(torch.stack([angle.cos(), angle.sin()], 1)), 3, 0.9)
    assert lengths == [2, 3, 1]
    plan = make_plan(lengths, 12, 6, total=None, context_share=0.4, every=4)
    assert (plan.salient, plan.context, len(plan)) == (4, [0, 4, 0, 0, 6, 2], 36)
    out = merge_video(x.float(), saliency.float(), plan, 0.6)
    expected = "1 4 7 10 12 14 15 16 17 18 20 21 24 27 30 33 36 39 42 45 "
    expected += "48 49 50 52 53 54 56 57 58 59 62 64 65 68 69 71"
    assert out.position.tolist() == [int(word) for word in expected.split()]
    assert out.tokens.sum().item() == pytest.approx(122.697, abs=1e-3)


def test_the_golden_vectors_hold():
    checks = check(GOLDEN)
    assert len(checks) == 50
    assert [c for c in checks if not c.passed] == []


# fast = naive


@pytest.mark.parametrize("label", CASES)
@pytest.mark.parametrize("size", [(1, 9, 8), (5, 16, 16), (13, 12, 24)], ids=str)
def test_fast_is_naive(label, size):
    make, fast, naive = CASES[label]
    inputs = make(*size)
    for ours, reference in zip(fast(*inputs), naive(*inputs), strict=True):
        if ours.is_floating_point():
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(ours, reference)


@pytest.mark.parametrize("retention", [0.02, 0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("rounding", ["exact", "floor"])
def test_fast_is_naive_at_every_budget(rounding, retention):
    video = noise(frames=9, slots=12, seed=3)
    method = FastVID(retention=retention, rounding=rounding, saliency=STAND_IN, min_segments=3, tau=0.2)
    descriptors = video.features.mean(1)
    assert segment_lengths(transitions(descriptors), 3, 0.2) == naive_segments(descriptors, 3, 0.2)
    plan = method._plan(video, method.budget(len(video)), descriptors)
    assert max(plan.lengths) > 1, "something is merged over frames"
    ours = method.compress(video, method.budget(len(video)))
    reference = naive_merge_video(video.features, video.received_attention, plan, method.beta)
    assert torch.equal(ours.position, reference.position)
    assert torch.equal(ours.owner, reference.owner)
    torch.testing.assert_close(ours.tokens, reference.tokens, rtol=1e-4, atol=1e-5)


# budget


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 12, 33])
@pytest.mark.parametrize(
    "settings", [{}, {"tau": -1.0, "min_segments": 1}, {"context_share": 1.0}, {"anchor_every": 1}], ids=str
)
def test_exact_meets_every_budget(frames, settings):
    video = noise(frames=frames, slots=6, width=4, seed=frames)
    for budget in range(1, len(video) + 1, 1 if frames < 7 else frames):
        out = run(video, budget / len(video), **settings)
        assert len(out) == budget
        assert (out.position.diff() > 0).all(), "no slot twice"
        assert out.tokens.isfinite().all()
        assert torch.equal(out.owner[out.position], torch.arange(budget))


@pytest.mark.parametrize("retention", [0.04, 0.1, 0.25, 0.45, 0.6, 0.9])
@pytest.mark.parametrize("frames", [1, 2, 9, 32])
def test_floor_keeps_what_the_release_keeps_and_says_its_slack(frames, retention):
    video = noise(frames=frames, slots=16, seed=frames)
    method = FastVID(retention=retention, rounding="floor", saliency=STAND_IN, tau=0.5)
    budget = method.budget(len(video))
    out = method.compress(video, budget)
    assert abs(len(out) - budget) == method.slack(video) < 2 * frames
    assert method.schedule(video, 3) == [len(out)] * 3
    lost = frames * max(int(16 * retention), 1) - len(out)
    assert 0 <= lost <= (frames - 1) // 4, "an anchor frame cannot share what does not divide: less than one each"


def test_floor_loses_the_rest_of_a_segment():
    video = noise(frames=5, slots=196, width=4)
    settings = {"retention": 0.1, "min_segments": 1, "tau": -1.0, "saliency": STAND_IN}
    method = FastVID(rounding="floor", **settings)
    assert len(method.compress(video, 98)) == 94, "5 x 12 salient and 17 + 17 context tokens of 35"
    assert (method.slack(video), method.schedule(video, 2)) == (4, [94, 94])
    exact = FastVID(**settings)
    assert (len(exact.compress(video, 98)), exact.slack(video), exact.schedule(video, 2)) == (98, 0, [98, 98])


def test_anchor_frames_stand_closer_where_they_have_no_room():
    # 4 frames of 10 at r = 0.8: 5 salient and 3 context tokens each, 12 in all for 5 free slots an anchor frame
    plan = make_plan([4], 10, 8, total=32, context_share=0.4, every=4)
    assert (plan.salient, plan.context) == (5, [3, 3, 3, 3])
    assert make_plan([4], 10, 6, total=24, context_share=0.4, every=4).context == [4, 0, 0, 4], "every 3rd is enough"


# what is kept, what is merged


def test_salient_tokens_are_bit_equal_and_beta_1_merges_nothing():
    video = noise()
    method = FastVID(retention=0.4, saliency=STAND_IN)
    out = run(video, 0.4)
    plan = method._plan(video, 38, video.features.mean(1))
    salient = video.received_attention.topk(plan.salient, dim=1).indices + 16 * torch.arange(6)[:, None]
    rows = out.owner[salient.flatten()]
    assert torch.equal(out.position[rows], salient.flatten())
    assert torch.equal(out.tokens[rows], video.flat[salient.flatten()])
    changed = (out.tokens != video.flat[out.position]).any(1)
    assert changed.sum() == sum(plan.context), "and every context token is merged"
    assert torch.equal(run(video, 0.4, beta=1.0).tokens, video.flat[out.position])


def test_each_anchor_frame_merges_the_whole_segment_anew():
    video = noise(frames=5, slots=4)
    out = run(video, 0.4, tau=-1.0, min_segments=1, context_share=1.0)  # no salient ones; anchors in frames 0 and 4
    assert (out.position // 4).tolist() == [0] * 4 + [4] * 4
    assert (out.owner >= 0).all(), "nothing is dropped"
    first = out.tokens[:4]
    members = (video.flat @ torch.nn.functional.normalize(video.flat[:4], dim=1).T).argmax(1)
    means = torch.stack([video.flat[members == n].mean(0) for n in range(4)])
    torch.testing.assert_close(first, 0.6 * video.flat[:4] + 0.4 * means)
    assert out.owner[:4].tolist() == [0, 1, 2, 3], "frame 0 belongs to its own anchors"
    assert (out.owner[4:] >= 4).all(), "the frames after it to the anchors that follow"


def test_a_segment_whose_share_is_no_token_is_dropped():
    out = run(noise(frames=6, slots=16), 1 / 96, min_segments=6)
    assert len(out) == 1
    frame = int(out.position) // 16
    assert (out.owner.view(6, 16)[frame] == 0).all()
    assert (out.owner == 0).sum() == 16, "the other frames' segments hold no row that they could go into"


def test_scaling_descriptors_leaves_segments_and_zero_ones_are_cut():
    descriptors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(transitions(descriptors), transitions(descriptors * torch.arange(1, 9)[:, None]))
    descriptors[3] = 0
    assert transitions(descriptors)[2:4].tolist() == [0, 0]


def test_retention_1_is_the_identity_even_without_a_head():
    video = noise()
    out = FastVID().compress(video, len(video))
    assert torch.equal(out.tokens, video.flat)
    assert torch.equal(out.owner, torch.arange(len(video)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_in_float32_and_returns_the_dtype(dtype):
    half = noise(dtype=dtype)
    whole = dataclasses.replace(half, features=half.features.float())
    ours, reference = run(half, 0.3), run(whole, 0.3)
    assert ours.tokens.dtype == dtype
    assert torch.equal(ours.position, reference.position)
    assert torch.equal(ours.owner, reference.owner)
    assert torch.equal(ours.tokens, reference.tokens.to(dtype)), "rounded once, at the end"


@pytest.mark.parametrize("make", [torch.zeros, torch.ones], ids=["zero vectors", "identical tokens"])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_videos_without_contrast_give_their_own_tokens(make, frames):
    features = make(frames, 16, 8)
    out = run(video_of(features, torch.full((frames, 16), 1 / 16)), 0.3)
    assert len(out) == round(0.3 * frames * 16)
    torch.testing.assert_close(out.tokens, features.flatten(0, 1)[out.position])
    if make is torch.ones:
        assert (out.owner >= 0).sum() > len(out)


def test_identical_frames_give_identical_rows():
    frame = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    out = run(video_of(frame.expand(8, -1, -1), torch.arange(16.0).expand(8, -1)), 0.5, min_segments=1)
    frames = (out.position // 16).bincount(minlength=8)
    assert frames.tolist() == [5, 13, 5, 5, 13, 5, 5, 13], "one segment; 5 salient each, 8 merged in every 3rd frame"
    one, other = out.position // 16 == 1, out.position // 16 == 7
    assert torch.equal(out.position[one] % 16, out.position[other] % 16)
    torch.testing.assert_close(out.tokens[one], out.tokens[other])


# SigLIP's head


@pytest.mark.parametrize("frames", [1, 3, 40])
def test_the_head_is_transformers_own(siglip, head, frames):
    patches = torch.randn(frames, 64, WIDTH, generator=torch.Generator().manual_seed(1))
    attention, pooled = load_head(head, CPU)(patches)
    expected_attention, expected_pooled = official(siglip, patches)
    torch.testing.assert_close(attention, expected_attention, rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-5, atol=1e-5)
    assert attention.std() > 1e-3, "the probe looks at some patches more than at others"
    torch.testing.assert_close(attention.sum(1), torch.ones(frames))


def test_half_precision_patches_are_read_in_float32(siglip, head):
    patches = torch.randn(2, 64, WIDTH).bfloat16()
    attention, pooled = load_head(head, CPU)(patches)
    assert attention.dtype == pooled.dtype == torch.float32
    torch.testing.assert_close(attention, official(siglip, patches.float())[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["shards", "vision model alone", "half precision"])
def test_other_layouts_of_the_same_head(siglip, head, tmp_path, layout):
    if layout == "shards":
        siglip.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
        held = {file for name, file in index.items() if name.startswith(("vision_model.head", "vision_model.post"))}
        for unused in set(index.values()) - held:
            (tmp_path / unused).unlink()  # no other shard is looked at
    elif layout == "vision model alone":
        alone = SiglipVisionModel(siglip.config.vision_config)
        alone.load_state_dict(siglip.vision_model.state_dict())
        alone.save_pretrained(tmp_path)
    else:
        weights = load_file(Path(head) / "model.safetensors")
        save_file({name: weight.half() for name, weight in weights.items()}, tmp_path / "model.safetensors")
        shutil.copy(Path(head) / "config.json", tmp_path)
    patches = torch.randn(2, 64, WIDTH)
    for ours, expected in zip(load_head(str(tmp_path), CPU)(patches), load_head(head, CPU)(patches), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=5e-3 if layout == "half precision" else 1e-6)


def damaged(head, folder, *, drop=(), reshape=None, model_type=None):
    weights = load_file(Path(head) / "model.safetensors")
    weights = {n: w for n, w in weights.items() if not n.startswith(tuple(drop))} if drop else weights
    if reshape:
        weights[reshape] = weights[reshape][:3].clone()
    save_file(weights, folder / "model.safetensors")
    config = json.loads((Path(head) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


PUBLISHED = r"for the published LLaVA-OneVision google/siglip-so400m-patch14-384"


def test_a_checkpoint_without_the_head_is_refused_with_the_one_to_give(head, siglip, tmp_path):
    folder = damaged(head, tmp_path, drop=["vision_model.head."])
    with pytest.raises(CheckpointError, match=rf"lacks 11 of 13 weights .*first head\.attention\.in_pro.*{PUBLISHED}"):
        load_head(folder, CPU)


def test_a_lone_missing_weight_is_named(head, tmp_path):
    folder = damaged(head, tmp_path, drop=["vision_model.post_layernorm.bias"])
    with pytest.raises(CheckpointError, match=r"lacks 1 of 13 weights .*first post_layernorm\.bias"):
        load_head(folder, CPU)


def test_a_weight_of_another_shape_is_refused(head, tmp_path):
    folder = damaged(head, tmp_path, reshape="vision_model.head.mlp.fc1.bias")
    with pytest.raises(CheckpointError, match=r"has head\.mlp\.fc1\.bias \(3,\), expected \(40,\) by its config.json"):
        load_head(folder, CPU)


def test_a_shard_that_is_not_there_is_named(siglip, tmp_path):
    siglip.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    (tmp_path / index["vision_model.head.probe"]).unlink()
    with pytest.raises(CheckpointError, match=rf"lacks the shards {index['vision_model.head.probe']}; download it"):
        load_head(str(tmp_path), CPU)


def test_an_index_without_a_head_is_refused(siglip, tmp_path):
    siglip.save_pretrained(tmp_path, max_shard_size="20KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if n.startswith("text_model.")}
    assert any("head" in name for name in index["weight_map"]), "the text model's head is another"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"holds no attention-pooling head .*{PUBLISHED}"):
        load_head(str(tmp_path), CPU)


def test_a_damaged_file_is_refused(head, tmp_path):
    shutil.copy(Path(head) / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged: .*download it again"):
        load_head(str(tmp_path), CPU)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/siglip", r"head='/nowhere/siglip' is no folder and no hub id like owner/name"),
        ("siglip", r"head='siglip' is no folder and no hub id like owner/name"),
    ],
)
def test_a_head_that_is_nowhere_is_refused(source, words):
    with pytest.raises(CheckpointError, match=rf"{words}; .*{PUBLISHED}"):
        load_head(source, CPU)


def test_folders_that_hold_no_siglip_are_refused(tmp_path, build_backbone):
    with pytest.raises(CheckpointError, match=rf"has no config.json with model.safetensors or .*{PUBLISHED}"):
        load_head(str(tmp_path), CPU)
    build_backbone().model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"lacks 13 of 13 .*\(LLaVA checkpoints drop it\).*{PUBLISHED}"):
        load_head(str(tmp_path), CPU)


def test_another_model_type_is_refused(tmp_path, backbone):
    backbone.model.config.text_config.save_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"is a qwen2 checkpoint, expected siglip; .*{PUBLISHED}"):
        load_head(str(tmp_path), CPU)


def test_a_head_of_another_width_is_refused(head):
    video = noise()
    video = dataclasses.replace(video, captured={"patches": torch.zeros(6, 16, 48)})
    with pytest.raises(MethodError, match=r"head is for a tower of width 32, this tower has width 48: give head="):
        FastVID(retention=0.5, head=head).compress(video, 48)


def test_patches_that_are_no_square_are_refused(head):
    video = dataclasses.replace(noise(), captured={"patches": torch.zeros(6, 15, WIDTH)})
    with pytest.raises(MethodError, match=r"15 patches a frame, expected a square grid"):
        FastVID(retention=0.5, head=head).compress(video, 48)


def test_attention_is_pooled_like_features(backbone):
    attention = torch.rand(3, 64)
    pooled = pool_attention(attention, (backbone.side, backbone.side))
    torch.testing.assert_close(pooled, backbone.model.model.apply_pooling(attention[..., None])[..., 0])
    by_hand = attention.view(3, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    torch.testing.assert_close(pooled, by_hand, msg="8 x 8 to 4 x 4 is the mean of 2 x 2")


# through the backbone


def test_the_head_reads_the_towers_last_hidden_state(backbone, ask, siglip, head):
    method = FastVID(retention=0.3, head=head, tau=0.95)
    video = backbone.encode([ask(backbone)], method.needs)[0]
    assert set(video.captured) == {"patches"}
    tower = backbone.model.model.vision_tower
    with torch.inference_mode():
        states = tower(backbone.preprocess(ask(backbone).frames)["pixel_values_videos"][0], output_hidden_states=True)
    assert torch.equal(video.patches, states.hidden_states[-1]), "before the tower's own post_layernorm"
    attention, pooled = official(siglip, states.hidden_states[-1])
    saliency, descriptors = method._look(video)
    torch.testing.assert_close(saliency, pool_attention(attention, video.grid), rtol=0, atol=1e-6)
    torch.testing.assert_close(descriptors, pooled, rtol=1e-5, atol=1e-5)
    plan = method._plan(video, 29, pooled)
    expected = naive_merge_video(video.features, pool_attention(attention, video.grid), plan, method.beta)
    out = method.compress(video, 29)
    assert torch.equal(out.position, expected.position)
    torch.testing.assert_close(out.tokens, expected.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"rounding": "exact"}, {"rounding": "floor"}], ids=str)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_answers_spend_what_they_say_at_original_positions(backbone, ask, head, frames, settings):
    method = FastVID(retention=0.3, head=head, **settings)
    request = ask(backbone, frames)
    answer = backbone.answer([request], method, max_new_tokens=2)[0]
    total = frames * 16
    assert answer.spent.asked == round(0.3 * total)
    assert abs(answer.spent.kept - answer.spent.asked) == answer.spent.slack
    assert set(answer.spent.layers) == {answer.spent.kept}
    video = backbone.encode([request], method.needs)[0]
    sequence = backbone.sequence(video, answer.compressed, answer.spent.asked, method)
    start, kept = len(video.prefix), len(answer.compressed)
    assert torch.equal(sequence.positions[start : start + kept], start + answer.compressed.position)
    assert sequence.positions[start + kept] == start + total, "the newline keeps its place: gaps stay"
    assert sequence.next_position == start + total + 1 + len(video.suffix)


def test_every_setting_changes_what_the_llm_reads(backbone, ask, head):
    def tokens(**settings):
        method = FastVID(**{"retention": 0.5, "head": head, "tau": -1.0, "min_segments": 2} | settings)
        video = backbone.encode([ask(backbone, 9)], method.needs)[0]
        return method.compress(video, method.budget(len(video))).tokens.sum().item()

    changed = [
        {},
        {"head": "", "saliency": STAND_IN},
        {"rounding": "floor"},
        {"min_segments": 4},
        {"tau": 1.0},
        {"context_share": 0.2},
        {"anchor_every": 2},
        {"beta": 0.8},
    ]
    assert len({tokens(**s) for s in changed}) == len(changed)


def test_flops_count_head_distances_and_cosines(head):
    video = noise(frames=5, slots=16, width=8)
    video = dataclasses.replace(video, grid=(4, 4), captured={**video.captured, "patches": torch.randn(5, 64, WIDTH)})
    settings = {"retention": 0.25, "min_segments": 1, "tau": -1.0}
    method = FastVID(saliency=STAND_IN, **settings)  # K = 4: 3 salient, 1 context; 5 in frames 0 and 4
    distances, cosines = 2 * 13 * 13 * 8, 5 * 13 * 5 * 8
    assert method.compressor_flops(video, 20) == 2 * (distances + cosines)
    reading = 5 * (2 * 64 * 4 * 32 + 2 * 32 * 32 + 2 * 32 * 40)
    assert FastVID(head=head, **settings).compressor_flops(video, 20) == 2 * (distances + cosines + reading)
    assert FastVID().compressor_flops(video, 80) == 0


# refusals and declarations


def test_without_a_head_it_is_refused_with_the_one_to_give(backbone, ask):
    words = r"give head= a folder or hub id of .*google/siglip-so400m-patch14-384 .*or saliency='received_attention'"
    with pytest.raises(MethodError, match=words):
        backbone.answer([ask(backbone)], FastVID(retention=0.3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_segments": 0}, r"min_segments=0, expected >= 1"),
        ({"anchor_every": 0}, r"anchor_every=0, expected >= 1"),
        ({"tau": 1.5}, r"tau=1.5, expected -1 <= tau <= 1"),
        ({"context_share": -0.1}, r"context_share=-0.1, expected 0 <= context_share <= 1"),
        ({"beta": 2.0}, r"beta=2.0, expected 0 <= beta <= 1"),
        ({"beta": math.nan}, r"beta=nan, expected 0 <= beta <= 1"),
        ({"rounding": "ceil"}, r"rounding='ceil', expected one of 'exact', 'floor'"),
        ({"saliency": "cls"}, r"saliency='cls', expected one of 'head', 'received_attention'"),
        ({"head": "x/y", "saliency": STAND_IN}, r"head='x/y' is not read with saliency='received_attention'; drop"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(MethodError, match=words):
        FastVID(**settings)


def test_what_it_declares(head):
    assert FastVID().needs == {"patches"}
    assert FastVID(saliency=STAND_IN).needs == {STAND_IN}
    assert FastVID().stages == ("pre-LLM",)
    assert FastVID().positions == "original"
    assert FastVID().identity() == {}


def test_identity_is_the_heads_weights(head, tmp_path):
    ours = FastVID(head=head).identity()
    assert len(ours["head_sha256"]) == 64
    copy = tmp_path / "copy"
    shutil.copytree(head, copy)
    assert FastVID(head=str(copy)).identity() == ours, "wherever they lie"
    weights = load_file(copy / "model.safetensors")
    weights["vision_model.head.probe"] += 1e-3
    other = tmp_path / "other"
    other.mkdir()
    save_file(weights, other / "model.safetensors")
    shutil.copy(copy / "config.json", other)
    assert FastVID(head=str(other)).identity() != ours
