import hashlib
import json

import pytest

from precis.lab.ledger import Ledger, home
from precis.papers.catalogue import find
from precis.papers.doctor import examine, problems_of


def edit(paper, file, old, new):
    path = paper.source.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_sound_paper(toy):
    assert list(problems_of(toy)) == []
    findings = list(examine(find()))
    told = [f for f in findings if f.text.startswith(toy.id)]
    assert [f.sound for f in told] == [True] and any(f.text.startswith("torch 2") for f in findings)


@pytest.mark.parametrize(("file", "old", "new", "words"), [
    ("claims.py", "ends higher", "ends lower", "the statements in summary.md and claims.py differ"),
    ("claims.py", 'name = "up_beats_down"', 'name = "other"', "claims that claims.py lacks: up_beats_down"),
    ("claims.py", 'arms = ("up", "down")', "", "no arms or no profiles"),
    ("claims.py", "from precis.lab import", "import nothing_like_this\nfrom precis.lab import", "nothing_like_this"),
    ("claims.py", "@dataclass", "1 / 0\n@dataclass", "ZeroDivisionError"),
    ("job.py", "class Count(Job):", "class Count:", "one subclass of Job, and holds 0"),
])
def test_what_is_broken_is_told(toy, file, old, new, words):
    edit(toy, file, old, new)
    assert any(words in line for line in problems_of(toy))


def test_recorded_verdicts_and_shipped_weights(toy):
    toy.assets.mkdir()
    (toy.assets / "recorded.json").write_text('{"claims": []}')
    (toy.assets / "net.npz").write_bytes(b"weights")
    (toy.assets / "table.safetensors").write_bytes(b"numbers")
    digest = hashlib.sha256(b"numbers").hexdigest()
    (toy.assets / "table.json").write_text(json.dumps({"sha256": digest}))
    lines = list(problems_of(toy))
    assert len(lines) == 2 and "recorded.json" in lines[0] and "net.json" in lines[1]
    (toy.assets / "table.safetensors").write_bytes(b"other numbers")
    assert any("table.safetensors" in line for line in problems_of(toy))


def test_ledger_and_data_folders(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("PRECIS_DATA", str(tmp_path / "gone"))
    with Ledger(home()):
        pass
    findings = list(examine(find()))
    assert any(f.sound and "the ledger is sound" in f.text for f in findings)
    assert any(f.sound is False and "PRECIS_DATA" in f.text for f in findings)
    (home() / "ledger.sqlite").write_text("no database" * 500)
    assert any(f.sound is False and f.text.startswith("ledger:") for f in examine(find()))


def test_an_older_source_is_told(toy):
    from precis.lab.fingerprint import source_fingerprint
    from precis.papers.opening import claim_of

    told = lambda: next(f for f in examine(find()) if f.text.startswith(toy.id))
    toy.assets.mkdir()
    for source, words in ((source_fingerprint(claim_of(toy, "up_beats_down")), "1 recorded"), ("old", "1 of an older")):
        claims = {"up_beats_down": {"quick": {"verdict": "supported", "source": source}}}
        (toy.assets / "recorded.json").write_text(json.dumps({"claims": claims}))
        assert told().sound and words in told().text
