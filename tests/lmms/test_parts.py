"""The plugin's parts: ids, arguments, generation settings, prompts, scoring, exit status."""

import atexit
import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lmms_eval.api.filter import FilterEnsemble
from lmms_eval.filters.extraction import RegexFilter
from lmms_eval.filters.selection import TakeFirstFilter
from PIL import Image

from cacovid import registry
from cacovid.backbones import BACKBONES, LlavaOnevision
from cacovid.errors import BudgetError, CheckpointError, DeviceError, MethodError, PromptError
from cacovid.lmms import command, manifest, tasks_dir
from cacovid.lmms.arguments import ArgumentError, Arguments, convert, parse_arguments
from cacovid.lmms.evaluation import evidence_recall
from cacovid.lmms.generation import Generation, parse_generation
from cacovid.lmms.model import CompressedModel
from cacovid.lmms.prompt import Request, build_prompt
from cacovid.lmms.scoring import Score, score


def test_an_id_for_every_method_without_torch() -> None:
    ids = [m.model_id for m in manifest.manifests()]
    assert set(manifest.FAMILIES) == set(BACKBONES)
    assert ids == [f"{name}_{family}" for name in registry.method_names() for family in manifest.FAMILIES]
    assert {"full_llava_ov", "cacovid_qwen2_5_vl"} <= set(ids)
    code = (
        "import sys, lmms_eval.models as m, cacovid.lmms as c; assert c.tasks_dir().is_dir()\n"
        "assert 'full_llava_ov' in m.list_available_models(); assert 'torch' not in sys.modules"
    )
    for first in ("", "import cacovid.lmms.manifest\n"):  # whichever of the two is imported first
        subprocess.run([sys.executable, "-c", first + code], check=True)


def test_lmms_eval_finds_both_forms() -> None:
    from lmms_eval.models import get_model

    chat, simple = get_model("random_llava_ov"), get_model("random_llava_ov", force_simple=True)
    assert (chat.is_simple, simple.is_simple) == (False, True)
    assert issubclass(chat, CompressedModel) and chat.method_name == "random"
    assert get_model("random_llava_ov") is chat
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        importlib.import_module("cacovid.lmms.models").nonsense  # noqa: B018


def test_a_broken_method_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.entry_points(group=registry.GROUP)
    broken = EntryPoint("broken", "no_such_module:Thing", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real, broken])
    registry._entries.cache_clear()
    ids = [m.model_id for m in manifest.manifests()]
    assert {"broken_llava_ov", "full_llava_ov"} <= set(ids)
    model = importlib.import_module("cacovid.lmms.models").chat__llava_ov__broken
    with pytest.raises(MethodError, match="'broken' could not be imported from no_such_module:Thing"):
        model.create_from_arg_string("pretrained=x")
    twice = EntryPoint("full", "elsewhere:Full", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real, twice])
    registry._entries.cache_clear()
    with pytest.warns(UserWarning, match="two methods are called 'full'"):
        assert "random_llava_ov" in [m.model_id for m in manifest.manifests()]
    monkeypatch.undo()
    registry._entries.cache_clear()


def test_arguments_are_typed() -> None:
    given = {"pretrained": 7, "retention": "0.5", "layer": 3.0, "batch_size": "2", "max_frames_num": "none"}
    arguments, method = parse_arguments("attention_topk", {**given, "variant": "B1", "read_timeout": 5})
    assert arguments == Arguments(pretrained="7", batch_size=2, max_frames_num=None, read_timeout=5.0)
    assert vars(method)["layer"] == 3 and type(vars(method)["layer"]) is int
    assert method.retention == 0.5 and type(method.retention) is float
    assert convert(Arguments, "resume", "false") is False and convert(Arguments, "revision", "null") is None


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"pretrained": "x", "layr": 2},
            ArgumentError,
            r"unknown model argument 'layr'; every method takes attn_.*layer",
        ),
        ({}, ArgumentError, r"model argument missing: pretrained=\.\.\."),
        ({"pretrained": "x", "layer": "two"}, ArgumentError, "layer='two': .*valid integer"),
        ({"pretrained": "x", "layer": 2.5}, ArgumentError, r"layer=2\.5: .*fractional"),
        ({"pretrained": "x", "dtype": "int8"}, ArgumentError, "dtype='int8': .*'auto', 'float32'"),
        ({"pretrained": "x", "variant": "Z"}, ArgumentError, "variant='Z': .*'A1', 'B1', .*'B5' or 'B6'"),
        ({"pretrained": "x", "batch_size": "auto"}, ArgumentError, "batch_size='auto'"),
        ({"pretrained": "x", "batch_size": 0}, ArgumentError, "batch_size=0, expected at least 1"),
        ({"pretrained": "x", "max_frames_num": 0}, ArgumentError, "max_frames_num=0"),
        ({"pretrained": "x", "read_timeout": 0}, ArgumentError, "read_timeout=0"),
        ({"pretrained": "x", "retention": 0}, BudgetError, r"retention=0\.0, expected 0 < retention <= 1"),
        ({"pretrained": "x", "retention": 25}, BudgetError, "the share of video tokens to KEEP"),
    ],
)
def test_bad_arguments_are_refused_in_words(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_arguments("attention_topk", given)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("pretrained=/no/such/folder", CheckpointError, "no checkpoint at /no/such/folder"),
        ("pretrained=x,device=abacus", DeviceError, "device='abacus', expected cpu, cuda or cuda:N"),
        ("pretrained=x,device=cpu,attn_implementation=flash_attention_2", DeviceError, "needs a CUDA device"),
    ],
)
def test_what_is_not_there_is_refused(given: str, error: type[Exception], words: str) -> None:
    model = importlib.import_module("cacovid.lmms.models").chat__llava_ov__full
    with pytest.raises(error, match=words):
        model.create_from_arg_string(given)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = importlib.import_module("cacovid.lmms.models").chat__llava_ov__full
    with pytest.raises(ArgumentError, match="2 processes were launched, a run is written by one"):
        model(pretrained="x")


