"""What a paper's `job.py` builds on: the `Job` dataclass, the `Work` it is handed, and what marks its
options: `Range`, `Colour`, `OfFile`, `OfRun`."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_type_hints, runtime_checkable

import tyro
from typing_extensions import Doc

from precis.errors import InputError

SEEDS = 2**32 - 1  # the highest that scikit-learn takes; what is made of a seed then fits into the 64 bits of torch's


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive; None is open.  Checked when the job is made, whoever makes it."""

    low: int | float | None = None
    high: int | float | None = None


@dataclass(frozen=True)
class Colour:
    """A word that names a colour, white or #ffffff.  Checked as `Range` is."""


@dataclass(frozen=True)
class OfFile:
    """A word that names a file or is one of `words`: on the site a file is uploaded for it."""

    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfRun:
    """A path or word that names the folder of a finished run: on the site, one of the runs made there.

    papers: whose runs will do; (): the option's own.  holds: the file that such a run has left.
    """

    holds: str
    papers: tuple[str, ...] = ()


@runtime_checkable
class Work(Protocol):
    """Where a run writes and reports; made alike by the command line, the site, `precis.run()` and tests."""

    folder: Path
    device: str
    resume: bool

    def log(self, step: int, total: int, **scalars: float) -> None:
        """Progress and metrics as they move; raises Stopped if the user asked to stop.

        An `accuracy` beside a `loss` is shown as the training batch's, apart from a metric of that name at the end.
        """

    def image(self, name: str, pixels: Any, step: int | None = None) -> None:
        """Write `name.png` from [H,W] or [C,H,W] in 0…1."""

    def curve(self, name: str, steps: Sequence[float | int], values: Sequence[float | int]) -> None:
        """What was measured on the way, for result.json; long ones are thinned there."""

    def note(self, text: str) -> None:
        """A repair, a skipped row, a choice made for the user: into the report and result.json."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with the same names, into the report and result.json; a later table of that name replaces it."""

    def show(self, file: str) -> None:
        """The file that a person wants to look at first."""


@dataclass(kw_only=True)
class Job:
    """A paper's practical work as one dataclass: its fields are the options, its docstring's first line the help."""

    kinds: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[Mapping[str, str]] = {}

    input: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT"),
        Doc("what to work on; the built-in sample if absent"),
    ] = None
    seed: Annotated[int, Doc("random seed"), Range(0, SEEDS)] = 0
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("where to compute")] = "auto"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for f in dataclasses.fields(self):
            for bound in getattr(hints[f.name], "__metadata__", ()):
                if isinstance(bound, Range):
                    _check_range(option_of(type(self), f.name), getattr(self, f.name), bound)
                elif isinstance(bound, Colour):
                    _check_colour(option_of(type(self), f.name), getattr(self, f.name))

    def sample(self, folder: Path) -> str:
        """Put the built-in sample into `folder`; return what INPUT would be."""
        raise InputError("this paper has no built-in sample: name an input")

    def run(self, work: Work) -> dict[str, float | None]:
        """Do the work; return the metrics, the one a person asks for first."""
        raise NotImplementedError

    def meanings(self, names: Iterable[str]) -> dict[str, str]:
        """What those of the metrics mean, a line each with the unit, that do not say it by their names: `numbers`."""
        return {name: self.numbers[of] for name in names if (of := self.stem(name)) in self.numbers}

    def stem(self, metric: str) -> str:
        """Under which name `numbers` has a metric, where a size is part of its own."""
        return metric

    def view(self, folder: Path, kind: str, at: dict[str, float], size: tuple[int, int]) -> Any:
        """Pixels of a finished run as seen from `at`, coarse if `size` is small."""
        raise NotImplementedError


def option_of(job: type[Job], field: str) -> str:
    """The command line's name of a field: `--like-this`, or what `tyro.conf.arg(name=…)` says (`from` is no field)."""
    named: Any = type(tyro.conf.arg())
    metadata = getattr(get_type_hints(job, include_extras=True)[field], "__metadata__", ())
    given = [mark.name for mark in metadata if isinstance(mark, named) and mark.name]
    return "--" + (given[0] if given else field).replace("_", "-")


def _check_colour(option: str, value: str | None) -> None:
    if value in (None, "white"):
        return
    from precis.data.images import colour_of

    try:
        colour_of(str(value))
    except InputError as error:
        raise InputError(f"{option}: {error.message}") from None


def _check_range(option: str, value: Any, bound: Range) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if number is None or isinstance(number, str | Path):
            continue
        if isinstance(number, float) and math.isnan(number):
            raise InputError(f"{option} is not a number")
        if bound.low is not None and number < bound.low:
            raise InputError(f"{option} must be at least {in_full(bound.low)}, got {in_full(number)}")
        if bound.high is not None and number > bound.high:
            raise InputError(f"{option} must be at most {in_full(bound.high)}, got {in_full(number)}")


def in_full(number: int | float) -> str:
    """A whole number with all its digits, however large; others to six."""
    return str(number) if isinstance(number, int) else f"{number:g}"
