"""The report's content: what is shown of which runs, frames read again, the same bytes, and refusals."""

import json
import re
from base64 import b64decode
from gzip import decompress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.commands import report
from analysis.load import load
from analysis.plots.part import parts
from analysis.report.frames import contact_sheet, read_frames
from analysis.report.page import Page, make_page
from analysis.report.rows import table_of
from analysis.report.viewer import Viewer, bitset, make_viewer, record_folders
from made_report import DROPPED_BY_CACOVID, INDICES, bits, make_video, write_report_runs

CSS = Path(report.__file__).parents[1] / "report" / "page" / "page.css"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(runs: Path) -> Page:
    return make_page([runs])


def of(folder: Path, limit: int) -> Viewer:
    return make_viewer([(part, table_of(part)) for part in parts(load(folder))], record_folders([folder]), limit)


def viewer_of(page: Page) -> dict[str, Any]:
    text = re.search(r'id="data">(.*?)<', page.html)
    assert text
    return json.loads(decompress(b64decode(text[1])))


def test_the_same_results_give_the_same_bytes(runs: Path, page: Page) -> None:
    assert make_page([runs / name for name in sorted((p.name for p in runs.iterdir()), reverse=True)]).html == page.html


def test_the_table_has_every_row_with_intervals_marks_and_run_ids(page: Page) -> None:
    assert page.rows == page.html.count('<tr title="run') == 5
    row = page.html.split('<tr title="run random-0.25">')[1].split("</tr>")[0]
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", row))
    assert "random 0.25 25.0 [" in text and "-50.0 [" in text and "open p = " in text
    assert "<dd>evidence_vqa, 4 questions on 2 videos</dd>" in page.html
    assert page.figures >= 4 and page.html.count('alt="Accuracy over') >= 1


def test_nothing_is_asked_of_any_other_place(page: Page) -> None:
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page.html
    assert not re.search(r'(src|href)="(?!data:|#)', page.html)
    assert not re.search(r"@import|url\(", CSS.read_text())


def test_answers_are_text_and_not_html(page: Page) -> None:
    assert "<b>0</b>" not in page.html
    assert viewer_of(page)["parts"][0]["questions"][0]["answers"][0]["text"].endswith("<b>0</b>")


def test_the_viewer_has_what_each_method_kept(page: Page) -> None:
    (part,) = viewer_of(page)["parts"]
    assert [method["name"] for method in part["methods"]] == ["all tokens", "CaCoVID", "random"]
    assert part["ratios"] == [0.25, 0.5]
    question = part["questions"][0]
    assert (question["kind"], question["target"], question["evidence"], question["frames"]) == ("color", "A", [0, 5], 4)
    cacovid = next(a for a in question["answers"] if (a["method"], a["ratio"]) == (1, 0))
    assert (cacovid["kept"], cacovid["merged"], cacovid["score"]) == (bits([0, 4, 8, 12]), bits([1, 2]), 1.0)
    assert DROPPED_BY_CACOVID not in (0, 4, 8, 12, 1, 2)
    assert [q["flips"] for q in part["questions"]] == [2, 0, 3, 1]


def test_frames_are_those_that_the_record_names(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    for indices in (INDICES, [15], [3, 4], list(range(16))):
        greys = [np.asarray(frame).mean() for frame in read_frames(video, indices, 32 * 32)]
        assert greys == pytest.approx([10 + 15 * index for index in indices], abs=4)
    assert read_frames(video, [0], 32 * 32)[0].size == (32, 32)
    assert read_frames(video, [0], 10**6)[0].size == (64, 64), "never enlarged"


def test_a_video_that_is_gone_or_another_is_said(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    known = {"path": str(video), "bytes": video.stat().st_size, "indices": [0, 5]}
    assert contact_sheet(known, 1024).note == "" and contact_sheet(known, 1024).image[8:12] == b"WEBP"
    assert contact_sheet({**known, "bytes": 1}, 1024).note.startswith("v.mp4 has changed since it was evaluated")
    assert "frames are left grey" in contact_sheet({**known, "indices": [99]}, 1024).note
    video.write_bytes(b"no video")
    assert "v.mp4 cannot be read" in contact_sheet(known, 1024).note
    video.unlink()
    gone = contact_sheet(known, 1024)
    assert (gone.image, gone.note) == (b"", "v.mp4 is not there any more; its frames are left grey")


def test_few_questions_are_those_that_flip_of_every_kind(runs: Path) -> None:
    part = of(runs, 2).parts[0]
    assert [(q["doc"], q["kind"]) for q in part["questions"]] == [(2, "color"), (3, "count")]


def test_records_without_a_grid_show_answers_alone(runs: Path, tmp_path: Path) -> None:
    for file in runs.glob("*/samples.jsonl"):
        folder = tmp_path / file.parent.name
        folder.mkdir()
        (folder / "run.json").write_bytes((file.parent / "run.json").read_bytes())
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        old = [{key: value for key, value in line.items() if key not in ("grid", "merged")} for line in lines]
        (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    answers = [a for q in of(tmp_path, 9).parts[0]["questions"] for a in q["answers"]]
    assert len(answers) == 20 and {a["kept"] for a in answers} == {None} and all(a["text"] for a in answers)


def test_bit_sets() -> None:
    assert np.unpackbits(np.frombuffer(b64decode(bitset([0, 9, 16], 17)), np.uint8), bitorder="little").nonzero()[
        0
    ].tolist() == [0, 9, 16]


def test_the_command(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "report.html"
    monkeypatch.setattr(report, "LIMIT", 1000)
    assert main(["report", str(runs), "-o", str(out), "--questions", "2"]) == 0
    told = capsys.readouterr()
    assert f"written to {out}" in told.out and "5 rows" in told.out and "2 questions in the viewer" in told.out
    assert "fewer --questions make it smaller" in told.err
    assert main(["report", str(tmp_path), "-o", str(out)]) == 2
    assert "no finished run below" in capsys.readouterr().err


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_have_the_contrast_that_wcag_asks_for(scheme: int) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w{6});", CSS.read_text().split(":root")[1 + scheme]))
    for ground in ("ground", "raised"):
        for letters in ("ink", "soft", "mark", "right", "wrong"):
            low, high = sorted([luminance(colours[ground]), luminance(colours[letters])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (letters, ground)
