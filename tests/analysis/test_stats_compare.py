"""The frame of all settings: what is compared with what, what is pooled, what is refused."""

import numpy as np
import pandas as pd
import pytest

from analysis.results import RUN_COLUMNS, SAMPLE_COLUMNS, Results, ResultsError
from analysis.stats import clustered_mean
from analysis.stats.compare import COLUMNS, compare

RNG = np.random.default_rng(0)
FULL = (RNG.random(60) < 0.8).astype(float)
WORSE = FULL * (RNG.random(60) < 0.5)


def run(label: str, scores: "np.ndarray | list[float] | None", **about: object) -> tuple[dict, pd.DataFrame]:
    """A run and its samples, three questions a video; `about` sets columns of the run."""
    row = {
        "run": " ".join(str(part) for part in (label, *about.values())),
        "kind": "cacovid",
        "label": label,
        "backbone": "b",
        "method": "full" if label == "all tokens" else label,
        "fields": "{}",
        "budget": "nominal",
        "retention_asked": 1.0 if label == "all tokens" else 0.25,
        "seed": np.nan,
        "task": "t",
        "score": np.nan,
        **about,
    }
    numbers = np.arange(0 if scores is None else len(scores))
    columns = {name: np.nan for name in SAMPLE_COLUMNS if "<" not in name}
    samples = pd.DataFrame(
        {
            **columns,
            "run": row["run"],
            "task": row["task"],
            "doc_id": numbers,
            "document": [f"d{n}" for n in numbers],
            "video": [f"v{n // 3}" for n in numbers],
            "category": [f"c{n % 2}" for n in numbers],
            "score": scores if scores is not None else [],
            "prediction": "A",
            "parsed": pd.array([True] * len(numbers), dtype="boolean"),
            "failure": None,
        }
    ).astype({"prediction": "str", "failure": "str"})
    return row, samples


def results(*runs: tuple[dict, pd.DataFrame]) -> Results:
    rows = pd.DataFrame([row for row, _ in runs], columns=list(RUN_COLUMNS))
    return Results(rows, pd.concat([samples for _, samples in runs], ignore_index=True))


