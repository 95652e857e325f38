"""A latency run: for every backbone its blocks, of the rows that are not in the folder yet."""

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cacovid.backbones import Backbone, load_backbone
from cacovid.lmms.arguments import parse_arguments
from cacovid.registry import method_class
from cacovid.runs.digest import digest
from cacovid.runs.settings import package_versions
from cacovid.runs.source import source_sha256
from sweeps.cells import Cell, cells_of
from sweeps.latency.architectures import random_backbone
from sweeps.latency.block import Block, Entry
from sweeps.latency.environment import clocks, device_name, environment
from sweeps.latency.inputs import make_inputs
from sweeps.latency.rows import SCHEMA, LatencyFolder, row_of
from sweeps.latency.settings import Protocol
from sweeps.latency.stand_ins import in_words, with_random_weights
from sweeps.settings import Backbone as BackboneSettings
from sweeps.settings import Rows, Sweep

UNCOMPRESSED = "uncompressed"
"""Label of the row that is added where a run has none of the method `full`."""


def run_latency(sweep: Sweep, protocol: Protocol, folder: LatencyFolder, *, again: bool = False) -> None:
    """Measure what is missing and write it, block by block. Raises ConfigError, CheckpointError, DeviceError."""
    until = float("inf") if protocol.limit_s is None else time.monotonic() + protocol.limit_s
    for name, settings in sweep.backbones.items():
        cells = ordered(replace(sweep, backbones={name: settings}))
        device = device_of(settings)
        keys = {
            batch: {cell.id: _key(cell, sweep, protocol, batch, device) for cell in cells} for batch in protocol.batch
        }
        missing = {
            batch: [cell for cell in cells if again or of_batch[cell.id] not in folder.done]
            for batch, of_batch in keys.items()
        }
        if not any(missing.values()):
            continue
        backbone = load(name, settings, protocol, device)
        frames = sweep.frames or backbone.frames
        with TemporaryDirectory() as scratch:
            for batch, left in missing.items():
                if not left:
                    continue
                # A speed-up is of one block: the uncompressed model is timed again beside what was missing.
                rows = left if left[0].method == "full" else [cells[0], *left]
                entries = [entry_of(cell, backbone, protocol, Path(scratch)) for cell in rows]
                for entry, cell in zip(entries, rows, strict=True):
                    entry.key = keys[batch][cell.id]
                about = {
                    "backbone": name,
                    "weights": protocol.weights,
                    "pretrained": settings.pretrained if protocol.weights == "pretrained" else None,
                    "frames": frames,
                    "batch": batch,
                    "prompt_tokens": protocol.prompt_tokens,
                    "decode_tokens": protocol.decode_tokens,
                }
                folder.write(*measure(backbone, entries, protocol, about, Path(scratch), until))


def measure(
    backbone: Backbone,
    entries: list[Entry],
    protocol: Protocol,
    about: dict[str, Any],
    scratch: Path,
    until: float = float("inf"),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time one block: its environment, and a row for each entry. `about`: backbone, frames, batch and the like."""
    started = datetime.now(UTC).isoformat()
    inputs = make_inputs(
        backbone,
        scratch,
        protocol.warmup + protocol.repeats,
        about["batch"],
        about["frames"],
        words=protocol.prompt_tokens,
        size=(protocol.height, protocol.width),
        seed=protocol.seed,
    )
    found = {**environment(backbone), "protocol": asdict(protocol), "started": started}
    found["clocks_before"] = clocks(backbone.device)
    Block(backbone, entries, inputs, about["frames"], protocol, until=until).measure()
    found["clocks_after"] = clocks(backbone.device)
    found["ended"] = datetime.now(UTC).isoformat()
    found = {"block": digest([found, about])[:16], **found}
    return found, [row_of(entry, protocol.repeats, block=found["block"], **about) for entry in entries]


def ordered(sweep: Sweep) -> list[Cell]:
    """The rows in the order in which they are taken up, and dropped from the end when time runs out: the uncompressed
    model, then all methods at the first ratio, then all at the next. Raises ConfigError as `cells_of` does."""
    if not any(rows.method == "full" for rows in sweep.methods.values()):
        sweep = replace(sweep, methods={UNCOMPRESSED: Rows("full", retention=[1.0]), **sweep.methods})
    cells = cells_of(sweep)
    ratios = {ratio: place for place, ratio in enumerate(sweep.retention)}

    def place(cell: Cell) -> tuple[bool, int]:
        return cell.method != "full", ratios.get(cell.arguments["retention"], len(ratios))

    return sorted(cells, key=place)


def device_of(settings: BackboneSettings) -> str:
    """`auto` as `load_backbone` takes it."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(name: str, settings: BackboneSettings, protocol: Protocol, device: str) -> Backbone:
    """The backbone `name` of a sweep. Raises ConfigError, CheckpointError, DeviceError."""
    if protocol.weights == "random":
        return random_backbone(name, settings, device, protocol.seed)
    return load_backbone(
        settings.family,
        settings.pretrained,
        device=device,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        revision=settings.revision,
    )


def _key(cell: Cell, sweep: Sweep, protocol: Protocol, batch: int, device: str) -> str:
    """Sixteen hex digits: equal where configuration, code, versions and machine are."""
    modules = {__name__, "sweeps.latency.block", method_class(cell.method).__module__}
    timed = {k: v for k, v in asdict(protocol).items() if k not in ("batch", "limit_s", "device")}
    described = {
        "schema": SCHEMA,
        "label": cell.label,
        "backbone": asdict(cell.backbone),
        "method": cell.method,
        "arguments": cell.arguments,
        "frames": sweep.frames,
        "batch": batch,
        "protocol": timed,
        "device": [device, device_name(torch.device(device))],
        "threads": torch.get_num_threads(),
        "source": source_sha256(sorted(modules)),
        "versions": package_versions(),
    }
    return digest(described)[:16]


def entry_of(cell: Cell, backbone: Backbone, protocol: Protocol, scratch: Path) -> Entry:
    """The method of a cell, with random weights where the backbone has such."""
    settings, retention = cell.model_args, cell.arguments["retention"]
    given = settings
    if protocol.weights == "random":
        given = with_random_weights(cell.method, settings, backbone, scratch)
    arguments, method = parse_arguments(cell.method, given)
    return Entry(cell.label, cell.method, method, retention, arguments.budget, stand_ins=in_words(settings, given))
