import json

import pytest
from tests.papers.toys import write_toy

from precis.lab.ledger import Ledger, home
from precis.papers.catalogue import find
from precis.papers.verdicts import shown


def report(verdict, profile, finished="2026-01-02T00:00:00+00:00", **more):
    return {"verdict": verdict, "profile": profile, "n": 5, "scale": "tiny", "reason": "r", "finished": finished} | more


def record(paper_folder, **profiles):
    (paper_folder / "assets").mkdir(exist_ok=True)
    claims = {"up_beats_down": profiles}
    (paper_folder / "assets" / "recorded.json").write_text(json.dumps({"claims": claims}))


def stand(problems=None):
    return shown(find(), [] if problems is None else problems)["toy_run/up_beats_down"]


def test_not_checked(papers):
    write_toy(papers)
    assert stand().verdict is None and stand().own is None and stand().recorded is None
    assert not home().exists()  # looking makes nothing


def test_ones_own_verdict_before_the_recorded_one(papers):
    folder = write_toy(papers)
    record(folder, quick=report("supported", "quick"), smoke=report(None, "smoke"))
    assert stand().verdict == "supported" and stand().where == "at quick (tiny, n = 5), recorded"
    with Ledger(home()) as ledger:
        ledger.save_verdict("toy_run/up_beats_down", "quick", report("contradicted", "quick"), "s")
        ledger.save_verdict("toy_run/up_beats_down", "smoke", report(None, "smoke", "2026-01-03"), "s")
    found = stand()
    assert found.verdict == "contradicted" and found.where == "at quick (tiny, n = 5)"
    assert found.recorded["verdict"] == "supported"


def test_the_latest_of_ones_own_counts(papers):
    write_toy(papers)
    with Ledger(home()) as ledger:
        ledger.save_verdict("toy_run/up_beats_down", "full", report("supported", "full"), "s")
        ledger.save_verdict("toy_run/up_beats_down", "quick", report("inconclusive", "quick"), "s")
    assert stand().own["profile"] in ("full", "quick")


@pytest.mark.parametrize("text", ["[]", "{", '{"claims": 3}', '{"claims": {"up_beats_down": 1}}'])
def test_a_damaged_file_is_a_problem_and_no_end(papers, text):
    folder = write_toy(papers)
    (folder / "assets").mkdir()
    (folder / "assets" / "recorded.json").write_text(text)
    problems: list[str] = []
    assert stand(problems).verdict is None
    assert len(problems) == 1 and "recorded.json" in problems[0]


def test_a_damaged_ledger_is_a_problem_and_no_end(papers):
    write_toy(papers)
    home().mkdir()
    (home() / "ledger.sqlite").write_text("this is no database" * 100)
    problems: list[str] = []
    assert stand(problems).verdict is None and any("ledger" in line for line in problems)