def test_a_row_has_its_accuracy_its_difference_and_its_tests() -> None:
    table = compare(results(run("all tokens", FULL), run("worse", WORSE), run("same", FULL)))
    assert list(table) == list(COLUMNS)
    table = table.set_index("label")
    worse, same, full = table.loc["worse"], table.loc["same"], table.loc["all tokens"]
    expected = clustered_mean(pd.Series(WORSE - FULL), pd.Series(np.arange(60) // 3))
    assert worse["difference"] == pytest.approx(expected.mean)
    assert worse[["difference_low", "difference_high"]].tolist() == pytest.approx([expected.low, expected.high])
    assert worse["accuracy"] == pytest.approx(WORSE.mean()) and worse["accuracy_low"] < worse["accuracy"]
    assert (worse["gained"], worse["lost"]) == (0, (FULL - WORSE).sum())
    assert worse["mark"] == "worse" and worse["p"] <= worse["p_holm"] < 0.05 and worse["detectable"] > 0
    assert worse["p_flip"] < 0.01
    assert same["mark"] == "open" and same["p"] == 1 and np.isnan(same["detectable"])
    assert full["mark"] == "reference" and pd.isna(full["reference"]) and np.isnan(full["difference"])
    assert table["tied"].to_dict() == {"all tokens": True, "worse": False, "same": True}
    assert (worse["questions"], worse["videos"], worse["seeds"], worse["paired"]) == (60, 20, 1, 60)


def test_seeds_are_pooled_and_what_they_differ_by_widens_the_interval() -> None:
    up, down = FULL.copy(), FULL.copy()
    down[::2] = 0
    seeds = [run("m", scores, seed=n) for n, scores in enumerate((up, down, up))]
    table = compare(results(run("all tokens", FULL), *seeds)).set_index("label")
    pooled = table.loc["m"]
    assert pooled["seeds"] == 3 and len(pooled["runs"]) == 3
    assert pooled["accuracy"] == pytest.approx((2 * up.mean() + down.mean()) / 3)
    assert pooled["seed_deviation"] == pytest.approx(np.std([up.mean(), down.mean(), up.mean()], ddof=1))
    alone = clustered_mean(pd.Series((2 * up + down) / 3 - FULL), pd.Series(np.arange(60) // 3))
    assert pooled["difference_high"] - pooled["difference"] > 1.5 * (alone.high - alone.mean)
    assert np.isnan(pooled["p_mcnemar"]) and pooled["p"] > 0.05, "questions changed by seed are not right or wrong"


def test_videos_that_all_agree_count_as_so_many_coins() -> None:
    table = compare(results(run("all tokens", np.ones(24)), run("m", np.zeros(24)))).set_index("label")
    assert table.loc["m", "difference_low"] == table.loc["m", "difference_high"] == -1
    assert table.loc["m", "p"] == pytest.approx(2 / 2**8, rel=0.3) and table.loc["m", "mark"] == "worse"
    two = compare(results(run("all tokens", np.ones(6)), run("m", np.zeros(6)))).set_index("label")
    assert two.loc["m", "p"] == pytest.approx(0.5, rel=0.1) and two.loc["m", "mark"] == "open"


def test_one_video_shows_nothing() -> None:
    few = np.array([1.0, 0, 0])
    made = results(run("all tokens", np.ones(3)), run("m", few), run("best", np.ones(3)))
    table = compare(made).set_index("label")
    m = table.loc["m"]
    assert m["difference"] == pytest.approx(-2 / 3) and np.isnan(m["difference_low"]) and np.isnan(m["p"])
    assert m["mark"] == "open" and m["tied"]


def test_failures_are_not_wrong_answers_and_are_told() -> None:
    row, samples = run("m", FULL)
    samples.loc[:5, ["score", "prediction", "parsed"]] = [np.nan, None, None]
    samples.loc[:5, "failure"] = "truncated"
    samples.loc[6:8, "prediction"] = " "
    samples.loc[6:11, "parsed"] = False
    samples.loc[12:14, "score"] = np.nan
    table = compare(results(run("all tokens", FULL), (row, samples))).set_index("label")
    m = table.loc["m"]
    assert m["difference"] == 0 and m["questions"] == m["paired"] == 51
    assert m["failed"] == pytest.approx(0.1) and m["unscored"] == pytest.approx(0.05)
    assert m["unparsed"] == pytest.approx(6 / 54) and m["empty"] == pytest.approx(3 / 54)


def test_the_reference_may_be_any_row_at_its_own_retention() -> None:
    runs = [run(m, s, retention_asked=r) for m, s in (("a", FULL), ("b", WORSE)) for r in (0.25, 0.1)]
    table = compare(results(run("all tokens", FULL), *runs, run("b", WORSE, retention_asked=0.5)), reference="a")
    table = table.set_index(["label", "retention_asked"])
    assert table.loc[("b", 0.1), "reference"] == "a" and table.loc[("b", 0.1), "mark"] == "worse"
    assert pd.isna(table.loc[("b", 0.5), "mark"]) and np.isnan(table.loc[("b", 0.5), "difference"])
    assert table.loc[("a", 0.1), "mark"] == "reference" and pd.isna(table.loc[("all tokens", 1.0), "mark"])
    alone = compare(results(*runs))
    assert alone["accuracy_low"].notna().all() and alone["mark"].isna().all(), "without an uncompressed run"
    with pytest.raises(ResultsError, match="no run of 'c'; it has a, b"):
        compare(results(*runs), reference="c")
    two = results(run("a", FULL, method="m"), run("b", FULL, method="m"))
    with pytest.raises(ResultsError, match="'m' is the method of a, b, expected one reference; name its label"):
        compare(two, reference="m")


def test_published_rows_stand_beside_without_an_interval() -> None:
    paper = run("worse", None, kind="published", score=0.55)
    table = compare(results(run("all tokens", FULL), run("worse", WORSE), paper))
    row = table[table["kind"] == "published"].iloc[0]
    assert row["accuracy"] == 0.55 and np.isnan(row["accuracy_low"]) and pd.isna(row["tied"]) and pd.isna(row["mark"])
    assert compare(results(paper))["accuracy"].tolist() == [0.55]


def test_a_macro_task_is_the_mean_of_its_categories() -> None:
    scores = np.where(np.arange(60) % 2 == 0, 1.0, 0.0)
    scores[:10] = 1
    table = compare(results(run("all tokens", FULL, task="mlvu_dev"), run("m", scores, task="mlvu_dev")))
    assert table.set_index("label").loc["m", "accuracy"] == pytest.approx((1 + 5 / 30) / 2)
    row, samples = run("m", scores, task="mlvu_dev")
    with pytest.raises(ResultsError, match="documents 3 have no category, and the task's accuracy is the mean over"):
        compare(results((row, samples.assign(category=samples["category"].where(samples["doc_id"] != 3)))))


def test_the_blind_model_stands_beside_every_row_of_its_task() -> None:
    blind = run("all tokens", WORSE, task="t_no_visual")
    table = compare(results(run("all tokens", FULL), run("m", FULL), blind)).set_index(["task", "label"])
    assert table.loc[("t", "m"), "blind"] == table.loc[("t_no_visual", "all tokens"), "accuracy"]
    assert np.isnan(table.loc[("t_no_visual", "all tokens"), "blind"])


def test_other_questions_are_refused_and_named() -> None:
    short = run("m", FULL[:57])
    with pytest.raises(ResultsError, match=r"t: run m has no documents 57, 58, 59, which other runs have"):
        compare(results(run("all tokens", FULL), short))
    common = compare(results(run("all tokens", FULL), short), common=True)
    assert common["questions"].tolist() == [57, 57] and common.set_index("label").loc["m", "difference"] == 0
    row, samples = run("m", FULL)
    other = samples.assign(document=samples["document"].where(samples["doc_id"] != 7, "another"))
    with pytest.raises(ResultsError, match=r"documents 7 are others in run m than in run all tokens"):
        compare(results(run("all tokens", FULL), (row, other)))
    with pytest.raises(ResultsError, match=r"document 0 is 2 times in run m, expected once"):
        compare(results((row, pd.concat([samples, samples]))))
    with pytest.raises(ResultsError, match=r"are one setting and seed, expected each seed once"):
        compare(results(run("m", FULL), run("m", WORSE)))


def test_the_same_results_give_the_same_frame() -> None:
    made = results(run("all tokens", FULL), run("worse", WORSE), run("same", FULL))
    turned = Results(made.runs.iloc[::-1], made.samples.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(compare(made), compare(turned))
    assert compare(Results(made.runs.iloc[:0], made.samples.iloc[:0])).empty
