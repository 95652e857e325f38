"""Greedy generation ends, penalises and cuts as the stock model's own `generate` does."""

import pytest
import torch

from cacovid.registry import build_method

FULL = build_method("full")


@pytest.fixture
def own(build_backbone):
    """A backbone whose generation config a test may change."""
    return build_backbone("sdpa")


def check(own, stock, request, tokens=12, **stopping):
    ours = own.answer([request], FULL, max_new_tokens=tokens, keep_logits=True, **stopping)[0]
    strings = {"stop_strings": list(stopping["stop_strings"])} if stopping else {}
    expected = stock(own, request, max_new_tokens=tokens, **strings)
    assert ours.ids == expected.ids
    for row, reference in zip(ours.logits, expected.logits, strict=True):
        assert torch.equal(row, reference)
    return ours, expected


@pytest.mark.parametrize("tokens", [1, 2, 12])
def test_the_token_limit(own, ask, stock, tokens):
    ours, expected = check(own, stock, ask(own), tokens)
    assert len(ours.ids) == tokens
    assert ours.text == expected.text


@pytest.mark.parametrize("tokens", [0, -3])
def test_a_limit_below_one_token_is_refused(own, ask, tokens):
    with pytest.raises(ValueError, match=f"max_new_tokens={tokens}, expected at least 1"):
        own.answer([ask(own)], FULL, max_new_tokens=tokens)


@pytest.mark.parametrize("as_list", [False, True])
def test_the_end_token(own, ask, stock, as_list):
    free = stock(own, ask(own), max_new_tokens=12).ids
    place = next(i for i in range(3, 12) if free[i] not in free[:i])
    own.model.generation_config.eos_token_id = [free[place], 260] if as_list else free[place]
    ours, _ = check(own, stock, ask(own))
    assert ours.ids == free[: place + 1], "the end token is the last one"


def test_without_an_end_token_it_runs_to_the_limit(own, ask, stock):
    own.model.generation_config.eos_token_id = None
    assert len(check(own, stock, ask(own))[0].ids) == 12


def test_stop_strings_end_generation_and_are_cut(own, ask, stock):
    free = stock(own, ask(own), max_new_tokens=12).text
    letters = [c for c in free if c.isascii() and c.isprintable()]
    stop = letters[min(2, len(letters) - 1)]
    ours, expected = check(own, stock, ask(own), stop_strings=("never there", stop))
    assert len(ours.ids) < 12
    assert stop in expected.text
    assert ours.text == expected.text.split(stop)[0]


def test_stop_strings_of_several_tokens(own, ask, stock):
    free = stock(own, ask(own), max_new_tokens=12).text
    stop = next(free[i : i + 2] for i in range(1, len(free)) if free[i : i + 2].isascii() and len(free[i : i + 2]) == 2)
    ours, expected = check(own, stock, ask(own), stop_strings=(stop,))
    assert ours.text == expected.text.split(stop)[0]


def test_the_repetition_penalty_of_the_checkpoint(own, ask, stock):
    free = stock(own, ask(own), max_new_tokens=12).ids
    own.model.generation_config.repetition_penalty = 1.4
    ours, expected = check(own, stock, ask(own))
    assert ours.ids != free, "the penalty changes this answer"
    assert ours.text == expected.text


def test_samples_of_a_batch_end_on_their_own(own, ask):
    requests = [ask(own, 4, "What is it?", seed=1), ask(own, 2, "Why?", seed=2), ask(own, 5, "Who is there?", seed=3)]
    free = [own.answer([r], FULL, max_new_tokens=12)[0].ids for r in requests]
    end = next(t for t in free[0][1:] if t not in free[1][:6])
    own.model.generation_config.eos_token_id = end
    alone = [own.answer([r], FULL, max_new_tokens=12)[0] for r in requests]
    batch = own.answer(requests, FULL, max_new_tokens=12)
    assert [a.ids for a in batch] == [a.ids for a in alone]
    assert [a.text for a in batch] == [a.text for a in alone]
    assert [a.spent for a in batch] == [a.spent for a in alone], "an ended sample is not charged for riding along"
    assert len({len(a.ids) for a in batch}) > 1
