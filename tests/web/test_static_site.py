"""`precis report` writes the pages that the site shows, and they work from a folder, without a network."""

from pathlib import Path
from typing import Any

import pytest
from tests.web.browser_help import CONTRAST, SIDEWAYS, Watched

from precis.lab.report import write_report
from precis.papers.catalogue import find
from precis.web import pages
from precis.web.helpers import Helpers
from precis.web.shelf import Shelf


@pytest.fixture
def report(home: Path, tmp_path: Path) -> Path:
    about = find()["siren"]
    entries = [{**about.recorded["gradient_blend"]["quick"], "id": "siren/gradient_blend", "recorded": True}]
    return write_report(tmp_path / "report", entries, home, summaries={"siren": about})


TEXT = """(html) => {
  const main = new DOMParser().parseFromString(html, "text/html").querySelector("main");
  return main.textContent.replace(/\\s+/g, " ");
}"""


def words(page: Any) -> str:
    return " ".join(page.inner_text("main").split())


def test_the_folder_is_the_site_without_a_network(browser: Any, report: Path, home: Path) -> None:
    about = find()["siren"]
    view = Shelf(home, Helpers(1)).view()
    entry = pages.claim_entry(view, about, "gradient_blend", "quick")
    assert entry is not None
    live = pages.claim(entry, about, home)
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844}, color_scheme="dark")
    watched = Watched(context.new_page())
    page = watched.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert "1 claim of 1 paper" in words(page)
    page.click("h2 a")
    page.wait_for_url("**/papers/siren.html")
    assert page.locator("math").count() > 5 and page.evaluate(SIDEWAYS) <= 0
    page.click("a[href*='gradient_blend-quick']")
    page.wait_for_url("**/gradient_blend-quick.html")
    assert page.evaluate(SIDEWAYS) <= 0 and page.evaluate(CONTRAST)[0] >= 4.5
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    own = page.evaluate(TEXT, page.content())
    assert len(own) > 500 and page.evaluate(TEXT, live) == own, "the site and the folder say the same of a claim"
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == [] == watched.complaints
    context.close()
