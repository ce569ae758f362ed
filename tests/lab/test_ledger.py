import ctypes
import dataclasses
import errno
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from precis.errors import InputError, RunFailed
from precis.lab import artefacts, ledger
from precis.lab.ledger import Ledger, Trial, home

HERE = Path(__file__).parent
SRC = Path(ledger.__file__).parents[2]


def key(i: int) -> str:
    return f"{i:064x}"


def trial(i: int, **other) -> Trial:
    row = dict(
        key=key(i), paper="siren", runs="fit", claim="siren/fit", arm="siren", seed=i, profile="quick",
        settings={"width": 64, "lr": 1e-4}, data="d", source="s", device="cpu", metrics={"psnr": 30 + i / 7},
        record={"notes": ["repaired"]}, seconds=1.5, peak_memory_mb=612.0, versions={"torch": "2.13"}, host="here",
        finished="2030-01-01T00:00:00+00:00",
    )  # fmt: skip
    return Trial(**{**row, **other})


def folder_of(base: Path, i: int = 0) -> Path:
    folder = base / f"scratch{i}"
    (folder / "images").mkdir(parents=True)
    (folder / "curve.json").write_text(f"[{i}]")
    (folder / "images" / "step 1.png").write_bytes(b"\x89PNG" * 300_000)
    return folder


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose thousands of syncs cost nothing where there is one: no fault here but a power cut needs them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path) as base:
        yield Path(base)


@pytest.fixture
def full(in_memory: Path, tmp_path: Path) -> Path:
    """A home with six trials, the first three with files."""
    with Ledger(in_memory / "home") as book:
        for i in range(6):
            book.add(trial(i), folder_of(tmp_path, i) if i < 3 else None)
    return in_memory / "home"


def python(code: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{HERE}", **environment},
    )  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What goes in comes out


def test_a_trial_comes_back_as_it_was(tmp_path):
    metrics = {"psnr": 0.1 + 0.2, "bad": math.inf, "per_task": {"a": 1.0, "ü": -0.0}}
    given = trial(3, metrics=metrics, record={"curves": {"loss": "c.npz"}})
    Ledger(tmp_path).add(given, None)
    assert Ledger(tmp_path, read_only=True).trial(key(3)) == given
    assert Ledger(tmp_path).verify() == []


def test_a_metric_that_is_not_a_number_stays_so(tmp_path):
    Ledger(tmp_path).add(trial(0, metrics={"psnr": math.nan}, seconds=-0.0), None)
    found = Ledger(tmp_path).trial(key(0))
    assert found is not None and math.isnan(found.metrics["psnr"])
    assert Ledger(tmp_path).verify() == []


def test_times_must_be_finite(tmp_path):
    with pytest.raises(ValueError, match="seconds"):
        Ledger(tmp_path).add(trial(0, seconds=math.nan), None)
    assert Ledger(tmp_path).trial(key(0)) is None


def test_files_become_artefacts_named_by_their_content(tmp_path):
    folder = folder_of(tmp_path)
    book = Ledger(tmp_path / "home")
    book.add(trial(0), folder)
    kept = book.trial(key(0))
    assert kept is not None and kept.record["notes"] == ["repaired"]
    assert set(kept.record["files"]) == {"curve.json", "images/step 1.png"}
    for name, digest in kept.record["files"].items():
        assert book.artefact(digest).read_bytes() == (folder / name).read_bytes()
        assert artefacts.digest_of(book.artefact(digest)) == digest == book.artefact(digest).name
    assert not list((tmp_path / "home").rglob("*.part"))


def test_the_same_file_is_kept_once(full):
    assert sum(p.stat().st_size > 1_000_000 for p in (full / "artefacts").rglob("*") if p.is_file()) == 1


def test_a_key_that_is_there_changes_nothing(full, tmp_path):
    before = snapshot(full)
    Ledger(full).add(trial(1, metrics={"psnr": 99.0}), folder_of(tmp_path, 77))
    assert snapshot(full) == before


