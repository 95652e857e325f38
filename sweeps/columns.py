"""The columns of collected Parquet: a row a run, a row a sample. What may have any form is JSON text."""

from typing import Any

import orjson
import pyarrow as pa

from sweeps.parts import WholeRun

_TEXT, _COUNT, _NUMBER, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_FLOPS = pa.struct(dict.fromkeys(("vision", "compressor", "prefill", "decode"), _COUNT))
_SPENT = pa.struct(
    {
        **dict.fromkeys(("video_tokens", "asked"), _COUNT),
        "measure": _TEXT,
        "slack": _NUMBER,
        "lenient": _FLAG,
        "layers": pa.list_(pa.int32()),
        "kept": _COUNT,
        **dict.fromkeys(("decode_visible", "equivalent"), _NUMBER),
        **dict.fromkeys(("flops", "flops_full"), _FLOPS),
        "entering": _COUNT,
        "realised": _NUMBER,
        "missed": _FLAG,
        **dict.fromkeys(("retention", "layer_average", "flops_ratio"), _NUMBER),
    }
)
_SAMPLE = {
    **dict.fromkeys(("run", "task"), _TEXT),
    "doc_id": _COUNT,
    **dict.fromkeys(("doc_sha256", "prompt_sha256", "modality"), _TEXT),
    "compressed": _FLAG,
    "video": pa.struct({"path": _TEXT, "sha256": _TEXT}),
    "prediction": _TEXT,
    "failure": pa.struct({"kind": _TEXT, "reason": _TEXT, "message": _TEXT}),
    "target": _TEXT,  # JSON where it is no text
    "score": _NUMBER,
    "parsed": _FLAG,
    "metrics": _TEXT,  # JSON: what the task's process_results returned
    **dict.fromkeys(("input_tokens", "output_tokens"), _COUNT),
    "spent": _SPENT,
    "evidence_recall": _NUMBER,
    "written": _TEXT,
}
"""A sample without what belongs to one video alone (positions, frame indices, the question's text), and without
`seconds`, whose stages are found. Structs become `spent_flops_vision`, ..."""

_IDENTITY = ("method", "budget", "backbone", "dtype", "attention", "device", "sampling", "form", "task", "task_sha256")
_JSON = ("arguments", "command", "task_config", "task_prompt")
_RUN = pa.schema(
    {
        **dict.fromkeys(("run", "label"), _TEXT),
        "labels": pa.list_(_TEXT),  # of all cells, in all sweeps, whose run it is
        "schema": _COUNT,
        "state": _TEXT,  # done or partial
        **dict.fromkeys((*_IDENTITY, "source"), _TEXT),
        **dict.fromkeys(("frames", "batch_size"), _COUNT),
        "pixels": pa.list_(_COUNT),
        "retention": _NUMBER,
        "seed": _COUNT,
        **dict.fromkeys(("fields", "checkpoint", "generation", "versions"), _TEXT),  # JSON
        **dict.fromkeys(("documents", "asked", "answered", "failed", "missing"), _COUNT),
        **dict.fromkeys(("started", "ended"), _TEXT),
        "commit": _TEXT,  # several where it went on after a change
        "dirty": _FLAG,
        "hardware": _TEXT,
        "provenance": _TEXT,  # JSON list of all different ones
        **dict.fromkeys(("model_id", "chat_template_sha256", *_JSON), _TEXT),
        "folders": pa.list_(_TEXT),
    }
)


def sample_table(run: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of samples.jsonl as columns, `seconds_<stage>` last; changes the rows."""
    for row in rows:
        row["run"] = run
        row["metrics"] = _text(row.get("metrics"))
        target = row.get("target")
        row["target"] = target if isinstance(target, str) else _text(target)
    stages = sorted(set().union(*(row.get("seconds", ()) for row in rows)))
    seconds = {"seconds": pa.struct(dict.fromkeys(stages, _NUMBER))} if stages else {}
    table = pa.Table.from_pylist(rows, schema=pa.schema({**_SAMPLE, **seconds})).flatten().flatten()
    return table.rename_columns([name.replace(".", "_") for name in table.column_names])


def run_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows made by `run_row`."""
    return pa.Table.from_pylist(rows, schema=_RUN)


def run_row(run: WholeRun, counts: dict[str, int], labels: list[str]) -> dict[str, Any]:
    """One row of runs.parquet; `counts` are those of its samples: answered, failed, missing."""
    last = run.parts[-1].run
    settings = last["settings"]
    attempts = [attempt for part in run.parts for attempt in part.run["attempts"]]
    origins = {text: a["provenance"] for a in attempts if (text := _text(a["provenance"]))}
    commits = [origin["git"] for origin in origins.values() if origin["git"]]
    return {
        "run": run.id,
        "label": labels[0] if labels else None,
        "labels": labels,
        "schema": last["schema"],
        "state": "partial" if run.unfinished else "done",
        **{name: settings[name] for name in (*_IDENTITY, "source", "frames", "batch_size")},
        "pixels": settings.get("pixels"),  # runs of older versions do not have it
        "retention": settings["fields"].get("retention"),
        "seed": settings["fields"].get("seed"),
        **{name: _text(settings[name]) for name in ("fields", "checkpoint", "generation", "versions")},
        "documents": last["counts"]["documents"],
        "asked": len(run.asked),
        **counts,
        "started": run.parts[0].run["started"],
        "ended": max(part.run["ended"] or "" for part in run.parts) or None,
        "commit": ", ".join(sorted({git["commit"] for git in commits})) or None,
        "dirty": any(git["dirty"] for git in commits) if commits else None,
        "hardware": "; ".join(sorted({_hardware(origin["hardware"]) for origin in origins.values()})) or None,
        "provenance": _text([origins[text] for text in sorted(origins)]),
        **{name: last.get(name) for name in ("model_id", "chat_template_sha256")},
        **{name: _text(last.get(name)) for name in _JSON},
        "folders": [part.folder.as_posix() for part in run.parts],
    }


def _text(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _hardware(described: dict[str, Any]) -> str:
    """The accelerators, or the processor where there are none."""
    names = [card["name"] for card in described.get("accelerators", [])]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or str(described["cpu"])
