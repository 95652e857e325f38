"""The ways in which a question is put to the model, from a hint of two words to the benchmark's form."""

from typing import Final

from cacovid.testbed.packing import CHAT, Asked, Wrapping
from cacovid.testbed.questions import INSTRUCTION, Question
from cacovid.testbed.words import LETTERS

FORMS: Final = ("hint", "word", "echo", "choose", "brief", "letter")
"""In the order of the curriculum: each is one step harder than the one before."""


def put(question: Question, form: str, wrapping: Wrapping = CHAT) -> Asked:
    """The question in one of the FORMS.

    - hint: two to six words, the asked-for one last; the answer is the option's word.
    - word: the question (with its options in a row where it needs them); the answer is the option's word.
    - echo: the answer's word in the question's place, and the lettered options; the answer is its letter.
    - choose: question and lettered options; the answer is the option's word, and its letter on the next line.
    - brief: question and lettered options; the answer is the letter.
    - letter: with the instruction line, as the benchmark asks; the answer is the word, then the letter.
    """
    if form == "hint":
        return Asked(f"\n\n {question.hint}", f" {question.word}", question.kind)
    if form == "word":
        shown = " " + " ".join(question.options) if question.kind == "order" else ""
        return Asked(f"\n\n{question.text}{shown}{wrapping.tail}", f" {question.word}", question.kind)
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=True)]
    if form == "letter":
        lines.append(INSTRUCTION)
    elif form == "choose":
        lines.append("Answer the question using a single word or phrase.")
    elif form not in ("brief", "echo"):
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}")
    text = "\n\n" + "\n".join([f"{question.word}?" if form == "echo" else question.text, *lines]) + wrapping.tail
    answer = {"choose": f" {question.word}\n{question.letter}", "letter": question.reply}.get(form, question.letter)
    return Asked(text, answer, question.kind)