def test_an_artefact_that_lies_there_already_is_found_again_and_put_right(tmp_path):
    folder = folder_of(tmp_path)
    book = Ledger(tmp_path / "home")
    digest = artefacts.digest_of(folder / "curve.json")
    book.artefact(digest).parent.mkdir(parents=True)
    book.artefact(digest).write_text("torn")
    book.add(trial(0), folder)
    assert book.artefact(digest).read_text() == "[0]" and book.verify() == []


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "/" * 64])
def test_only_a_hash_names_an_artefact(tmp_path, digest):
    with pytest.raises(InputError, match="64 hexadecimal"):
        Ledger(tmp_path, read_only=True).artefact(digest)


def test_many_keys_at_once(tmp_path):
    book = Ledger(tmp_path)
    book._db.execute("PRAGMA synchronous = OFF")
    for i in range(1100):
        book.add(trial(i), None)
    asked = [key(i) for i in range(2000, -1, -1)] + [key(5)]
    found = book.trials(iter(asked))
    assert list(found) == [key(i) for i in range(1099, -1, -1)]
    assert all(row.seed == int(k, 16) for k, row in found.items())
    assert book.trials([]) == {} and book.verify() == []


def test_failures_are_the_latest_and_end_when_the_trial_is_finished(tmp_path):
    book = Ledger(tmp_path)
    book.fail(key(0), "out of memory")
    book.fail(key(0), "diverged")
    book.fail(key(1), "diverged\nat step 3")
    assert book.failures([key(i) for i in range(1500)]) == {key(0): "diverged", key(1): "diverged\nat step 3"}
    book.add(trial(0), None)
    assert book.failures([key(0), key(1)]) == {key(1): "diverged\nat step 3"}


def test_the_latest_verdict_of_each_profile(tmp_path):
    book = Ledger(tmp_path)
    book.save_verdict("siren/fit", "quick", {"verdict": "inconclusive", "n": 5, "finished": "2030"}, "s1")
    book.save_verdict("siren/fit", "full", {"verdict": None, "n": 0, "finished": "2031"}, "s1")
    book.save_verdict("siren/fit", "quick", {"verdict": "supported", "n": 7, "finished": "2032"}, "s2")
    assert Ledger(tmp_path, read_only=True).verdicts() == {
        ("siren/fit", "full"): {"verdict": None, "n": 0, "finished": "2031", "source": "s1"},
        ("siren/fit", "quick"): {"verdict": "supported", "n": 7, "finished": "2032", "source": "s2"},
    }
    with sqlite3.connect(book.path) as db:
        assert db.execute("SELECT verdict, n FROM verdicts").fetchall()[0] == ("inconclusive", 5)


def test_a_report_holds_no_nan(tmp_path):
    with pytest.raises(ValueError):
        Ledger(tmp_path).save_verdict("siren/fit", "quick", {"effect": math.nan}, "s")


def test_where_home_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("PRECIS_HOME", "")
    assert home().is_absolute() and home().name == "precis"


def test_the_columns_are_those_of_the_contract(full):
    trials = "key paper runs claim arm seed profile settings data source device metrics record seconds " \
             "peak_memory_mb versions host finished prev hash"
    with sqlite3.connect(full / "ledger.sqlite") as db:
        assert [row[1] for row in db.execute("PRAGMA table_info(trials)")] == trials.split()
        assert [r[1] for r in db.execute("PRAGMA table_info(verdicts)")] == \
            "claim profile verdict n report source finished".split()
        assert [r[1] for r in db.execute("PRAGMA table_info(failures)")] == "key error finished".split()


# Readers


def test_a_reader_makes_nothing_and_sees_what_comes_later(tmp_path):
    reader = Ledger(tmp_path / "none", read_only=True)
    assert reader.trial(key(0)) is None and reader.verdicts() == {} and reader.verify() == []
    assert reader.failures([key(0)]) == {} and not (tmp_path / "none").exists()
    Ledger(tmp_path / "none").add(trial(0), None)
    assert reader.trial(key(0)) == trial(0)
    with pytest.raises(ValueError, match="for reading"):
        reader.fail(key(0), "x")


