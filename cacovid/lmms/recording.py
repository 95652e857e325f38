"""The run directory of one task: what its name hashes, and what it tells about the evaluation."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from cacovid.backbones import Backbone, checkpoint_folder
from cacovid.compose import Composed
from cacovid.lmms.arguments import Arguments
from cacovid.lmms.generation import Generation
from cacovid.lmms.prompt import Request
from cacovid.method import Method
from cacovid.runs import Run, RunSettings
from cacovid.runs.digest import canonical, digest, text_sha256
from cacovid.runs.provenance import provenance
from cacovid.runs.settings import checkpoint_identity, package_versions
from cacovid.runs.source import source_sha256

_TOLD = ("seed", "limit", "offset", "gen_kwargs", "num_fewshot", "system_instruction", "apply_chat_template")
"""Arguments of the `lmms-eval` command that run.json repeats; the others may hold tokens."""


def open_run(
    work: Sequence[tuple[Request, Generation]],
    *,
    method: str,
    settings: Method,
    backbone: Backbone,
    arguments: Arguments,
    frames: int,
    simple: bool,
    documents: int,
) -> Run:
    """Open the run of one task's requests. Raises as `Run`; PromptError for requests without a task."""
    first = work[0][0]
    task = first.owner
    # Not the data set's arguments: they hold this machine's paths, and each document has its own hash.
    config = {k: v for k, v in vars(task.config).items() if v is not None and k != "dataset_kwargs"}
    model = backbone.model.config
    identity = RunSettings(
        method=method,
        fields=plain_fields(settings),
        budget=arguments.budget,
        backbone=backbone.family,
        checkpoint=checkpoint_identity(checkpoint_folder(arguments.pretrained), getattr(model, "_commit_hash", None)),
        dtype=str(backbone.model.dtype).removeprefix("torch."),
        attention=backbone.decoder.config._attn_implementation,
        device=backbone.device.type,
        frames=frames,
        sampling=arguments.sampling,
        pixels=backbone.pixel_limits,
        form="simple" if simple else "chat",
        batch_size=arguments.batch_size,
        task=first.task,
        task_sha256=digest([config, task.lmms_eval_specific_kwargs]),
        generation=[asdict(g) for g in dict.fromkeys(g for _, g in work)],
        source=source_sha256(code_of(_parts(settings), type(backbone))),
        versions=package_versions(),
    )
    template = getattr(backbone.processor, "chat_template", None)
    command = getattr(task, "args", None)  # None where lmms-eval was called from a program
    about = {
        "model_id": f"{method}_{backbone.family}",
        "arguments": asdict(arguments),
        "command": {name: getattr(command, name, None) for name in _TOLD} if command else None,
        "task_config": json.loads(canonical(config)),
        "task_prompt": json.loads(canonical(task.lmms_eval_specific_kwargs)),
        "chat_template_sha256": text_sha256(template) if isinstance(template, str) else None,
    }
    return Run(
        arguments.results_dir,
        identity,
        asked=[request.doc_id for request, _ in work],
        documents=documents,
        about=about,
        provenance=provenance(),
        resume=arguments.resume,
    )


def plain_fields(method: Method) -> dict[str, Any]:
    """A method's fields and `identity` as plain data; the parts of a composed one by name."""

    def plain(value: Any) -> Any:
        return {"class": type(value).__qualname__, **plain_fields(value)} if isinstance(value, Method) else value

    values = {f.name: plain(getattr(method, f.name)) for f in fields(method)}
    return json.loads(canonical(values | method.identity()))


def _parts(method: Method) -> list[type[Method]]:
    return [type(part) for part in ((method.first, method.second) if isinstance(method, Composed) else (method,))]


def code_of(methods: Iterable[type[Method]], backbone: type) -> list[str]:
    """Modules whose code, with what they import, makes the numbers of these methods on that backbone."""
    return ["cacovid.lmms.model", backbone.__module__, *(method.__module__ for method in methods)]
