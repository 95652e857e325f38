"""Figures: looks that hold everywhere, the same bytes from the same results, traps, and refusals with their words."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from analysis.__main__ import main
from analysis.plots.figures import FIGURES
from analysis.plots.looks import STAGE_COLOURS, look, title
from analysis.plots.pareto import pareto_front
from analysis.plots.part import Part, parts
from analysis.plots.style import STYLE, save, shortened, wrapped
from analysis.results import Results, ResultsError, ResultsWarning
from analysis.sources.frames import run_frame, sample_frame
from analysis.stats.compare import compare
from made_runs import write_run

VIDEOS, KINDS = 6, ("color", "count")


def made(*settings: dict, seed: int = 0) -> Results:
    """Runs with made-up scores: the higher r, the more is right; `settings` are changes to a run or its samples."""
    rng, runs, samples = np.random.default_rng(seed), [], []
    for number, given in enumerate(settings):
        run = {
            "run": f"r{number:02d}", "source": "made", "kind": "cacovid", "backbone": "llava_ov", "checkpoint": "c",
            "method": "random", "fields": "{}", "budget": "nominal", "retention_asked": 0.25, "seed": None,
            "task": "evidence_vqa", "frames": 16, "setup": "{}", "hardware": "cpu", "started": "2026-01-01",
        } | given  # fmt: skip
        run.setdefault("label", run["method"])
        runs.append(run)
        for document in range(VIDEOS * len(KINDS)):
            sample = {
                "run": run["run"], "task": run["task"], "doc_id": document, "document": f"d{document}",
                "video": f"v{document // len(KINDS)}", "category": KINDS[document % len(KINDS)],
                "score": float(rng.random() < 0.4 + run["retention_asked"] / 2),
                "layer_average": run["retention_asked"], "flops_ratio": run["retention_asked"], "missed": False,
                "evidence_recall": rng.random(),
                **{f"seconds_{stage}": rng.uniform(0.01, 0.02) for stage in STAGE_COLOURS},
            }  # fmt: skip
            samples.append(sample | {name: value for name, value in given.items() if name in sample and name != "run"})
    return Results(run_frame(runs), sample_frame(samples))


FULL = {"method": "full", "retention_asked": 1.0}
GRID = (FULL, *({"method": m, "retention_asked": r} for m in ("cacovid", "fastv", "random") for r in (0.1, 0.25)))

MEMORY = pd.DataFrame(
    {
        "family": "llava_ov", "backbone": "llava_ov_7b", "method": run["method"], "label": run["method"],
        "retention_asked": run["retention_asked"], "budget": "nominal", "frames": 16, "dtype": "bfloat16",
        "attention": "sdpa", "hardware": "an accelerator with a rather long name",
        "peak_memory": run["retention_asked"] * 2**33,
    }
    for run in GRID
)  # fmt: skip
"""Peak memory of GRID."""


def part_of(results: Results) -> Part:
    (only,) = parts(results)
    return only


@pytest.fixture(scope="module")
def grid() -> Part:
    return part_of(made(*GRID))


def drawn(part: Part, name: str) -> Figure:
    """The figure, laid out."""
    with rc_context(STYLE):
        figure = FIGURES[name](part)
        figure.draw_without_rendering()
    return figure


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def nothing_is_cut_off(figure: Figure) -> bool:
    """Every text, tick label and legend lies within the picture."""
    width, height = figure.bbox.width, figure.bbox.height
    box = figure.get_tightbbox()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 * figure.dpi <= width + 1 and box.y1 * figure.dpi <= height + 1


def legend_covers_no_axis(figure: Figure) -> bool:
    box = figure.legends[0].get_window_extent()
    return not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes if axis.get_visible())


def markers(figure: Figure) -> Iterator[tuple[str, str]]:
    """Marker and fill style of every point in the first axis."""
    for line in figure.axes[0].lines:
        if line.get_marker() not in ("None", "_", "|"):
            yield line.get_marker(), line.get_fillstyle()


def test_a_method_looks_the_same_everywhere() -> None:
    known = [look(name) for name in ("full", "cacovid", "fastv", "visionzip", "dycoke", "divprune", "prunevid",
             "framefusion", "holitom", "fastvid", "flashvid", "attention_topk", "random", "uniform")]  # fmt: skip
    assert len({(one.colour, one.marker) for one in known}) == len(known), "told apart without the line"
    variants = [look("fastv", number) for number in range(8)]
    assert {one.colour for one in variants} == {look("fastv").colour}
    assert len({(str(one.line), one.fill) for one in variants}) == 8 and "none" not in {one.fill for one in variants}
    assert look("someone_elses") == look("someone_elses") and look("someone_elses").marker not in {
        one.marker for one in known
    }


def test_long_labels_keep_their_ends() -> None:
    assert wrapped("short", 10) == "short" and wrapped("two words that break", 12) == "two words\nthat break"
    assert wrapped("x" * 50, 10) == "xxxxxxxxxx\nxxx…xxxxxx" and shortened("abcdefghi", 6) == "abc…hi"
    assert title("fastv (layer=2)", "fastv") == "FastV (layer=2)" and title("fastv", "mine") == "fastv"


def test_pareto_front() -> None:
    costs, values = np.array([3.0, 1.0, 2.0, 2.0, 4.0]), np.array([6.0, 5.0, 5.0, 5.5, 5.9])
    assert pareto_front(costs, values).tolist() == [1, 3, 0], "equal values at more cost are not on it"


def test_the_same_results_give_the_same_bytes(tmp_path, grid) -> None:
    for folder, part in (("a", grid), ("b", part_of(made(*GRID)))):
        save(lambda part=part: FIGURES["retention"](part), tmp_path / folder, "retention", ["pdf", "svg", "png"])
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == 3
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    pdf = (tmp_path / "a" / "retention.pdf").read_bytes()
    assert b"CreationDate" not in pdf and b"/Type3" not in pdf and b"/FontFile2" in pdf


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_fits_its_paper(name: str, grid) -> None:
    figure = drawn(replace(grid, memory=MEMORY), name)
    assert round(figure.get_figwidth(), 2) in (3.3, 6.9)
    assert nothing_is_cut_off(figure) and legend_covers_no_axis(figure)


def test_points_are_what_the_statistics_say(grid) -> None:
    table = grid.accuracy.set_index(["method", "retention_asked"]).sort_index()
    told = compare(grid.results).set_index(["method", "retention_asked"]).sort_index()
    assert np.allclose(table["low"], 100 * told["accuracy_low"].astype(float))
    assert np.allclose(table["mean"], 100 * told["accuracy"].astype(float))
    axis = drawn(grid, "retention").axes[0]
    heights = {round(y, 6) for line in axis.lines for y in np.atleast_1d(line.get_ydata())}
    assert {round(mean, 6) for mean in table["mean"]} <= heights, "every mean is drawn"


def test_many_rows_with_long_labels() -> None:
    many = [
        {
            "method": "fastv",
            "fields": json.dumps({"layer": n}),
            "label": f"a very long label that nobody reads to its end, number {n}",
            "retention_asked": r,
        }
        for n in range(28)
        for r in (0.1, 0.25)
    ]
    part = part_of(made(FULL, *many))
    legend = legend_of(drawn(part, "retention"))
    assert len(set(legend)) == 29 and legend[3].endswith("number 2"), "told apart though shortened, and in order"
    for name in ("retention", "category", "stages", "flops"):
        figure = drawn(part, name)
        assert figure.get_figwidth() == 6.9
        assert nothing_is_cut_off(figure) and legend_covers_no_axis(figure), name


def test_one_ratio_is_a_sorted_list() -> None:
    rows = [{"method": m} for m in ("cacovid", "fastv", "random")]
    part = part_of(made(FULL, *rows))
    figure = drawn(part, "retention")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    means = {row.name: group["mean"].iloc[0] for row, group in part.ordered(part.accuracy)}
    assert names == sorted(names, key=lambda name: means[name]) and set(names) == {"CaCoVID", "FastV", "random"}
    assert not figure.legends
    assert "r = 25%" in figure.axes[0].get_xlabel() and nothing_is_cut_off(figure)


def test_without_all_tokens_there_is_no_line(grid) -> None:
    with_line = drawn(grid, "retention")
    without = drawn(part_of(made(*GRID[1:])), "retention")
    assert legend_of(with_line)[0] == "all tokens" and "all tokens" not in legend_of(without)
    assert len(with_line.axes[0].patches) == 1 and not without.axes[0].patches


def test_methods_at_r_1_are_the_uncompressed_model() -> None:
    table = part_of(made(*GRID, {"method": "fastv", "retention_asked": 1.0})).accuracy
    assert table.loc[table["retention_asked"] == 1, "method"].to_list() == ["full"]


def test_seeds_are_one_point_with_their_spread() -> None:
    seeds = [{"retention_asked": r, "seed": s, "label": f"random (seed {s})"} for s in range(3) for r in (0.1, 0.25)]
    part = part_of(made(FULL, *seeds))
    table = part.accuracy
    assert table["label"].to_list() == ["full", "random", "random"] and table["seeds"].map(len).to_list() == [0, 3, 3]
    assert np.allclose(table["mean"][1:], [np.mean(means) for means in table["seeds"][1:]])
    assert "tick: one seed" in legend_of(drawn(part, "retention"))


def test_a_missed_budget_is_hollow() -> None:
    part = part_of(made(FULL, {"method": "dycoke", "missed": True}, {"method": "dycoke", "retention_asked": 0.1}))
    figure = drawn(part, "flops")
    marker = look("dycoke").marker
    assert sorted(fill for shape, fill in markers(figure) if shape == marker) == ["full", "none"]
    assert "hollow: spent another\nbudget than asked" in legend_of(figure)


def test_a_stored_video_has_no_vision_time() -> None:
    part = part_of(made(*GRID[:3], {"method": "fastv", "seconds_vision": None, "seconds_read": 0.0}))
    assert "FastV" in legend_of(drawn(part, "latency"))
    assert "FastV" not in legend_of(drawn(part, "ttft")), "a stage that is not known is not 0"
    with pytest.raises(ResultsError, match="no sample of evidence_vqa, llava_ov has seconds_vision and seconds_comp"):
        FIGURES["ttft"](part_of(made({**FULL, "seconds_vision": None})))


def test_times_of_different_machines_do_not_mix() -> None:
    part = part_of(made(FULL, {"method": "fastv", "hardware": "another"}))
    for name in ("latency", "ttft", "stages"):
        with pytest.raises(
            ResultsError, match="times of evidence_vqa, llava_ov are from another and cpu; give the runs of one"
        ):
            FIGURES[name](part)
    FIGURES["flops"](part)
    (allowed,) = parts(part.results, ["hardware"])
    FIGURES["latency"](allowed)


def test_times_of_a_batch_say_so() -> None:
    part = part_of(made({**FULL, "setup": '{"batch_size": 8}'}))
    assert drawn(part, "ttft").axes[0].get_xlabel().endswith("median time (ms a batch of 8)")


def test_nothing_to_draw() -> None:
    part = part_of(made(FULL))
    with pytest.raises(ResultsError, match="no compressed run of evidence_vqa, llava_ov, expected a method at r < 1"):
        FIGURES["retention"](part)
    with pytest.raises(ResultsError, match="hold no peak memory; measure it with `python -m sweeps latency`"):
        FIGURES["memory"](part)
    with pytest.raises(ResultsError, match="only the test bed knows it"):
        FIGURES["evidence"](part_of(made({**GRID[1], "evidence_recall": None})))
    with pytest.raises(ResultsError, match="have no category"):
        FIGURES["category"](part_of(made({**GRID[1], "category": None})))
    one_video = part_of(made({**GRID[1], "video": "v"}))
    with pytest.raises(ResultsError, match="no compressed run"):
        FIGURES["retention"](one_video)
    published = made(FULL)
    with pytest.raises(ResultsError, match="an accuracy is never drawn without its interval"):
        parts(Results(published.runs, published.samples[:0]))


def test_failed_questions_are_counted_aloud() -> None:
    results = made(*GRID)
    results.samples.loc[:2, "score"] = np.nan
    with pytest.warns(ResultsWarning, match="3 of 84 questions have no score"):
        parts(results)


def test_two_tasks_are_two_parts() -> None:
    results = made(FULL, {"method": "fastv"}, {**FULL, "task": "videomme"}, {"method": "fastv", "task": "videomme"})
    assert [part.title for part in parts(results)] == ["evidence_vqa, llava_ov", "videomme, llava_ov"]


def test_command_draws_training_and_contribution(tmp_path, capsys) -> None:
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        rows = [
            {"step": step, "token": step / 20, "norm": 1.0} | ({"validation@0.1": 0.5} if step % 4 == 0 else {})
            for step in range(1, 13)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 13, "to')
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text(json.dumps({"contestants": [{"label": "fastv:layer=1", "name": "fastv"}]}))
    rows = [
        {"video": f"v{v}", "kind": "color", "label": label, "correlation": 0.1 * v, "gain": float(v)}
        for v in range(3)
        for label in ("the evidence itself", "fastv:layer=1")
    ]
    (study / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    arguments = ["plots", "--training", f"ocss={tmp_path}/seed*", f"{tmp_path}/seed0", "--contribution", str(study)]
    assert main([*arguments, "-o", str(out), "--format", "png"]) == 0
    assert capsys.readouterr().out.split() == [f"{out}/training.png", f"{out}/contribution.png"]
    assert Image.open(out / "training.png").width == 2070


def test_command_draws_run_folders(tmp_path, capsys) -> None:
    for retention in (1.0, 0.25, 0.1):
        for method in ("full",) if retention == 1 else ("random", "fastv"):
            write_run(tmp_path, f"{method}{retention}", method, [1.0, 0.0, 1.0, 1.0], retention=retention)
    out = tmp_path / "out"
    assert main(["plots", str(tmp_path), "-o", str(out), "--only", "flops", "memory", "--format", "svg"]) == 0
    told = capsys.readouterr()
    assert told.out.split() == [f"{out}/flops.svg"] and "not drawn: memory: runs of t, llava_ov hold no" in told.err


def test_command_says_what_is_wrong(tmp_path, capsys) -> None:
    def error(*arguments: str) -> str:
        assert main(["plots", "-o", str(tmp_path), *arguments]) == 2
        return capsys.readouterr().err

    assert "nothing to draw: give FOLDERs, --training or --contribution" in error()
    assert "--only pie: no such figure; known: retention, category" in error("--only", "pie")
    assert "--format gif: expected some of pdf,svg,png" in error("--format", "gif")
    assert "no metrics.jsonl under" in error("--training", f"x={tmp_path}/none*")
    assert "no finished video in" in error("--contribution", str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    assert "holds no metrics" in error("--training", str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("")
    assert "no metrics in" in error("--training", str(tmp_path))
