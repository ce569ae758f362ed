"""The report of a real ledger: what its pages hold, that they are whole, and that nothing of a user's runs in them."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.lab.evidence import BROKEN, SEEDS, entry, fill, not_run, psnr

from precis.errors import InputError
from precis.lab import pages
from precis.lab.ledger import Ledger
from precis.lab.rarer import Exact
from precis.lab.report import evidence_of, render_claim, render_index, render_paper, write_report
from precis.lab.words import fields_of, number

VOID = {"meta", "link", "img", "br", "hr", "input", "use", "path"}
ABOUT = {
    "siren": SimpleNamespace(
        title="Periodic <Activations>",
        authors=("A. One", "B. Two"),
        year=2020,
        venue="NeurIPS 2020",
        arxiv="2006.09661",
        code="owner/name",
        claims={"fits": "It fits.", "blend": "It blends."},
        summary="## The idea\n\nThat $x^2$ grows.",
    )
}


class Page(HTMLParser):
    """Tags, links and texts of a page; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.handlers: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("report")
    keys = fill(base / "home", base / "scratch")
    entries = [entry([*keys, "a key that is gone"]), not_run()]
    assert write_report(base / "out", entries, base / "home", summaries=ABOUT) == base / "out" / "index.html"
    return base / "out"


def read(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_every_page_is_whole_and_every_link_leads_somewhere(site):
    found = sorted(site.rglob("*.html"))
    assert {p.relative_to(site).as_posix() for p in found} == {
        "index.html",
        "papers/siren.html",
        "papers/siren/fits-quick.html",
        "papers/siren/sdf-quick.html",
    }
    for file in found:
        page = read(file)
        assert "script" not in page.tags and not page.handlers
        for link in page.links:
            if link.startswith(("https://arxiv.org/", "https://github.com/owner/")):
                continue  # words to follow, nothing that is loaded
            assert link.startswith(("#", "data:,")) or (file.parent / link).exists(), link
    assert "http" not in (site / "style.css").read_text()


def test_the_index_shows_verdict_scale_and_measurement(site):
    text = read(site / "index.html").text
    for words in (
        "supported",
        "not run",
        "Periodic <Activations>",
        "48×48, width 64",
        "siren's psnr is 9.1 above relu's",
    ):
        assert words in text


def test_a_papers_page_has_its_words_and_what_was_not_checked(site):
    page = read(site / "papers" / "siren.html")
    assert "A. One, B. Two" in page.text and "It blends." in page.text and "The idea" in page.text
    assert "It fits." not in page.text and "math" in page.tags
    assert "https://arxiv.org/abs/2006.09661" in page.links and "https://github.com/owner/name" in page.links


def test_a_claims_page_shows_all_that_was_measured(site):
    page = read(site / "papers" / "siren" / "fits-quick.html")
    for words in (
        "siren's psnr is 9.1 above relu's",
        "broken on purpose",
        "the baseline was not fitted",
        "psnr by step",
        "by frequency",
        "aligned by mean before the PSNR",
        "1 of 21 trials are no longer in this ledger",
        "the paper fits",
        "lr 0.0001",
        "torch 2.13.0",
        "precis check siren/fits --profile quick --device cpu",
        "shown, not part of the verdict",
    ):
        assert words in page.text, words
    # three intervals, two metrics, two curves
    assert page.tags.count("svg") == 7
    for arm in ("siren", "relu", "relu_pe", "siren_shuffled"):
        assert number(psnr(arm, 3), 4) in page.text


def test_pictures_are_those_of_the_ledger_and_shared_ones_come_once(site):
    text = (site / "papers" / "siren" / "fits-quick.html").read_text()
    shown = re.findall(r'<img src="([^"]+)" alt="([^"]+)" width="48" height="48"', text)
    # relu_pe and siren_shuffled left the same picture, which is the target, too
    assert len(shown) == 5 * 3 + 5
    assert sum("all arms" in alt for _, alt in shown) == 5
    assert len(list((site / "files").glob("*.png"))) == 15


def test_the_markdown_report_says_the_same(site):
    text = (site / "report.md").read_text()
    for words in (
        "# Results",
        "## Periodic \\<Activations\\>",
        "**supported**",
        "siren's psnr is 9.1 above relu's",
        "precis check siren/fits",
        "$\\omega = 30$",
    ):
        assert words in text, words
    for file in re.findall(r"\]\((files/[^)]+)\)", text):
        assert (site / file).exists(), file
    assert text.count("interval-") == 3


def test_what_users_write_is_shown_as_written():
    evil = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"
    metrics = {evil: {"0": {evil: 1.0}, "1": {evil: 2.0}}}
    row = {
        "text": evil,
        "effect": 1.0,
        "interval": [0.5, 1.5],
        "holds": True,
        "n": 2,
        "note": evil,
        "counts": True,
        "unit": "seed",
        "sabotaged": {evil: evil},
        "hypothesis": {"kind": "Greater", "metric": evil, "a": evil, "b": evil},
    }
    one = entry(
        statement=evil,
        reason=evil,
        scale=evil,
        untried=evil,
        command=evil,
        hypotheses=[row],
        arms=[evil],
        sabotaged={evil: evil},
        metrics=metrics,
        tuned={evil: {evil: evil}},
        versions={evil: evil},
        host=evil,
        preconditions=[{"text": evil, "holds": False, "why": evil, "note": evil}],
        failures=[{"arm": evil, "seed": 1, "error": evil}],
    )
    left = pages.Evidence(
        curves={evil: {evil: {0: ([0, 1], [1.0, 2.0])}}},
        pictures=[pages.Picture(evil, 3, evil, 0, "a.png", (8, 8))],
        tables={evil: [{evil: evil}]},
        notes=[(evil, evil, 0)],
        settings={evil: evil},
        trials=[{"arm": evil}],
    )
    about = {
        "title": evil,
        "authors": [evil],
        "venue": evil,
        "summary": evil,
        "code": f"https://{evil}",
        "claims": {evil: evil},
    }
    for text in (
        render_claim(one, left, about),
        render_paper("p", [one], about),
        render_index([one], {"siren": about}),
    ):
        page = Page(text)
        assert "script" not in page.tags and not page.handlers
        assert not any("alert" in link for link in page.links)
        assert "alert(1)" in page.text


def test_little_is_needed_for_a_page():
    page = Page(render_claim({"id": "a/b", "statement": "s", "verdict": None, "profile": "full"}))
    assert "not run" in page.text
    assert "Nothing has been checked yet" in Page(render_index([])).text


def test_values_of_a_task_metric_are_means_over_seeds():
    one = entry(
        arms=["a"], sabotaged={}, metrics={"a": {"0": {"m": {"x": 1.0, "y": 5.0}}, "1": {"m": {"x": 3.0, "y": None}}}}
    )
    assert pages.values_of(one, "m") == {"a": {"x": 2.0, "y": None}}


def test_paired_differences_are_those_of_the_hypothesis():
    row = entry()["hypotheses"][0]
    assert pages._replications(entry(), row) == pytest.approx([psnr("siren", s) - psnr("relu", s) for s in SEEDS])
    broken = {**row, "sabotaged": BROKEN}
    wanted = [psnr("siren_shuffled", s) - psnr("relu", s) for s in SEEDS]
    assert pages._replications(entry(), broken) == pytest.approx(wanted)


def test_a_report_is_replaced_and_nothing_else_is(tmp_path, site):
    out = tmp_path / "out"
    shutil.copytree(site, out)
    write_report(out, [not_run()], tmp_path / "nobody")
    assert not (out / "papers" / "siren" / "fits-quick.html").exists() and (out / "index.html").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "report.md").write_text("# My thesis\n")
    with pytest.raises(InputError, match="is no report"):
        write_report(other, [not_run()], tmp_path / "nobody")
    assert (other / "report.md").read_text() == "# My thesis\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "thesis"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path, site, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(site, out)
    before = (out / "index.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("precis.lab.report.draw", full)
    with pytest.raises(Exception, match="No space left"):
        write_report(out, [entry()], tmp_path / "nobody")
    assert (out / "index.html").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_altered_picture_is_told(tmp_path):
    keys = fill(tmp_path / "home", tmp_path / "scratch")
    with Ledger(tmp_path / "home", read_only=True) as ledger:
        digest = ledger.trials(keys[:1])[keys[0]].record["files"]["reconstruction.png"]
        path = ledger.artefact(digest)
        path.chmod(0o644)
        path.write_bytes(b"no picture")
        found = evidence_of(entry(keys[:1]), ledger, lambda path, name: name)
    assert [p.name for p in found.pictures] == ["target"]
    assert any("reconstruction is missing or altered" in text for text, _, _ in found.notes)


@pytest.mark.parametrize(
    ("holds", "told"),
    [(False, "✓ lost, as it must"), (None, "? undecided: too little to tell"), (True, "✗ passed, and must not")],
)
def test_a_broken_arm_has_lost_or_passed_or_is_undecided(holds, told):
    rows = [{**row, "holds": holds} for row in entry()["hypotheses"] if row["sabotaged"]]
    assert told in Page(render_claim(entry(hypotheses=rows))).text


def test_the_legend_speaks_of_what_is_drawn():
    text = Page(render_claim(entry())).text
    for said in ("Diamond: the effect.", "Bar: its 95 % interval.", "Grey points:", "Green: where the claim says"):
        assert said in text
    exact = {**entry()["hypotheses"][0], "hypothesis": fields_of(Exact("psnr", "siren", 0, tolerance=1e-9))}
    text = Page(render_claim(entry(hypotheses=[exact | {"effect": 0.0, "interval": None}]))).text
    assert "Diamond: the effect." in text and not any(word in text for word in ("Bar:", "Grey points", "Green:"))
    assert "Diamond" not in Page(render_claim(entry(hypotheses=[exact | {"effect": None, "interval": None}]))).text
