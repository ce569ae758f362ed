"""Claims whose trials add numbers; what they do wrong is switched on by files in $TOY (see `_counted`)."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from precis.errors import InputError
from precis.lab import AtLeast, Claim, Exact, Greater, Precondition, Profile, Tuning


@dataclass(frozen=True)
class Settings:
    gain: float = 1.0
    wait: float = 0.0


def _counted(name: str, arm: str, seed: int) -> None:
    """One line in $TOY/ran for each trial that was run to its end."""
    with (Path(os.environ["TOY"]) / "ran").open("a") as file:
        file.write(f"{name} {arm} {seed}\n")


def _noise(record: Any) -> float:
    import torch

    return float(torch.randn((), generator=record.streams["noise"]))


class _Scores(Claim):
    """Method: gain + noise, baseline: the same noise; seeds pair them."""

    arms: ClassVar = ("method", "baseline")
    profiles: ClassVar = {
        "smoke": Profile(Settings(), seeds=1),
        "quick": Profile(Settings(), seeds=3, scale="one number"),
        "full": Profile(Settings(wait=0.2), seeds=4),
    }
    hypotheses: ClassVar = (Greater("score", "method", "baseline"),)

    def load(self, settings: Settings, source: Path | None) -> Any:
        if source is not None:
            lines = source.read_text().split()
            if not lines:
                raise InputError("holds no number", file=source)
            return [float(line) for line in lines]
        return [0.0]

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        time.sleep(settings.wait)
        score = data[seed % len(data)] + 0.1 * _noise(record)
        score += {"method": settings.gain, "baseline": 0.0, "broken": -0.01 * _noise(record)}[arm]
        for step in range(3):
            record.log(step + 1, 3, loss=1.0 / (step + 1))
        record.curve("line", [0, 1], [0.0, score])
        print("a trial prints")
        _counted(self.runs or self.name, arm, seed)
        return {"score": score}


class Better(_Scores):
    name = "better"
    statement = "the method scores more than the baseline"
    sabotaged: ClassVar = {"broken": "method"}
    takes: ClassVar = ("text",)
    untried = "anything real"


class Costly(_Scores):
    name = "costly"
    statement = "a baseline that is tried at full alone"
    arms: ClassVar = ("method", "baseline", "broken")
    hypotheses: ClassVar = (
        Greater("score", "method", "baseline"), Greater("score", "method", "broken", profiles=("full",)),
    )


class Held(_Scores):
    """While $TOY/fault holds a number, trials from that seed on wait; each notes in $TOY/begun that it began."""

    name = "held"
    statement = "trials that can be struck in their midst"
    profiles: ClassVar = {"full": Profile(Settings(), seeds=4)}

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        with (Path(os.environ["TOY"]) / "begun").open("a") as file:
            file.write(f"{arm} {seed}\n")
        with contextlib.suppress(FileNotFoundError):
            while seed >= int((Path(os.environ["TOY"]) / "fault").read_text()):
                time.sleep(0.02)
        return super().trial(arm, seed, settings, data, record)


class Pair(_Scores):
    name = "pair"
    statement = "one of two claims over the same runs"
    runs = "both"


class PairToo(_Scores):
    name = "pair_too"
    statement = "the other of the two"
    runs = "both"
    arms: ClassVar = ("method", "baseline", "broken")
    hypotheses: ClassVar = (Greater("score", "method", "broken"),)


class Worse(_Scores):
    name = "worse"
    statement = "the baseline scores more"
    hypotheses: ClassVar = (Greater("score", "baseline", "method"),)


class Once(_Scores):
    name = "once"
    statement = "a figure that needs no interval"
    hypotheses: ClassVar = (Exact("score", "method", 7.0),)
    profiles: ClassVar = {"quick": Profile(Settings(), seeds=5)}

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        _counted(self.name, arm, seed)
        return {"score": 7.0}


class Failing(_Scores):
    """$TOY/fault says what goes wrong for the method's seed 1."""

    name = "failing"
    statement = "one trial fails"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        fault = Path(os.environ["TOY"]) / "fault"
        if arm == "method" and seed == 1 and fault.exists():
            match fault.read_text():
                case "raise":
                    raise RuntimeError("the toy broke")
                case "nan":
                    return {"score": float("nan")}
                case "lacks":
                    return {"other": 1.0}
                case "empty":
                    return {}
                case "input":
                    raise InputError("no such toy", file="toys.txt", line=3)
                case "full":
                    raise OSError(28, "No space left on device")
                case "die":
                    os.kill(os.getpid(), 9)
                case "exit":
                    os._exit(7)
        return super().trial(arm, seed, settings, data, record)


