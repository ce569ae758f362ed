"""Cases of test_ray.py, which runs this file in one process: a cluster here, of a head and two nodes of one CPU each.

Each node has a folder for temporary files of its own, so that what reaches a node came over Ray.
"""

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.conftest import until  # noqa: F401
from tests.lab.toys import TOY, Toy

from precis.errors import InputError, RunFailed
from precis.lab.check import check, sweep
from precis.lab.engine import Engine, LocalEngine
from precis.lab.ledger import Ledger
from precis.lab.loading import PaperSource, claims_of
from precis.lab.ray_engine import RayEngine

ray = pytest.importorskip("ray", reason="no ray here: pip install ray")


class Nodes:
    """The cluster; `folder` is where trials note what they did."""

    def __init__(self, base: Path) -> None:
        from ray.cluster_utils import Cluster

        self.base, self.folder = base, base / "toy"
        self.folder.mkdir()
        store = {"object_store_memory": 80 << 20, "include_dashboard": False, "include_log_monitor": False}
        head = {"num_cpus": 0, "no_monitor": True, **store, **self.variables("head")}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.store, self.nodes = store, {"head": None}
        self.add("one")
        self.add("two")

    def variables(self, name: str) -> dict[str, dict[str, str]]:
        (self.base / name).mkdir()
        path = os.pathsep.join(p for p in sys.path if p)
        return {"env_vars": {"TMPDIR": str(self.base / name), "TOY": str(self.folder), "PYTHONPATH": path}}

    def add(self, name: str) -> None:
        self.nodes[name] = self.cluster.add_node(num_cpus=1, **self.store, **self.variables(name))

    def kill(self, name: str) -> None:
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def left(self) -> list[str]:
        """What engines left in the folders of the nodes that live."""
        found = [p.name for name in self.nodes for p in (self.base / name).glob("precis-ray-*/*")]
        return [name for name in found if name != "all.lock"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    os.environ["TOY"] = str(made.folder)
    yield made
    ray.shutdown()
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def engine(nodes: Nodes) -> Iterator[RayEngine]:
    """One for all cases, within a connection that outlives it: worker processes take seconds to start."""
    ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    with RayEngine(nodes.cluster.address) as made:
        yield made


@pytest.fixture(scope="module")
def here(nodes: Nodes) -> Iterator[LocalEngine]:
    """What the same checks are compared with: one process of this machine."""
    with LocalEngine(1) as made:
        yield made


@pytest.fixture
def toy(nodes: Nodes, engine: RayEngine, tmp_path: Path) -> Toy:
    for file in nodes.folder.iterdir():
        file.unlink()
    return Toy(nodes.folder, tmp_path / "home", engine)  # type: ignore[arg-type]


def rows(home: Path) -> dict[str, tuple]:
    """key -> (arm, seed, metrics, files)"""
    if not (home / "ledger.sqlite").exists():
        return {}
    with closing(sqlite3.connect(home / "ledger.sqlite", timeout=30)) as db:
        try:
            found = db.execute("SELECT key, arm, seed, metrics, record FROM trials").fetchall()
        except sqlite3.OperationalError:        # the table is just being made
            return {}
    return {key: (arm, seed, metrics, json.loads(record).get("files")) for key, arm, seed, metrics, record in found}


def locally(toy: Toy, here: LocalEngine, *names: str, **options) -> dict[str, tuple]:
    home = toy.home.with_name("local")
    toy.check(*names, home=home, engine=here, **options)
    return rows(home)


def test_the_same_rows_as_on_one_machine_bit_for_bit(toy, here):
    names = ("close", "batched", "writes", "sharing", "threads", "tuned")
    reports = toy.check(*names)
    for file in toy.folder.iterdir():
        file.unlink()
    assert isinstance(toy.engine, Engine) and toy.engine.workers == 2
    assert rows(toy.home) == locally(toy, here, *names) and len(rows(toy.home)) > 30
    assert all(report["failures"] == [] for report in reports)
    assert {event.kind for event in toy.events} >= {"plan", "start", "log", "done", "verdict"}
    with Ledger(toy.home) as ledger:
        assert ledger.verify() == []
    assert [f.name for f in (toy.home / "scratch").iterdir()] == ["all.lock"]


def test_a_built_in_paper_gives_the_same_bits(toy, here):
    siren = PaperSource("siren", Path(sys.modules["precis"].__file__).parent / "papers/siren", "precis.papers.siren")
    claim = [(siren, next(iter(claims_of(siren).values())))]
    (there,) = check(claim, profile="smoke", device="cpu", home=toy.home, engine=toy.engine)
    (beside,) = check(claim, profile="smoke", device="cpu", home=toy.home.with_name("local"), engine=here)
    assert there["metrics"] == beside["metrics"] and there["keys"] and not there["failures"]
    assert rows(toy.home) == rows(toy.home.with_name("local"))


def test_a_shared_training_is_made_once_for_all_nodes_and_kept_by_the_driver(toy):
    (report,) = toy.check("sharing", profile="full")
    assert sorted(toy.lines("trained")) == ["0", "1", "2", "3"] and report["verdict"] == "supported"
    digests = {t.record["shared"]["encoder"] for t in Ledger(toy.home).trials(report["keys"]).values()}
    assert {p.name for p in (toy.home / "shared").iterdir() if p.is_dir()} == digests and len(digests) == 4
    shutil.rmtree(toy.home / "scratch")
    (toy.home / "ledger.sqlite").unlink()
    toy.check("sharing", profile="full")
    assert len(toy.lines("trained")) == 4


def test_a_training_whose_maker_died_is_made_by_another(toy):
    toy.fault("die")
    (report,) = toy.check("sharing", profile="full")
    (failure,) = report["failures"]
    assert "killed by SIGKILL" in failure["error"] and failure["seed"] == 0
    assert Counter(toy.lines("trained"))["0"] == 2 and len(report["keys"]) == 7


@pytest.mark.parametrize(("fault", "words"), [("die", "killed by SIGKILL"), ("raise", "Error: the toy broke")])
def test_a_trial_that_fails_by_itself_is_told_and_not_tried_again(toy, fault, words):
    toy.fault(fault)
    (report,) = toy.check("failing")
    (failure,) = report["failures"]
    assert (failure["arm"], failure["seed"]) == ("method", 1) and words in failure["error"]
    assert len(report["keys"]) == 5 and len(toy.lines("ran")) == 5


def test_wrong_input_on_a_node_ends_the_check_in_one_line(toy):
    toy.fault("input")
    with pytest.raises(InputError, match=r"toys.txt:3: no such toy \(on the node"):
        toy.check("failing")
    toy.fault("full")
    with pytest.raises(RunFailed, match=r"the disk is full: .*\(on the node"):
        toy.check("failing")


def test_data_go_by_path_or_are_shipped(toy, here, tmp_path, monkeypatch):
    numbers, words = tmp_path / "numbers.txt", tmp_path / "more.txt"
    numbers.write_text("1 2 3")
    words.write_text("4 5")
    over = [(numbers, {"text"}), (words, {"text"}), (None, None)]
    claim = [(TOY, claims_of(TOY)["better"])]
    reports = sweep(claim, over, device="cpu", home=toy.home, engine=toy.engine)
    assert [r["data"] for r in reports] == [str(numbers), str(words), None] and len(rows(toy.home)) == 27
    assert not any(p.pieces for path, p in toy.engine._parcels.items() if path != TOY.folder)
    by_path = RayEngine._data
    monkeypatch.setattr(toy.engine, "_parcels", {})
    monkeypatch.setattr(  # data at a path that no node has
        RayEngine, "_data", lambda self, path: replace(by_path(self, path), path=f"/elsewhere/{path.name}"))
    home = toy.home.with_name("shipped")
    sweep(claim, over, device="cpu", home=home, engine=toy.engine)
    assert all(p.pieces for p in toy.engine._parcels.values()) and len(toy.engine._parcels) == 3
    assert rows(home) == rows(toy.home)
    assert rows(home).keys() == locally(toy, here, "better", data=numbers).keys() | locally(
        toy, here, "better", data=words).keys() | locally(toy, here, "better").keys()


def trials(nodes: Nodes, name: str = "") -> set[int]:
    """Processes of trials: those that have the node's (any node's) folder in their environment and run precis's
    worker."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            mine = str(nodes.base / name).encode() in (place / "environ").read_bytes()
            if mine and b"precis.lab.worker" in (place / "cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            continue
    return found


def test_a_node_that_dies_loses_no_trial(toy, here, nodes, until, caplog):  # noqa: F811
    """Both nodes are in the midst of a trial when one of them is killed."""
    toy.fault("0")
    killed = []

    def listen(event):
        if event.kind == "start" and not killed and len(events := [e for e in toy.events if e.kind == "start"]) == 2:
            until(lambda: len(toy.lines("begun")) == 2)
            nodes.kill("two")
            until(lambda: not trials(nodes, "two"))
            killed.extend(events)
            toy.mend()

    (report,) = toy.check("held", profile="full", listen=lambda event: (toy.events.append(event), listen(event)))
    assert killed and report["failures"] == [] and report["verdict"] == "supported" and len(report["keys"]) == 8
    assert "was lost and starts again" in caplog.text and "NodeDied" not in str(report)
    assert len(toy.lines("begun")) == 9 and len(toy.lines("ran")) == 8
    nodes.add("three")
    assert rows(toy.home) == locally(toy, here, "held", profile="full")


def started(toy: Toy, nodes: Nodes, *words: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PRECIS_HOME": str(toy.home),
           "PRECIS_PAPERS": str(TOY.folder.parent)}
    command = [sys.executable, "-m", "precis", *words, "--engine", "ray", "--address", nodes.cluster.address, "--json"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def test_a_check_whose_driver_was_killed_goes_on(toy, nodes, until):  # noqa: F811
    others = trials(nodes)
    process = started(toy, nodes, "check", "toy_paper/better", "--profile", "full")
    until(lambda: len(rows(toy.home)) >= 3)
    process.kill()
    process.communicate()
    before = rows(toy.home)
    until(lambda: trials(nodes) <= others)
    ran = Counter(toy.lines("ran"))
    (report,) = toy.check("better", profile="full")
    assert report["verdict"] == "supported" and len(rows(toy.home)) == 12
    assert rows(toy.home).items() >= before.items()
    twice = Counter(toy.lines("ran")) - ran
    assert not set(twice) & {f"better {arm} {seed}" for arm, seed, *_ in before.values()}


def test_ctrl_c_ends_the_trials_and_keeps_what_was_finished(toy, nodes, until):  # noqa: F811
    others = trials(nodes)
    process = started(toy, nodes, "check", "toy_paper/better", "--profile", "full")
    until(lambda: len(rows(toy.home)) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "", err
    assert err.strip().splitlines()[-1].startswith("precis: interrupted; finished trials are kept"), err
    assert 2 <= len(rows(toy.home)) < 12 and [f.name for f in (toy.home / "scratch").iterdir()] == ["all.lock"]
    until(lambda: trials(nodes) <= others)
    own = toy.engine._name
    until(lambda: {name.removesuffix(".owner") for name in nodes.left()} <= {own})  # the killed driver's are gone, too


def test_an_engine_that_closes_clears_the_nodes_and_keeps_the_connection(engine, nodes):
    engine.close()
    assert ray.is_initialized() and nodes.left() == []


def test_when_the_head_dies_one_line_says_so_and_the_check_goes_on(nodes, here, until, tmp_path):  # noqa: F811
    """The last case: it takes the cluster's head away, and Ray would end this process, too, were it connected."""
    ray.shutdown()
    toy = Toy(nodes.folder, tmp_path / "home", here)
    for file in nodes.folder.iterdir():
        file.unlink()
    toy.fault("2")
    process = started(toy, nodes, "check", "toy_paper/held", "--profile", "full")
    until(lambda: len(rows(toy.home)) == 4 and len(toy.lines("begun")) == 6)
    address = nodes.cluster.address
    nodes.cluster.head_node.kill_gcs_server()
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (1, ""), err
    assert err.splitlines()[-1] == (
        f"precis: the head of the Ray cluster at {address} is gone: what was finished is kept, and the same command "
        "goes on when there is a cluster again")
    before = rows(toy.home)
    assert len(before) == 4 and [f.name for f in (toy.home / "scratch").iterdir()] == ["all.lock"]
    toy.mend()
    (report,) = toy.check("held", profile="full")
    assert report["verdict"] == "supported" and len(report["keys"]) == 8
    assert rows(toy.home).items() >= before.items()
    assert all(toy.lines("ran").count(f"held {arm} {seed}") == 1 for arm, seed, *_ in before.values())
