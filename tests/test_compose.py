"""`a+b`: a pre-LLM method, then one inside the LLM; how the budget is split, and what does not compose."""

import pytest

from cacovid.compose import Composed
from cacovid.errors import MethodError
from cacovid.registry import build_method

B1 = {"attention_topk.variant": "B1"}


@pytest.mark.parametrize(("share", "entering"), [(1.0, 24), (0.5, 48), (0.0, 96)])
def test_the_budget_is_split_by_share(backbone, ask, share, entering):
    method = build_method("uniform+attention_topk", retention=0.25, share=share, **B1)
    assert method.stages == ("pre-LLM", "in-LLM")
    spent = backbone.answer([ask(backbone)], method, max_new_tokens=3)[0].spent
    assert spent.layers == (entering, entering, 24, 24)


def test_fields_reach_their_part():
    method = build_method("random+attention_topk", **{"random.seed": 7, "attention_topk.layer": 3, **B1})
    assert (method.first.seed, method.second.layer) == (7, 3)
    assert method.needs == frozenset()


def test_needs_and_positions_come_from_the_parts(backbone, ask):
    first = build_method("attention_topk", retention=0.5, positions="original")
    second = build_method("attention_topk", retention=0.25, variant="B3")
    method = Composed(retention=0.25, first=first, second=second)
    assert method.needs == {"received_attention"}
    assert method.positions == "original"
    answer = backbone.answer([ask(backbone)], method, max_new_tokens=2)[0]
    assert answer.spent.layers == (48, 48, 24, 24)
    assert answer.spent.flops.compressor > 0, "both parts' look-ups are counted"


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_what_the_first_part_misses_is_allowed_for(backbone, ask, share):
    method = build_method("downsample+attention_topk", retention=0.2, share=share, **B1)
    answer = backbone.answer([ask(backbone)], method, max_new_tokens=1)[0]
    assert answer.spent.kept <= answer.spent.asked
    assert answer.spent.slack == (0 if share < 1 else answer.spent.asked - answer.spent.kept)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("uniform+random", {}, r"cannot compose Uniform \('pre-LLM',\) with Random \('pre-LLM',\): the first must act"),
        ("attention_topk+uniform", B1, r"cannot compose AttentionTopk \('in-LLM',\) with Uniform"),
        ("full+attention_topk", B1, r"cannot compose Full \(\) with"),
        ("a+b+c", {}, r"'a\+b\+c' has 3 parts, expected two"),
        ("uniform+attention_topk", {"seed": 1, **B1}, r"has no field 'seed'; its fields: retention, share, and uni"),
        ("uniform+attention_topk", {"uniform.seed": 1, **B1}, r"uniform has no field 'seed'"),
        ("uniform+attention_topk", {"share": 2, **B1}, r"share=2.0, expected 0 <= share <= 1"),
        ("uniform+attention_topk", {"share": "half", **B1}, r"share='half' is a str, expected float"),
        ("uniform+attention_topk", {"retention": "all", **B1}, r"retention='all' is a str, expected float"),
        ("uniform+nothing", {}, r"no method 'nothing'"),
    ],
)
def test_what_does_not_compose_is_refused(name, settings, words):
    with pytest.raises(MethodError, match=words):
        build_method(name, **settings)