def test_greedy_settings() -> None:
    stock = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False, "until": ["\n"]}
    assert parse_generation(stock) == Generation(max_new_tokens=16, until=("\n",))
    assert parse_generation({"until": "x", "temperature": 0.7, "do_sample": False}).until == ("x",)
    assert parse_generation({"until": None}) == Generation(max_new_tokens=1024, until=())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 0.7, "do_sample": True}, r"temperature=0\.7 asks for sampling"),
        ({"temperature": 0.7}, "asks for sampling"),
        ({"num_beams": 3}, "num_beams=3"),
        ({"repetition_penalty": 1.2}, "the checkpoint's own is applied"),
        ({"min_new_tokens": 3}, "'min_new_tokens' is not supported; honoured: max_new_tokens"),
    ],
)
def test_other_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        parse_generation(given)


def request(media: Any, text: str = "Why?") -> Request:
    return Request(text, lambda doc: media, {}, 0, "task", "test")


def test_prompts_of_all_kinds(backbone: LlavaOnevision) -> None:
    red = Image.new("RGB", (4, 4))
    made = {
        "video": build_prompt(request(["a.mp4"]).messages({}, True), backbone),
        "image": build_prompt(request([red, red]).messages({}, True), backbone),
        "text": build_prompt(request(None).messages({}, True), backbone),
    }
    assert {kind: prompt.modality for kind, prompt in made.items()} == {k: k for k in made}
    assert made["video"].video == "a.mp4" and made["video"].text.count("<video>") == 1
    assert made["image"].text.count("<image>") == 2 == len(made["image"].images)
    written = build_prompt(request([red, red], "Is <image> like <image>?").messages({}, True), backbone)
    assert "Is <image> like <image>?" in written.text and written.text.count("<image>") == 2
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video", "url": "file:///b.mp4"}, {"type": "text", "text": "Why?"}]},
    ]
    chat = build_prompt(request(turns).messages({}, False), backbone)
    assert chat.video == "/b.mp4" and chat.text.index("Be brief.") < chat.text.index("<video>")


