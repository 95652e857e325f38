"""`python -m sweeps collect`: every sample once, and nothing of what is not finished."""

import argparse
import json
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest

from cacovid.runs import Run, RunSettings, Sample
from cacovid.runs.errors import RunError
from made_sweeps import (
    PROVENANCE,
    failed_sample,
    made_cell,
    made_event,
    made_sample,
    made_settings,
    seconds_after,
    write_events,
    write_run,
    write_sweep,
)
from sweeps import parquet
from sweeps.commands import collect as command
from sweeps.parquet import collect


def call(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["collect", *map(str, words)])
    return args.run(args)


def rows_of(folder, name="samples"):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def documents(folder):
    return [(row["run"], row["doc_id"]) for row in rows_of(folder)]


def test_a_real_run_comes_back_whole(tmp_path):
    settings, sample = made_settings(3), Sample(**made_sample(0, 0.01))
    odd = Sample(
        **{**made_sample(1, 0.01), "target": ["a", 1], "seconds": {"store": 0.5}, "spent": None, "video": None}
    )
    with Run(tmp_path / "runs", settings, asked=[0, 1], documents=2, provenance=PROVENANCE) as run:
        run.record(sample)
        run.record(odd)
    collect([tmp_path / "runs"], tmp_path / "out")
    first, second = rows_of(tmp_path / "out")
    elsewhere = {"video", "failure", "metrics", "spent", "seconds"}
    left_out = {"question", "grid", "kept", "merged", "evidence"}
    plain = {name: value for name, value in asdict(sample).items() if name not in elsewhere | left_out}
    assert {name: first[name] for name in plain} == plain
    assert first["run"] == settings.id and json.loads(first["metrics"]) == sample.metrics
    assert first["video_sha256"] == sample.video["sha256"] and first["failure_reason"] is None
    flat = {k: v for k, v in sample.spent.items() if k not in ("flops", "flops_full")}
    for name in ("flops", "flops_full"):
        flat |= {f"{name}_{part}": count for part, count in sample.spent[name].items()}
    assert {k.removeprefix("spent_"): v for k, v in first.items() if k.startswith("spent_")} == flat
    stages = {k: v for k, v in first.items() if k.startswith("seconds_")}
    assert stages == {**{f"seconds_{k}": v for k, v in sample.seconds.items()}, "seconds_store": None}
    assert second["target"] == '["a",1]' and second["seconds_store"] == 0.5 and second["seconds_read"] is None
    assert second["spent_kept"] is None and second["video_sha256"] is None
    (row,) = rows_of(tmp_path / "out", "runs")
    identity = {
        k: json.loads(v) if k in ("fields", "checkpoint", "generation", "versions") else v for k, v in row.items()
    }
    assert RunSettings(**{k: identity[k] for k in asdict(settings)}) == settings
    counts = {"documents": 2, "asked": 2, "answered": 2, "failed": 0, "missing": 0}
    assert {k: row[k] for k in counts} == counts
    assert (row["retention"], row["seed"], row["state"], row["schema"]) == (0.25, 3, "done", 1)
    assert (row["commit"], row["dirty"], row["hardware"]) == ("c" * 40, False, "A CPU")
    assert json.loads(row["provenance"]) == [PROVENANCE]


@pytest.fixture
def sharded(tmp_path):
    """A sweep with one cell in two shards, and one in one."""
    cells = [made_cell(0, "in shards"), made_cell(1, "whole")]
    folder = write_sweep(tmp_path / "s", cells)
    halves = [write_run(folder.runs(f"{k + 1}-of-2"), made_settings(0), rows_from(3 * k, 3)) for k in range(2)]
    whole = write_run(folder.runs("1-of-1"), made_settings(1), rows_from(0, 6))
    names = [(0, f"runs/{k + 1}-of-2/{half.name}", f"{k + 1}-of-2") for k, half in enumerate(halves)]
    names.append((1, f"runs/{whole.name}", "1-of-1"))
    write_events(folder, "0a", [made_event("done", cells[n]["id"], shard, runs=[run]) for n, run, shard in names])
    return folder


def rows_from(first, many, **changes):
    return [made_sample(n, 0.01, **changes) for n in range(first, first + many)]


def test_shards_become_one_run_with_its_label(sharded, capsys):
    assert call(sharded.path) == 0
    ids = sorted(made_settings(n).id for n in range(2))
    assert documents(sharded.path) == [(id, n) for id in ids for n in range(6)]
    runs = {row["run"]: row for row in rows_of(sharded.path, "runs")}
    row = runs[made_settings(0).id]
    assert (row["label"], row["labels"], row["asked"], row["answered"]) == ("in shards", ["in shards"], 6, 6)
    assert row["folders"] == [f"{sharded.path}/runs/{k}-of-2/{row['run']}" for k in (1, 2)]
    assert runs[made_settings(1).id]["label"] == "whole"
    assert f"2 runs in {sharded.path / 'runs.parquet'}, 12 samples" in capsys.readouterr().out
    # The folder of its runs gives the same, labels included.
    collect([sharded.path / "runs"], sharded.path / "other")
    assert rows_of(sharded.path / "other", "runs") == rows_of(sharded.path, "runs")


