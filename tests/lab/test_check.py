import importlib
import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tests.lab.toys import TOY

from precis.errors import InputError, RunFailed, Stopped
from precis.lab import Claim, Profile
from precis.lab.check import check
from precis.lab.engine import LocalEngine
from precis.lab.events import Meter
from precis.lab.ledger import Ledger
from precis.lab.loading import PaperSource, claims_of
from precis.lab.pages import facts
from precis.lab.statistics import look_alpha, looks

FIELDS = {
    "id", "statement", "verdict", "reason", "profile", "scale", "n", "hypotheses", "seconds", "arms", "sabotaged",
    "seeds", "metrics", "tuned", "tuning", "device", "versions", "host", "untried", "keys", "source", "finished",
    "command", "failures", "preconditions", "ran",
}


def test_a_claim_from_trials_to_verdict(toy):
    (report,) = toy.check("better")
    assert report.keys() >= FIELDS
    assert report["id"] == "toy_paper/better" and report["verdict"] == "supported" and report["ran"]
    assert report["n"] == 3 and report["seeds"] == [0, 1, 2] and report["scale"] == "one number"
    assert report["hypotheses"][0]["effect"] == pytest.approx(1.0) and report["hypotheses"][0]["holds"] is True
    assert report["hypotheses"][1]["sabotaged"] == {"broken": "method"}
    assert report["hypotheses"][1]["holds"] is not True
    assert {arm: list(of) for arm, of in report["metrics"].items()} == {
        arm: ["0", "1", "2"] for arm in ("method", "baseline", "broken")}
    assert report["command"] == "precis check toy_paper/better --profile quick --device cpu"
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    with Ledger(toy.home, read_only=True) as ledger:
        trials = ledger.trials(report["keys"]).values()
        saved = ledger.verdicts()["toy_paper/better", "quick"]
        assert ledger.verify() == []
    assert len(trials) == 9 and {t.paper for t in trials} == {"toy_paper"} and {t.device for t in trials} == {"cpu"}
    assert all(t.record["scalars"]["loss"]["x"] == [1.0, 2.0, 3.0] and t.peak_memory_mb > 1 for t in trials)
    assert all(t.versions["torch"] == torch.__version__.partition("+")[0] or t.versions["torch"] == torch.__version__
               for t in trials)
    assert saved["verdict"] == "supported" and saved["source"] == report["source"]


def test_an_arm_that_only_another_profile_reads_is_not_run(toy):
    quick, full = toy.check("costly")[0], toy.check("costly", profile="full")[0]
    assert quick["arms"] == list(quick["metrics"]) == ["method", "baseline"]
    assert full["arms"] == list(full["metrics"]) == ["method", "baseline", "broken"]
    assert quick["verdict"] == full["verdict"] == "supported" and len(full["hypotheses"]) == 2


def test_what_is_finished_is_not_run_again(toy):
    first = toy.check("better")[0]
    toy.events.clear()
    second = toy.check("better")[0]
    assert len(toy.lines("ran")) == 9
    assert {e.kind for e in toy.events} == {"plan", "done", "verdict"}
    assert all(e.cached for e in toy.events if e.kind == "done")
    assert {k: v for k, v in first.items() if k != "finished"} == {k: v for k, v in second.items() if k != "finished"}
    third = toy.check("better", seeds=4)[0]
    assert len(toy.lines("ran")) == 12 and third["n"] == 4 and third["command"].endswith("--seeds 4")


def test_arms_are_paired_by_the_streams_of_their_seed(toy):
    metrics = toy.check("pair")[0]["metrics"]
    gaps = {round(metrics["method"][s]["score"] - metrics["baseline"][s]["score"], 5) for s in "012"}
    assert gaps == {1.0} and len({metrics["baseline"][s]["score"] for s in "012"}) == 3


def test_neither_order_nor_number_of_workers_changes_anything(toy):
    here = toy.check("better", "close", "sharing")
    alone = toy.check("sharing", "close", "better", home=toy.home.with_name("other"), workers=1, engine=None)
    for one, two in zip(here, reversed(alone)):
        assert one["metrics"] == two["metrics"] and one["keys"] == two["keys"] and one["verdict"] == two["verdict"]


def test_a_contradicted_claim_and_the_order_of_reports(toy):
    worse, better = toy.check("worse", "better")
    assert (worse["verdict"], better["verdict"]) == ("contradicted", "supported")
    assert worse["id"] == "toy_paper/worse"


