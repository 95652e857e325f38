"""Policies on disk: our folder, and the layout of the authors' release."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cacovid.errors import CheckpointError, MethodError
from cacovid.policy.checkpoint import PREFIX, TESTBED_POLICIES, load_policy, save_policy
from cacovid.policy.network import CompressionPolicy
from cacovid.registry import build_method
from cacovid.training.run import read_run
from tiny import tiny_model, tiny_policy


def assert_same(policy, other) -> None:
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    save_policy(tiny_policy(), tmp_path / "ours", steps=3)
    return tmp_path / "ours"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A whole checkpoint with the names of transformers before v5, in two shards, and a policy inside."""
    folder = tmp_path / "release"
    model = tiny_model()
    model.config.save_pretrained(folder)
    old = {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.vision_model."}
    weights = {}
    for name, weight in model.state_dict().items():
        for new, before in old.items():
            name = before + name.removeprefix(new) if name.startswith(new) else name
        weights[name.removeprefix("model.").replace("lm_head", "language_model.lm_head")] = weight.contiguous()
    policy = {PREFIX + name: weight.contiguous() for name, weight in tiny_policy().state_dict().items()}
    half = sorted(policy)[::2]
    shards = {
        "model-00001-of-00002.safetensors": weights | {name: policy[name] for name in half},
        "model-00002-of-00002.safetensors": {name: policy[name] for name in policy if name not in half},
    }
    for file, part in shards.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_ours_comes_back_as_it_was_saved(ours: Path) -> None:
    policy = load_policy(str(ours))
    assert_same(tiny_policy(), policy)
    assert policy.attention == "bidirectional"
    assert load_policy(str(ours), "causal").attention == "causal"
    assert json.loads((ours / "policy.json").read_text())["settings"] == {"steps": 3}
    assert sorted(p.name for p in ours.iterdir()) == ["policy.json", "policy.safetensors"]
    assert not any(weight.requires_grad for weight in policy.parameters())


def test_a_policy_that_was_trained_beside_a_bfloat16_llm_keeps_its_digits(tmp_path: Path) -> None:
    llm = tiny_model().model.language_model
    llm.config.dtype = torch.bfloat16  # as loading in it leaves the config
    policy = CompressionPolicy.from_llm(llm).float()
    with torch.no_grad():
        policy.layers[0].mlp.up_proj.weight.normal_()
    save_policy(policy, tmp_path)
    assert_same(policy, load_policy(str(tmp_path)))


def test_a_released_policy_is_causal_unless_told_otherwise(release: Path) -> None:
    policy = load_policy(str(release))
    assert_same(tiny_policy(), policy)
    assert policy.attention == "causal"
    assert load_policy(str(release), "bidirectional").attention == "bidirectional"


def test_the_base_model_loads_from_the_release_too(release: Path, backbone) -> None:
    from cacovid.backbones import LlavaOnevision

    backbone.processor.save_pretrained(release)
    loaded = LlavaOnevision.load(str(release)).model.state_dict()
    for name, weight in tiny_model().state_dict().items():
        assert torch.equal(loaded[name], weight), name


def test_what_does_not_fit_is_named(release: Path) -> None:
    path = release / "model-00002-of-00002.safetensors"
    index = json.loads((release / "model.safetensors.index.json").read_text())["weight_map"]
    names = sorted(name for name, file in index.items() if file == path.name)
    policy = tiny_policy().state_dict()
    gone, bent, *rest = (name.removeprefix(PREFIX) for name in names)
    weights = {PREFIX + name: policy[name].contiguous() for name in rest}
    weights |= {PREFIX + bent: torch.zeros(5), PREFIX + "extra.weight": torch.zeros(2)}
    save_file(weights, path)
    with pytest.raises(CheckpointError) as error:
        load_policy(str(release))
    assert f"missing: {gone}. unknown: extra.weight. of another shape: {bent} (5,), expected" in str(error.value)


@pytest.mark.parametrize("name", TESTBED_POLICIES)
def test_the_shipped_policies_are_of_three_seeds_of_one_training(name: str) -> None:
    testbed, folder = name.partition("-")[0], TESTBED_POLICIES[name]
    record = json.loads((folder / "policy.json").read_text())
    first = json.loads((TESTBED_POLICIES[testbed] / "policy.json").read_text())
    settings = asdict(read_run(testbed, ["out=x", f"settings.seed={folder.name}"]).settings)
    assert {key: record["settings"][key] for key in settings} == json.loads(json.dumps(settings))
    assert record["text_config"] == first["text_config"]
    weights = load_policy(name).state_dict()
    assert name == testbed or not torch.equal(weights["layernorm.weight"], load_policy(testbed).layernorm.weight)


def test_refusals_say_what_was_expected(tmp_path: Path, ours: Path, release: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no folder .*expected a folder with policy.json"):
        load_policy(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"neither policy.json nor a checkpoint"):
        load_policy(str(tmp_path / "empty"))
    (ours / "policy.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has policy.json but no policy.safetensors"):
        load_policy(str(ours))
    (release / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shards model-00002-of-00002.safetensors"):
        load_policy(str(release))
    model = tiny_model()
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"without a policy: no weight starts with 'compression_policy.'"):
        load_policy(str(tmp_path / "plain"))


def test_a_method_needs_a_policy_of_its_llms_width(backbone, ask, build_backbone, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"cacovid needs policy=\.\.\."):
        backbone.answer([ask(backbone)], build_method("cacovid", retention=0.3))
    config = tiny_model().model.language_model.config
    config.hidden_size, config.head_dim = 64, 16

    save_policy(CompressionPolicy(config, "causal"), tmp_path)
    with pytest.raises(MethodError, match=r"made for an LLM of width 64, this one has width 48"):
        backbone.answer([ask(backbone)], build_method("cacovid", retention=0.3, policy=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"importance_share": 1.5}, r"importance_share=1.5, expected 0 <= importance_share <= 1"),
        ({"frame_cap": 0.0}, r"frame_cap=0.0, expected a multiple of r above 0"),
        ({"attention": "both"}, r"attention='both', expected one of 'auto', 'bidirectional', 'causal'"),
    ],
)
def test_bad_settings_are_refused(settings, words) -> None:
    with pytest.raises(MethodError, match=words):
        build_method("cacovid", **settings)


