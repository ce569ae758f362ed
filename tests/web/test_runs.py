"""Runs from the form to the files: queue, live events, stop, resume, a restarted site, runs of the command line."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import BASE
from tests.web.toys import picture

from precis.lab.ledger import Ledger
from precis.web.app import make_app
from precis.web.live import POINTS, Digest
from precis.web.queue import threads_of_run
from precis.web.runs import Runs


def start(site: TestClient, paper: str, data: dict[str, Any], kind: str = "run", **files: Any) -> str:
    answer = site.post(f"/papers/{paper}/{kind}", data=data, files=files or None)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def told(stream: str) -> list[tuple[str, str, str]]:
    """(event, id, data) of server-sent events."""
    found = []
    for block in stream.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            found.append((lines.get("event", ""), lines.get("id", ""), lines["data"]))
    return found


def test_a_run_on_an_upload(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path) -> None:
    sent = {"input-from": "upload", "steps": "3", "keep": "on", "from_": "left"}
    run = start(site, ids[0], sent, input=("my <b>photo</b>.png", picture()), over=("x.png", picture((4, 4))))
    state = ended(run)
    assert state["state"] == "finished", site.get(run).text
    assert state["step"] == state["total"] == 3 and state["scalars"]["loss"] == pytest.approx(1 / 3)
    assert [point[0] for point in state["curves"]["loss"]] == [1, 2, 3]
    page = site.get(run).text
    assert "painted.png" in page and "loss" in page and "<b>photo" not in page and "Download all" in page
    result = json.loads(site.get(f"{run}/files/result.json").content)
    assert (
        result["settings"]["from_"] == "left" and result["settings"]["keep"] is True and not result["settings"]["flip"]
    )
    assert result["settings"]["over"].endswith("x.png")
    saved = Path(result["input"])
    assert saved.read_bytes() == picture() and saved.is_relative_to(home / "site" / "uploads")
    archive = zipfile.ZipFile(io.BytesIO(site.get(f"{run}/zip").content))
    name = run.rsplit("/")[-1]
    assert archive.testzip() is None
    assert {f"{name}/{n}" for n in ("painted.png", "result.json", "deep/weights.bin", "<b>bold<b>.txt")} <= set(
        archive.namelist()
    )
    assert archive.read(f"{name}/deep/weights.bin") == site.get(f"{run}/files/deep/weights.bin").content
    assert "&lt;i&gt;3" in page and "<i>3" not in page and "<b>bold" not in page
    assert run in site.get("/runs").text and run in site.get(f"/papers/{ids[0]}").text


def test_weights_are_a_file_that_the_job_opens_itself(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any]
) -> None:
    weights = len(header := b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}').to_bytes(8, "little")
    run = start(site, ids[0], {"steps": "1"}, over=("net.safetensors", weights + header + b"\0\0\0\0"))
    assert ended(run)["state"] == "finished"
    result = json.loads(site.get(f"{run}/files/result.json").content)
    assert result["settings"]["over"].endswith("net.safetensors")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * (80 << 20))
    refused = site.post(f"/papers/{ids[0]}/run", files={"over": ("net.pt", packed.getvalue())})
    assert refused.status_code == 400 and "200 times" in refused.text


def test_a_finished_run_and_a_table_are_options_of_another(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path
) -> None:
    page = site.get(f"/papers/{ids[0]}").text
    assert "no run that would do yet" in page and "Without a file: auto." in page
    first = start(site, ids[0], {"input-from": "sample"})
    assert ended(first)["state"] == "finished"
    name = first.rsplit("/")[-1]
    page = site.get(f"/papers/{ids[0]}").text
    assert f'<option value="{name}">{name} · the built-in sample' in page and '<datalist id="l-brush">' in page
    sent = {"input-from": "sample", "before": name, "brush": name}
    second = start(site, ids[0], sent, marks=("marks.csv", b"file,label\na.png,x\n"))
    assert ended(second)["state"] == "finished", site.get(second).text
    settings = json.loads(site.get(f"{second}/files/result.json").content)["settings"]
    assert settings["before"] == settings["brush"] == str(home / "runs" / name)
    assert Path(settings["marks"]).read_bytes() == b"file,label\na.png,x\n"
    assert Path(settings["marks"]).is_relative_to(home / "site" / "uploads")
    counted = start(site, ids[1], {"input-from": "sample"})
    assert ended(counted)["state"] == "finished"
    for other in (counted.rsplit("/")[-1], "../runs/" + name, str(home / "runs" / name), "."):
        sent = {"input-from": "sample", "before": other}
        answer = site.post(f"/papers/{ids[0]}/run", data=sent, headers={"accept": "application/json"})
        assert answer.status_code == 400 and "no finished run" in answer.json()["error"], other


def test_several_files_are_one_set(site: TestClient, ids: tuple[str, str], home: Path) -> None:
    files = [("input", (f"set/class{i}/p.png", picture())) for i in range(3)]
    answer = site.post(
        f"/papers/{ids[0]}/run", data={"input-from": "upload"}, files=files, headers={"accept": "application/json"}
    )
    assert answer.status_code == 400 and "looks like" in answer.json()["error"]  # this job takes one picture
    from starlette.datastructures import UploadFile

    from precis.web.uploads import save

    sent = [UploadFile(io.BytesIO(b"x"), size=1, filename=f"set/class{i}/p.png") for i in range(2)]
    made = save([*sent, UploadFile(io.BytesIO(b"y"), size=1, filename="../../set/class1/p.png")], home / "u")
    assert made.is_relative_to(home / "u")
    kept = sorted(p.relative_to(home / "u").as_posix() for p in (home / "u").rglob("*") if p.is_file())
    assert len(kept) == 3 and sum("class1" in name for name in kept) == 2


def test_events_from_any_offset_lose_nothing(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path
) -> None:
    run = start(site, ids[0], {"steps": "40", "pause": "0.03"})
    with site.stream("GET", f"{run}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = told("".join(answer.iter_text()))
    assert [e for e, _, _ in events][-1] == "end" and json.loads(events[-1][2]) == "finished"
    messages = [json.loads(data) for event, _, data in events if not event]
    steps = [x for m in messages for x, _ in m["curves"].get("loss", [])]
    assert steps == sorted(steps) and set(steps) == set(range(1, 41)) and len(messages) >= 2
    numbers = [int(number) for event, number, _ in events if not event]
    size = (home / run[1:] / "events.jsonl").stat().st_size
    assert numbers == sorted(numbers) and numbers[-1] == size
    for offset in (numbers[0], numbers[len(numbers) // 2], numbers[0] + 7):
        again = told(site.get(f"{run}/events", headers={"last-event-id": str(offset)}).text)
        rest = [x for _, _, data in again[:-1] for x, _ in json.loads(data)["curves"].get("loss", [])]
        before = [x for n, m in zip(numbers, messages) if n <= offset for x, _ in m["curves"].get("loss", [])]
        missing = set(range(1, 41)) - set(before) - set(rest)
        assert not missing or (offset == numbers[0] + 7 and len(missing) == 1)  # the line that the offset cuts
    assert len(told(site.get(f"{run}/events?from={size}").text)) == 1
    beyond = told(site.get(f"{run}/events?from={size + 10**6}").text)
    assert json.loads(beyond[0][2])["reset"] is True


def test_stop_and_go_on(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path) -> None:
    run = start(site, ids[1], {"steps": "200", "pause": "0.05"})
    ended(run, "running")
    while ended(run, "running")["step"] is None:
        time.sleep(0.05)
    assert "Stop" in site.get(run).text
    assert site.post(f"{run}/stop").status_code == 303
    assert ended(run)["state"] == "stopped"
    page = site.get(run).text
    assert "Go on" in page and "--resume goes on" in page
    assert site.post(f"{run}/resume").status_code == 303
    end = time.monotonic() + 240
    while not any(n.startswith("began at ") and n != "began at 0" for n in site.get(f"{run}/state").json()["notes"]):
        assert time.monotonic() < end
        time.sleep(0.05)
    site.post(f"{run}/stop")
    assert ended(run)["state"] == "stopped"


def test_bad_input_found_late_has_the_same_words(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any]
) -> None:
    run = start(site, ids[0], {"title": "late"})
    assert ended(run)["state"] == "refused"
    assert "row 3: the row is empty" in site.get(run).text
    failed = start(site, ids[1], {"fail": "diverged"})
    assert ended(failed)["state"] == "failed"
    assert "the loss is not finite at step 2" in site.get(failed).text
    broken = start(site, ids[1], {"fail": "bug"})
    assert ended(broken)["state"] == "failed" and "a bug" in site.get(broken).text


def test_one_queue_for_the_cores(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any]) -> None:
    assert [threads_of_run(n) for n in (1, 2, 4, 8, 16)] == [1, 2, 4, 4, 4]
    runs = [start(site, ids[1], {"steps": "1000", "pause": "1"}) for _ in range(3)]  # far longer than this test
    ended(runs[0], "running")
    told_now = [site.get(f"{run}/state").json() for run in runs]
    assert [t["state"] for t in told_now] == ["running", "queued", "queued"] and told_now[2]["ahead"] == 1
    site.post(f"{runs[1]}/stop")
    assert ended(runs[1])["state"] == "stopped"
    site.post(f"{runs[0]}/stop")
    ended(runs[0], "stopped")
    ended(runs[2], "running")
    site.post(f"{runs[2]}/stop")
    assert ended(runs[2])["state"] == "stopped"


def test_a_process_that_is_slow_to_come_up_is_running(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr("precis.web.queue.sys.executable", str(slow))
    runs = [start(site, ids[1], {"steps": "2"}) for _ in range(2)]
    ended(runs[0], "running")
    seen, later = set(), set()
    while True:
        second, first = (site.get(f"{run}/state").json()["state"] for run in reversed(runs))
        if first == "finished":
            break
        seen.add(first)
        later.add(second)
        time.sleep(0.05)
    assert seen == {"running"} and later == {"queued"}, "nobody overtakes it, either"
    assert ended(runs[1])["state"] == "finished"


def test_runs_outlive_the_site(home: Path, ids: tuple[str, str]) -> None:
    with TestClient(make_app(home, cores=2), base_url=BASE, follow_redirects=False) as first:
        run = start(first, ids[1], {"steps": "60", "pause": "0.05"})
        waiting = start(first, ids[1], {"steps": "2"})
        while first.get(f"{run}/state").json()["step"] is None:
            time.sleep(0.05)
    with TestClient(make_app(home, cores=2), base_url=BASE, follow_redirects=False) as second:
        assert second.get(f"{run}/state").json()["state"] == "running"
        assert second.get(f"{waiting}/state").json()["state"] == "queued"
        end = time.monotonic() + 240
        while second.get(f"{waiting}/state").json()["state"] != "finished":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert second.get(f"{run}/state").json()["state"] == "finished"


def test_a_killed_run_is_told(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path) -> None:
    run = start(site, ids[1], {"steps": "500", "pause": "0.05"})
    while site.get(f"{run}/state").json()["step"] is None:
        time.sleep(0.05)
    process = Runs(home).process(run.rsplit("/")[-1])
    assert process is not None
    os.kill(process, 9)
    assert ended(run)["state"] == "interrupted"
    assert "Go on" in site.get(run).text


def test_a_run_of_the_command_line_is_seen(
    site: TestClient, ids: tuple[str, str], ended: Callable[..., Any], home: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "precis.cli", "run", ids[1], "--steps", "30", "--pause", "0.05", "--out",
        str(home / "runs" / "by hand")],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (home / "runs" / "by hand" / "events.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert ended("/runs/by%20hand", "running")
        assert "Ctrl-C there" in site.get("/runs/by%20hand").text
        assert site.post("/runs/by%20hand/stop").status_code == 400
        assert ended("/runs/by%20hand", "finished")["step"] == 30
        assert "from the command line" in site.get("/runs").text
    finally:
        process.wait(60)


def test_a_check_and_its_claim(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any]) -> None:
    form = site.get(f"/papers/{ids[1]}/check-form").text
    assert "smoke" in form and ">full" not in form and "up_beats_down" in form
    run = start(site, ids[1], {"profile": "quick", "claim": "up_beats_down"}, kind="check")
    state = ended(run)
    assert state["state"] == "finished", site.get(run).text
    claim = f"{ids[1]}/up_beats_down"
    assert state["verdicts"][claim]["verdict"] == "supported"
    assert {arm: set(seeds.values()) for arm, seeds in state["trials"][claim].items()} == {
        "up": {"done"},
        "down": {"done"},
    }
    assert "supported" in site.get(run).text and f"/papers/{ids[1]}/up_beats_down-quick" in site.get(run).text
    page = site.get(f"/papers/{ids[1]}/up_beats_down-quick")
    assert page.status_code == 200 and "<svg" in page.text and "precis check" in page.text and "supported" in page.text
    assert "1 supported" in site.get("/").text and "supported" in site.get(f"/papers/{ids[1]}").text
    again = start(site, ids[1], {"profile": "full"}, kind="check")
    assert ended(again)["state"] == "refused" and "not run" in site.get(again).text


def test_a_view_of_a_finished_run(site: TestClient, ids: tuple[str, str], ended: Callable[..., Any]) -> None:
    run = start(site, ids[0], {"steps": "1"})
    assert ended(run)["state"] == "finished"
    window = {"x0": 0, "y0": 0, "x1": 0.5, "y1": 1, "width": 40, "height": 24}
    answer = site.get(f"{run}/view/zoom", params=window)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    from PIL import Image

    drawn = Image.open(io.BytesIO(answer.content))
    assert drawn.size == (40, 24) and drawn.getpixel((39, 3)) == 128
    place = {"azimuth": 0, "elevation": 0, "distance": 3, "width": 16, "height": 16}
    refused = site.get(f"{run}/view/orbit", params=place, headers={"accept": "application/json"})
    assert refused.status_code == 400 and "made no shape" in refused.json()["error"]
    assert site.get(f"{run}/view/orbit", params={**place, "probe": "1"}).status_code == 204
    assert site.get(f"{run}/view/other", params=window).status_code == 404
    for change in (
        {"x1": 0},
        {"x0": "nan"},
        {"x0": "inf"},
        {"width": 10**6},
        {"width": 0},
        {"height": ""},
        {"y1": "x"},
    ):
        assert site.get(f"{run}/view/zoom", params={**window, **change}).status_code == 400, change
    assert 'data-view="zoom"' in site.get(run).text


def test_search_and_families(site: TestClient, ids: tuple[str, str]) -> None:
    assert all(f"/papers/{name}" in site.get("/").text for name in ids)
    found = site.get("/?family=vision").text
    assert f'href="/papers/{ids[0]}"' in found and f'href="/papers/{ids[1]}"' not in found
    assert f'href="/papers/{ids[1]}"' in site.get("/?q=counting toy").text
    assert "No paper fits" in site.get("/?q=zzzz").text


def test_the_larger_verdict_leads_and_the_other_is_named(
    site: TestClient, ids: tuple[str, str], tmp_path: Path, home: Path
) -> None:
    paper = ids[1]
    entry = {"verdict": "contradicted", "profile": "full", "n": 5, "scale": "large", "reason": "r", "hypotheses": []}
    assets = tmp_path / "papers" / paper / "assets"
    assets.mkdir(exist_ok=True)
    recorded = {"up_beats_down": {"full": entry | {"id": f"{paper}/up_beats_down", "statement": "s"}}}
    (assets / "recorded.json").write_text(json.dumps({"claims": recorded}))
    own = entry | {"id": f"{paper}/up_beats_down", "statement": "s", "verdict": "supported", "profile": "quick", "n": 3}
    with Ledger(home) as ledger:
        ledger.save_verdict(f"{paper}/up_beats_down", "quick", own, "s")
    page = site.get(f"/papers/{paper}").text
    assert page.index("full (large, 5 seeds)") < page.index("quick (large, 3 seeds)")
    assert "recorded with the paper" in page and "yours" in page and f"/papers/{paper}/up_beats_down-quick" in page
    card = site.get(f"/?q={paper}").text
    assert "1 contradicted" in card and "1 supported" not in card


def test_the_library_follows_its_files(site: TestClient, ids: tuple[str, str], tmp_path: Path) -> None:
    before = site.get("/").text
    assert site.app.state.site.shelf.view() is site.app.state.site.shelf.view()  # type: ignore[attr-defined]
    file = tmp_path / "papers" / ids[1] / "summary.md"
    file.write_text(file.read_text().replace("Counting: a toy", "Renamed"))
    assert "Renamed" in site.get("/").text and "Renamed" not in before
    file.write_text("no front matter")
    assert "problem" in site.get("/").text and site.get(f"/papers/{ids[1]}").status_code == 404


def test_the_accuracy_of_a_training_batch_is_told_from_the_metric() -> None:
    digest = Digest()
    line = {"event": "log", "step": 1, "total": 9, "scalars": {"loss": 0.5, "accuracy": 0.75}}
    digest.feed(json.dumps(line).encode() + b"\n", 0)
    message = digest.message()
    assert message["scalars"] == {"loss": 0.5, "accuracy, training batch": 0.75}
    assert list(message["curves"]) == ["loss", "accuracy, training batch"]


def test_a_digest_is_bounded() -> None:
    digest, whole = Digest(), b""
    for i in range(20_000):
        event = {"event": "log", "step": i, "total": 20_000, "scalars": {"loss": float(i)}, "seconds": i / 10}
        whole += json.dumps(event).encode() + b"\n"
    digest.feed(whole, 0)
    points = digest.message()["curves"]["loss"]
    assert len(points) <= 2 * POINTS + 1 and points[-1] == (19_999, 19_999.0) and points[0] == (0, 0.0)
    assert digest.left() == pytest.approx(0.1, abs=0.01) and digest.offset == len(whole)
    for i in range(1, 4):  # another phase, of ten seconds a step
        event = {"event": "log", "step": i, "total": 10, "scalars": {}, "seconds": 2000 + 10 * i}
        digest.feed(json.dumps(event).encode() + b"\n", digest.offset)
    assert digest.left() == pytest.approx(70)
    digest.feed(whole[-100:].split(b"\n")[-2] + b"\n", digest.offset)
    digest.feed(b'not json\n{"event": "log"}\n[]\n{"event": "image"}\n', digest.offset)
    assert digest.message()["step"] == 19_999
