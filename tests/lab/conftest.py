import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from precis.lab.check import check
from precis.lab.engine import LocalEngine
from precis.lab.loading import PaperSource, claims_of

TOY = PaperSource("toy_paper", Path(__file__).parent / "toy_paper")


class Toy:
    """The toy paper with a home of its own; its trials note in `folder` what they did."""

    def __init__(self, folder: Path, home: Path, engine: LocalEngine) -> None:
        self.folder, self.home, self.engine = folder, home, engine
        self.events: list[Any] = []

    def check(self, *names: str, **options: Any) -> list[dict[str, Any]]:
        claims = claims_of(TOY)
        options = {"home": self.home, "device": "cpu", "engine": self.engine, "listen": self.events.append, **options}
        return check([(TOY, claims[name]) for name in names], **options)

    def lines(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def fault(self, what: str = "") -> None:
        (self.folder / "fault").write_text(what)

    def mend(self) -> None:
        (self.folder / "fault").unlink()


@pytest.fixture(scope="session")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LocalEngine]]:
    """Two worker processes that all tests share, since each needs more than a second to start."""
    folder = tmp_path_factory.mktemp("toy")
    before = os.environ.get("TOY")
    os.environ["TOY"] = str(folder)
    with LocalEngine(2) as engine:
        yield folder, engine
    os.environ.pop("TOY") if before is None else os.environ.update(TOY=before)


@pytest.fixture
def toy(_warm: tuple[Path, LocalEngine], tmp_path: Path) -> Iterator[Toy]:
    folder, engine = _warm
    for file in folder.iterdir():
        file.unlink()
    yield Toy(folder, tmp_path / "home", engine)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something that another process brings about; what never comes fails the test."""
    import time

    def wait(true: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.01)

    return wait
