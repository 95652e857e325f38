"""Exact look-ups into attention against eager attention's own maps; recording leaves the model as it was."""

import pytest
import torch

from cacovid.errors import MethodError
from cacovid.method import Method
from cacovid.records import Compressed, LayerCut

KERNELS = 1e-5  # where the hidden states come from another kernel or from the cache: their rounding adds up


class Look(Method):
    """Toy: notes the attention of all rows before every layer; cuts to `kept` before layer 1 if given."""

    kept = None
    seen: dict
    decoded: dict
    options: dict

    def prune_layer(self, layer, state, budget):
        if layer > 0:
            rows = torch.arange(len(state.positions))
            self.seen[layer] = state.attention(rows, **self.options)
        if layer == 1 and self.kept is not None:
            return LayerCut(torch.tensor(self.kept))
        return None

    def visible(self, layer, step, state, budget):
        if layer > 0:
            self.decoded[layer, step] = state.attention()
        return None


@pytest.fixture
def look():
    def make(kept=None, **options):
        method = Look()
        for name, value in {"kept": kept, "seen": {}, "decoded": {}, "options": options}.items():
            object.__setattr__(method, name, value)
        return method

    return make


def run(backbone, request, method, tokens=()):
    """Prefill and decode `tokens`; the rows (1, L, D) that entered, decoded tokens included."""
    video = backbone.encode([request], frozenset())[0]
    every = Compressed.keep(video, torch.arange(len(video)))
    sequence = backbone.sequence(video, every, 0, method)
    state = backbone.decoder.prefill([sequence])
    for step, token in enumerate(tokens):
        backbone.decoder.decode(state, torch.tensor([token]), step)
    embed = backbone.model.get_input_embeddings()
    rows = torch.cat([sequence.embeds, embed(torch.tensor(tokens, dtype=torch.int64))])[None]
    return rows, slice(len(video.prefix), len(video.prefix) + len(video)), sequence


def eager_maps(eager, rows, **inputs):
    """Stock attention maps, one (H, L, L) a layer."""
    model = eager.model.model.language_model
    with torch.inference_mode():
        out = model(inputs_embeds=rows, output_attentions=True, use_cache=False, **inputs)
    assert all(map is not None for map in out.attentions), "a silent None is the classic bug"
    return [map[0] for map in out.attentions]


@pytest.mark.parametrize("attention", ["backbone", "eager"])
def test_rows_equal_eager_attention(request, attention, eager, ask, look):
    backbone = request.getfixturevalue(attention)
    method = look()
    rows, span, _ = run(backbone, ask(backbone), method)
    maps = eager_maps(eager, rows)
    assert sorted(method.seen) == [1, 2, 3]
    for layer, seen in method.seen.items():
        expected = maps[layer - 1].transpose(0, 1)[..., span]  # (Q, H, K)
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6 if attention == "eager" else KERNELS)


def test_the_next_layers_own_attention(eager, ask, look):
    """One layer later than the default: layer 1's own projections on its input."""

    class Next(type(look())):
        def prune_layer(self, layer, state, budget):
            self.seen[layer] = state.attention(state.last_row, layer=layer)

    method = Next()
    object.__setattr__(method, "seen", {})
    object.__setattr__(method, "decoded", {})
    rows, span, _ = run(eager, ask(eager), method)
    for layer, map in enumerate(eager_maps(eager, rows)):
        torch.testing.assert_close(method.seen[layer][0], map[:, -1, span], rtol=0, atol=1e-6)


def test_softmax_over_the_video_alone(eager, ask, look):
    method = look(over_video=True)
    rows, span, _ = run(eager, ask(eager), method)
    last = eager_maps(eager, rows)[0][:, -1, span]
    torch.testing.assert_close(method.seen[1][-1], last / last.sum(-1, keepdim=True), rtol=0, atol=1e-6)