def test_reading_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; from pathlib import Path; from precis.lab.ledger import Ledger\n"
        "Ledger(Path(sys.argv[1]), read_only=True).verdicts()\n"
        "print({'torch', 'numpy', 'scipy', 'tyro', 'rich'} & set(sys.modules))"
    )
    out, err = python(code, str(tmp_path)).communicate()
    assert out.strip() == "set()", err


# Somebody changes what was written


def edit(path: Path, statement: str) -> None:
    with sqlite3.connect(path / "ledger.sqlite") as db:
        assert db.execute(statement).rowcount == 1


@pytest.mark.parametrize(
    "change",
    ["metrics = '{\"psnr\": 99.0}'", "seconds = 2", "seed = '2.5'", "host = NULL", "settings = x'00ff'",
     "hash = prev", "finished = 'x'", "record = 'no json'"],
)  # fmt: skip
def test_an_edited_row_is_named(full, change):
    edit(full, f"UPDATE trials SET {change} WHERE key = '{key(2)}'")
    lines = Ledger(full).verify()
    assert f"trial {key(2)[:12]}" in lines[0] and "edited" in lines[0]
    named = {line for line in lines if "edited" in line}
    assert len(named) == 1


def test_an_edited_row_whose_hash_was_taken_again_breaks_the_link_after_it(full):
    book = Ledger(full)
    with sqlite3.connect(book.path) as db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("SELECT * FROM trials WHERE seed = 2").fetchone())
        row["metrics"] = '{"psnr": 99.0}'
        db.execute("UPDATE trials SET metrics = ?, hash = ? WHERE seed = 2", (row["metrics"], ledger._hash(row)))
    lines = book.verify()
    assert len(lines) == 1 and "seed 3" in lines[0] and "before it" in lines[0]


def test_a_row_removed_in_the_middle_is_named(full):
    edit(full, f"DELETE FROM trials WHERE key = '{key(3)}'")
    lines = Ledger(full).verify()
    assert len(lines) == 1 and "seed 4" in lines[0] and "removed" in lines[0]


def test_a_row_removed_at_the_end_is_noticed_and_stays_so(full):
    edit(full, f"DELETE FROM trials WHERE key = '{key(5)}'")
    assert Ledger(full).verify() == ["the end of the ledger does not fit: 6 trials were written, 5 are there"]
    Ledger(full).add(trial(9), None)
    lines = Ledger(full).verify()
    assert len(lines) == 1 and "seed 9" in lines[0] and "removed" in lines[0]


def test_a_row_put_in_by_hand_is_noticed(full):
    names = ", ".join(ledger._COLUMNS[1:])
    edit(full, f"INSERT INTO trials SELECT 'mine', {names} FROM trials WHERE seed = 1")
    assert any("mine" in line and "edited" in line for line in Ledger(full).verify())


def test_artefacts_changed_or_removed_are_named(full):
    book = Ledger(full, read_only=True)
    row = book.trial(key(1))
    assert row is not None
    book.artefact(row.record["files"]["curve.json"]).write_text("[1.0]")
    book.artefact(row.record["files"]["images/step 1.png"]).unlink()  # the three trials' common one
    lines = book.verify()
    assert [line for line in lines if "altered" in line and "curve.json" in line and "seed 1" in line]
    assert sum("step 1.png" in line and "missing" in line for line in lines) == 3 and len(lines) == 4


def test_a_row_that_no_longer_reads_is_one_clear_line(full):
    edit(full, f"UPDATE trials SET metrics = 'x' WHERE key = '{key(2)}'")
    with pytest.raises(InputError, match="metrics of trial"):
        Ledger(full).trial(key(2))


