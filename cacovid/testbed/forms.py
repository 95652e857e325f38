"""The ways in which a question is put to the model: a hint of a few words, the benchmark's form, a drill."""

from collections.abc import Sequence
from zlib import crc32

from cacovid.testbed.packing import CHAT, Asked, Wrapping
from cacovid.testbed.questions import Question
from cacovid.testbed.words import LETTERS


def put(question: Question, form: str, wrapping: Wrapping = CHAT) -> Asked:
    """The question in one of these forms.

    - hint: two to six words, the asked-for one last; the answer is the option's word.
    - letter: question, lettered options and instruction; the answer is the word, then the letter.
    - echo1, echo2, echo4: so many of the lettered options, and the right one's word; the answer is its letter.
    """
    if form == "hint":
        return Asked(f"\n\n {question.hint}", f" {question.word}", question.kind)
    if form == "letter":
        return Asked(f"\n\n{question.prompt()}{wrapping.tail}", question.reply, question.kind)
    if form in ("echo1", "echo2", "echo4"):
        # Which others are on show must not tell the answer: by a number that has nothing to do with it.
        others = [i for i in range(len(question.options)) if i != question.answer]
        turn = crc32(question.text.encode()) % len(others)
        shown = sorted([question.answer, *(others[turn:] + others[:turn])[: int(form[-1]) - 1]])
        lines = "\n".join(f"{LETTERS[i]}. {question.options[i]}" for i in shown)
        start = question.reply.removesuffix(f" {question.letter}")
        return Asked(f"\n\n{lines}{wrapping.tail}{start}", f" {question.letter}", question.kind)
    raise ValueError(f"form {form!r} is not one of hint, letter, echo1, echo2, echo4")


def roll_call(glyphs: Sequence[str]) -> Asked:
    """The names of objects in a row, for the probes to look up; no answer but the stop token."""
    return Asked("\n\n " + " ".join(glyphs), "", "roll call")