def test_attention_without_rotary_embedding(eager, ask, look):
    """Position 0 turns nothing, so the stock model at all-zero positions is the reference; first layer only."""
    method = look(rope=False)
    rows, span, _ = run(eager, ask(eager), method)
    length = rows.shape[1]
    causal = torch.zeros(length, length).masked_fill(
        torch.ones(length, length, dtype=torch.bool).triu(1), torch.finfo(torch.float32).min
    )
    maps = eager_maps(
        eager, rows, position_ids=torch.zeros(1, length, dtype=torch.int64), attention_mask=causal[None, None]
    )
    torch.testing.assert_close(method.seen[1], maps[0].transpose(0, 1)[..., span], rtol=0, atol=1e-6)


def test_rows_after_a_cut_are_of_the_tokens_left(eager, ask, look):
    kept = list(range(0, 96, 3))
    method = look(kept=kept)
    rows, span, sequence = run(eager, ask(eager), method)
    assert sequence.flat.tolist() == kept
    with torch.inference_mode():
        hidden = eager.model.model.language_model.layers[0](
            rows,
            position_embeddings=eager.decoder.model.rotary_emb(rows, torch.arange(rows.shape[1])[None]),
            attention_mask=torch.full(rows.shape[1:2] * 2, torch.finfo(torch.float32).min).triu(1)[None, None],
        )
    left = torch.cat(
        [torch.arange(span.start), span.start + torch.tensor(kept), torch.arange(span.stop, rows.shape[1])]
    )
    layer = eager.model.model.language_model.layers[1]
    with torch.inference_mode():
        _, map = layer.self_attn(
            layer.input_layernorm(hidden[:, left]),
            position_embeddings=eager.decoder.model.rotary_emb(rows, left[None]),
            attention_mask=torch.full((len(left),) * 2, torch.finfo(torch.float32).min).triu(1)[None, None],
        )
    expected = map[0].transpose(0, 1)[..., span.start : span.start + len(kept)]
    torch.testing.assert_close(method.seen[2], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["backbone", "eager"])
def test_decoded_rows_equal_eager_attention(request, attention, eager, ask, look):
    backbone = request.getfixturevalue(attention)
    method, tokens = look(), (11, 12, 13)
    rows, span, _ = run(backbone, ask(backbone), method, tokens)
    maps = eager_maps(eager, rows)
    prompt = rows.shape[1] - len(tokens)
    assert len(method.decoded) == 3 * 3
    for (layer, step), seen in method.decoded.items():
        torch.testing.assert_close(seen, maps[layer - 1][:, prompt + step, span], rtol=0, atol=KERNELS)


def test_a_layer_that_is_not_at_hand_is_refused(backbone, ask, look):
    with pytest.raises(ValueError, match=r"attention of layer 0 was asked for before layer 2; at hand: \[1, 2\]"):
        run(backbone, ask(backbone), look(layer=0))

    class First(Method):
        def prune_layer(self, layer, state, budget):
            state.attention(state.last_row)

        def visible(self, layer, step, state, budget):
            state.attention()

    with pytest.raises(ValueError, match=r"attention of layer -1 was asked for before layer 0; at hand: \[0\]"):
        backbone.answer([ask(backbone)], First())


def test_text_rows_are_those_after_the_last_visual_slot(backbone, ask):
    rows = {}

    class Note(Method):
        def prune_layer(self, layer, state, budget):
            rows.update(after=state.rows_after_video, last=state.last_row, length=len(state.positions))

    request = ask(backbone)
    backbone.answer([request], Note(), max_new_tokens=1)
    before, after = backbone.prompt_ids(request.prompt)
    assert rows["length"] == len(before) + 96 + 1 + len(after)
    assert rows["after"].tolist() == list(range(len(before) + 97, rows["length"]))
    assert rows["last"].tolist() == [rows["length"] - 1]


def tower(backbone, request):
    """Stock vision tower with maps: attentions and hidden states of every layer."""
    with torch.inference_mode():
        return backbone.model.model.vision_tower(
            backbone.preprocess(request.frames)["pixel_values_videos"][0],
            output_attentions=True,
            output_hidden_states=True,
        )


