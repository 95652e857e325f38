"""`inspect` from the command line: refusals with their words, and a picture of a real file."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from cacovid.commands import evidence
from cacovid.commands.line import main
from cacovid.commands.settings import parse_settings
from cacovid.registry import build_method
from tiny import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny checkpoint folder: 4 x 4 tokens a frame."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """An mp4 of 12 frames of 96 x 64 pixels."""
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in rng.integers(0, 256, (12, 64, 96, 3), dtype=np.uint8):
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode(None))
    return path


@pytest.fixture
def bed(tmp_path, monkeypatch):
    """An empty cache for test-bed videos."""
    monkeypatch.setenv("CACOVID_CACHE", str(tmp_path / "cache"))


def refused(capsys, *words: object) -> str:
    assert main(["inspect", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "attention_tpok"], "no method 'attention_tpok' (did you mean 'attention_topk'?)"),
        (["--method", "random", "--retention", "0"], "retention=0.0, expected 0 < retention <= 1"),
        (["--method", "random", "--retention", "0.001"], "is a budget below one token"),
        (["--method", "random", "--set", "sead=1"], "random has no field 'sead'; its fields: "),
        (["--method", "attention_topk", "--set", "layer=two"], "layer='two' is a str, expected int"),
        (["--method", "attention_topk", "--set", "layer"], "--set 'layer', expected field=value"),
        (["--method", "random", "--set", "seed=1", "--set", "seed=2"], "--set gives 'seed' twice"),
        (["--set", "retention=0.5"], "use --retention"),
        (["--frames", "0"], "frames=0"),
        (["--device", "warp"], "device='warp', expected cpu, cuda or cuda:N"),
        (["-o", "out.gif"], "expected a name that ends in .png, .pdf or .svg"),
        (["-o", "nowhere/out.png"], "there is no folder nowhere; make it first"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_refusals(words, expected, video, checkpoint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capsys, video, "What?", "--pretrained", checkpoint, "--frames", 4, *words)
    assert not list(tmp_path.iterdir())


def test_refusals_of_files(video, checkpoint, capsys, tmp_path):
    assert "no video at" in refused(capsys, tmp_path / "gone.mp4", "What?")
    assert "no question about" in refused(capsys, video)
    assert "no checkpoint at" in refused(capsys, video, "What?", "--pretrained", tmp_path / "gone", "-o", "x.png")
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[:2000])
    said = refused(capsys, damaged, "What?", "--pretrained", checkpoint, "-o", tmp_path / "x.png")
    assert "[truncated]" in said


def test_a_real_file_gives_a_picture_and_the_audit(video, checkpoint, capsys, tmp_path):
    out = tmp_path / "out.png"
    words = ["--method", "random", "--retention", "0.25", "--pretrained", checkpoint, "--frames", 6, "-o", out]
    assert main(["inspect", str(video), "What?", *map(str, words), "--max-new-tokens", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = told["kept_positions"]
    assert told["spent"]["kept"] == len(kept) == told["spent"]["asked"] == 24  # a quarter of 6 x 16
    assert [f["kept"] for f in told["frames"]] == np.bincount(np.array(kept) // 16, minlength=6).tolist()
    assert [f["index"] for f in told["frames"]] == [0, 2, 4, 7, 9, 11]
    assert told["evidence_recall"] is None and told["picture"] == str(out)
    picture = Image.open(out)
    assert picture.format == "PNG" and picture.width == 1540 and picture.height > 400


def test_what_is_drawn_is_what_the_method_kept(video, checkpoint, capsys, tmp_path, monkeypatch):
    """The mask behind the picture against the method's own choice, inside the LLM as before it."""
    from cacovid.commands import picture
    from cacovid.commands.look import CUT, DROPPED, KEPT

    drawn = []
    monkeypatch.setattr(picture, "save", lambda look, path: drawn.append(look))
    for variant, lost in (("A1", DROPPED), ("B1", CUT)):
        fields = ["--method", "attention_topk", "--set", f"variant={variant}", "--set", "layer=1"]
        common = ["--retention", "0.5", "--pretrained", checkpoint, "--frames", "4", "-o", tmp_path / "x.png", "--json"]
        assert main(["inspect", str(video), "What?", *fields, *map(str, common)]) == 0
        kept = json.loads(capsys.readouterr().out)["kept_positions"]
        fate = drawn[-1].fates.fate.ravel()
        assert np.flatnonzero(fate == KEPT).tolist() == kept and len(kept) == 32
        assert (fate[fate != KEPT] == lost).all()
        assert drawn[-1].method == f"attention_topk, variant={variant}, layer=1"


def test_the_summary_names_what_was_spent(video, checkpoint, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words = ["--method", "uniform", "--retention", "0.5", "--pretrained", checkpoint, "-o", tmp_path / "x.svg"]
    assert main(["inspect", str(video), "What?", *map(str, words)]) == 0
    text = capsys.readouterr().out
    assert "12 of 12 frames" in text  # 32 are asked for by default, the video has 12
    assert "192 video tokens, 96 enter the LLM, 96 after the last cut (asked 96)" in text
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_a_test_bed_question_brings_its_video_prompt_and_evidence(bed, capsys, tmp_path):
    words = ["--method", "random", "--retention", "0.5", "-o", tmp_path / "x.png", "--json"]
    assert main(["inspect", "test-000001-digit", *map(str, words), "--max-new-tokens", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    path, question = evidence.from_id("test-000001-digit")
    assert told["question"] == question.prompt() and told["video"] == str(path)
    cells = [frame * 25 + patch for frame, patch in question.evidence]
    assert told["evidence_recall"] == sum(c in told["kept_positions"] for c in cells) / len(cells)


def test_evidence_is_found_by_the_words_and_only_where_it_is_meant(bed, video):
    path, question = evidence.from_id("validation-000002-order")
    assert evidence.from_file(path, f"Please: {question.prompt()}") == question
    assert evidence.from_file(path, "What else?") is None
    assert evidence.from_file(video, question.text) is None
    moments = tuple(range(0, 61, 4))
    found = evidence.cells(question, moments, (5, 5))
    assert [tuple(cell) for cell in np.argwhere(found).tolist()] == sorted(question.evidence)
    assert evidence.cells(question, moments[:8], (5, 5)) is None, "other frames"
    assert evidence.cells(question, moments, (4, 4)) is None, "another grid"


def test_unknown_test_bed_questions_are_refused(bed, capsys):
    assert "no question 'test-000250-digit'; videos of test: 000000 to 000249" in refused(capsys, "test-000250-digit")
    assert "kinds: color, shape, digit" in refused(capsys, "test-000001-colour")


def test_settings_are_typed():
    given = ["layer=2", "share=0.5", "partial=false", "a.variant=B1", 'name="7"']
    assert parse_settings(given) == {"layer": 2, "share": 0.5, "partial": False, "a.variant": "B1", "name": "7"}
    assert build_method("attention_topk", **parse_settings(["variant=B1"])).variant == "B1"
