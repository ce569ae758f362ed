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
    assert found.verdict == "contradicted" and found.where == "at quick (tiny, n = 5), yours"
    assert found.beside["verdict"] == "supported" and found.where_beside == "at quick (tiny, n = 5), recorded"


def save(profile, report):
    with Ledger(home()) as ledger:
        ledger.save_verdict("toy_run/up_beats_down", profile, report, "s")


def test_a_small_check_of_ones_own_does_not_hide_a_larger_recorded_one(papers):
    folder = write_toy(papers)
    record(folder, quick=report("supported", "quick"), full=report("contradicted", "full"))
    save("quick", report("supported", "quick", n=1))
    found = stand()
    assert (found.verdict, found.where) == ("contradicted", "at full (tiny, n = 5), recorded")
    assert found.beside == found.own and found.where_beside == "at quick (tiny, n = 1), yours"
    assert found.latest == found.own  # what `list --json` says
    save("full", report("inconclusive", "full", "2026-01-01"))
    found = stand()
    assert (found.verdict, found.where) == ("inconclusive", "at full (tiny, n = 5), yours")
    assert found.beside["verdict"] == "contradicted" and found.where_beside == "at full (tiny, n = 5), recorded"
    assert found.latest["profile"] == "quick"


def test_the_other_verdict_is_named_only_where_it_says_more(papers):
    record(write_toy(papers), quick=report("supported", "quick"))
    save("quick", report("supported", "quick", n=3))
    assert stand().beside == {} and stand().where == "at quick (tiny, n = 3)"


def test_the_larger_of_ones_own_leads_and_the_latest_is_kept_apart(papers):
    write_toy(papers)
    save("full", report("supported", "full"))
    save("quick", report("inconclusive", "quick", "2026-01-03T00:00:00+00:00"))
    assert stand().verdict == "supported" and stand().latest["verdict"] == "inconclusive" and stand().beside == {}


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
