"""Recorded verdicts: what is kept, what a repetition changes, and RESULTS.md."""

import json
from types import SimpleNamespace

import pytest
from tests.lab.evidence import entry, not_run

from precis.errors import InputError
from precis.lab import recorded
from precis.lab.loading import PaperSource


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "siren").mkdir()
    return tmp_path / "siren"


def kept(folder):
    return json.loads((folder / "assets" / "recorded.json").read_text())["claims"]


def test_an_entry_is_kept_without_what_is_this_machines_alone(folder):
    file = recorded.record(
        folder, [entry(["key"], data="/home/me/photo.jpg", command="precis check x --data /home/me/photo.jpg")]
    )
    one = kept(folder)["fits"]["quick"]
    assert one["verdict"] == "supported" and one["source"] == "sourcehash" and one["minutes"] == 0.83
    assert one["metrics"]["siren"]["3"]["psnr"] == entry()["metrics"]["siren"]["3"]["psnr"]
    assert one["hardware"] == {"machine": "Linux x86_64, 2 cores"}  # the trials' host, not this one
    text = file.read_text()
    assert "box" not in text and "/home/me" not in text and "keys" not in text


def test_hardware_of_this_machine_is_named(folder, monkeypatch):
    import platform

    recorded.record(folder, [entry(host=f"{platform.node()}: Linux, 2 cores")])
    hardware = kept(folder)["fits"]["quick"]["hardware"]
    assert hardware["cpu"] and hardware["cores"] > 0


def test_profiles_and_claims_of_another_day_stay(folder):
    recorded.record(folder, [entry(profile="full"), entry(id="siren/a")])
    recorded.record(
        folder, [entry(verdict="contradicted"), not_run(), entry(id="siren/b", profile="smoke", verdict=None)]
    )
    assert {name: list(profiles) for name, profiles in kept(folder).items()} == {
        "a": ["quick"],
        "fits": ["quick", "full"],
    }
    assert kept(folder)["fits"]["quick"]["verdict"] == "contradicted"
    assert kept(folder)["fits"]["full"]["verdict"] == "supported"


def test_a_repetition_with_the_same_numbers_changes_nothing(folder):
    before = recorded.record(folder, [entry()]).read_bytes()
    assert recorded.record(folder, [entry(finished="2027-01-01T00:00:00+00:00", seconds=51.0)]).read_bytes() == before
    recorded.record(folder, [entry(finished="2027-01-01T00:00:00+00:00", source="new")])
    assert kept(folder)["fits"]["quick"]["finished"].startswith("2027")


def test_the_file_is_made_for_small_differences(folder):
    first = recorded.record(folder, [entry()]).read_text().splitlines()
    changed = entry()
    changed["metrics"]["relu"]["2"]["psnr"] += 0.5
    second = recorded.record(folder, [changed]).read_text().splitlines()
    assert len(first) == len(second) and sum(a != b for a, b in zip(first, second)) == 1
    assert max(map(len, first)) < 200


def test_formatted_is_json():
    value = {"a": [1.5, None, True, "ü\n"], "b": {str(i): {"x": i, "y": [i] * 20} for i in range(4)}, "c": [], "d": {}}
    assert json.loads(recorded.formatted(value)) == value
    with pytest.raises(ValueError):
        recorded.formatted({"a": float("nan")})


def test_numbers_have_six_digits_and_none_for_what_is_not_finite(folder):
    metrics = {"siren": {"0": {"psnr": 1 / 3, "bad": float("inf")}}}
    recorded.record(folder, [entry(metrics=metrics)])
    assert kept(folder)["fits"]["quick"]["metrics"] == {"siren": {"0": {"psnr": 0.333333, "bad": None}}}


@pytest.mark.parametrize("text", ["{", "[]", '{"claims": 1}'])
def test_a_damaged_file_is_told_and_left_alone(folder, text):
    file = folder / "assets" / "recorded.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InputError, match="recorded.json"):
        recorded.record(folder, [entry()])
    assert file.read_text() == text


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    file = recorded.record(folder, [entry()])
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        recorded.record(folder, [entry(verdict="contradicted")])
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == ["recorded.json"]


def paper(folder, title="A | <b>title</b>"):
    return SimpleNamespace(id="siren", title=title, source=PaperSource("siren", folder))


def test_results_say_verdict_effect_scale_and_hardware(folder):
    recorded.record(
        folder,
        [
            entry(),
            entry(profile="full", source="old"),
            entry(id="siren/gone"),
            entry(id="siren/unclear", verdict="inconclusive", reason="undecided: its interval lies on both sides"),
            entry(id="siren/extra"),
        ],
    )
    today = {"fits": "sourcehash", "unclear": "sourcehash", "extra": None}
    text = recorded.results_markdown([paper(folder)], lambda source: today)
    rows = {
        line.split("`")[1] + line.split(" | ")[3][:5]: line
        for line in text.splitlines()
        if "`" in line and "|" in line[:1]
    }
    assert "4 supported, 1 inconclusive" in text and "A \\| \\<b\\>title" in text
    quick, full = rows["fitsquick"], rows["fitsfull:"]
    for words in (
        "**supported** |",
        "siren's psnr is 9.1 above relu's",
        "48×48, width 64, 300 steps",
        "2 cores",
        "| 5 |",
        "0.83",
    ):
        assert words in quick, words
    assert "*older source*" in full and "older" not in quick
    assert "*claim no longer there*" in rows["gonequick"] and "*source not compared*" in rows["extraquick"]
    assert "siren's psnr is 9.1 above relu's" in rows["unclearquick"] and "lies on both sides" in rows["unclearquick"]
    assert {line.count(" | ") for line in rows.values()} == {6}


def test_results_are_made_from_the_files_alone(folder):
    assert "nothing recorded yet" in recorded.results_markdown([paper(folder)])
    recorded.record(folder, [entry()])
    once = recorded.results_markdown([paper(folder)], lambda source: {})
    assert once == recorded.results_markdown([paper(folder)], lambda source: {})


CLAIMS = """
from precis.lab.claim import Claim
class Fits(Claim):
    name = "fits"
    statement = "It fits."
    def trial(self, arm, seed, settings, data, record):
        return {"m": 1.0 + seed}
"""


def test_a_change_of_the_code_makes_the_source_older(tmp_path):
    for name, code in (
        ("paper_one", CLAIMS),
        ("paper_two", CLAIMS.replace("1.0", "2.0")),
        ("paper_three", CLAIMS.replace("It fits", "So")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "claims.py").write_text(code)
    one, two, three = (
        recorded.source_of_today(PaperSource(n, tmp_path / n))["fits"]
        for n in ("paper_one", "paper_two", "paper_three")
    )
    assert one and two and one != two and three
    recorded.record(tmp_path / "paper_one", [entry(source=one)])
    source = PaperSource("paper_one", tmp_path / "paper_one")
    text = recorded.results_markdown([SimpleNamespace(id="paper_one", title="t", source=source)])
    assert "*older source*" not in text.replace(recorded.INTRODUCTION, "") and "**supported** |" in text


def test_a_paper_whose_extra_is_missing_is_not_compared(tmp_path):
    folder = tmp_path / "needs_more"
    folder.mkdir()
    (folder / "claims.py").write_text("import a_package_that_is_not_there\n")
    recorded.record(folder, [entry()])
    assert recorded.source_of_today(PaperSource("needs_more", folder)) == {"fits": None}
