"""What every table and figure is made of: one row a run, one row a sample, with fixed columns and units."""

from dataclasses import dataclass

import pandas as pd

RUN_COLUMNS = {
    "run": "id, unique in the frame",
    "source": "where it was read: path of the run's folder or file",
    "kind": "cacovid (our records), lmms_eval (a plain lmms-eval output folder), published (a paper's table)",
    "label": "name of the row in tables and legends: the sweep's label, else method and what sets it apart",
    "backbone": "name of the model family or paper's name, e.g. llava_ov",
    "checkpoint": "text that names the weights",
    "method": "registered name; for a foreign run the lmms-eval model id",
    "fields": "JSON text of the method's settings without retention and seed",
    "budget": "nominal, layer_average or flops: what retention_asked means",
    "retention_asked": "share of video tokens kept, 0..1; 1 for an uncompressed model",
    "seed": "of the method, missing where it has none",
    "task": "lmms-eval task name",
    "frames": "frames a video",
    "setup": "JSON text: everything else that runs of one column must share (dtype, attention, sampling, form, "
    "batch size, generation, task configuration's hash, device, versions)",
    "hardware": "text, missing where unknown",
    "commit": "of the suite, ending in + where files were changed; missing where unknown",
    "started": "ISO time",
    "documents": "how many the task has",
    "score": "the task's own aggregate where samples cannot give it (foreign runs, published), 0..1; else missing",
}
"""Columns of `Results.runs`."""

SAMPLE_COLUMNS = {
    "run": "as in runs",
    "task": "lmms-eval task name",
    "doc_id": "number of the document in its task",
    "document": "hash of the document; missing in foreign runs",
    "video": "hash or name of the video: the cluster; the document's own where unknown",
    "category": "question kind, task type or duration class that the task's macro average or breakdown goes by",
    "score": "0..1; missing = failed or not scored, never 0",
    "prediction": "text; missing = failed",
    "target": "text",
    "parsed": "False: the scorer found no answer in the prediction; missing = not told",
    "failure": "reason, missing = answered",
    "video_tokens": "N, before compression",
    "retention": "realised share of N that is left after the last cut",
    "entering": "realised share of N that enters the LLM",
    "layer_average": "realised mean share of N over the LLM's layers",
    "decode_share": "share of N visible at decode",
    "flops": "of the sample, vision tower included",
    "flops_ratio": "LLM and compressor against the uncompressed sample",
    "missed": "True: another budget was spent than asked",
    "output_tokens": "decoded tokens",
    "evidence_recall": "share of the evidence tokens kept, 0..1",
    "seconds_<stage>": "read, waited (for one read ahead), vision, store, plan, compress, prefill, decode, generate",
}
"""Columns of `Results.samples`."""


class ResultsWarning(UserWarning):
    """Results that were left out, or that are not what they look like; says which and why."""


class ResultsError(ValueError):
    """Results that cannot be read, or that do not belong together; says what was got, expected, and what to do."""


@dataclass(frozen=True)
class Results:
    """Runs and their samples; every sample's `run` is in `runs`. Runs without samples are there, too."""

    runs: pd.DataFrame
    samples: pd.DataFrame

    def of(self, mask: "pd.Series[bool]") -> "Results":
        """The runs that `mask` (over `runs`) selects, with their samples."""
        runs = self.runs[mask]
        return Results(runs, self.samples[self.samples["run"].isin(runs["run"])])
