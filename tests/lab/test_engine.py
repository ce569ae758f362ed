import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.toys import TOY

from precis.errors import InputError, RunFailed
from precis.lab.engine import Engine, LocalEngine, Progress, Result, _cards, _environment, cores
from precis.lab.loading import claims_of
from precis.lab.plan import make_plans
from precis.lab.worker import Task


def tasks(toy, name: str, seeds: int = 3, profile: str = "quick") -> list[Task]:
    (plan,) = make_plans([(TOY, claims_of(TOY)[name])], profile, None, None, None, "cpu", False, 20)
    group = plan.group
    scratch = toy.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return [group.task((arm,), (seed,), {}, scratch, toy.home) for seed in range(seeds) for arm in plan.arms]


def results(found) -> dict[tuple[str, int], Result]:
    return {(r.arm, r.seed): r for r in found if isinstance(r, Result)}


def test_a_task_survives_json(toy):
    (task, *_) = tasks(toy, "better")
    assert Task.from_json(task.to_json()) == task


def test_results_come_for_every_task_with_what_was_measured(toy):
    found = list(toy.engine.run(tasks(toy, "better")))
    got = results(found)
    assert isinstance(toy.engine, Engine) and len(got) == 9
    for result in got.values():
        assert result.error is None and result.metrics.keys() == {"score"} and result.folder is None
        assert result.seconds > 0 and result.peak_memory_mb > 1 and "cores" in result.host
        assert result.record["curves"]["line"]["y"][1] == result.metrics["score"]
        assert result.versions["python"] == sys.version.split()[0]
    assert {(p.arm, p.seed) for p in found if isinstance(p, Progress)} == set(got)


def test_the_same_trial_gives_the_same_bits_in_another_process(toy):
    wanted = tasks(toy, "close")
    here = {k: r.metrics for k, r in results(toy.engine.run(wanted)).items()}
    with LocalEngine(1) as other:
        there = {k: r.metrics for k, r in results(other.run(reversed(wanted))).items()}
    assert here == there


@pytest.mark.parametrize(("fault", "message"), [
    ("die", "the worker process was killed by SIGKILL"), ("exit", "ended with exit code 7"), ("raise", "the toy broke"),
])
def test_a_worker_that_ends_fails_its_own_trial_alone(toy, fault, message):
    toy.fault(fault)
    got = results(toy.engine.run(tasks(toy, "failing")))
    assert len(got) == 6 and [k for k, r in got.items() if r.error] == [("method", 1)]
    assert message in got["method", 1].error and got["method", 1].metrics is None
    toy.mend()
    assert not any(r.error for r in results(toy.engine.run(tasks(toy, "failing"))).values())


def test_what_a_dying_worker_printed_is_in_its_error(toy):
    toy.fault("die")
    list(toy.engine.run(tasks(toy, "better", seeds=1)))
    (bad,) = [r for r in results(toy.engine.run(tasks(toy, "talks"))).values() if r.error]
    assert "my last words" in bad.error and "a trial prints" not in bad.error


def test_input_errors_and_a_full_disk_end_the_run(toy):
    toy.fault("input")
    with pytest.raises(InputError, match=r"toys.txt:3: no such toy"):
        list(toy.engine.run(tasks(toy, "failing")))
    toy.fault("full")
    with pytest.raises(RunFailed, match="the disk is full: what was finished is kept"):
        list(toy.engine.run(tasks(toy, "failing")))
    toy.mend()
    assert len(results(toy.engine.run(tasks(toy, "failing")))) == 6


def test_tasks_are_asked_for_only_when_one_can_start(toy):
    asked = []

    def slowly():
        for task in tasks(toy, "better"):
            asked.append(task)
            yield task

    running = toy.engine.run(slowly())
    next(running)
    assert len(asked) == 1
    ended = 0
    for got in running:
        ended += isinstance(got, Result)
        assert len(asked) <= ended + toy.engine.workers + 1
    assert ended == 9


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_leaving_early_ends_busy_workers_and_close_ends_all(toy):
    engine = LocalEngine(2)
    running = engine.run(tasks(toy, "better", profile="full"))
    for got in running:
        if isinstance(got, Result):
            break
    pids = [w.process.pid for w in engine._alive]
    assert len(pids) == 2 and all(map(alive, pids))
    with pytest.raises(RuntimeError, match="running already"):
        next(engine.run([]))
    running.close()
    assert not any(alive(pid) for pid in pids if pid not in [w.process.pid for w in engine._alive])
    assert len(results(engine.run(tasks(toy, "better", seeds=1)))) == 3
    pids = [w.process.pid for w in engine._alive]
    engine.close()
    assert not any(map(alive, pids))


def test_a_worker_ends_with_what_it_started_when_its_parent_is_gone(toy, until):
    (task, *_) = tasks(toy, "starts")
    script = (
        "import json, sys\nfrom precis.lab.engine import LocalEngine\nfrom precis.lab.worker import Task\n"
        "for got in LocalEngine(1).run([Task.from_json(json.loads(sys.argv[1]))]): pass")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    parent = subprocess.Popen([sys.executable, "-c", script, json.dumps(task.to_json())], env=env)
    until(lambda: len(toy.lines("pids")) == 2)
    pids = [int(line) for line in toy.lines("pids")]
    assert all(map(alive, pids))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not any(map(alive, pids)))


def test_a_worker_that_cannot_start_is_told_once(toy, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with LocalEngine(2) as engine, pytest.raises(RunFailed, match="a worker process could not start: .*exit code 1"):
        list(engine.run(tasks(toy, "better")))


def test_threads_are_fixed_by_the_task(toy):
    (task, *_) = tasks(toy, "threads")
    with LocalEngine(1, threads=2) as engine:
        (got,) = results(engine.run([replace(task, threads=2)])).values()
    assert got.metrics == {"torch": 2.0, "omp": 2.0, "interop": 1.0, "hash": 0.0}


def test_environment_and_cards(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert _environment(1, 2, 1.0)["CUDA_VISIBLE_DEVICES"] == "5"
    assert _environment(1, 2, 0.0)["CUDA_VISIBLE_DEVICES"] == "3, 5"
    assert [_cards(i, 0.25, ["0", "1"]) for i in range(8)] == [["0"]] * 4 + [["1"]] * 4
    assert [_cards(i, 2.0, ["0", "1", "2", "3"]) for i in range(2)] == [["0", "1"], ["2", "3"]]
    assert cores() >= 1
