"""Tables: the paper's numbers digit for digit, measured ones beside them, pivots, ablations, and every format."""

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.load import load
from analysis.measured import cells, comparable
from analysis.published import FOLDER, PAPERS
from analysis.results import Results, ResultsError
from analysis.stats import Interval
from analysis.tables.cell import Cell, Table, percent
from analysis.tables.efficiency import efficiency_tables, latency_tables
from analysis.tables.paper import main_tables
from analysis.tables.pivot import Pivot, ablation_table
from analysis.tables.render import text_of, to_csv, to_latex_document, to_markdown, write
from made_runs import write_run

HUB = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
TASKS = ("longvideobench_val_v", "mlvu_dev", "mlvu_test", "videomme")


def _answers(right: list[int], kinds: str) -> list[dict[str, object]]:
    return [
        {"mlvu_percetion_score": {"task_type": kind, "pred_answer": "A" if one else "B", "answer": "A"}}
        for one, kind in zip(right, kinds, strict=True)
    ]


def _measure(root: Path, method: str, retention: float, right: list[int], **more: object) -> None:
    """The paper's four tasks, six questions on three videos each, the same ones right in all."""
    for task in TASKS:
        kind: dict[str, object] = {"scores": list(right)}
        if task.startswith("mlvu"):
            kind = {"scores": [None] * 6, "metrics": _answers(right, "xxxxyy")}
        elif task == "videomme":
            kind["categories"] = ["short", "short", "medium", "medium", "long", "long"]
        setup = {"task": task, "frames": 32}
        write_run(
            root,
            f"{method}-{retention}-{task}",
            method,
            retention=retention,
            hub=HUB,
            setup=setup,
            **kind,
            **more,
        )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("measured")
    _measure(root, "full", 1.0, [1, 1, 1, 1, 1, 0])
    _measure(root, "cacovid", 0.25, [1, 1, 1, 0, 1, 0])
    _measure(root, "fastv", 0.25, [1, 0, 0, 0, 0, 0], layer_average=0.304)
    _measure(root, "random", 0.25, [0, 1, 0, 0, 0, 0])
    return load(root)


@pytest.fixture(scope="module")
def tables(measured: Results) -> list[Table]:
    return main_tables(measured, "cacovid")


