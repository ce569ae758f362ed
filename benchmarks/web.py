"""The site under load: its first page with 60 papers and 10,000 trials in the ledger, and pages that watch one run.

`library page`: milliseconds from the question to the last byte, over a kept connection to a server process of its own
(first: of this server; changed: a verdict has come since).  `claim page, first`: the recorded claims of the papers that
have the most charts, each drawn for the first time.  `watchers`: CPU seconds of that
process in `SECONDS` while a run writes `PACE` events a second, with as many pages that follow it (Linux).
"""

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from precis.lab.ledger import Ledger, Trial
from precis.papers.catalogue import find
from precis.papers.work import RunFolder

PAPERS, CLAIMS, TRIALS = 60, 8, 10_000
SECONDS, PACE = 20.0, 10.0
CHARTED = ("nerf", "nerfies", "siren")
FAMILIES = ("fields", "generative", "vision", "graphs")


def rows(requests: int = 100, watchers: tuple[int, ...] = (0, 50)) -> list[dict[str, Any]]:
    """Latency first, then the cost of the pages that watch."""
    with tempfile.TemporaryDirectory() as folder:
        home, papers = Path(folder) / "home", Path(folder) / "papers"
        _papers(papers)
        with Ledger(home) as ledger:
            for i in range(TRIALS):
                ledger.add(_trial(i), None)
            for paper in range(PAPERS):
                for claim in range(CLAIMS):
                    ledger.save_verdict(f"paper_{paper:02d}/claim_{claim}", "quick", _verdict(paper, claim), "s")
        with _serving(home, papers) as (port, process):
            found = [*_library(port, home, requests), _claims(port)]
            with _a_run(home):
                found += [_watched(port, process, count) for count in watchers]
    return found


def _library(port: int, home: Path, requests: int) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> float:
        start = time.perf_counter()
        connection.request("GET", "/")
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200 and text.count(b'<li class="card"') >= PAPERS
        return 1e3 * (time.perf_counter() - start)

    first = ask()
    again = [ask() for _ in range(requests)]
    changed = []
    with Ledger(home) as ledger:
        for i in range(10):
            ledger.save_verdict("paper_00/claim_0", "quick", _verdict(0, i), "s")
            changed.append(ask())
    return [
        {"what": f"library page, {what}", "papers": PAPERS, "trials": TRIALS, "median ms": statistics.median(times),
         "worst ms": max(times)}
        for what, times in (("first", [first]), ("again", again), ("changed", changed))
    ]  # fmt: skip


def _claims(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times, charts = [], 0
    for paper in CHARTED:
        for name, profiles in find()[paper].recorded.items():
            for profile in profiles:
                start = time.perf_counter()
                connection.request("GET", f"/papers/{paper}/{name}-{profile}")
                answer = connection.getresponse()
                text = answer.read()
                times.append(1e3 * (time.perf_counter() - start))
                assert answer.status == 200
                charts += text.count(b"<svg")
    return {"what": "claim page, first", "claims": len(times), "charts": charts, "median ms": statistics.median(times),
            "worst ms": max(times)}


def _watched(port: int, process: int, count: int) -> dict[str, Any]:
    """CPU seconds of the server while `count` pages follow the run."""
    over, heard = threading.Event(), [0] * count

    def watch(i: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/runs/live/events?from=0")
        answer = connection.getresponse()
        while not over.is_set():
            heard[i] += len(answer.readline())
        connection.close()

    threads = [threading.Thread(target=watch, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    while count and min(heard) == 0:
        time.sleep(0.05)
    before = _cpu(process)
    time.sleep(SECONDS)
    spent = _cpu(process) - before
    over.set()
    for thread in threads:
        thread.join(10)
    return {"what": f"{count} watchers of a run", "CPU s": spent, "of s": SECONDS, "share of a core": spent / SECONDS}


@contextmanager
def _a_run(home: Path) -> Iterator[None]:
    """A run of the command line that writes its events until this ends."""
    folder = home / "runs" / "live"
    folder.mkdir(parents=True)
    work = RunFolder(folder, "cpu", {"paper": "paper_00", "input": "a.png"})
    over = threading.Event()

    def write() -> None:
        step = 0
        while not over.wait(1 / PACE):
            step += 1
            work.log(step, 10**6, loss=1 / step, psnr=float(step))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        work.close()


@contextmanager
def _serving(home: Path, papers: Path) -> Iterator[tuple[int, int]]:
    """(port, process number) of `precis serve`."""
    environment = {**os.environ, "PRECIS_HOME": str(home), "PRECIS_PAPERS": str(papers)}
    command = [sys.executable, "-m", "precis", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().split()[0]
        yield int(address.rstrip("/").rpartition(":")[2]), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _papers(top: Path) -> None:
    for i in range(PAPERS):
        folder = top / f"paper_{i:02d}"
        folder.mkdir(parents=True)
        claims = "\n".join(f"  claim_{k}: The method's $m_{k}$ is above its baseline's." for k in range(CLAIMS))
        (folder / "summary.md").write_text(
            f"---\ntitle: \"A method of number {i} and what it does\"\nauthors: [A. One, B. Two, C. Three]\n"
            f"year: 2020\nvenue: NeurIPS\nfamily: {FAMILIES[i % 4]}\nclaims:\n{claims}\n---\n\n"
            + "A paragraph of its summary.\n\n" * 40
        )  # fmt: skip


def _trial(i: int) -> Trial:
    paper, rest = divmod(i, TRIALS // PAPERS)
    line = {"x": list(range(200)), "y": [1 / (k + 1) for k in range(200)]}
    return Trial(
        key=f"{i:064x}", paper=f"paper_{paper:02d}", runs="r", claim=f"claim_{rest % CLAIMS}", arm="ab"[i % 2], seed=i,
        profile="quick", settings={"steps": 300, "width": 64}, data="d", source="s", device="cpu",
        metrics={"m": i / TRIALS}, record={"scalars": {"loss": line}}, seconds=1.0, peak_memory_mb=300.0,
        versions={"torch": "2"}, host="h", finished="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def _verdict(paper: int, claim: int) -> dict[str, Any]:
    name = f"paper_{paper:02d}/claim_{claim % CLAIMS}"
    verdict = ("supported", "contradicted", "inconclusive")[(paper + claim) % 3]
    metrics = {arm: {str(seed): {"m": seed / 7} for seed in range(5)} for arm in "ab"}
    return {
        "id": name, "statement": "It is above.", "verdict": verdict, "reason": "", "profile": "quick", "n": 5,
        "scale": "small", "finished": "2026-01-01T00:00:00+00:00", "metrics": metrics, "hypotheses": [],
    }  # fmt: skip