# The file is not a ledger, or cannot be written


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["random", "truncated", "half a page", "text", "foreign", "newer", "older"])
def test_a_file_that_is_no_ledger_is_told_in_one_line_and_left_alone(full, monkeypatch, damage, read_only):
    path = full / "ledger.sqlite"
    if damage == "random":
        path.write_bytes(os.urandom(20_000))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:8192])
    elif damage == "half a page":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "text":
        path.write_text("my notes\n" * 1000)
    elif damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE bookmarks (url)")
    elif damage == "newer":
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {ledger.SCHEMA + 1}")
    else:
        monkeypatch.setattr(ledger, "SCHEMA", ledger.SCHEMA + 1)
    before = snapshot(full)
    with pytest.raises(InputError) as caught:
        Ledger(full, read_only=read_only)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    expected = {"foreign": "not a ledger", "newer": "a newer precis", "older": "an older precis"}
    assert expected.get(damage, "damaged") in str(caught.value)
    assert snapshot(full) == before


def test_damage_inside_the_file_is_named_by_verify(full):
    path = full / "ledger.sqlite"
    text = bytearray(path.read_bytes())
    text[4096:8192] = os.urandom(4096)
    path.write_bytes(text)
    lines = Ledger(full, read_only=True).verify()
    assert lines and all(str(path) in line for line in lines)


def test_a_ledger_of_no_bytes_is_one_that_was_not_begun(tmp_path):
    (tmp_path / "ledger.sqlite").touch()
    assert Ledger(tmp_path, read_only=True).verdicts() == {}
    Ledger(tmp_path).add(trial(0), None)
    assert Ledger(tmp_path).verify() == []


@pytest.mark.parametrize("where", ["home", "home/artefacts", "."])
def test_a_file_where_a_folder_should_be(tmp_path, where):
    if where == "home/artefacts":
        (tmp_path / "home").mkdir()
    place = tmp_path / ("home" if where == "." else where)
    place.write_text("mine")
    with pytest.raises(InputError, match="PRECIS_HOME"):
        Ledger(tmp_path / "home" / "deeper" if where == "." else tmp_path / "home")
    assert place.read_text() == "mine"


def test_a_folder_where_the_ledger_should_be(tmp_path):
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(InputError, match="cannot be opened"):
        Ledger(tmp_path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_home_that_cannot_be_written(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "home"))

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", refuse)
        with pytest.raises(InputError, match="cannot be written.*PRECIS_HOME"):
            Ledger(tmp_path / "home")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        with pytest.raises(InputError, match="cannot be written.*PRECIS_HOME"):
            Ledger(tmp_path / "home")


def test_a_ledger_that_sqlite_cannot_write_is_told_at_once_and_can_be_read(full, monkeypatch):
    connect = sqlite3.connect

    def protected(place, **named):  # how SQLite opens a file that it may not write
        return connect(place.replace("mode=rw", "mode=ro").replace("roc", "ro"), **named)

    monkeypatch.setattr(sqlite3, "connect", protected)
    before = snapshot(full)
    with pytest.raises(InputError, match="cannot be opened or written.*PRECIS_HOME"):
        Ledger(full)
    assert Ledger(full, read_only=True).trial(key(2)) is not None
    assert snapshot(full) == before


# The disk is full


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
def test_a_full_disk_while_files_are_kept(full, tmp_path, monkeypatch, call):
    book = Ledger(full)
    before = snapshot(full)

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = folder_of(tmp_path, 7)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(RunFailed, match="the disk is full"):
            book.add(trial(7), folder)
    assert book.trial(key(7)) is None
    assert all(snapshot(full)[name] == text for name, text in before.items())
    assert not list(full.rglob("*.part"))
    book.add(trial(7), folder)  # room was made
    assert book.trial(key(7)) is not None and book.verify() == []