def _rows(table: Table) -> list[dict[str, Cell]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _row(table: Table, method: str, retention: str) -> dict[str, Cell]:
    return next(row for row in _rows(table) if (row["Method"].text, row["r"].text) == (method, retention))


TITLES = {
    "longvideobench": "LongVideoBench",
    "mlvu_dev": "MLVU dev",
    "mlvu_test": "MLVU test",
    "videomme_short": "Video-MME short",
    "videomme_medium": "Video-MME medium",
    "videomme_long": "Video-MME long",
    "videomme": "Video-MME",
    "average": "Average",
    "relative_percent": "% of all tokens",
}


def test_the_papers_main_table_is_printed_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    printed = list(csv.DictReader((FOLDER / "cacovid_main_table.csv").open()))
    tables = main_tables(None, "cacovid")
    found = [row for table in tables for row in _rows(table)]
    assert len(found) == len(printed) == 49
    for line, row in zip(printed, found, strict=True):
        assert (row["Method"].text, row["r"].text) == (line["method"], f"{line['retention_percent']}%")
        assert {name: row[title].text for name, title in TITLES.items()} == {name: line[name] for name in TITLES}
        assert not any(row[f"{title}, measured"].text for title in TITLES.values())
    notes = [note for table in tables for note in table.notes]
    assert not any("the average" in note for note in notes), "every average is what its columns give"
    assert (
        "framefusion, 25%: the paper prints 96.7% of all tokens, its columns give 96.77%" in notes and len(notes) == 10
    )
    assert main(["tables", "--paper", "cacovid"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("cacovid") >= 8 and "--" in shown
    assert PAPERS == ("cacovid",)


def test_measured_numbers_stand_beside_with_their_difference(tables: list[Table]) -> None:
    table = tables[0]
    ours = _row(table, "cacovid", "25%")
    cell = ours["LongVideoBench, measured"]
    assert (cell.text, cell.difference, cell.runs) == ("66.7", "+10.5", ("cacovid-0.25-longvideobench_val_v",))
    assert cell.best and cell.low and cell.high
    assert ours["MLVU dev, measured"].text == "62.5", "macro over kinds: (3/4 + 1/2) / 2"
    assert ours["Video-MME short, measured"].text == "100.0" and ours["Video-MME long, measured"].text == "50.0"
    assert ours["Average, measured"].text == f"{100 * (2 / 3 + 0.625 + 0.625 + 2 / 3) / 4:.1f}"
    assert _row(table, "full", "100%")["% of all tokens, measured"].text == "100.0"
    assert not _row(table, "full", "100%")["LongVideoBench, measured"].best, "all tokens are no competitor"
    extra = _row(table, "random", "25%")
    assert extra["LongVideoBench"].text == "" and extra["LongVideoBench, measured"].text == "16.7"
    assert extra["LongVideoBench, measured"].tied, "six questions do not tell it from the best"
    assert _row(table, "cacovid", "10%")["LongVideoBench, measured"] == Cell("")
    assert "fastv, 25%: measured at 30.4% of the tokens, mean over the LLM's layers" in table.notes


def test_layer_average_runs_stand_for_the_papers_ratio(tmp_path: Path) -> None:
    setup = {"task": "videomme"}
    for name, budget, right in (("a", "nominal", 0), ("b", "layer_average", 1), ("c", "flops", 0)):
        write_run(tmp_path, name, "fastv", [right] * 4, retention=0.25, hub=HUB, setup={**setup, "budget": budget})
    cell = _row(main_tables(load(tmp_path), "cacovid")[0], "fastv", "25%")["Video-MME, measured"]
    assert cell.text == "100.0" and cell.runs == ("b",)


def test_another_checkpoint_does_not_fill_the_papers_table(tmp_path: Path) -> None:
    write_run(
        tmp_path, "a", "full", [1, 1], setup={"task": "videomme"}, hub="llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    )
    assert not any(cell.runs for table in main_tables(load(tmp_path), "cacovid") for row in table.rows for cell in row)


def test_the_efficiency_table(measured: Results) -> None:
    measured = measured.of(measured.runs["task"] == "videomme")
    printed = efficiency_tables(None, "cacovid")[0]
    assert [row["Compression, ms"].text for row in _rows(printed)] == ["", "134.3", "34.1", "11.2"]
    ours = _row(efficiency_tables(measured, "cacovid")[0], "cacovid", "25%")
    assert ours["Prefill, ms, measured"].text == "100.0" and ours["Prefill, ms, measured"].difference == "+46.8"
    other = measured.runs.assign(hardware=measured.runs["hardware"].where(measured.runs["method"] != "full", "another"))
    with pytest.raises(ResultsError, match=r"hardware is a processor in run .* and another in run"):
        efficiency_tables(Results(other, measured.samples), "cacovid")


def write_latency(folder: Path, *rows: dict[str, Any], machines: dict[str, str] | None = None) -> None:
    """Rows as the latency protocol writes them, as far as the table reads them; the last line is cut off."""
    whole = [
        {"key": f"k{n}", "status": "measured", "batch": 1, "budget": "nominal", "backbone": "llava_ov_7b", "block": "b"}
        | {"method": "full", "label": "full", "retention": 1.0}
        | row
        for n, row in enumerate(rows)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "latency.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole) + '{"key": "cut')
    blocks = [{"block": block, "device_name": name} for block, name in (machines or {"b": "a GPU"}).items()]
    (folder / "env.jsonl").write_text("".join(json.dumps(block) + "\n" for block in blocks))


def timed(compress: float, prefill: float, **fields: Any) -> dict[str, Any]:
    return {"seconds": {"compress": {"p50": compress}, "prefill": {"p50": prefill}}, **fields}


def test_the_efficiency_table_from_latency_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"method": "cacovid", "label": "cacovid", "retention": 0.25}
    write_latency(
        tmp_path / "l",
        timed(0.0, 0.3),
        timed(0.05, 0.08, **ours),
        timed(0.02, 0.06, **ours),  # again, later
        timed(0.9, 0.9, **ours, batch=4),
        timed(0.9, 0.9, **ours, budget="flops"),
        timed(0.9, 0.9, **ours, backbone="testbed"),
        {**ours, "status": "out_of_memory", "seconds": {}},
    )
    table = latency_tables("cacovid", tmp_path / "l")[0]
    found = _row(table, "cacovid", "25%")
    assert found["Compression, ms, measured"].text == "20.0" and found["Compression, ms, measured"].difference == "+8.8"
    assert found["Prefill, ms, measured"].runs == ("k2",) and _row(table, "full", "100%")["Prefill, ms"].text == "200.4"
    assert not _row(table, "divprune", "25%")["Compression, ms, measured"].runs
    assert main(["tables", "--paper", "cacovid", "--table", "efficiency", str(tmp_path / "l")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "measured on a GPU: medians over the repeats of the latency protocol" in said


def test_latency_rows_of_two_machines_or_none_are_refused(tmp_path: Path) -> None:
    write_latency(tmp_path / "a", timed(0, 1), timed(0, 1, label="x", block="c"), machines={"b": "one GPU", "c": "two"})
    with pytest.raises(ResultsError, match="times of llava_onevision_7b are of one GPU and two; expected one machine"):
        latency_tables("cacovid", tmp_path / "a")
    write_latency(tmp_path / "b", timed(0, 1, backbone="testbed"))
    with pytest.raises(ResultsError, match=r"no row at batch 1 of llava_ov_7b, .*python -m sweeps latency backbone"):
        latency_tables("cacovid", tmp_path / "b")
    (tmp_path / "b" / "env.jsonl").unlink()
    with pytest.raises(ResultsError, match=r"env.jsonl is not there; expected a folder that `python -m sweeps"):
        latency_tables("cacovid", tmp_path / "b")


def test_incompatible_runs_need_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "a", "full", [1, 1])
    write_run(tmp_path, "b", "random", [1, 0], retention=0.25, setup={"frames": 8})
    assert main(["tables", str(tmp_path)]) == 2
    assert "frames is 16 in run a" in capsys.readouterr().err
    assert main(["tables", str(tmp_path), "--allow", "frames"]) == 0


def test_the_newest_run_of_a_setting_counts_and_seeds_are_pooled(tmp_path: Path) -> None:
    write_run(tmp_path, "old", "random", [0, 0, 0, 0], retention=0.25, seed=0)
    write_run(tmp_path, "new", "random", [1, 0, 1, 0], retention=0.25, seed=0, started="2026-01-02")
    write_run(tmp_path, "other", "random", [1, 1, 1, 1], retention=0.25, seed=1)
    table = Pivot().table(cells(comparable(load(tmp_path))))
    assert table.rows[0][1].text == "75.0" and table.trace == ["random | 0.25: new other"]


def test_a_label_that_names_the_seed_is_one_row_of_so_many_seeds(tmp_path: Path) -> None:
    for seed, right in enumerate(([1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1])):
        write_run(tmp_path, f"s{seed}", "random", right, retention=0.25, seed=seed)
    write_run(tmp_path, "f", "fastv", [1, 0, 0, 1], retention=0.25)
    results = load(tmp_path)
    named = results.runs["label"].where(results.runs["seed"].isna(), [f"random (seed {s})" for s in (0, 0, 1, 2)])
    found = comparable(replace(results, runs=results.runs.assign(label=named)))
    table = Pivot.parse(["values=accuracy,seeds"]).table(cells(found))
    assert [row[0].text for row in table.rows] == ["fastv", "random"]
    cell = table.rows[1][1]
    assert (cell.text, cell.seeds, cell.runs) == ("66.7", "3", ("s0", "s1", "s2"))
    assert [row[2].text for row in table.rows] == ["1", "3"] and table.rows[0][1].seeds == ""
    assert table.trace[2] == "random | 0.25, accuracy: s0 s1 s2"
    assert text_of(cell)[1].endswith("], 3 seeds") and "0.25, accuracy seeds" in to_csv([table]).splitlines()[0]


def test_pivots(measured: Results) -> None:
    found = cells(comparable(measured.of(measured.runs["task"].isin(["videomme", "mlvu_dev"]))))
    words = ["rows=label", "columns=retention,task", "values=accuracy,flops_ratio,seconds_prefill,n"]
    table = Pivot.parse(words).table(found)
    row = next(row for row in _rows(table) if row["label"].text == "fastv")
    assert row["0.25, videomme, accuracy"].text == "16.7" and row["0.25, videomme, flops_ratio"].text == "30.4"
    assert row["0.25, videomme, seconds_prefill"].text == "100.0" and row["0.25, videomme, n"].text == "6"
    assert row["1, videomme, accuracy"].text == ""
    with pytest.raises(ResultsError, match=r"two cells for row .* they differ in task; add it to rows= or columns="):
        Pivot().table(found)
    with pytest.raises(ResultsError, match=r"--pivot: no acuracy; known: accuracy, difference, "):
        Pivot.parse(["columns=retention,task", "values=acuracy"]).table(found)
    with pytest.raises(ResultsError, match=r"--pivot 'row=label': expected rows=..., columns=... or values=..."):
        Pivot.parse(["row=label"])


def test_ablations_show_what_differs_in_one_setting(tmp_path: Path) -> None:
    for layer, scope in ((2, "a"), (3, "a"), (2, "b"), (3, "b")):
        write_run(tmp_path, f"{layer}{scope}", "fastv", [1, 0, 1, 1], retention=0.25, layer=layer, scope=scope)
    found = cells(comparable(load(tmp_path)))
    table = ablation_table(found, "fastv (layer=2, scope=a)")
    assert [row[0].text for row in table.rows] == ["base", "layer: 2 -> 3", "scope: a -> b"]
    with pytest.raises(ResultsError, match="--ablations 'FastV': no such label; there are fastv"):
        ablation_table(found, "FastV")


def test_formats_mark_the_same_things() -> None:
    best = Cell("50.0", "40.0", "60.0", "+1.0", best=True, runs=("a",))
    tied = Cell("49.0", "39.0", "59.0", "-1.0", tied=True)
    table = Table(
        "Title & 100%", ("Method", "x_y, measured"), ((Cell("a_b|*"), best), (Cell("c"), tied), (Cell("d"), Cell("")))
    )
    markdown = to_markdown([table])
    assert r"| a_b\|\* | **50.0 (+1.0)**<br>[40.0, 60.0] |" in markdown
    assert "| c | 49.0 (-1.0) =<br>[39.0, 59.0] |" in markdown and "| d | -- |" in markdown
    rows = list(csv.reader(io.StringIO(to_csv([table]))))
    assert rows[0] == ["Method", *(f"x_y, measured{name}" for name in ("", " difference", " low", " high"))]
    assert rows[1][1:] == ["50.0", "+1.0", "40.0", "60.0"] and rows[3] == ["d", "", "", "", ""]
    latex = to_latex_document([table])
    assert r"\textbf{50.0 (+1.0)}" in latex and r"Title \& 100\%" in latex and r"a\_b\textbar{}*" in latex
    with pytest.raises(ResultsError, match=r"no format '.xls' for tables, expected one of .md, .tex, .csv"):
        write([table], Path("table.xls"))
    assert percent(Interval(0.5, float("nan"), float("nan"))) == Cell("50.0") and percent(None) == Cell("")


def test_the_latex_is_whole_and_compiles_where_there_is_a_compiler(tables: list[Table], tmp_path: Path) -> None:
    path = tmp_path / "t.tex"
    write(tables, path)
    text = path.read_text()
    for name in ("document", "table*", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") >= 1
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    for line in text.splitlines():
        if line.startswith("{}"):
            assert line.count(" & ") == 19 and line.endswith(r"\\")
    if compiler := shutil.which("pdflatex"):
        command = [compiler, "-interaction=nonstopmode", "-halt-on-error", path.name]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stdout[-2000:]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for name, order in (("one", ("full", "random")), ("two", ("random", "full"))):
        for method in order:
            write_run(tmp_path / name, method, method, [1, 0, 1, 1], retention=1.0 if method == "full" else 0.25)
    for name in ("one", "two"):
        outputs = [word for suffix in ("md", "tex", "csv") for word in ("-o", str(tmp_path / f"{name}.{suffix}"))]
        assert main(["tables", str(tmp_path / name), *outputs]) == 0
    for suffix in ("md", "tex", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_nothing_to_tabulate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables"]) == 2
    assert "expected a FOLDER with runs, or --paper" in capsys.readouterr().err