def test_collecting_again_gives_the_same_bytes(sharded, monkeypatch):
    def both():
        return [(sharded.path / f"{name}.parquet").read_bytes() for name in ("runs", "samples")]

    collect([sharded.path], sharded.path)
    first = both()
    collect([sharded.path], sharded.path)
    assert both() == first
    monkeypatch.setattr(parquet, "CHUNK", 2)  # how much is parsed at a time is no matter
    collect([sharded.path], sharded.path)
    assert both() == first
    assert sorted(p.name for p in sharded.path.iterdir() if p.is_file()) == [
        "runs.parquet",
        "samples.parquet",
        "sweep.json",
    ]


def test_several_processes_and_row_groups_give_the_same_rows(sharded, monkeypatch):
    collect([sharded.path], sharded.path)
    expected = rows_of(sharded.path)
    monkeypatch.setattr(parquet, "BATCH", 1)
    collect([sharded.path], sharded.path, processes=2)
    assert pq.ParquetFile(sharded.path / "samples.parquet").num_row_groups == 2
    assert rows_of(sharded.path) == expected


def test_a_document_answered_twice_counts_once(tmp_path):
    rows = [
        [made_sample(0, 0.01, prediction="early", written=seconds_after(1)), failed_sample(1), failed_sample(2)],
        [
            made_sample(0, 0.01, prediction="late", written=seconds_after(2)),
            made_sample(1, 0.01, prediction="mended", written=seconds_after(1)),
            made_sample(2, 0.01, prediction="answered", written=seconds_after(1)),
            failed_sample(2, "missing"),  # written later, with no answer
            made_sample(3, 0.01, prediction="first"),
            made_sample(3, 0.01, prediction="same second"),
        ],
    ]
    for number, some in enumerate(rows):
        write_run(tmp_path / str(number), made_settings(0), some)
    collect([tmp_path / "1", tmp_path / "0"], tmp_path / "out")
    predictions = [row["prediction"] for row in rows_of(tmp_path / "out")]
    assert predictions == ["late", "mended", "answered", "same second"]
    (row,) = rows_of(tmp_path / "out", "runs")
    assert (row["answered"], row["failed"], row["missing"]) == (4, 0, 0)


def test_failures_are_rows_and_are_counted(tmp_path):
    write_run(tmp_path, made_settings(0), [made_sample(0, 0.01), failed_sample(1, "quarantined", "Quarantined")])
    collect([tmp_path], tmp_path / "out")
    failed = rows_of(tmp_path / "out")[1]
    assert (failed["failure_kind"], failed["failure_reason"]) == ("Quarantined", "quarantined")
    assert (failed["prediction"], failed["score"], failed["spent_kept"]) == (None, None, None)
    (row,) = rows_of(tmp_path / "out", "runs")
    assert (row["answered"], row["failed"]) == (1, 1)


def test_rows_that_the_last_call_did_not_ask_for_are_left_out(tmp_path):
    """A run cut off at document 3, then finished with --limit 2: the two are a sample, the three an accident."""
    write_run(tmp_path, made_settings(0), rows_from(0, 3), asked=range(2))
    collect([tmp_path], tmp_path / "out")
    assert documents(tmp_path / "out") == [(made_settings(0).id, n) for n in range(2)]


def test_unfinished_runs_are_left_out_and_said(sharded, capsys):
    write_run(sharded.runs("1-of-1"), made_settings(2), rows_from(0, 2), asked=range(6), state="running")
    write_run(sharded.runs("3-of-4"), made_settings(3), rows_from(0, 2))
    call(sharded.path)
    assert {row["run"] for row in rows_of(sharded.path)} == {made_settings(n).id for n in range(2)}
    told = capsys.readouterr().err
    assert f"left out: run {made_settings(2).id}, 1-of-1 is running" in told
    assert f"left out: run {made_settings(3).id}, 3-of-4 is done" in told
    call(sharded.path, "--partial")
    states = {row["run"]: (row["state"], row["missing"]) for row in rows_of(sharded.path, "runs")}
    expected = [("done", 0), ("done", 0), ("partial", 4), ("partial", 0)]
    assert states == {made_settings(n).id: state for n, state in enumerate(expected)}


def test_an_empty_shard_is_not_missing(tmp_path):
    """Two documents in four shards: the sweep's events tell that the run is whole, its folders cannot."""
    cell = made_cell(0)
    folder = write_sweep(tmp_path / "s", [cell])
    events = [made_event("done", cell["id"], f"{k}-of-4", runs=[]) for k in (1, 3)]
    for number, k in enumerate((2, 4)):
        run = write_run(folder.runs(f"{k}-of-4"), made_settings(0), rows_from(number, 1))
        events.append(made_event("done", cell["id"], f"{k}-of-4", runs=[f"runs/{k}-of-4/{run.name}"]))
    write_events(folder, "0a", events[:3])
    with pytest.raises(RunError, match=r"no finished run in .*, 1 unfinished; wait for one, or take these with --part"):
        collect([folder.path], folder.path)
    write_events(folder, "0a", events[3:])
    collect([folder.path], folder.path)
    assert len(documents(folder.path)) == 2


