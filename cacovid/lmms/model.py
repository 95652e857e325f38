"""The lmms-eval model: a compression method on a backbone, with a run record for each task."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import simple_parse_args_string
from loguru import logger
from tqdm import tqdm

from cacovid.lmms.arguments import ArgumentError, parse_arguments
from cacovid.lmms.command import exit_status, failed_samples
from cacovid.lmms.evaluation import Evaluation
from cacovid.lmms.generation import Generation, parse_generation
from cacovid.lmms.output import result
from cacovid.lmms.prompt import Request
from cacovid.lmms.recording import open_run
from cacovid.lmms.shared import Shared
from cacovid.runs import Run, Sample


class CompressedModel(lmms):
    """`<method>_<family>`; the subclasses that lmms-eval builds are made in `cacovid.lmms.models`.

    Videos are compressed by the method; images and text go through the stock model's own `generate`, and the
    record says so. Decoding is greedy. Failed samples get the empty answer and a failure in the record.
    """

    is_simple: bool = True
    method_name: ClassVar[str]
    family: ClassVar[str] = "llava_ov"

    def __init__(self, *, shared: Shared | None = None, **given: Any) -> None:
        """Load the backbone and build the method.

        Args:
            shared: a backbone that is loaded, with its store; for programs that evaluate several models.
            given: see `Arguments`, and the method's own fields.

        Raises ArgumentError, MethodError, BudgetError, DeviceError or CheckpointError.
        """
        super().__init__()
        if (world := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
            raise ArgumentError(
                f"{world} processes were launched, a run is written by one; start one process a GPU, each with its "
                f"own --offset, --limit and results_dir"
            )
        self.arguments, self.method = parse_arguments(self.method_name, given)
        if shared is None:
            shared = Shared.load(self.arguments, family=self.family)
        shared.check(self.family, self.arguments)
        self.arguments = shared.with_store(self.arguments)
        self.shared, self.backbone = shared, shared.backbone
        self.samples: dict[str, list[Sample]] = {}  # of the last call, task by task
        self.folders: dict[str, Path] = {}  # their run directories

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> Self:
        """As lmms-eval's, but a dict is taken, too, and `batch_size` and `device` in model_args win."""
        extra = {k: v for k, v in (additional_config or {}).items() if v is not None}
        with exit_status():
            given = simple_parse_args_string(arg_string) if isinstance(arg_string, str) else arg_string
            return cls(**{**extra, **given})

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def batch_size(self) -> int:
        return self.arguments.batch_size

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer requests of any number of tasks; each task has its own run directory.

        Raises ArgumentError for generation arguments that are not supported, RunLockedError, RunWriteError.
        """
        with exit_status():
            return self._generate(requests)

    def _generate(self, instances: list[Instance]) -> list[GenerationResult]:
        requests = [Request.of(instance, self.is_simple) for instance in instances]
        tasks: dict[str, dict[int, Request]] = {}
        for request in requests:  # a repeated question has the same greedy answer: asked once
            tasks.setdefault(request.task, {}).setdefault(request.doc_id, request)
        made = {id(r): parse_generation(r.generation) for work in tasks.values() for r in work.values()}
        results: dict[tuple[str, int], GenerationResult] = {}
        for task, work in tasks.items():
            pairs = [(r, made[id(r)]) for r in work.values()]
            run = open_run(
                pairs,
                method=self.method_name,
                settings=self.method,
                backbone=self.backbone,
                arguments=self.arguments,
                frames=self.shared.frames,
                simple=self.is_simple,
                documents=len(self.task_dict[task][pairs[0][0].split]),
            )
            for sample in self._evaluate(run, pairs):
                results[task, sample.doc_id] = result(sample, run.settings.id)
        return [results[r.task, r.doc_id] for r in requests]

    def _evaluate(self, run: Run, work: list[tuple[Request, Generation]]) -> list[Sample]:
        first = work[0][0]
        name, total = first.task, len(work)
        if run.held:
            logger.warning(
                f"{name}: {run.held} of {total} samples have an answer in {run.folder}; they are taken from it"
            )
        evaluation = Evaluation(
            self.backbone, self.method, self.shared.encoder, run, self.is_simple, self.batch_size, self.arguments.budget
        )
        start = time.perf_counter()
        with run:
            documents = self.task_dict[name][first.split]
            bar = tqdm(evaluation.samples(work, documents), total=total, desc=f"{self.method_name} {name}")
            samples = list(bar)
        self.samples[name], self.folders[name] = samples, run.folder
        self._report(run, name, total, time.perf_counter() - start)
        return samples

    def _report(self, run: Run, name: str, total: int, seconds: float) -> None:
        """Say what was taken, what failed and where it lies; throughput to lmms-eval."""
        done = run.attempt
        logger.info(f"{name}: {done['taken']} of {total} samples taken from {run.folder}, {done['computed']} computed")
        if failures := run.failures():
            logger.error(
                f"{name}: {len(failures)} of {total} samples HAVE NO ANSWER (empty in lmms-eval's files, marked in "
                f"{run.folder}/samples.jsonl; lmms-eval's score counts them its own way). First: doc "
                f"{failures[0].doc_id}: {failures[0].failure and failures[0].failure.message}"
            )
            failed_samples(len(failures))
        if done["computed"]:
            tokens = sum(s.output_tokens or 0 for s in run.computed)  # taken ones are no throughput
            log_metrics(seconds, tokens, tokens / seconds, {"total_requests": done["computed"]})

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not offered: the methods are defined on generation."""
        raise NotImplementedError(
            f"{type(self).__name__} answers by generation; loglikelihood and multiple_choice tasks are not supported"
        )

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not offered."""
        raise NotImplementedError(
            f"{type(self).__name__} answers single questions; multi-round tasks are not supported"
        )
