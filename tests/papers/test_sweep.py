"""`precis sweep`: what `--over` means, and one table over claims and data sets."""

import json
from pathlib import Path

import pytest
from tests.lab.toys import TOY

from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.checking import axes, exit_code, sweep_claims
from precis.papers.sweep_table import sweep_table
from precis.papers.terminal import show


@pytest.fixture
def data(tmp_path, monkeypatch) -> list[Path]:
    """Three sets of numbers; the toy paper found, with a home of its own."""
    monkeypatch.setenv("TOY", str(tmp_path))
    monkeypatch.setenv("PRECIS_PAPERS", str(TOY.folder.parent))
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    found = [tmp_path / f"{name}.txt" for name in "abc"]
    for i, file in enumerate(found):
        file.write_text(f"{i} {i + 1}")
    return found


def test_over_names_data_sets_and_seeds(data, tmp_path):
    a, b, c = data
    assert axes([f"data={b},{a}", "seeds=20", f"data={b}"]) == ([b, a], 20)
    assert axes([f"data={tmp_path}/*.txt"]) == ([a, b, c], None) and axes([]) == ([], None)


@pytest.mark.parametrize(
    ("word", "told"),
    [("seeds=many", "takes one number, not 'many'"), ("colour=red", "takes data=PATH,PATH,… and seeds=N"),
     ("data=", "takes data="), ("data=/nowhere/at/all", "no such file or folder"),
     ("data=/nowhere/*.x", "no such file")],
)
def test_what_over_does_not_take_is_told(word, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        axes([word])


def test_every_claim_on_every_set_in_one_ledger(data, tmp_path, capsys):
    over = [f"data={','.join(map(str, data))}", "seeds=4"]
    entries = sweep_claims(find(), ["toy_paper/better", "toy_paper/pair"], over, device="cpu", workers=1)
    assert [(e["id"], e["data"], e["n"]) for e in entries if e["ran"]] == [
        ("toy_paper/better", str(file), 4) for file in data]
    assert [e["reason"] for e in entries if not e["ran"]] == ["not run: it takes no data of yours"] * 3
    assert len({key for e in entries for key in e["keys"]}) == 3 * 3 * 4
    assert len((tmp_path / "ran").read_text().splitlines()) == 36 and exit_code(entries) == 0
    assert "--data" in entries[0]["command"] and json.dumps(entries, allow_nan=False)
    assert len({e["metrics"]["baseline"]["0"]["score"] for e in entries if e["ran"]}) == 3
    show(sweep_table(entries))
    text = capsys.readouterr().out
    assert text.count("toy_paper/better") == 1 and text.count("✓ supported") == 3 and "c.txt" in text
    assert "3 supported, 3 not run" in text
    sweep_claims(find(), ["toy_paper/better"], over, device="cpu", workers=1)
    assert len((tmp_path / "ran").read_text().splitlines()) == 36


def test_bad_data_are_told_before_any_trial(data, tmp_path):
    data[2].write_bytes(b"\0\1\2")
    with pytest.raises(InputError, match=r"c\.txt: no claim named can be checked on this"):
        sweep_claims(find(), ["toy_paper/better"], [f"data={tmp_path}/*.txt"], device="cpu", workers=1)
    assert not (tmp_path / "ran").exists()