def test_rows_that_leave_defaults_out_are_samples(tmp_path):
    row = made_sample(0, 0.01)
    needed = {name: row[name] for name in ("task", "doc_id", "doc_sha256", "prompt_sha256", "modality", "failure")}
    write_run(tmp_path, made_settings(0), [needed])
    collect([tmp_path], tmp_path / "out")
    (first,) = rows_of(tmp_path / "out")
    assert (first["doc_id"], first["metrics"], first["target"], first["spent_kept"]) == (0, None, None, None)


def test_what_is_damaged_is_named_and_refused(sharded, capsys):
    collect([sharded.path], sharded.path)
    before = (sharded.path / "samples.parquet").read_bytes()
    torn = write_run(sharded.runs("1-of-1"), made_settings(4), rows_from(0, 2))
    lines = (torn / "samples.jsonl").read_text().splitlines()
    (torn / "samples.jsonl").write_text(f"{lines[0]}\n{lines[1][:50]}\n")
    other = write_run(sharded.runs("1-of-1"), made_settings(5), rows_from(0, 1), schema=99)
    short = write_run(sharded.runs("1-of-1"), made_settings(6), rows_from(0, 2), asked=range(3))
    strange = write_run(sharded.runs("1-of-1"), made_settings(7), [{**made_sample(0, 0.01), "novel": 1}])
    lacking = write_run(sharded.runs("1-of-1"), made_settings(10), [{"doc_id": 0, "failure": None}])
    wrong = write_run(sharded.runs("1-of-1"), made_settings(8), [made_sample(0, 0.01, score="high")])
    half = write_run(sharded.runs("1-of-1"), made_settings(9), rows_from(0, 1))
    (half / "run.json").write_text('{"id": ')
    expected = [
        f"{torn}/samples.jsonl, line 2 is damaged",
        f"{other}/run.json has schema 99, expected 1",
        f"run {short.name}: 1 of 3 samples are missing, though run.json says done",
        f"{strange}/samples.jsonl, line 1 is no sample of schema 1",
        f"{lacking}/samples.jsonl, line 1 is no sample of schema 1",
        f"run {wrong.name}: ",
        f"{half}/run.json is damaged",
    ]
    with pytest.raises(RunError) as caught:
        call(sharded.path)
    for words in [*expected, "Nothing was written", "--skip-damaged"]:
        assert words in str(caught.value)
    assert (sharded.path / "samples.parquet").read_bytes() == before
    capsys.readouterr()
    assert call(sharded.path, "--skip-damaged") == 0
    assert (sharded.path / "samples.parquet").read_bytes() == before
    told = capsys.readouterr().err
    assert all(words in told for words in expected)


def test_a_shard_whose_folder_is_gone_is_missing(sharded):
    first = sharded.runs("1-of-2") / made_settings(0).id
    first.rename(sharded.path / "elsewhere")
    collect([sharded.path], sharded.path)
    assert {row["run"] for row in rows_of(sharded.path)} == {made_settings(1).id}


def test_a_run_without_a_line_yet_is_partial(tmp_path):
    run = write_run(tmp_path, made_settings(0), [], asked=range(2), state="running")
    (run / "samples.jsonl").unlink()
    collect([tmp_path], tmp_path / "out", partial=True)
    (row,) = rows_of(tmp_path / "out", "runs")
    assert (row["state"], row["missing"]) == ("partial", 2)


def test_a_torn_last_line_is_no_row_yet(tmp_path):
    run = write_run(tmp_path, made_settings(0), rows_from(0, 2), asked=range(3), state="running")
    with open(run / "samples.jsonl", "a") as file:
        file.write(json.dumps(made_sample(2, 0.01))[:99])
    collect([tmp_path], tmp_path / "out", partial=True)
    assert len(documents(tmp_path / "out")) == 2


def test_text_that_looks_like_a_list_of_kept_tokens_stays(tmp_path):
    text = 'no "kept": [1, 2] but \\"kept\\": [3]'
    write_run(tmp_path, made_settings(0), [made_sample(0, 0.01, prediction=text, metrics={"kept": [1]})])
    collect([tmp_path], tmp_path / "out")
    assert rows_of(tmp_path / "out")[0]["prediction"] == text


def test_a_full_disk_leaves_the_former_files(sharded, monkeypatch):
    collect([sharded.path], sharded.path)
    before = (sharded.path / "samples.parquet").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        collect([sharded.path], sharded.path)
    assert (sharded.path / "samples.parquet").read_bytes() == before
    assert not list(sharded.path.glob("*.part")) and not list(sharded.path.glob(".collect-*"))


def test_folders_that_cannot_be_collected_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"nowhere is no folder"):
        call(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no finished run in .* 0 unfinished"):
        call(tmp_path)
    with pytest.raises(RunError, match=r"2 folders and no place .* name one with -o DIR"):
        call(tmp_path, tmp_path)
