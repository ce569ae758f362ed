"""10,000 empty trials through the real check, engine and ledger: what a trial costs beside its own work.

    python -m benchmarks cluster

`trials/s` is of the whole check, verdict included; `engine alone` has no ledger behind it.  The cluster is Ray's own
for tests, on this machine: a head and two nodes of one CPU each, so driver, nodes and trials share its cores.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from precis.lab.check import check
from precis.lab.engine import LocalEngine, Result
from precis.lab.loading import PaperSource, claims_of
from precis.lab.plan import make_plans

TRIALS = 10_000
EMPTY = PaperSource("empty_paper", Path(__file__).parent / "empty_paper")


def rows(trials: int = TRIALS) -> list[dict[str, Any]]:
    """One row an engine."""
    with tempfile.TemporaryDirectory() as folder:
        with LocalEngine(2) as engine:
            found = [_row("2 processes here", engine, Path(folder) / "local", trials // 5)]
        with _cluster() as address:
            from precis.lab.ray_engine import RayEngine

            with RayEngine(address) as engine:
                found.append(_row("ray, 2 nodes here", engine, Path(folder) / "ray", trials))
    return found


def _row(what: str, engine: Any, home: Path, trials: int) -> dict[str, Any]:
    claims = [(EMPTY, claims_of(EMPTY)["empty"])]
    check(claims, seeds=10, device="cpu", home=home.with_name(f"{home.name}-warm"), engine=engine)
    alone = _alone(claims, engine, home.with_name(f"{home.name}-alone"), trials // 10)
    start = time.perf_counter()
    (report,) = check(claims, seeds=trials // 2, device="cpu", home=home, engine=engine)
    seconds = time.perf_counter() - start
    if len(report["keys"]) != trials:
        raise RuntimeError(f"{len(report['keys'])} of {trials} trials finished: {report['failures'][:1]}")
    size = (home / "ledger.sqlite").stat().st_size
    return {"what": what, "trials": trials, "seconds": seconds, "trials/s": trials / seconds,
            "ms a trial": 1e3 * seconds / trials, "ms, engine alone": 1e3 * alone,
            "ledger KB a row": size / 1e3 / trials}


def _alone(claims: list[Any], engine: Any, home: Path, trials: int) -> float:
    """Seconds a trial when nobody keeps the results."""
    (plan,) = make_plans(claims, "quick", None, None, trials // 2, "cpu", False, 20)
    assert plan.group is not None
    tasks = [plan.group.task((arm,), (seed,), {}, home, home) for seed in range(trials // 2) for arm in plan.arms]
    start = time.perf_counter()
    ended = sum(isinstance(got, Result) for got in engine.run(tasks))
    return (time.perf_counter() - start) / ended


@contextmanager
def _cluster() -> Iterator[str]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    logging.getLogger("ray").setLevel(logging.ERROR)
    from ray.cluster_utils import Cluster

    shape = {"object_store_memory": 100 << 20, "include_dashboard": False,
             "env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **shape})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **shape)
        yield cluster.address
    finally:
        cluster.shutdown()
