"""Checks that are killed, stopped, run twice at once, or run out of disk: nothing finished is lost or run again."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.lab.toys import TOY

from precis.lab.ledger import Ledger

SCRIPT = str(Path(__file__).parent / "toy_check.py")


def started(home: Path, profile: str, *names: str, workers: int = 2, **options) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, str(home), profile, str(workers), *names]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finished(process: subprocess.Popen) -> list[dict]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def rows(home: Path) -> dict[str, tuple]:
    """key -> (arm, seed, metrics, finished, hash)"""
    if not (home / "ledger.sqlite").exists():
        return {}
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite", timeout=30)) as db:
        try:
            return {k: tuple(v) for k, *v in db.execute("SELECT key, arm, seed, metrics, finished, hash FROM trials")}
        except sqlite3.OperationalError:        # the table is just being made
            return {}


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int]) -> bool:
    states = [Path(f"/proc/{pid}/stat") for pid in pids]
    return all(not s.exists() or s.read_text().rpartition(")")[2].split()[0] == "Z" for s in states)


@pytest.fixture(scope="module")
def undisturbed(_warm, tmp_path_factory) -> dict[str, tuple]:
    """The trials of a check that nothing happened to: key -> (arm, seed, metrics)."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    finished(started(home, "full", "better"))
    return {key: row[:3] for key, row in rows(home).items()}


@pytest.mark.parametrize("after", [0, 4, "any"])
def test_a_check_killed_at_any_time_goes_on_where_it_stopped(toy, until, undisturbed, after):
    process = started(toy.home, "full", "better")
    if isinstance(after, int):
        until(lambda: len(children(process.pid)) == 2 if after == 0 else len(rows(toy.home)) >= after)
    else:
        ran = random.Random(after).randrange(1, 12)
        until(lambda: len(toy.lines("ran")) >= ran)     # the trial has ended, its row may not be there yet
    workers = children(process.pid)
    process.kill()
    process.communicate()
    before = rows(toy.home)
    until(lambda: gone(workers))
    ran_before = Counter(toy.lines("ran"))
    (report,) = finished(started(toy.home, "full", "better"))
    after_all = rows(toy.home)
    assert {key: row[:3] for key, row in after_all.items()} == undisturbed
    assert all(after_all[key] == row for key, row in before.items())
    again = Counter(toy.lines("ran")) - ran_before
    assert not set(again) & {f"better {arm} {seed}" for arm, seed, *_ in before.values()}
    assert sum(again.values()) == 12 - len(before)
    with Ledger(toy.home) as ledger:
        assert ledger.verify() == [] and report["verdict"] == "supported"
    assert [f.name for f in (toy.home / "scratch").iterdir()] == ["all.lock"]


def test_ctrl_c_ends_the_workers_and_keeps_what_was_finished(toy, until):
    toy.fault("2")                                      # later seeds wait: it cannot be over before it is struck
    process = started(toy.home, "full", "held", start_new_session=True)
    until(lambda: len(rows(toy.home)) >= 2)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in err and out == "" and gone(workers)
    assert 2 <= len(rows(toy.home)) < 8 and [f.name for f in (toy.home / "scratch").iterdir()] == ["all.lock"]


def test_two_checks_at_once_lose_nothing(toy, undisturbed):
    one, two = started(toy.home, "full", "better", workers=1), started(toy.home, "full", "better", workers=1)
    (first,), (second,) = finished(one), finished(two)
    assert {key: row[:3] for key, row in rows(toy.home).items()} == undisturbed
    assert first["metrics"] == second["metrics"] and first["keys"] == second["keys"]
    with Ledger(toy.home) as ledger:
        assert ledger.verify() == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [("die", "killed by SIGKILL"), ("raise", "Error: the toy broke"), ("empty", "returns its metrics as a dict")],
)
def test_a_failed_trial_is_told_and_tried_again_at_the_next_check(toy, fault, words):
    toy.fault(fault)
    (report,) = toy.check("failing")
    assert report["verdict"] is None or report["verdict"] == "inconclusive"
    assert report["hypotheses"][0]["holds"] is None
    assert "1 of 6 values of score missing" in report["hypotheses"][0]["note"]
    (failure,) = report["failures"]
    assert (failure["arm"], failure["seed"]) == ("method", 1) and words in failure["error"]
    assert len(report["keys"]) == 5
    assert [(e.arm, e.seed) for e in toy.events if e.kind == "failed"] == [("method", 1)]
    toy.mend()
    (report,) = toy.check("failing")
    assert report["verdict"] == "supported" and not report["failures"] and len(toy.lines("ran")) == 6


