"""The test bed's tokenizer: a byte-level BPE in which every word of the questions is one token."""

from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.questions import words_in_questions

END_OF_TEXT: Final = "<|endoftext|>"
SPECIAL: Final = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")

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


def build_tokenizer(*marks: str, image_token: str, video_token: str) -> PreTrainedTokenizerFast:
    """The tokenizer with a family's special tokens: those that stand for media, and further marks."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=1,
        special_tokens=[*SPECIAL, *marks, image_token, video_token],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=END_OF_TEXT,
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": image_token, "video_token": video_token},
        model_max_length=32768,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
