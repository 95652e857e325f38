"""A real headless Chromium; tests skip with the reason where there is none, unless it is required."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from analysis.report.page import make_page
from benchmarks.report_pictures import PROGRAMS, chromium
from made_report import write_report_runs

REQUIRED = os.environ.get("CACOVID_BROWSER") == "required"
"""Set by .ci/run in CI: there a missing Chromium is a failure."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    if absent := [program for program in PROGRAMS if not shutil.which(program)]:
        reason = f"not installed: {', '.join(absent)}; CONTRIBUTING.md says how to get them"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the made-up runs; the second video is gone."""
    root = tmp_path_factory.mktemp("page")
    runs = write_report_runs(root)
    (root / "video 1.mp4").unlink()
    file = root / "report.html"
    file.write_text(make_page([runs]).html, encoding="utf-8")
    return file
