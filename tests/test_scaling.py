"""The scaling benchmark: slopes, what is measured again, and points that are cut."""

import math
from pathlib import Path

import pytest

from benchmarks.scaling import Point, append, compressors, draw, exponent, measured, missing, read, table


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_of_a_power_is_its_own(power: float) -> None:
    sizes = [8, 16, 32, 64, 128]
    assert exponent(sizes, [3 * s**power for s in sizes]) == pytest.approx(power)
    late = [s**power if s > 8 else 1e6 for s in sizes]
    assert exponent(sizes, late) == pytest.approx(power), "the smallest size is not fitted"
    assert math.isnan(exponent(sizes[:2], [1, 2]))


def test_points_are_kept_and_measured_once(tmp_path: Path) -> None:
    points = [
        Point("fastvid", 49, 8, 0.25, 1.5),
        Point("fastvid", 49, 16, 0.5, 3.0),
        Point("divprune", 49, 8, 1.0, 0.0),
    ]
    for point in points:
        append(tmp_path / "scaling.csv", point)
    append(tmp_path / "scaling.csv", Point("divprune", 49, 16, math.nan, math.nan, "time"))
    found = read(tmp_path / "scaling.csv")
    assert found[:3] == points and found[3].cut == "time"
    assert missing(found, "fastvid", 7, [32, 8, 16]) == [32]
    assert missing(found, "fastvid", 10, [16, 8]) == [8, 16]
    assert missing(found, "divprune", 7, [8, 16, 32]) == [], "larger ones would be cut, too"


def test_table_and_picture_show_what_was_cut(tmp_path: Path) -> None:
    points = [Point("fastvid", s, f, f * s**2 / 1e6, f / 8) for s in (49, 100, 196) for f in (8, 16, 32, 64)]
    points += [Point("divprune", s, f, (f * s) ** 2 / 1e6, f) for s in (49, 100, 196) for f in (8, 16, 32)]
    points.append(Point("divprune", 196, 64, math.nan, math.nan, "memory"))
    rows = table(points, ["fastvid", "divprune"]).splitlines()[2:]
    assert rows[0].startswith("| fastvid | 1.00 | 2.00 | 1.00 | 2.459 | 8 |")
    assert rows[1].startswith("| divprune | 2.00 | 2.00 | 1.00 | cut by memory at 64 frames |")
    draw(points, ["fastvid", "divprune"], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_methods_that_act_in_the_llm_alone_have_no_compressor() -> None:
    assert {"cacovid", "divprune", "visionzip"} <= set(compressors())
    assert not {"full", "fastv", "framefusion"} & set(compressors())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "frames", "limit", "memory", "cuts"),
    [
        (3, [16, 256], 60.0, 24.0, ["", ""]),
        (14, [128, 256], 1e-6, 24.0, ["time"]),  # seconds of work, however late the limit is looked at
        (28, [256], 60.0, 1.5, ["memory"]),  # 720 MiB of features, which take 2 GiB to make
    ],
)
def test_a_process_measures_until_something_is_cut(
    tmp_path: Path, side: int, frames: list[int], limit: float, memory: float, cuts: list[str]
) -> None:
    found = list(measured("divprune", side, frames, limit, memory, str(tmp_path)))
    assert [p.cut for p in found] == cuts and all((p.seconds > 0) == (not p.cut) for p in found)
    if not any(cuts):
        assert found[1].peak_mib > found[0].peak_mib > 0
