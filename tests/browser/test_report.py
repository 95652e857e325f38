"""The report in a real browser: no errors, no requests; it sorts and filters, and its viewer works by keyboard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from benchmarks.report_pictures import resize
from made_report import DROPPED_BY_CACOVID

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


def wait(browser: Chrome, found: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, 20).until(lambda _: found())


def cards(browser: Chrome) -> dict[str, str]:
    """Text of each shown method's card, in one step: the page may replace them at any time."""
    read = "return [...document.querySelectorAll('.card')].map((card) => [card.dataset.method, card.innerText])"
    return dict(browser.execute_script(read))


def open_page(browser: Chrome, page: Path, width: int = 1280, height: int = 900, address: str = "") -> None:
    resize(browser, width, height)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri() + address)
    wait(browser, lambda: len(cards(browser)) == 3)


@pytest.fixture
def opened(browser: Chrome, page: Path) -> Chrome:
    open_page(browser, page)
    return browser


def find(browser: Chrome, name: str) -> WebElement:
    return browser.find_element(By.ID, name)


def column(browser: Chrome, number: int) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#rows tbody tr:not([hidden])")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[number].text.split(" ")[0] for row in rows]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_it_loads_without_errors_requests_or_sideways_scrolling(
    browser: Chrome, page: Path, width: int, height: int
) -> None:
    open_page(browser, page, width, height)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    others = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert others == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = "return [...document.images].filter((image) => !image.naturalWidth || !image.alt).length"
    assert browser.execute_script(broken) == 0


def test_heads_sort_and_say_so(opened: Chrome) -> None:
    button = opened.find_elements(By.CSS_SELECTOR, "#rows thead button")[2]
    button.send_keys(Keys.ENTER)
    assert column(opened, 2) == ["100.0", "75.0", "50.0", "25.0", "25.0"]
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)
    assert column(opened, 2)[0] == "25.0"
    opened.find_elements(By.CSS_SELECTOR, "#rows thead button")[3].send_keys(Keys.ENTER)
    assert column(opened, 3)[-1] == "\N{EN DASH}", "what is missing is last"
    assert len(opened.find_elements(By.CSS_SELECTOR, "#rows th[aria-sort]")) == 1


def test_filters(opened: Chrome) -> None:
    find(opened, "row-filter").send_keys("RANDOM 0.25")
    assert column(opened, 1) == ["0.25"] and find(opened, "row-count").text == "1 of 5 rows"
    find(opened, "row-filter").clear()
    find(opened, "row-filter").send_keys(" ")
    Select(find(opened, "row-ratio")).select_by_visible_text("0.5")
    assert column(opened, 0) == ["CaCoVID", "random"]


def test_the_slider_moves_by_keyboard(opened: Chrome) -> None:
    slider = find(opened, "ratio")
    assert find(opened, "ratio-value").text == "r = 0.25"
    assert "kept 4 of 16 (25.0%), merged 2; evidence 1 of 2" in cards(opened)["CaCoVID"]
    slider.send_keys(Keys.ARROW_RIGHT)
    wait(opened, lambda: "kept 8 of 16 (50.0%); evidence 1 of 2" in cards(opened)["CaCoVID"])
    assert slider.get_attribute("aria-valuetext") == "r = 0.5"
    assert "kept 16 of 16" in cards(opened)["all tokens"]


def test_questions_are_chosen_by_keyboard_most_flips_first(opened: Chrome) -> None:
    options = opened.find_elements(By.CSS_SELECTOR, "#questions [role=option]")
    assert [option.get_attribute("id") for option in options] == [f"option-{n}" for n in (2, 0, 3, 1)]
    assert "✗ wrong" in cards(opened)["random"] and "✓ right" in cards(opened)["CaCoVID"]
    listed = find(opened, "questions")
    for key, doc in ((Keys.ARROW_DOWN, 0), (Keys.END, 1), (Keys.ARROW_DOWN, 1), (Keys.HOME, 2)):
        listed.send_keys(key)
        wait(opened, lambda doc=doc: f"Question {doc}, " in find(opened, "question").text)
        assert listed.get_attribute("aria-activedescendant") == f"option-{doc}"
    assert "its frames are left grey" in find(opened, "question").text
    assert "says <b>2</b>" in cards(opened)["random"], "an answer is text"


def test_right_with_one_and_wrong_with_another(opened: Chrome) -> None:
    Select(find(opened, "right")).select_by_visible_text("CaCoVID")
    Select(find(opened, "wrong")).select_by_visible_text("random")
    wait(opened, lambda: find(opened, "question-count").text == "3 of 4 questions at r = 0.25")
    find(opened, "ratio").send_keys(Keys.ARROW_RIGHT)
    wait(opened, lambda: find(opened, "question-count").text == "1 of 4 questions at r = 0.5")
    find(opened, "question-filter").send_keys("nothing of the kind")
    wait(opened, lambda: cards(opened) == {})


def test_patches_are_drawn_as_what_became_of_them(browser: Chrome, page: Path) -> None:
    open_page(browser, page, address="#viewer?part=0&question=1&r=0.25&methods=0.1.2")
    wait(browser, lambda: "Question 1, " in find(browser, "question").text)
    grey = """
      const canvas = document.querySelector(`[data-method="${arguments[0]}"] canvas`);
      const [x, y] = [arguments[1] % 2, Math.floor(arguments[1] / 2)].map((n) => n * 64 + 14);
      const colours = [...canvas.getContext("2d").getImageData(x, y, 36, 36).data].filter((_, n) => n % 4 < 3);
      return colours.reduce((sum, colour) => sum + colour) / colours.length;
    """
    whole, cacovid = (
        [browser.execute_script(grey, method, position) for position in range(4)]
        for method in ("all tokens", "CaCoVID")
    )
    assert whole == pytest.approx([10] * 4, abs=4), "frame 0 is of grey 10"
    assert cacovid[0] == pytest.approx(10, abs=4)
    assert min(cacovid[1:3]) > 30, "hatched in white"
    assert cacovid[DROPPED_BY_CACOVID] == pytest.approx(13, abs=3)


def test_an_address_brings_back_what_was_seen(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    find(browser, "questions").send_keys(Keys.END)
    find(browser, "ratio").send_keys(Keys.ARROW_RIGHT)
    browser.execute_script("document.getElementById('method-choice').open = true")
    browser.find_element(By.CSS_SELECTOR, "#method-boxes input[value='0']").send_keys(Keys.SPACE)
    wait(browser, lambda: "all tokens" not in cards(browser))
    address = browser.current_url.split("#")[1]
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#{address}")
    wait(browser, lambda: set(cards(browser)) == {"CaCoVID", "random"})
    assert "Question 1, " in find(browser, "question").text and find(browser, "ratio-value").text == "r = 0.5"
