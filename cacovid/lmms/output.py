"""What goes back to lmms-eval for one sample: the answer, with its audit in the samples file."""

from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from cacovid.runs import Sample


class SampleCounts(TokenCounts):
    """lmms-eval's token counts; `to_dict` adds the budget really spent, for `--log_samples`."""

    def __init__(self, sample: Sample, run: str) -> None:
        super().__init__(input_tokens=sample.input_tokens, output_tokens=sample.output_tokens)
        self.sample, self.run = sample, run

    def to_dict(self) -> dict[str, Any]:
        row = self.sample.to_json()
        names = ("modality", "compressed", "spent", "seconds", "kept", "evidence_recall", "failure", "doc_sha256")
        return {**super().to_dict(), **{name: row[name] for name in names}, "run": self.run}


def result(sample: Sample, run: str) -> GenerationResult:
    """The answer; the empty string for a sample that has none."""
    text = "" if sample.prediction is None else sample.prediction
    return GenerationResult(text=text, token_counts=SampleCounts(sample, run))