def test_another_policy_is_another_run(ours: Path, tmp_path: Path) -> None:
    from cacovid.lmms.recording import plain_fields
    from tiny import tiny_policy_folder

    other = tiny_policy("causal")
    with torch.no_grad():
        other.token_compress[0].bias += 1
    save_policy(other, tmp_path / "other")
    paths = (str(ours), tiny_policy_folder(), str(tmp_path / "other"))
    first, same, changed = (plain_fields(build_method("cacovid", policy=path))["policy_sha256"] for path in paths)
    assert first == same != changed
    with pytest.raises(CheckpointError, match="no folder"):
        plain_fields(build_method("cacovid", policy=str(tmp_path / "nowhere")))


def test_a_policy_selects_as_it_was_validated_unless_told_otherwise(tmp_path: Path, ours: Path, release: Path) -> None:
    from cacovid.lmms.recording import plain_fields

    save_policy(tiny_policy(), tmp_path / "own", validation={"importance_share": 1.0, "frame_cap": 4.0, "every": 3})

    def shares(source: Path, **settings: float) -> tuple[float, float]:
        recorded = plain_fields(build_method("cacovid", policy=str(source), **settings))
        return recorded["importance_share"], recorded["frame_cap"]

    assert shares(tmp_path / "own") == (1.0, 4.0)
    assert shares(tmp_path / "own", importance_share=0.25) == (0.25, 4.0)
    assert shares(ours) == shares(release) == (0.5, 1.5)
