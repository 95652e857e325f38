"""One pass over a batch of questions: what the vision side does, and what a method and the LLM do with it.

Both halves are the same code whether stages are taken apart or the whole is one uninterrupted call.
"""

from dataclasses import dataclass, replace

import torch

from cacovid.backbones import Backbone
from cacovid.backbones.base import compress_video
from cacovid.backbones.decoder import Prefilled
from cacovid.backbones.generation import Generated, Stopping, generate
from cacovid.budget import BudgetMode, Spent
from cacovid.method import Method
from cacovid.records import Need, VideoTokens
from cacovid.solve import Plan, plan
from cacovid.video import Clip, read_clip
from sweeps.latency.clock import Clock, Uninterrupted
from sweeps.latency.inputs import Question

BEFORE_LLM = ("read", "preprocess", "vision", "prompt")
STAGES = (*BEFORE_LLM, "compress", "prefill", "decode")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A batch of videos in the LLM's input space, with the prompts around them."""

    videos: list[VideoTokens]
    penalised: list[torch.Tensor]  # ids that a repetition penalty looks at


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What came of a batch."""

    state: Prefilled
    generated: list[Generated]


def read(questions: list[Question], frames: int, clock: Clock) -> list[Clip]:
    """Stage read, one file at a time, in this process."""
    with clock.stage("read"):
        return [read_clip(question.path, frames) for question in questions]


def see(backbone: Backbone, needs: frozenset[Need], questions: list[Question], clips: list[Clip], clock: Clock) -> Seen:
    """Stages preprocess, vision and prompt, one video at a time: the stock processor, the vision tower (with the copy
    to the device and what `needs` names), the prompt's tokens and embeddings."""
    videos, penalised = [], []
    for question, clip in zip(questions, clips, strict=True):
        with clock.stage("preprocess"):
            pixels = backbone.preprocess(clip.frames)
        with clock.stage("vision"):
            encoded = backbone.encode_pixels(pixels, needs)
        with clock.stage("prompt"):
            videos.append(backbone.ask(encoded, question.prompt, clip.sha256, clip.rate))
            penalised.append(torch.cat(backbone.penalised(question.prompt)))
    return Seen(videos, penalised)


def plans_of(backbone: Backbone, method: Method, budget: BudgetMode, videos: list[VideoTokens]) -> list[Plan]:
    """How each video is to be compressed. In no stage: a deployment would run at the ratio that was found."""
    shape = backbone.decoder_shape
    return [plan(method, v, shape, budget, backbone.encoder_flops(method, v)) for v in videos]


@torch.inference_mode()
def reply(backbone: Backbone, plans: list[Plan], seen: Seen, decode_tokens: int, clock: Clock) -> Reply:
    """Stages compress, prefill and decode, for the whole batch; decoding takes `decode_tokens` steps, whatever comes.

    The suite's own generation, with the checkpoint's repetition penalty and without its end tokens.
    """
    with clock.stage("compress"):
        compressed = [compress_video(p.method, v, p.budget) for p, v in zip(plans, seen.videos, strict=True)]
    with clock.stage("prefill"):
        parts = zip(seen.videos, compressed, plans, strict=True)
        state = backbone.decoder.prefill([backbone.sequence(v, c, p.budget, p.method) for v, c, p in parts])
    # The first token is the prefill's: a step feeds one token and gives the next.
    stopping = Stopping.from_config(backbone.model.generation_config, decode_tokens + 1, ())
    with clock.stage("decode"):
        endless = replace(stopping, end_ids=frozenset())
        generated = generate(backbone.decoder, state, backbone.tokenizer, seen.penalised, endless)
    return Reply(state, generated)


def spent_of(backbone: Backbone, plans: list[Plan], seen: Seen, done: Reply) -> list[Spent]:
    """The budget audit of every sample. Raises BudgetError where one spent another budget than asked."""
    spent = []
    for i, (video, asked, out) in enumerate(zip(seen.videos, plans, done.generated, strict=True)):
        spent.append(backbone.audit(done.state, i, video, asked, len(out.ids)))
        spent[-1].check(type(asked.method).__name__)
    return spent


def whole(backbone: Backbone, plans: list[Plan], questions: list[Question], frames: int, decode_tokens: int) -> Reply:
    """From files to the last token in one call, with no wait in between that an answer would not have."""
    clock = Uninterrupted()
    seen = see(backbone, plans[0].method.needs, questions, read(questions, frames, clock), clock)
    return reply(backbone, plans, seen, decode_tokens, clock)