def test_claims_over_the_same_runs_share_them(toy):
    pair, too = toy.check("pair", "pair_too")
    assert len(toy.lines("ran")) == 9 == len(set(toy.lines("ran")))
    assert set(pair["keys"]) < set(too["keys"]) and set(pair["metrics"]) == {"method", "baseline"}
    toy.check("pair_too")
    assert len(toy.lines("ran")) == 9


def test_exact_hypotheses_need_one_seed(toy):
    (report,) = toy.check("once", seeds=2)
    assert report["verdict"] == "supported" and report["seeds"] == [0]
    assert sorted(toy.lines("ran")) == ["once baseline 0", "once method 0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 2}, "--seeds 2: an interval needs at least 3 seeds"),
        ({"profile": "paper"}, "no claim named has a profile 'paper': they have full, quick, smoke"),
        ({"until_verdict": True, "max_seeds": 2}, "--max-seeds 2: the first look at toy_paper/better is at 3"),
        ({"device": "tpu"}, "--device tpu: choose auto, cpu, cuda or mps"),
        ({"workers": 0}, "--workers must be at least 1"),
    ],
)
def test_usage_errors(toy, options, message):
    with pytest.raises(InputError, match=message):
        toy.check("better", **options)
    assert not toy.home.exists() and not toy.lines("ran")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(toy):
    with pytest.raises(InputError, match="torch finds no CUDA GPU here; use --device cpu"):
        toy.check("better", device="cuda")
    assert toy.check("once", device="auto")[0]["device"] == "cpu"


def test_gpu_settings_reach_the_key(monkeypatch):
    from precis.lab import plan
    from precis.lab.worker import settings_of

    class OnGpu(Claim):
        name = "x"
        profiles: ClassVar = {"full": Profile({"w": 1}, cuda={"w": 2}), "quick": Profile({"w": 1})}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert plan.resolve_device("auto") == "cuda"
    assert settings_of(OnGpu, "full", True) == {"w": 2} and settings_of(OnGpu, "full", False) == {"w": 1}
    assert settings_of(OnGpu, "quick", True) == {"w": 1}


def test_a_claim_without_the_profile_is_not_run(toy):
    once, better = toy.check("once", "better", profile="full")
    assert once["verdict"] is None and not once["ran"] and once.keys() == better.keys()
    assert once["reason"] == "not run: it has no profile 'full', only quick"
    assert better["verdict"] == "supported" and better["n"] == 4
    with Ledger(toy.home, read_only=True) as ledger:
        assert list(ledger.verdicts()) == [("toy_paper/better", "full")]


def test_the_users_data(toy, tmp_path):
    data = tmp_path / "my numbers.txt"
    data.write_text("10 20")
    better, pair = toy.check("better", "pair", data=data, kinds={"text", "table"})
    assert pair["reason"] == "not run: it takes no data of yours" and not pair["ran"]
    scores = {s: round(m["score"]) for s, m in better["metrics"]["baseline"].items()}
    assert scores == {"0": 10, "1": 20, "2": 10}
    assert f"--data '{data}'" in better["command"] and better["data"] == str(data)
    assert toy.check("better")[0]["keys"] != better["keys"]
    with pytest.raises(InputError, match=r"no claim named can be checked on this \(image\): they take text"):
        toy.check("better", "pair", data=data, kinds={"image"})
    with pytest.raises(InputError, match="they take no data of yours"):
        toy.check("pair", data=data, kinds={"text"})
    data.write_text("")
    with pytest.raises(InputError, match=r"my numbers.txt: holds no number"):
        toy.check("better", data=data, kinds={"text"})


def test_smoke_reads_no_verdict(toy):
    (report,) = toy.check("better", profile="smoke")
    assert report["verdict"] is None and report["ran"] and "smoke" in report["reason"]
    assert len(toy.lines("ran")) == 3 and not report["failures"]


def test_a_trial_that_changes_its_data_fails_and_harms_no_other(toy):
    with LocalEngine(1) as alone:
        before = toy.check("pair", engine=alone)[0]["metrics"]
        (report,) = toy.check("changing", engine=alone)
        after = toy.check("pair", engine=alone, home=toy.home.with_name("other"))[0]["metrics"]
    assert len(report["failures"]) == 6 and not report["keys"]
    assert "the trial changed the data that it was given" in report["failures"][0]["error"]
    assert before == after


