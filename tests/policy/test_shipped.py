"""The policies that come with the package do on the test bed what they were trained for."""

import pytest

from cacovid.backbones import TESTBEDS, load_backbone
from cacovid.backbones.base import VideoRequest
from cacovid.policy.checkpoint import TESTBED_POLICIES
from cacovid.registry import build_method
from cacovid.testbed.data import load_split
from cacovid.video import read_clip

VIDEOS = 6


@pytest.fixture(scope="module", params=TESTBEDS)
def testbed(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def asked(testbed: str) -> tuple:
    """The test bed's model, and the questions of a few test videos."""
    backbone = load_backbone("auto", testbed, device="cpu")
    questions = []
    for doc in load_split("test", limit_videos=VIDEOS):
        content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
        clip = read_clip(doc["video"], backbone.frames)
        prompt = backbone.template([{"role": "user", "content": content}])
        questions.append((doc, VideoRequest(clip.frames, prompt, clip.sha256, clip.rate)))
    return backbone, questions


def measure(asked: tuple, method: str, **settings: object) -> tuple[float, float]:
    """Accuracy and evidence recall with a tenth of the tokens."""
    backbone, questions = asked
    right, recall = 0, 0.0
    for doc, request in questions:
        (answer,) = backbone.answer([request], build_method(method, retention=0.1, **settings))
        right += answer.text.endswith(f"option {doc['answer']}")
        evidence = {25 * frame + cell for frame, cell in doc["evidence"]}
        recall += len(evidence & set(answer.kept.tolist())) / len(evidence)
    return right / len(questions), recall / len(questions)


def test_a_tenth_of_the_tokens_answers_most_questions(testbed: str, asked) -> None:
    """docs/cacovid.md has all 1750 questions and every method; this is six videos."""
    chance, _ = measure(asked, "random")
    names = [name for name in TESTBED_POLICIES if name.partition("-")[0] == testbed]
    assert len(names) == 3
    for name in names:
        accuracy, recall = measure(asked, "cacovid", policy=name)
        assert accuracy >= 0.75, name
        assert accuracy >= chance + 0.2, name
        assert recall >= 0.7, name


def test_kept_tokens_follow_the_question(testbed: str, asked) -> None:
    backbone, questions = asked
    kept = [
        backbone.answer([request], build_method("cacovid", retention=0.1, policy=testbed))[0].kept.tolist()
        for _, request in questions[:7]
    ]  # all of one video
    assert len(set(map(tuple, kept))) > 3
    blind = build_method("cacovid", retention=0.1, policy=testbed, attention="causal")
    unread = [backbone.answer([request], blind)[0].kept.tolist() for _, request in questions[:7]]
    assert len(set(map(tuple, unread))) == 1