class Tuned(_Scores):
    """The score is best at rate 2 for the method and at rate 1 for the baseline."""

    name = "tuned"
    statement = "each arm at its best"
    tuning = Tuning({"rate": (1.0, 2.0, 3.0)}, "score", seeds=2)

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        fault = Path(os.environ["TOY"]) / "fault"
        if arm == "baseline" and fault.exists():
            return {"score": float("nan")}
        best = 2.0 if arm == "method" else 1.0
        _counted(self.name, arm, seed)
        return {"score": -abs(record.tuned["rate"] - best) + (arm == "method") + 0.001 * seed % 1}


class Batched(_Scores):
    name = "batched"
    statement = "all in one pass"

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Settings, data: Any, records: Any
    ) -> Iterator[tuple[str, int, dict[str, float]]]:
        fault = Path(os.environ["TOY"]) / "fault"
        with (Path(os.environ["TOY"]) / "passes").open("a") as file:
            file.write(f"{','.join(arms)} {','.join(map(str, seeds))}\n")
        for i, (arm, seed) in enumerate((arm, seed) for seed in seeds for arm in arms):
            if i == 3 and fault.exists():
                time.sleep(1.0)
                os.kill(os.getpid(), 9)
            yield arm, seed, self.trial(arm, seed, settings, data, records[arm, seed])


class ByArm(Batched):
    name = "by_arm"
    statement = "one arm after the other"
    by_arm = True


class Close(_Scores):
    """An effect that three seeds cannot tell and some more can."""

    name = "close"
    statement = "the method scores a little more"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        _counted(self.name, arm, seed)
        return {"score": (0.6 if arm == "method" else 0.0) + (0.5 * _noise(record) if arm == "method" else 0.0)}


class Null(Close):
    """No effect at all: arms of independent noise."""

    name = "null"
    statement = "nothing"
    preconditions: ClassVar = (Precondition("score", "method", at_least=-100.0, why="never"),)

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        return {"score": float((-1) ** seed) if arm == "method" else 0.0}


class Sharing(_Scores):
    """Both arms of a seed need one training."""

    name = "sharing"
    statement = "a training is shared"
    hypotheses: ClassVar = (AtLeast("score", "method", -100.0),)

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        def train(folder: Path) -> None:
            with (Path(os.environ["TOY"]) / "trained").open("a") as file:
                file.write(f"{seed}\n")
            if (Path(os.environ["TOY"]) / "fault").exists() and seed == 0:
                (folder / "half").write_text("half")
                (Path(os.environ["TOY"]) / "fault").unlink()
                os.kill(os.getpid(), 9)
            (folder / "number").write_text(str(_noise(record)))

        before = _noise(record)
        number = float((record.shared("encoder", train, {"width": 3}) / "number").read_text())
        return {"score": before + number + _noise(record)}


class Changing(_Scores):
    """Changes the data it was given."""

    name = "changing"
    statement = "never"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        data[0] += 1.0
        return {"score": data[0]}


class Unsteady(_Scores):
    """Loads something else in each process."""

    name = "unsteady"
    statement = "never"

    def load(self, settings: Settings, source: Path | None) -> Any:
        return [float(os.getpid())]


class Writes(_Scores):
    """Leaves a picture of noise, which cannot be made small."""

    name = "writes"
    statement = "pictures are kept"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        import torch

        record.image("noise", torch.rand(3, 256, 256, generator=record.streams["eval"]), step=seed)
        return super().trial(arm, seed, settings, data, record)


class Talks(_Scores):
    """Says something before its process is killed."""

    name = "talks"
    statement = "never"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        if arm == "method" and seed == 1:
            print("my last words", flush=True)
            os.kill(os.getpid(), 9)
        return super().trial(arm, seed, settings, data, record)


class Starts(_Scores):
    """Starts a process of its own and waits for long."""

    name = "starts"
    statement = "never"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (Path(os.environ["TOY"]) / "pids").write_text(f"{os.getpid()}\n{child.pid}\n")
        time.sleep(600)
        return {}


class Threads(_Scores):
    name = "threads"
    statement = "never"

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        import torch

        return {"torch": torch.get_num_threads(), "omp": float(os.environ["OMP_NUM_THREADS"]),
                "interop": torch.get_num_interop_threads(), "hash": float(os.environ["PYTHONHASHSEED"])}


class Unfinished(Claim):
    name = "unfinished"
    statement = "never"
    arms: ClassVar = ("method",)
    profiles: ClassVar = {"quick": Profile(Settings(), seeds=3)}
    hypotheses: ClassVar = (AtLeast("score", "method", 0.0),)


class Leaky(_Scores):
    """Leaves another default behind; its metric is the size of a number before."""

    name = "leaky"
    statement = "never"
    hypotheses: ClassVar = (AtLeast("bytes", "method", 0.0),)

    def trial(self, arm: str, seed: int, settings: Settings, data: Any, record: Any) -> dict[str, float]:
        import torch

        size = torch.ones(1).element_size()
        torch.set_default_dtype(torch.float64)
        return {"bytes": size}
