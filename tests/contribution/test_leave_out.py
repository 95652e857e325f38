"""Contributions: the estimator on a game with a known value, and log-probabilities against the stock model."""

import numpy as np
import pytest
import torch

from cacovid.contribution.leave_out import contributions, random_sets
from cacovid.contribution.order import order_of
from cacovid.training.answering import Ask, log_probabilities


def test_an_additive_game_gives_its_weights_back() -> None:
    weights = torch.tensor([3.0, -1.0, 0.0, 0.5])
    masks = random_sets(4, 4000, 0.3, torch.Generator().manual_seed(0))
    values = masks.double() @ weights.double() + 7
    assert contributions(masks, values).numpy() == pytest.approx(weights.numpy(), abs=0.15)
    every = torch.tensor([[a, b] for a in (False, True) for b in (False, True)])
    # "both are needed": joining turns 0 into 1 in half of the sets.
    assert contributions(every, torch.tensor([0.0, 0, 0, 1])).tolist() == [0.5, 0.5]
    assert contributions(torch.ones(3, 2, dtype=torch.bool), torch.ones(3)).isnan().all()


@pytest.mark.parametrize(("keep", "sets"), [(0.0, 9), (1.0, 9), (0.5, 1)])
def test_sets_that_compare_nothing_are_refused(keep: float, sets: int) -> None:
    with pytest.raises(ValueError, match=f"keep={keep}, sets={sets}; expected 0 < keep < 1 and at least 2 sets"):
        random_sets(4, sets, keep, torch.Generator())


def test_log_probability_of_a_reply_is_the_stock_models(backbone, ask) -> None:
    request = ask(backbone, text="Which one?")
    video = backbone.encode([request], frozenset())[0]
    masks = torch.ones(3, len(video), dtype=torch.bool)
    masks[1:, ::3] = False
    reply = "red and blue"
    asks = [Ask(request.prompt, video, masks), Ask(request.prompt, video, masks[:1])]
    found, short = log_probabilities(backbone, asks, [reply, "red"], together=2)
    assert found[1] == pytest.approx(float(found[2]), abs=1e-9) and found[0] != pytest.approx(float(found[1]))
    # All tokens kept: what the stock model says in one teacher-forced pass.
    ids = backbone.tokenizer(reply, add_special_tokens=False, return_tensors="pt").input_ids[0]
    rows = torch.cat([video.prefix, video.flat, video.newline, video.suffix, backbone.decoder.model.embed_tokens(ids)])
    with torch.inference_mode():
        hidden = backbone.decoder.model(inputs_embeds=rows[None]).last_hidden_state
        logits = backbone.decoder.lm_head(hidden)[0, -len(ids) - 1 : -1].double()
    wanted = logits.log_softmax(-1)[torch.arange(len(ids)), ids].sum()
    assert float(found[0]) == pytest.approx(float(wanted), abs=1e-4)
    # A batch may hold replies of several lengths.
    first = len(backbone.tokenizer("red", add_special_tokens=False).input_ids)
    each = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
    assert float(short[0]) == pytest.approx(float(each[:first].sum()), abs=1e-4)
    with pytest.raises(ValueError, match="reply='' has no tokens"):
        log_probabilities(backbone, asks[:1], [""])


def test_order_is_the_scores_order(backbone, ask) -> None:
    video = backbone.encode([ask(backbone, text="Which one?")], frozenset({"received_attention"}))[0]
    order, kept = order_of(backbone, "attention_topk", {"scope": "global"}, video, 0.25)
    scores = video.received_attention.flatten().numpy()
    assert len(kept) == round(0.25 * len(video)) and kept == set(
        np.argsort(-scores, kind="stable")[: len(kept)].tolist()
    )
    by_score = order.numpy()[np.argsort(-scores, kind="stable")]
    assert (np.diff(by_score) <= 0).all() and by_score[0] > by_score[-1]
    inside, _ = order_of(backbone, "attention_topk", {"variant": "B1"}, video, 0.25)
    assert inside.unique().numel() > 5
