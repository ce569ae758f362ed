from pathlib import Path

import pytest
from tests.papers.toys import write_toy

from precis.papers.catalogue import Paper, find


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRECIS_PAPERS", raising=False)
    monkeypatch.delenv("PRECIS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of papers that is found; it is empty."""
    root = tmp_path / "papers"
    root.mkdir()
    monkeypatch.setenv("PRECIS_PAPERS", str(root))
    return root


@pytest.fixture
def toy(papers: Path, request: pytest.FixtureRequest) -> Paper:
    """A paper whose id no other test uses, since a folder is imported once a process."""
    name = "toy_" + "".join(c if c.isalnum() else "_" for c in request.node.name.lower())
    write_toy(papers, name)
    return find()[name]
