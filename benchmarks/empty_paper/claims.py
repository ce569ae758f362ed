"""A claim whose trials compute nothing, for benchmarks/cluster.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from precis.lab import AtLeast, Claim, Profile


@dataclass(frozen=True)
class Nothing:
    width: int = 1


class Empty(Claim):
    name = "empty"
    statement = "nothing"
    arms: ClassVar = ("method", "baseline")
    profiles: ClassVar = {"quick": Profile(Nothing(), seeds=5)}
    hypotheses: ClassVar = (AtLeast("score", "method", -1.0),)

    def load(self, settings: Nothing, source: Path | None) -> None:
        return None

    def trial(self, arm: str, seed: int, settings: Nothing, data: None, record: Any) -> dict[str, float]:
        return {"score": float(seed % 7)}