@pytest.mark.parametrize(
    ("media", "text", "words"),
    [
        (["a.mp4", "b.mp4"], "Why?", "has 2 videos, expected one: a.mp4, b.mp4"),
        (["a.mp4", Image.new("RGB", (4, 4))], "Why?", "a video and 1 images"),
        (["a.wav"], "Why?", "has sound"),
        ([{"array": [0.0], "sampling_rate": 1}], "Why?", "has sound"),
        ([{"type": "video", "url": "a.mp4", "video_start": 3}], "Why?", "segment of a video"),
        ([Image.new("RGB", (4, 4))], "Is <image> like <image>?", r"2 image placeholders \(<image>\) for 1 images"),
        (["a.mp4"], "What does <image> mean?", "1 image placeholders"),
        ([3], "Why?", "a visual of type int"),
    ],
)
def test_requests_that_cannot_be_answered(backbone: LlavaOnevision, media: Any, text: str, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        build_prompt(request(media, text).messages({}, True), backbone)


def test_requests_made_while_a_task_runs_are_refused() -> None:
    with pytest.raises(PromptError, match=r"\(agentic\), which cannot be recorded or resumed"):
        _ = request(None).owner


def task(scorer: Any, filters: list[Any] | None = None, target: Any = "B") -> Any:
    config = SimpleNamespace(task="t", process_results=scorer, score_key="score")
    chain = FilterEnsemble("none", filters or [TakeFirstFilter()])
    return SimpleNamespace(config=config, _filters=[chain], doc_to_target=lambda doc: target)


def test_scores_by_the_task_itself() -> None:
    def as_number(doc: Any, results: list[str]) -> dict[str, Any]:
        return {"acc": int(results[0] == "B")}

    def as_row(doc: Any, results: list[str]) -> dict[str, Any]:
        return {"perception": {"score": 1.0, "parsed": 0}}

    def without(doc: Any, results: list[str]) -> dict[str, Any]:
        return {"lvb_acc": {"answer": "B", "parsed_pred": "B"}}

    assert score(task(as_number), {}, " B\n") == Score("B", 1.0, None, {"acc": 1})
    assert score(task(as_row), {}, "?") == Score("B", 1.0, False, {"perception": {"score": 1.0, "parsed": 0}})
    assert score(task(without), {}, "B").score is None
    assert score(task(as_number), {}, None) == Score("B"), "a failed sample has no score"
    regex = RegexFilter()
    assert score(task(as_number, [regex, TakeFirstFilter()]), {}, "B") == Score("B"), "a filter would change the answer"


def test_a_scorer_that_guesses_is_found_out_and_leaves_no_trace() -> None:
    def guesses(doc: Any, results: list[str]) -> dict[str, Any]:
        return {"acc": float(results[0] in "AB" or random.choice("AB") == "A")}

    def guesses_too(doc: Any, results: list[str]) -> dict[str, Any]:
        return {"acc": float(np.random.randint(2))}

    states = random.getstate(), np.random.get_state()[1].tolist()
    assert score(task(guesses), {}, "B").score == 1.0
    assert score(task(guesses), {}, "dunno") == Score("B", None, False, None)
    assert score(task(guesses_too), {}, "B") == Score("B", None, False, None)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_a_scorer_that_may_cost_money_or_fails_is_left_to_lmms_eval() -> None:
    scope: dict[str, Any] = {"openai": None}
    exec("def judged(doc, results):\n    raise AssertionError('called')", scope)
    assert score(task(scope["judged"]), {}, "B") == Score("B")

    def fails(doc: Any, results: list[str]) -> dict[str, Any]:
        raise KeyError("x")

    assert score(task(fails), {}, "B") == Score("B")


def test_evidence_recall() -> None:
    import torch

    def kept(positions: list[int], tokens: int) -> Any:
        spent = SimpleNamespace(video_tokens=tokens)
        return SimpleNamespace(kept=torch.tensor(positions), spent=spent, grid=(2, 2))

    answer = kept([0, 5, 7], 8)
    document = {"evidence": [[0, 0], [1, 1], [1, 2]], "evidence_frames": [0, 9], "evidence_patches": 4}
    assert evidence_recall(document, (0, 9), answer) == pytest.approx(2 / 3)
    assert evidence_recall(document, (0, 8), answer) is None, "other frames: the cells mean nothing"
    assert evidence_recall({**document, "evidence_patches": 5}, (0, 9), answer) is None
    assert evidence_recall({}, (0, 9), answer) is None
    pairs = {**document, "evidence_frames": [0, 9, 12], "evidence": [[0, 0], [1, 0], [1, 1], [2, 3]]}
    assert evidence_recall(pairs, (0, 9, 12), kept([0, 7], 8)) == pytest.approx(2 / 3), "two frames are one of tokens"
    assert evidence_recall({**document, "evidence_reach": 1}, (0, 8), answer) == pytest.approx(2 / 3)
    assert evidence_recall({**document, "evidence_reach": 1}, (0, 4, 9), kept([0], 12)) is None, "two show a moment"


def test_inside_the_command_errors_end_the_process(
    as_command: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MethodError), command.exit_status():
        raise MethodError("as it was")
    as_command()
    with pytest.raises(SystemExit, match="cacovid: error: wrong layer"), command.exit_status():
        raise MethodError("wrong layer")
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit), command.exit_status():
        raise RuntimeError("our bug")
    assert "RuntimeError: our bug" in capsys.readouterr().err
    handlers: list[Any] = []
    monkeypatch.setattr(atexit, "register", handlers.append)
    monkeypatch.setattr(command, "_alarm", [])
    command.failed_samples(0)
    assert not handlers
    command.failed_samples(2)
    command.failed_samples(1)
    assert len(handlers) == 1 and sum(command._alarm) == 3


@pytest.fixture(scope="module")
def utils() -> Any:
    path = Path(tasks_dir()) / "evidence_vqa" / "utils.py"
    spec = importlib.util.spec_from_file_location("evidence_vqa_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *[(form, "B") for form in ("B", "(B)", "B.", "B. red", " B\n", "B) red", "The answer is B.", "Option (B)")],
        ("The best answer is: C", "C"),
        *[(form, None) for form in ("", "E", "A red ball", "red", "BB", "DDDD", "A or B", "answer is A, or answer B")],
    ],
)
def test_letters_are_read_and_never_guessed(utils: Any, text: str, found: str | None) -> None:
    assert utils.letter(text) == found


def test_evidence_scores(utils: Any) -> None:
    doc = {"answer": "B", "kind": "count", "question_id": "q", "video_id": "v"}
    right, wrong, unread = (utils.score(doc, [text]) for text in ("B", "A", "no idea"))
    assert set(right) == {"accuracy", "parsed", "accuracy_count"}
    assert [s["accuracy"]["score"] for s in (right, wrong, unread)] == [1.0, 0.0, 0.0]
    assert [s["parsed"]["score"] for s in (right, wrong, unread)] == [1.0, 1.0, 0.0]
    assert utils.mean_score([right["accuracy"], wrong["accuracy"]]) == 0.5


def test_a_bad_limit_is_refused(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACOVID_TESTBED_VIDEOS", "few")
    with pytest.raises(ArgumentError, match="CACOVID_TESTBED_VIDEOS='few', expected a number of videos"):
        utils.test(None)