def test_data_that_loads_differently_each_time_are_refused(toy):
    (report,) = toy.check("unsteady")
    assert report["verdict"] != "supported" and len(report["failures"]) == 6
    assert "load gave other data than when the check started" in report["failures"][0]["error"]


def test_tuning_gives_each_arm_its_best_by_the_same_grid(toy):
    (report,) = toy.check("tuned")
    assert report["tuned"] == {"method": {"rate": 2.0}, "baseline": {"rate": 1.0}}
    assert report["tuning"] == {"rate": [1.0, 2.0, 3.0]}
    assert dict(facts(report))["tuned"] == "method: rate 2; baseline: rate 1 (the least tried)"
    ran = toy.lines("ran")
    for arm in ("method", "baseline"):
        for seed in (10_000, 10_001):
            assert ran.count(f"tuned {arm} {seed}") == 3
        assert [ran.count(f"tuned {arm} {seed}") for seed in range(3)] == [1, 1, 1]
    assert all(e.tuning == (e.seed >= 10_000) for e in toy.events if e.kind == "done")
    with Ledger(toy.home, read_only=True) as ledger:
        trials = ledger.trials(report["keys"]).values()
        assert {t.arm: t.record["tuned"] for t in trials} == report["tuned"]
        assert len(ledger.trials(report["tuning_keys"])) == 12
    again = toy.check("tuned")[0]
    assert len(toy.lines("ran")) == 18 and again["keys"] == report["keys"] and again["tuned"] == report["tuned"]


def test_a_batch_gets_all_arms_and_seeds_at_once_and_later_what_is_missing(toy):
    (report,) = toy.check("batched")
    assert toy.lines("passes") == ["method,baseline 0,1,2"] and report["verdict"] == "supported"
    toy.check("batched", seeds=5)
    assert toy.lines("passes")[1:] == ["method,baseline 3,4"] and len(toy.lines("ran")) == 10
    toy.check("batched", seeds=5)
    assert len(toy.lines("passes")) == 2


def test_workers_share_out_the_arms_of_a_batch_that_goes_by_arms(toy):
    (report,) = toy.check("by_arm", workers=2)
    assert sorted(toy.lines("passes")) == ["baseline 0,1,2", "method 0,1,2"] and report["verdict"] == "supported"
    toy.check("by_arm", seeds=5, workers=2)
    assert sorted(toy.lines("passes")) == ["baseline 0,1,2", "baseline 3,4", "method 0,1,2", "method 3,4"]


def test_until_verdict_looks_again_with_narrower_error(toy):
    (report,) = toy.check("close", until_verdict=True)
    counts = looks(3, 20)
    assert report["verdict"] == "supported" and report["n"] in counts[1:]
    assert report["alpha"] == look_alpha(counts.index(report["n"]) + 1) < 0.05
    assert len(toy.lines("ran")) == len(set(toy.lines("ran"))) == 2 * report["n"]
    assert report["command"].endswith("--until-verdict --max-seeds 20")
    events = [e for e in toy.events if e.kind == "verdict"]
    assert len(events) == 1 and events[0].entry == report


def test_until_verdict_ends_at_max_seeds_and_settles_each_claim_by_itself(toy):
    null, better = toy.check("null", "better", until_verdict=True, max_seeds=6)
    assert null["verdict"] == "inconclusive" and null["n"] == 6
    assert better["verdict"] == "supported" and better["n"] < 6


def test_beyond_twice_the_time_no_seed_after_the_third_starts(toy, monkeypatch):
    monkeypatch.setitem(importlib.import_module("precis.lab.check").BUDGET, "full", 0.0)
    toy.check("better", "batched", profile="full", seeds=5)
    late = {e.entry["id"]: e.entry for e in toy.events if e.kind == "verdict"}
    for report in late.values():
        assert report["seeds"] == [0, 1, 2] and report["verdict"] == "supported"
        assert "stopped after 3 of 5 seeds: beyond twice the time that full is meant for" in report["reason"]
    assert toy.lines("passes") == ["method,baseline 0,1,2"] and len(toy.lines("ran")) == 15
    monkeypatch.undo()
    assert toy.check("better", profile="full", seeds=5)[0]["n"] == 5


