"""The ways in which a question is put to the model: a hint of a few words, the benchmark's form, a drill."""

from collections.abc import Sequence

from cacovid.testbed.families import Wrapping
from cacovid.testbed.packing import Asked
from cacovid.testbed.questions import Question


def put(question: Question, form: str, wrapping: Wrapping) -> Asked:
    """The question in one of these forms.

    - hint: two to six words, the asked-for one last; the answer is the option's word.
    - letter: question, lettered options and instruction; the answer is the word, then the letter.
    - echo: the lettered options and the right one's word; the answer is its letter.
    """
    if form == "hint":
        return Asked(f"{wrapping.lead} {question.hint}", f" {question.word}", question.kind)
    if form == "letter":
        return Asked(f"{wrapping.lead}{question.prompt()}{wrapping.tail}", question.reply, question.kind)
    if form == "echo":
        start = question.reply.removesuffix(f" {question.letter}")
        return Asked(
            f"{wrapping.lead}{question.lettered()}{wrapping.tail}{start}", f" {question.letter}", question.kind
        )
    raise ValueError(f"form {form!r} is not one of hint, letter, echo")


def roll_call(glyphs: Sequence[str], wrapping: Wrapping) -> Asked:
    """The names of objects in a row, for the probes to look up; no answer but the stop token."""
    return Asked(f"{wrapping.lead} {' '.join(glyphs)}", "", "roll call")