def test_a_full_disk_while_the_row_is_written(full):
    book = Ledger(full)
    before = book.trials([key(i) for i in range(6)])
    book._db.execute(f"PRAGMA max_page_count = {book._db.execute('PRAGMA page_count').fetchone()[0]}")
    large = trial(7, record={"notes": ["x" * 100_000]})
    for attempt in (
        lambda: book.add(large, None),
        lambda: book.fail(key(8), "x" * 100_000),
        lambda: book.save_verdict("siren/fit", "quick", {"reason": "x" * 100_000}, "s"),
    ):
        with pytest.raises(RunFailed, match="the disk is full"):
            attempt()
    assert book.trials([key(i) for i in range(8)]) == before and book.verify() == []
    book._db.execute("PRAGMA max_page_count = 100000")
    book.add(large, None)
    assert book.trial(key(7)) == large and book.verify() == []


# Writers killed, and two at once


def test_a_writer_killed_at_any_write_starts_again_and_nothing_is_lost(in_memory):
    import _sqlite3

    if not hasattr(os, "fork") or not hasattr(ctypes.CDLL(_sqlite3.__file__), "sqlite3_vfs_find"):
        pytest.skip("this Python's SQLite does not show its system calls")
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    out, err = python(code, str(HERE / "kill_ledger.py"), str(in_memory)).communicate()
    result = json.loads(out or "null")
    assert result, err
    assert result["wrong"] == []
    assert min(result["writes"].values()) > 50


WRITER = """
import sys
from pathlib import Path
from kill_ledger import trial
from precis.lab.ledger import Ledger
base, first, last, name = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
print("ready", flush=True)
sys.stdin.readline() if name != "alone" else None
book = Ledger(base / "home")
scratch = base / name
scratch.mkdir()
for i in range(first, last):
    (scratch / "curve.json").write_text(f"[{i % 20}]")
    book.add(trial(f"{i:064x}", 1), scratch)
    book.fail(f"{i + 1000:064x}", name)
    print(i, flush=True)
"""


def start(base: Path, first: int, last: int, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(base), str(first), str(last), name], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{HERE}"},
    )  # fmt: skip


def test_two_processes_add_at_once_and_both_begin_the_ledger(in_memory):
    writers = [start(in_memory, 0, 200, "a"), start(in_memory, 100, 300, "b")]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    errors = []
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        errors.append(writer.communicate()[1])
    assert errors == ["", ""]
    book = Ledger(in_memory / "home", read_only=True)
    assert set(book.trials(map(key, range(300)))) == set(map(key, range(300)))
    assert set(book.failures(map(key, range(1000, 1300)))) == set(map(key, range(1000, 1300)))
    assert book.verify() == []


def test_a_killed_process_leaves_the_other_its_way(in_memory):
    doomed, other = start(in_memory, 0, 10_000, "alone"), start(in_memory, 20_000, 20_100, "b")
    assert doomed.stdout is not None and doomed.stdout.readline() == "ready\n"
    assert other.stdin is not None
    other.stdin.write("go\n")
    other.stdin.flush()
    kept = [int(doomed.stdout.readline()) for _ in range(40)]
    doomed.send_signal(signal.SIGKILL)
    kept += [int(line) for line in doomed.communicate()[0].split()]
    assert other.communicate()[1] == ""
    book = Ledger(in_memory / "home")
    assert set(book.trials(map(key, [*kept, *range(20_000, 20_100)]))) == set(map(key, [*kept, *range(20_000, 20_100)]))
    assert book.verify() == []


def test_a_writer_that_finds_the_ledger_held_says_so(full, monkeypatch):
    monkeypatch.setattr(ledger, "WAIT", 0.05)
    book = Ledger(full)
    with sqlite3.connect(full / "ledger.sqlite", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFailed, match="another process"):
            book.fail(key(0), "x")
        assert book.trial(key(0)) is not None  # reading goes on
        db.execute("ROLLBACK")
    book.fail(key(9), "x")
    assert book.failures([key(9)]) == {key(9): "x"}


def test_what_killed_writers_left_half_copied_goes_after_a_day(full):
    fresh, old = full / "artefacts" / "fresh.part", full / "artefacts" / "old.part"
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    Ledger(full)
    assert fresh.exists() and not old.exists()


def test_a_trial_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial(0).seed = 3  # type: ignore[misc]
