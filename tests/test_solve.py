"""Budget modes: what r means is met on the real audit, by every method, or refused with the floor."""

import pytest

from cacovid.backbones import BACKBONES
from cacovid.errors import BudgetError, MethodError
from cacovid.method import Method
from cacovid.registry import build_method


@pytest.mark.parametrize("family", sorted(BACKBONES), indirect=True, scope="session")
@pytest.mark.parametrize("mode", ["layer_average", "flops"])
@pytest.mark.parametrize("retention", [0.75, 0.6])
def test_the_figure_is_met_on_the_audit(backbone, ask, pruner, count, family, mode, retention):
    frames = {"llava_ov": 6, "qwen2_5_vl": 12}[family]  # six frames of tokens
    method, total = pruner.build(retention), count(frames)
    try:
        spent = backbone.answer([ask(backbone, frames)], method, budget=mode, max_new_tokens=1)[0].spent
    except BudgetError as error:
        assert "in-LLM" in method.stages, "only a method that lets early layers compute all tokens has a floor"
        assert f"cannot meet retention={retention} as {mode}" in str(error)
        floor = method.at(1 / total).schedule(backbone.encode([ask(backbone, frames)], method.needs)[0], 4)
        assert sum(floor) / 4 / total > retention - 0.25
        return
    assert spent.asked == round(retention * total)
    figure = {"layer_average": spent.layer_average * total, "flops": spent.equivalent}[spent.measure]
    assert spent.measure == mode
    # Half a token a frame (here 3), or what the method cannot do finer by its own rounding.
    assert method.adaptive or abs(figure - spent.asked) <= max(3, spent.slack) + 0.5


def test_nominal_is_the_methods_own_meaning(backbone, ask):
    method = build_method("attention_topk", variant="B1", layer=1, retention=0.25)
    nominal = backbone.answer([ask(backbone)], method, max_new_tokens=1)[0].spent
    average = backbone.answer([ask(backbone)], build_method("attention_topk", variant="B1", layer=1, retention=0.5),
                              budget="layer_average", max_new_tokens=1)[0].spent  # fmt: skip
    layers = len(nominal.layers)
    assert nominal.layers == (96, *[24] * (layers - 1))
    assert nominal.layer_average > 0.25
    assert average.layers[0] == 96 and average.layer_average == pytest.approx(0.5, abs=0.5 / 96)
    assert average.asked == 48 and average.kept < 48


def test_for_a_method_before_the_llm_the_layer_average_is_nominal(backbone, ask):
    method = build_method("uniform", retention=0.3)
    one = backbone.answer([ask(backbone)], method, max_new_tokens=2)[0]
    other = backbone.answer([ask(backbone)], method, budget="layer_average", max_new_tokens=2)[0]
    assert one.ids == other.ids and one.kept.tolist() == other.kept.tolist()


def test_flops_count_the_compressor(backbone, ask, pruner):
    """A costly compressor leaves fewer tokens for the same FLOPs; a free one before the LLM none fewer."""
    method = pruner.build(0.85)  # above the floor of every method here
    spent = backbone.answer([ask(backbone)], method, budget="flops", max_new_tokens=1)[0].spent
    if method.adaptive:
        return
    if spent.flops.compressor == 0 and len(set(spent.layers)) == 1 and spent.slack <= 3:
        assert abs(spent.kept - spent.asked) <= 3
    else:
        assert spent.equivalent > min(spent.layers) - 3.5


def test_a_floor_is_named(backbone, ask):
    method = build_method("attention_topk", variant="B1", layer=2, retention=0.2)
    with pytest.raises(BudgetError, match=r"AttentionTopk cannot meet retention=0.2 as layer_average: .*>= 0\.\d+"):
        backbone.answer([ask(backbone)], method, budget="layer_average")


def test_retention_one_is_untouched(backbone, ask, case):
    for mode in ("layer_average", "flops"):
        spent = backbone.answer([ask(backbone, 2)], case.build(1.0), budget=mode, max_new_tokens=1)[0].spent
        assert spent.kept == spent.video_tokens


def test_a_method_without_a_schedule_is_refused_in_words(backbone, ask):
    class Silent(Method):
        def prune_layer(self, layer, state, budget):
            return None

    with pytest.raises(MethodError, match=r"Silent acts inside the LLM but .* write its `schedule`, or use budget=nom"):
        backbone.answer([ask(backbone)], Silent(retention=0.5), budget="flops")


def test_hooks_are_asked_only_where_the_settings_act(backbone, ask, monkeypatch):
    """A1 cuts before the LLM: its class has an in-LLM hook for B, and no layer must pay for asking it."""
    asked = []
    monkeypatch.setattr(type(backbone.decoder), "_ask", lambda self, *_args: asked.append(1))
    backbone.answer([ask(backbone)], build_method("attention_topk", retention=0.5), max_new_tokens=1)
    assert not asked
