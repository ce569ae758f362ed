"""`make results` on a paper of one small claim: run, recorded, written, and not run again."""

import sys

import pytest

from precis.papers import catalogue
from tools import results

SUMMARY = """---
title: A small paper
authors: [A. One]
year: 2020
venue: Here
family: fields
claims:
  adds: Two and two are four.
---

Words.
"""
CLAIMS = """
from dataclasses import dataclass
from pathlib import Path
from precis.lab import Claim, Exact, Profile

@dataclass(frozen=True)
class Settings:
    a: int = 2

class Adds(Claim):
    name = "adds"
    statement = "Two and two are four."
    arms = ("method",)
    profiles = {"quick": Profile(Settings(), seeds=1, scale="integers")}
    hypotheses = (Exact("sum", "method", 4),)

    def trial(self, arm, seed, settings, data, record):
        ran = Path(__file__).parent / "ran"
        ran.write_text(ran.read_text() + "x" if ran.exists() else "x")
        return {"sum": settings.a + 2}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = tmp_path / "papers" / "small_paper"
    folder.mkdir(parents=True)
    (folder / "summary.md").write_text(SUMMARY)
    (folder / "claims.py").write_text(CLAIMS)
    monkeypatch.setenv("PRECIS_PAPERS", str(folder))
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalogue, "BUILT_IN", tmp_path / "nothing")
    monkeypatch.setattr(results, "BUILT_IN", folder.parent)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("precis_paper_small_paper")]:
        del sys.modules[name]


def test_run_record_write_and_run_again(place, capsys):
    assert results.main(["small_paper"]) == 0
    text = (place / "RESULTS.md").read_text()
    assert "**1 supported.**" in text and "Two and two are four. `adds`" in text and "quick: integers" in text
    recorded = (place / "papers" / "small_paper" / "assets" / "recorded.json").read_bytes()
    assert "small_paper/adds: supported" in capsys.readouterr().out
    assert results.main([]) == 0  # all built-in papers
    assert (place / "papers" / "small_paper" / "ran").read_text() == "x"
    assert (place / "papers" / "small_paper" / "assets" / "recorded.json").read_bytes() == recorded
    assert (place / "RESULTS.md").read_text() == text


def test_one_claim_is_named_with_its_paper(place, capsys):
    assert results.main(["small_paper/adds"]) == 0
    assert "small_paper: 1 claims" in capsys.readouterr().out
    assert results.main(["small_paper/subtracts"]) == 1
    assert "no claim subtracts: it has adds" in capsys.readouterr().err


def test_unknown_names_and_broken_papers_are_told(place, capsys):
    assert results.main(["nothing_like_it"]) == 2
    assert "nothing_like_it" in capsys.readouterr().err and not (place / "RESULTS.md").exists()
    (place / "papers" / "small_paper" / "claims.py").write_text("import a_package_that_is_not_there\n")
    assert results.main(["small_paper"]) == 1
    assert "a_package_that_is_not_there" in capsys.readouterr().err
    assert "nothing recorded yet" in (place / "RESULTS.md").read_text()
