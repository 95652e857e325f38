"""Images and text: the stock model's own `generate`, untouched by the method."""

from dataclasses import dataclass

import torch

from cacovid.backbones import Backbone
from cacovid.clock import StageClock
from cacovid.lmms.generation import Generation
from cacovid.lmms.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Plain:
    """An uncompressed answer."""

    text: str
    input_tokens: int
    output_tokens: int
    seconds: dict[str, float]


@torch.inference_mode()
def answer_uncompressed(backbone: Backbone, prompt: Prompt, generation: Generation) -> Plain:
    """Greedy answer to a prompt with images or without any media; the text ends before a stop string."""
    model, processor = backbone.model, backbone.processor
    clock = StageClock(backbone.device)
    with clock.stage("generate"):
        inputs = processor(text=prompt.text, images=prompt.images or None, return_tensors="pt")
        inputs = inputs.to(backbone.device, model.dtype)
        out = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=generation.max_new_tokens,
            stop_strings=[s for s in generation.until if s] or None,
            tokenizer=backbone.tokenizer,
        )
    rows = inputs["input_ids"].shape[1]
    text = backbone.tokenizer.decode(out[0, rows:], skip_special_tokens=True)
    cuts = [text.index(s) for s in generation.until if s and s in text]
    return Plain(text[: min(cuts)] if cuts else text, rows, out.shape[1] - rows, dict(clock.seconds))
