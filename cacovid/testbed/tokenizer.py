"""The test bed's tokenizer and processor: real files of the published LLaVA-OneVision layout, at its scale."""

from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from cacovid.testbed.questions import words_in_questions

END_OF_TEXT: Final = "<|endoftext|>"
SPECIAL: Final = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<image>", "<video>")
IMAGE_SIZE: Final = 80
PATCH_SIZE: Final = 8

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Media first, then the text, as the published checkpoints' template lays them out."""

_TEXT: Final = (
    "assistant", "user", "system", "You are a helpful assistant.",
    "Answer with the option's letter from the given choices directly.",
    "Answer the question using a single word or phrase.",
    "Select the best answer to the following multiple-choice question based on the video.",
    "Respond with only the letter (A, B, C, or D) of the correct option. The best answer is:",
    "What is the color of the digit?", "Which shape has the color?", "Which digit has the color?",
    "Which of these appears first?", "Which of these appears last?",
    "What is the direction of motion of the digit?", "How many objects have the shape?",
    "In the same place, what comes after the digit?",
    " color shape digit first last direction number after", "A. B. C. D.\n\n",
)  # fmt: skip
"""All words that the questions are made of, but for those in the options."""


def corpus() -> list[str]:
    """The text that the tokenizer is trained on; it stays the same when the scenes change."""
    words = [f" {word}" for word in words_in_questions()]
    return [*_TEXT, *words] * 3


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the questions is one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=END_OF_TEXT,
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        model_max_length=32768,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaOnevisionProcessor:
    """The processor: 80 x 80 pixels, patches of 8, so 100 patches a frame and 25 tokens after pooling."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    scale = [IMAGE_SIZE * i for i in range(1, 7)]
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size=size,
            image_grid_pinpoints=[[h, w] for h in scale for w in scale],
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        video_processor=LlavaOnevisionVideoProcessor(size=size, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]),
        tokenizer=build_tokenizer(),
        num_image_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def save_processor(folder: Path) -> None:
    """Write the tokenizer and processor files into a checkpoint folder."""
    build_processor().save_pretrained(folder)
