"""The command line as a subprocess on real files: output, exit codes, JSON alone on stdout, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.papers.toys import SUMMARY, write_toy

import precis

SOURCE = str(Path(precis.__file__).parents[1])


class Terminal:
    """Runs `precis …` in a folder of its own, with its own home and papers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.papers = folder, folder / "papers"
        self.papers.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PRECIS_")} | {
            "PYTHONPATH": SOURCE, "PRECIS_HOME": str(folder / "home"), "PRECIS_PAPERS": str(self.papers),
            "OMP_NUM_THREADS": "1", "COLUMNS": "120",
        }

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "precis.cli", *args], cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **more,
        )

    def __call__(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"{args}: exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(args, code, out, err)

    def refused(self, *args: str) -> str:
        """The one line on stderr of an input error."""
        done = self(*args, code=2)
        assert done.stdout == "" and done.stderr.startswith("precis: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def cli(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def toy(cli: Terminal) -> Path:
    return write_toy(cli.papers, "toy_run", alias="counting_up")


def test_list(cli, toy):
    text = cli("list").stdout
    assert "toy_run" in text and "Counting: a toy" in text and "1·" in text
    found = json.loads(cli("list", "--json", "--family", "analysis").stdout)["papers"]
    (paper,) = [p for p in found if p["id"] == "toy_run"]
    assert paper["title"] == "Counting: a toy" and paper["year"] == 2020 and paper["family"] == "analysis"
    (claim,) = paper["claims"]
    assert claim["id"] == "toy_run/up_beats_down" and claim["verdict"] is None and claim["recorded"] is None
    assert claim["statement"] == "Counting up with $\\omega_0$ ends higher than counting down."
    assert "there are" in cli.refused("list", "--family", "nowhere")


def test_a_broken_folder_is_told_and_hides_no_other(cli, toy):
    broken = write_toy(cli.papers, "broken")
    (broken / "summary.md").write_text(SUMMARY.replace("venue: Nowhere\n", ""))
    done = cli("list", "--json")
    assert "toy_run" in done.stdout and "lacks the field 'venue'" in done.stderr
    assert "summary.md:1" in cli.refused("show", "broken")


def test_two_papers_of_one_id(cli, toy, tmp_path):
    other = write_toy(tmp_path / "more", "toy_run")
    cli.env["PRECIS_PAPERS"] += os.pathsep + str(other)
    assert str(other) in cli("list").stderr
    assert str(other) in (words := cli.refused("run", "toy_run")) and str(toy) in words


def test_show(cli, toy):
    text = cli("show", "counting-up").stdout
    assert "ω₀ x²" in text and "ℒ = (a+b)/2" in text and "up_beats_down" in text and "not checked" in text
    assert "precis check toy_run/up_beats_down" in text and not any(line.endswith(" ") for line in text.split("\n"))
    assert "did you mean 'toy_run'" in cli.refused("show", "toy_rum")


def test_usage(cli, toy):
    assert "precis COMMAND" in cli("--help").stdout and "precis COMMAND" in cli(code=2).stdout
    assert cli("--version").stdout.startswith("precis ")
    assert "did you mean 'show'" in cli.refused("shwo", "x")
    assert "--json" in cli("check", "--help").stdout and "INPUT" in cli("run", "--help").stdout
    assert "--profile" in cli("check", "--profil", "quick", code=2).stderr
    cli("list", "--color", code=2)


def test_help_of_a_job_comes_without_torch(cli, toy):
    text = cli("run", "toy_run", "--help").stdout
    for words in ("Count to a number.", "--steps INT", "how far", "--out", "--resume", "--device", "{up,down}"):
        assert words in text
    assert "More words" not in text
    (toy / "job.py").write_text((toy / "job.py").read_text() + "\nimport sys\nassert 'torch' not in sys.modules\n")
    cli("run", "toy_run", "--help")


def test_run(cli, toy, tmp_path):
    (tmp_path / "in put.txt").write_text("words")
    done = cli("run", "toy-run", "in put.txt", "--steps", "4", "--device", "cpu", "--size", "2", "3")
    folder = tmp_path / "toy_run-in_put"
    assert {p.name for p in folder.iterdir()} == {"count.png", "table.csv", "report.md", "events.jsonl", "result.json"}
    assert "count" in done.stdout and "inf" in done.stdout and "toy_run-in_put/count.png" in done.stdout
    assert "4/4  value 6" in done.stderr and "\x1b" not in done.stderr
    result = json.loads(cli("run", "toy_run", "in put.txt", "--json", "--fast", "--device", "cpu").stdout)
    assert result["settings"]["fast"] is True and result["metrics"]["psnr"] is None
    assert result == json.loads((tmp_path / "toy_run-in_put-2" / "result.json").read_text())


def test_run_refuses_what_is_wrong(cli, toy, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert "no such file" in cli.refused("run", "toy_run", "nowhere.png")
    assert "not empty" in cli.refused("run", "toy_run", "--out", "full", "--device", "cpu")
    assert "at least 1" in cli.refused("run", "toy_run", "--steps", "0")
    assert "name the paper first" in cli.refused("run", "--steps", "3", "toy_run")
    assert "did you mean" in cli.refused("run", "toy_rum")
    for wrong in (["--stepz", "3"], ["--task", "sideways"], ["--steps", "many"], ["a", "b"]):
        done = cli("run", "toy_run", *wrong, code=2)
        assert done.stdout == "" and done.stderr.startswith("precis: ") and done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "full" / "mine").read_text() == "precious"


def test_run_that_fails(cli, toy, tmp_path):
    for fail, words in (("memory", "out of memory"), ("diverged", "the loss is not finite")):
        done = cli("run", "toy_run", "--fail", fail, "--out", fail, "--device", "cpu", "--json", code=1)
        assert done.stdout == "" and words in done.stderr.splitlines()[-1] and (tmp_path / fail / "half.png").exists()
    done = cli("run", "toy_run", "--fail", "input", "--out", "bad", "--device", "cpu", code=2)
    assert "row 3: the row is empty" in done.stderr.splitlines()[-1] and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_and_resume_goes_on(cli, toy, tmp_path, number):
    command = ("run", "toy_run", "--steps", "200", "--pause", "0.05", "--out", "out", "--device", "cpu")
    process = cli.start(*command)
    events = tmp_path / "out" / "events.jsonl"
    wait_for(lambda: events.exists() and events.read_text().count('"log"') >= 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in err and "--resume goes on" in err
    done = int((tmp_path / "out" / "checkpoint.txt").read_text())
    assert done >= 3 and not (tmp_path / "out" / "result.json").exists()
    assert "go on with --resume" in cli.refused(*command)
    assert "pause: 0.05, not 0.0" in cli.refused("run", "toy_run", "--steps", "200", "--out", "out", "--resume",
                                                 "--device", "cpu")
    marker = tmp_path / "out" / "run.json"  # the rest without the pauses
    marker.write_text(marker.read_text().replace("0.05", "0.0"))
    again = cli("run", "toy_run", "--steps", "200", "--out", "out", "--device", "cpu", "--resume", "--json")
    assert json.loads(again.stdout)["metrics"]["began"] == done
    assert "is finished" in cli.refused("run", "toy_run", "--out", "out", "--device", "cpu", "--resume")


def test_check_report_and_list(cli, toy, tmp_path):
    write_toy(cli.papers, "toy_low", level=0.1)
    done = cli("check", "toy-run", "toy_low/up-beats-down", "--device", "cpu", "--workers", "1", code=1)
    assert "toy_run/up_beats_down  ✓ supported  at quick" in done.stdout
    assert "toy_low/up_beats_down  ✗ contradicted" in done.stdout
    assert "12/12" in done.stderr and "\x1b" not in done.stderr
    again = cli("check", "toy_run", "--device", "cpu", "--json")
    (entry,) = json.loads(again.stdout, parse_constant=pytest.fail)["claims"]
    assert entry["id"] == "toy_run/up_beats_down" and entry["verdict"] == "supported" and entry["profile"] == "quick"
    assert entry["n"] == 3 and entry["hypotheses"][0]["holds"] is True and "from the ledger" in again.stderr
    papers = json.loads(cli("list", "--json").stdout)["papers"]
    verdicts = {p["id"]: p["claims"][0]["verdict"] for p in papers if p["id"].startswith("toy")}
    assert verdicts == {"toy_run": "supported", "toy_low": "contradicted"}
    assert "contradicted at quick" in cli("show", "toy_low").stdout
    page = Path(cli("report", "--out", "site").stdout.strip())
    assert page == tmp_path / "site" / "index.html" and "Counting" in page.read_text()


def test_smoke_failing_trials_and_strict(cli, toy):
    done = cli("check", "toy_run", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--strict")
    assert "no verdict" in done.stdout
    assert "there are smoke results alone, which have no verdict" in cli.refused("report")
    write_toy(cli.papers, "toy_fail", failing="up")
    done = cli("check", "toy_fail", "--profile", "smoke", "--device", "cpu", "--workers", "1", code=1)
    assert "ValueError: this arm breaks" in done.stdout


def test_ctrl_c_keeps_the_finished_trials_of_a_check(cli, toy):
    claims = toy / "claims.py"
    quick = claims.read_text()
    slow = "        __import__('time').sleep(0.3)\n        record.log("
    claims.write_text(quick.replace("        record.log(", slow))
    process = cli.start("check", "toy_run", "--device", "cpu", "--workers", "1")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and first.startswith("1/6") and "Traceback" not in err
    assert err.splitlines()[-1] == "precis: interrupted; finished trials are kept, and the same command goes on"
    assert "from the ledger" in cli("check", "toy_run", "--device", "cpu", "--workers", "1").stderr


def test_check_refuses_what_is_wrong(cli, toy, tmp_path):
    assert "name what to check" in cli.refused("check")
    assert "it has up_beats_down" in cli.refused("check", "toy_run/other_thing_entirely")
    assert "did you mean 'up_beats_down'" in cli.refused("check", "toy_run/up_beat_down")
    assert "did you mean 'toy_run'" in cli.refused("check", "toy_rum")
    assert "at least 3 seeds" in cli.refused("check", "toy_run", "--seeds", "2", "--device", "cpu")
    assert "no such file" in cli.refused("check", "toy_run", "--data", "nowhere")
    (tmp_path / "data.txt").write_text("words")
    assert "text" in cli.refused("check", "toy_run", "--data", "data.txt", "--device", "cpu")
    assert "--engine ray" in cli.refused("check", "toy_run", "--address", "auto")
    assert "there are no results yet" in cli.refused("report")


def test_new_then_run_check_and_doctor(cli, tmp_path):
    done = cli("new", "my-paper", "--into", "papers")
    assert "PRECIS_PAPERS" in done.stdout
    assert "is taken" in cli.refused("new", "my_paper")
    cli("check", "my_paper", "--profile", "smoke", "--device", "cpu", "--workers", "1")
    doctor = cli.start("doctor")
    text, err = doctor.communicate(timeout=120)
    assert "✓ my_paper: 1 claim" in text and "the ledger is sound" in text and err == ""
    assert doctor.returncode == (1 if "✗" in text else 0)


def test_data_sets(cli, tmp_path):
    shakespeare = tmp_path / "sets" / "text"
    shakespeare.mkdir(parents=True)
    (shakespeare / "tinyshakespeare.txt").write_text("To be")
    cli.env["PRECIS_DATA"] = str(tmp_path / "sets")
    text = cli("data", "list").stdout
    assert str(shakespeare) in text and "mnist" in text and "not here" in text
    assert cli("data", "get", "tinyshakespeare").stdout.strip() == str(shakespeare)
    assert "did you mean 'mnist'" in cli.refused("data", "get", "mnits")
    assert "name the set" in cli.refused("data", "get")
    assert "never fetched" in cli.refused("data", "get", "rt-polarity")


def test_a_reader_that_leaves_early(cli, toy):
    process = cli.start("show", "toy_run")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 0 and process.stderr.read() == ""
    process.stderr.close()


def wait_for(what, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