@pytest.mark.parametrize("attention", ["backbone", "eager"])
def test_received_attention_equals_the_column_means_of_eager_maps(request, attention, eager, ask):
    backbone = request.getfixturevalue(attention)
    video = backbone.encode([ask(backbone)], frozenset({"received_attention"}))[0]
    map = tower(eager, ask(eager)).attentions[-1]  # (F, h, P, P)
    columns = map.mean((1, 2))  # over heads and queries: keys stay
    torch.testing.assert_close(columns.sum(1), torch.ones(6))
    pooled = eager.model.model.apply_pooling(columns[..., None])[..., 0]
    assert video.received_attention.dtype == torch.float32
    torch.testing.assert_close(video.received_attention, pooled, rtol=0, atol=1e-6)
    given = eager.model.model.apply_pooling(map.mean((1, 3))[..., None])[..., 0]
    assert (video.received_attention - given).abs().max() > 1e-4, "attention given is something else"


def test_keys_are_the_last_used_layers_own(eager, ask):
    video = eager.encode([ask(eager)], frozenset({"keys"}))[0]
    core = eager.model.model
    layer = core.vision_tower.encoder.layers[-1]
    with torch.inference_mode():
        keys = layer.self_attn.k_proj(layer.layer_norm1(tower(eager, ask(eager)).hidden_states[-2]))
        expected = core.apply_pooling(keys).unflatten(-1, (layer.self_attn.num_heads, -1))
        torch.testing.assert_close(video.keys, expected, rtol=0, atol=1e-5)


def test_patches_are_the_last_used_layers_output(eager, ask):
    video = eager.encode([ask(eager)], frozenset({"patches"}))[0]
    assert torch.equal(video.patches, tower(eager, ask(eager)).hidden_states[-1])


def test_more_frames_than_go_through_the_tower_at_once(backbone, ask, monkeypatch):
    needs = frozenset({"received_attention", "keys"})
    whole = backbone.encode([ask(backbone, 7)], needs)[0]
    monkeypatch.setattr("cacovid.backbones.llava_onevision.FRAMES_AT_ONCE", 3)
    parts = backbone.encode([ask(backbone, 7)], needs)[0]
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.received_attention, whole.received_attention, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.keys, whole.keys, rtol=1e-5, atol=1e-6)


def state_of(model):
    """Everything that surgery could leave behind: hooks, instance attributes, weights."""
    return [
        (
            name,
            {key: len(value) for key, value in vars(module).items() if "hook" in key and hasattr(value, "__len__")},
            sorted(vars(module)),
        )
        for name, module in model.named_modules()
    ], {name: (value.data_ptr(), value._version) for name, value in model.named_parameters()}


@pytest.mark.parametrize("fails", [False, True], ids=["done", "exception"])
def test_recording_leaves_the_model_as_it_was(build_backbone, ask, fails):
    backbone = build_backbone("sdpa")
    backbone.encode([ask(backbone)], frozenset())  # transformers installs hooks of its own at the first forward
    before = state_of(backbone.model)
    needs = frozenset({"received_attention", "keys"})
    if fails:
        broken = backbone.model.model.multi_modal_projector.register_forward_pre_hook(
            lambda *_: (_ for _ in ()).throw(RuntimeError("projector failed"))
        )
        with pytest.raises(RuntimeError, match="projector failed"):
            backbone.encode([ask(backbone)], needs)
        broken.remove()
    else:
        backbone.encode([ask(backbone)], needs)
    assert state_of(backbone.model) == before


@pytest.mark.parametrize("stage", ["compress", "prune_layer", "visible"])
def test_a_method_that_raises_leaves_the_model_as_it_was(build_backbone, ask, stage):
    backbone = build_backbone("sdpa")
    backbone.encode([ask(backbone)], frozenset())  # transformers installs hooks of its own at the first forward
    before = state_of(backbone.model)

    def fail(self, *_args):
        raise MethodError("failed on purpose")

    toy = type("Toy", (Method,), {stage: fail})
    with pytest.raises(MethodError, match="failed on purpose"):
        backbone.answer([ask(backbone)], toy(), max_new_tokens=3)
    assert state_of(backbone.model) == before