def test_events_count_to_the_end_and_carry_scalars(toy):
    toy.check("better", "tuned")
    done = [e for e in toy.events if e.kind == "done"]
    assert done[-1].done == done[-1].planned == 27 and done[-1].left == 0.0
    assert [e.done for e in done] == sorted(e.done for e in done)
    started = {(e.claim, e.arm, e.seed) for e in toy.events if e.kind == "start"}
    assert {(e.claim, e.arm, e.seed) for e in done} == started
    logs = [e for e in toy.events if e.kind == "log"]
    assert any(e.step == e.total == 3 and e.scalars == {"loss": pytest.approx(1 / 3)} for e in logs)


def test_a_listener_can_stop_the_check_and_it_goes_on_later(toy):
    def stop(event):
        if event.kind == "done" and event.done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        toy.check("better", listen=stop)
    (report,) = toy.check("better")
    assert report["verdict"] == "supported"
    cached = [e for e in toy.events if e.kind == "done" and e.cached]
    assert len(cached) == 4
    assert [f for f in (toy.home / "scratch").iterdir() if f.name != "all.lock"] == []


def test_a_trial_prints_nothing_here(toy, capfd):
    toy.check("better")
    assert capfd.readouterr() == ("", "")


def test_pictures_become_artefacts(toy):
    (report,) = toy.check("writes")
    with Ledger(toy.home, read_only=True) as ledger:
        for trial in ledger.trials(report["keys"]).values():
            (image,) = trial.record["images"]
            assert image == {"name": "noise", "file": f"noise-{trial.seed}.png", "step": trial.seed}
            assert ledger.artefact(trial.record["files"][image["file"]]).read_bytes()[1:4] == b"PNG"
        assert ledger.verify() == []


def test_code_that_changes_while_it_is_checked_is_told(toy, tmp_path):
    paper = PaperSource("toy_paper_edited", tmp_path / "edited")
    shutil.copytree(Path(__file__).parent / "toy_paper", paper.folder)
    file = paper.folder / "claims.py"

    def edit(event):
        if event.kind == "plan":
            file.write_text(file.read_text().replace("0.1 * _noise", "0.2 * _noise"))

    claims = claims_of(paper)
    with pytest.raises(RunFailed, match="toy_paper_edited/better changed while it was being checked"):
        check([(paper, claims["better"])], device="cpu", home=toy.home, engine=toy.engine, listen=edit)


def test_a_shared_training_is_done_once_a_seed(toy):
    toy.check("sharing")
    assert sorted(toy.lines("trained")) == ["0", "1", "2"]


def test_of_preconditions_that_fail_no_more_seeds_are_run(toy, monkeypatch):
    from precis.lab import Precondition

    claim = claims_of(TOY)["null"]
    monkeypatch.setattr(claim, "preconditions", (Precondition("score", "method", at_least=0.0, why="not fitted"),))
    (report,) = toy.check("null", until_verdict=True)
    assert report["verdict"] == "inconclusive" and "not fitted" in report["reason"] and report["n"] == 3


def test_nothing_asked_is_nothing_done(toy):
    assert toy.check() == []


def test_a_claim_without_a_trial_says_so(toy):
    (report,) = toy.check("unfinished")
    assert "Unfinished gives neither trial nor batch" in report["failures"][0]["error"]


def test_what_a_trial_leaves_switched_reaches_no_other(toy):
    with LocalEngine(1) as alone:
        (report,) = toy.check("leaky", engine=alone)
    assert {m["bytes"] for of in report["metrics"].values() for m in of.values()} == {4.0}


def test_time_left_of_single_trials_and_of_a_batch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter(None)
    meter.workers = 2
    meter.plan("single", 4)
    assert meter.left() is None
    meter.begin("single", "a", 1)
    now[0] = 5.0
    meter.moved("a", 1, 2)
    assert meter.left() == pytest.approx((40.0 - 5.0) / 2)      # four of ten seconds, of which five have passed
    meter.end("single", 8.0)
    meter.row_of("a")
    assert meter.left() == pytest.approx(3 * 8.0 / 2)
    meter.plan("batch", 10)
    meter.begin("batch", "b", 10)
    now[0] = 15.0
    meter.moved("b", 1, 10)
    assert meter.left() == pytest.approx(90.0)                  # a batch is not split: 100 s, ten have passed
