import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.papers.toys import write_toy
from tests.web.browser_help import browsing
from tests.web.toys import write_paint

from precis.web.app import make_app

BASE = "http://127.0.0.1:8321"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PRECIS_PAPERS", str(tmp_path / "papers"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PRECIS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all tests; each opens a profile of its own in it."""
    with browsing() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def ids(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """(a paper that paints, a paper that counts), by names that no other test uses: a folder is imported once."""
    stem = "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[:40]
    names = (f"paint_{stem}", f"count_{stem}")
    write_paint(tmp_path / "papers", names[0])
    write_toy(tmp_path / "papers", names[1])
    return names


@pytest.fixture
def site(home: Path, ids: tuple[str, str]) -> Iterator[TestClient]:
    with TestClient(make_app(home, cores=2), base_url=BASE, follow_redirects=False) as client:
        yield client
        for run in client.app.state.site.runs.active():  # type: ignore[attr-defined]
            client.post(f"/runs/{run.id}/stop")
            client.post(f"/runs/{run.id}/stop")


@pytest.fixture
def ended(site: TestClient) -> Callable[..., dict[str, Any]]:
    """Wait until a run is in one of these states; the answer of /state."""

    def wait(run: str, *states: str, seconds: float = 240.0) -> dict[str, Any]:
        states = states or ("finished", "failed", "refused", "stopped", "interrupted")
        end = time.monotonic() + seconds
        while True:
            told: dict[str, Any] = site.get(f"{run}/state").json()
            if told["state"] in states:
                return told
            assert time.monotonic() < end, f"it is still {told['state']}"
            time.sleep(0.05)

    return wait
