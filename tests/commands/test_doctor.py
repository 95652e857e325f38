"""`doctor` tries for real, names what is wrong and how to get it, and its exit status follows."""

import json
import sys
from importlib import metadata

import pytest

from cacovid.commands import checks, doctor
from cacovid.commands.checks import CHECKS, Check, decoders, suite, versions
from cacovid.commands.line import main


def test_the_report_is_sound(capsys):
    status = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert list(report["checks"]) == list(CHECKS)
    lines = [line for group in report["checks"].values() for line in group]
    failed = [line["name"] for line in lines if line["required"] and line["state"] != "ok"]
    assert report["failed"] == failed and report["ok"] == (not failed) and status == bool(failed)
    for line in lines:
        assert line["state"] in {"ok", "missing", "problem"} and line["detail"], line
        assert line["state"] == "ok" or line["get"], f"no way out is named: {line}"
    state = {line["name"]: line["state"] for line in lines}
    tried = ["python", "torch", "cpu", "write H.264", "PyAV", "decord", "reader process", "eager", "sdpa", "methods"]
    assert [state[name] for name in tried] == ["ok"] * len(tried)
    assert {"flash_attention_2", "lmms-eval models", "test-bed checkpoint", "test-bed videos"} <= set(state)


@pytest.mark.parametrize(("required", "status"), [(True, 1), (False, 0)])
def test_only_what_is_required_fails_it(required, status, monkeypatch, capsys):
    line = Check(name="warp", state="missing", detail="not there", get="pip install warp", required=required)
    monkeypatch.setattr(checks, "CHECKS", {"engines": lambda: [line]})
    assert main(["doctor"]) == status
    text = capsys.readouterr().out
    assert "warp" in text and "get it: pip install warp" in text
    assert ("1 required: warp" in text) == required


def test_a_check_that_breaks_is_a_problem_of_its_own(monkeypatch):
    def explode():
        raise OSError("no\nspace")

    monkeypatch.setattr(checks, "CHECKS", {"storage": explode})
    (line,) = doctor.examine("storage")
    assert line.failed and line.detail == "OSError: no space"


def test_versions_outside_the_metadatas_range(monkeypatch):
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.57.0" if name == "transformers" else known(name))
    line = next(check for check in versions.check_versions() if check.name == "transformers")
    assert line.failed and line.detail.startswith("4.57.0, supported: ") and ">=5.23" in line.get


def test_a_package_that_is_not_installed(monkeypatch):
    known = metadata.version

    def version(name):
        if name == "accelerate":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    line = next(check for check in versions.check_versions() if check.name == "accelerate")
    assert (line.state, line.get) == ("missing", "pip install 'accelerate'")


def test_decord_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    lines = {check.name: check for check in decoders.check_decoders()}
    assert lines["decord"].state == "missing" and not lines["decord"].failed
    assert lines["PyAV"].state == "ok"


def test_a_decoder_that_gives_wrong_frames_is_a_problem(monkeypatch):
    good = decoders._pyav
    monkeypatch.setattr(decoders, "_pyav", lambda path: good(path)[::-1])
    line = next(check for check in decoders.check_decoders() if check.name == "PyAV")
    assert line.failed and "each brighter than the last" in line.detail


def test_a_checkpoint_that_is_a_pointer_file(tmp_path, monkeypatch):
    from cacovid.backbones import loading

    monkeypatch.setitem(loading.TESTBEDS, "testbed", tmp_path)
    assert "lacks config.json, model.safetensors, tokenizer.json" in suite._checkpoint().detail
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert suite._checkpoint().state == "problem"


def test_a_plugin_that_takes_our_models_away_is_named(monkeypatch):
    import lmms_eval.models

    class Empty:
        def list_canonical_model_ids(self):
            return []

    class Wreck:
        value, dist = "wreck:manifests", None

        def load(self):
            raise ImportError("no wreck")

    known = suite.entry_points
    monkeypatch.setattr(suite, "entry_points", lambda group: [*known(group=group), Wreck()])
    monkeypatch.setattr(lmms_eval.models, "MODEL_REGISTRY_V2", Empty())
    line = suite._models()
    assert line.failed and "full_llava_ov" in line.detail
    assert "plugins that fail to load: wreck:manifests (ImportError: no wreck)" in line.detail


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    line = suite._writable("cache", file / "below", "set X")
    assert line.failed and line.get == "set X"
    assert suite._writable("cache", tmp_path / "new" / "deep", "set X").state == "ok"
    assert not (tmp_path / "new").exists(), "looking makes no folders"
