"""Methods by name: third parties' entry points, and the words of every refusal."""

from importlib.metadata import EntryPoint

import pytest

from cacovid import registry
from cacovid.errors import MethodError
from cacovid.registry import build_method, method_class, method_names


@pytest.fixture
def entries(monkeypatch):
    """Replace the registered entry points for one test."""

    def replace(*pairs):
        points = [EntryPoint(name, value, registry.GROUP) for name, value in pairs]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._entries.cache_clear()

    yield replace
    registry._entries.cache_clear()


def test_the_shipped_methods_are_registered():
    shipped = {"full", "random", "uniform", "fewer_frames", "downsample", "attention_topk"}
    assert shipped <= set(method_names())
    assert method_names() == sorted(method_names())


def test_an_unknown_method_is_refused_with_the_nearest_and_all():
    with pytest.raises(MethodError, match=r"no method 'unifrom' \(did you mean 'uniform'\?\); known: .*attention_topk"):
        method_class("unifrom")
    with pytest.raises(MethodError, match=r"no method 'zzz'; known: "):
        build_method("zzz")


def test_an_unknown_field_is_refused_with_the_known_ones():
    with pytest.raises(MethodError, match=r"random has no field 'sed'; its fields: retention, seed"):
        build_method("random", retention=0.5, sed=3)


def test_a_broken_entry_point_is_named(entries):
    entries(("gone", "no_such_package.module:Gone"), ("uniform", "baselines.uniform:Uniform"))
    assert method_names() == ["gone", "uniform"], "listing imports nothing"
    assert build_method("uniform").stages == ("pre-LLM",), "the others still work"
    with pytest.raises(MethodError, match=r"method 'gone' could not be imported from no_such_package.module:Gone: Mod"):
        method_class("gone")


def test_an_entry_point_that_is_no_method_is_refused(entries):
    entries(("path", "pathlib:Path"))
    with pytest.raises(MethodError, match=r"entry point 'path' = pathlib:Path is .*expected a subclass of Method"):
        method_class("path")


def test_two_methods_of_one_name_are_refused(entries):
    entries(("mine", "baselines.uniform:Uniform"), ("mine", "baselines.random:Random"))
    with pytest.raises(MethodError, match=r"two methods are called 'mine': baselines.uniform:Uniform and .*; rename"):
        method_names()


def test_the_same_entry_point_twice_is_no_clash(entries):
    entries(("mine", "baselines.uniform:Uniform"), ("mine", "baselines.uniform:Uniform"))
    assert method_names() == ["mine"]