@pytest.mark.parametrize(("fault", "metrics"), [("nan", {"score": None}), ("lacks", {"other": 1.0})])
def test_a_metric_that_is_missing_or_not_finite_says_nothing(toy, fault, metrics):
    toy.fault(fault)
    (report,) = toy.check("failing")
    assert report["metrics"]["method"]["1"] == metrics and report["metrics"]["method"]["0"]["score"] is not None
    assert report["hypotheses"][0]["holds"] is None
    assert "1 of 6 values of score missing" in report["hypotheses"][0]["note"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report and not report["failures"]
    with Ledger(toy.home, read_only=True) as ledger:
        notes = [t.record.get("notes") for t in ledger.trials(report["keys"]).values()]
    assert ([["score is not finite (nan)"]] if fault == "nan" else []) == [n for n in notes if n]


def test_a_failed_trial_is_not_tried_at_every_look(toy):
    toy.fault("raise")
    (report,) = toy.check("failing", "null", until_verdict=True, max_seeds=6)[:1]
    assert len([e for e in toy.events if e.kind == "failed"]) == 1 and report["verdict"] != "supported"


def test_tuning_that_fails_leaves_the_arm_out(toy):
    toy.fault()
    (report,) = toy.check("tuned")
    assert report["verdict"] != "supported" and "baseline" not in report["tuned"]
    assert {"arm": "baseline", "seed": None, "error": "not tuned: no candidate gave 'score'"} in report["failures"]
    assert report["metrics"]["baseline"] == {} and len(report["metrics"]["method"]) == 3


def test_rows_of_a_batch_that_died_are_kept(toy):
    toy.fault()
    (report,) = toy.check("batched")
    assert len(report["keys"]) == 3 and len(report["failures"]) == 3
    assert "killed by SIGKILL" in report["failures"][0]["error"]
    toy.mend()
    (report,) = toy.check("batched")
    assert report["verdict"] == "supported" and len(toy.lines("ran")) == 6
    assert toy.lines("passes") == ["method,baseline 0,1,2", "baseline 1", "method,baseline 2"]


def test_a_killed_maker_of_a_shared_training_blocks_nobody(toy):
    toy.fault()
    (report,) = toy.check("sharing")
    (failure,) = report["failures"]
    assert failure["seed"] == 0 and "SIGKILL" in failure["error"]
    assert Counter(toy.lines("trained")) == {"0": 2, "1": 1, "2": 1}     # by the other arm, which waited
    (report,) = toy.check("sharing")
    assert not report["failures"] and len(toy.lines("trained")) == 4
    folders = [f for f in (toy.home / "shared").iterdir() if f.is_dir()]
    assert len(folders) == 3 and all([f.name for f in folder.iterdir()] == ["number"] for folder in folders)


def test_scratch_of_a_living_check_is_left_alone(tmp_path):
    from precis.lab.scratch import scratch_folder

    dead = tmp_path / "scratch" / "dead"
    dead.mkdir(parents=True)
    dead.with_suffix(".owner").touch()
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first != second and first.is_dir() and second.is_dir() and not dead.exists()
    assert not first.exists() and not second.exists()


FULL = """
set -e
mount -t tmpfs -o size=3m none "$1"
head -c 2500000 /dev/zero > "$1/ballast"
if "$2" "$3" "$1/home" quick 1 writes 2> "$1.first"; then echo "no error" > "$1.first"; fi
rm "$1/ballast"
"$2" "$3" "$1/home" quick 1 writes > "$1.second"
"$2" -c "$4" "$1/home" > "$1.third"
"""
VERIFY = """
import sys
from pathlib import Path
from precis.lab.ledger import Ledger
print(Ledger(Path(sys.argv[1])).verify())
"""


def test_a_full_disk_is_told_in_a_line_and_costs_nothing_finished(toy, tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run(
            [unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    disk = tmp_path / "disk"
    disk.mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([unshare, "-rm", "sh", "-c", FULL, "sh", str(disk), sys.executable, SCRIPT, VERIFY], env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "precis.errors.RunFailed" in (text := Path(f"{disk}.first").read_text()) and "the disk is full" in text
    (report,) = json.loads(Path(f"{disk}.second").read_text())
    assert report["verdict"] == "supported" and len(report["keys"]) == 6
    assert Path(f"{disk}.third").read_text() == "[]\n"


def test_the_toy_paper_has_no_claim_that_is_never_checked():
    here = "".join(p.read_text() for p in Path(__file__).parent.glob("*_*.py"))
    from precis.lab.loading import claims_of

    assert [name for name in claims_of(TOY) if f'"{name}"' not in here] == []
