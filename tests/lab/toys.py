"""The toy paper and what its trials did, for tests of checks."""

from pathlib import Path
from typing import Any

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
