import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.lab.toys import Toy

from precis.lab.engine import LocalEngine


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
