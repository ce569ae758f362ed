"""What a trial writes to: curves, pictures, tables, examples and notes, and trainings that several trials share."""

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from precis.lab.shared import SharedPlace, code_digest, make_once
from precis.lab.trial import seed_globals, stream_seed, streams

if TYPE_CHECKING:
    import torch

POINTS = 2000       # kept of one logged scalar


class TrialRecord:
    """The `Recorder` of one trial; files go to `folder`, the rest into `summary()`.

    `emit(step, total, scalars)` is told of every `log`.  Without a `shared` place, `shared` makes its own below
    `folder` (for tests of a trial by itself).
    """

    def __init__(
        self, folder: Path, seed: int = 0, *, device: str = "cpu", tuned: Mapping[str, Any] | None = None,
        emit: Callable[[int, int, dict[str, float]], None] | None = None, shared: SharedPlace | None = None,
    ) -> None:
        self.folder, self.seed, self.device = folder, seed, device
        self.tuned: dict[str, Any] = dict(tuned or {})
        self.streams: Mapping[str, torch.Generator] = streams(seed)
        self._emit = emit
        self._place = shared or SharedPlace(folder.parent / f"{folder.name}.shared", "", "", device)
        self._scalars: dict[str, _Series] = {}
        self._kept: dict[str, Any] = {"curves": {}, "images": [], "tables": {}, "examples": {}, "notes": [],
                                      "shared": {}}

    def log(self, step: int, total: int, **scalars: Any) -> None:
        """Progress, and scalars (numbers, tensors of one) as they move; each is kept as a series over steps."""
        values = {name: float(value) for name, value in scalars.items()}
        for name, value in values.items():
            self._scalars.setdefault(name, _Series()).add(step, value)
        if self._emit is not None:
            self._emit(int(step), int(total), values)

    def note(self, text: str) -> None:
        """A sentence for the report."""
        self._kept["notes"].append(str(text))

    def curve(self, name: str, x: Any, y: Any) -> None:
        """y over x, both [n]."""
        xs, ys = _numbers(x), _numbers(y)
        if len(xs) != len(ys):
            raise ValueError(f"curve {name!r}: {len(xs)} x but {len(ys)} y")
        self._kept["curves"][name] = {"x": xs, "y": ys}

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows of one table: {column: value}."""
        self._kept["tables"][name] = [{str(k): plain(v) for k, v in row.items()} for row in rows]

    def examples(self, name: str, ids: Any, outcomes: Any) -> None:
        """One outcome an example, e.g. 0/1 for wrong and right; `ids` tell the same example of two arms."""
        file = self._file(f"examples-{name}", ".json")
        left, right = [plain(i) for i in _items(ids)], _numbers(outcomes)
        if len(left) != len(right):
            raise ValueError(f"examples {name!r}: {len(left)} ids but {len(right)} outcomes")
        file.write_text(json.dumps({"ids": left, "outcomes": right}))
        self._kept["examples"][name] = {"file": file.name, "n": len(left)}

    def image(self, name: str, pixels: Any, step: int | None = None) -> None:
        """A picture [H,W] or [C,H,W] with C = 1, 3 or 4, values in 0…1 (clipped), or uint8; kept as PNG."""
        file = self._file(name if step is None else f"{name}-{step}", ".png")
        _picture(name, pixels).save(file)
        self._kept["images"] = [i for i in self._kept["images"] if i["file"] != file.name]
        self._kept["images"].append({"name": name, "file": file.name, "step": step})

    def shared(self, name: str, make: Callable[[Path], None], settings: Any) -> Path:
        """The folder that `make(folder)` filled: once for each (name, seed, settings), whoever asks; others wait.

        While `make` runs, the streams are those of the training, not of this trial, and afterwards they stand where
        they stood: its result does not depend on which trial came first, nor that trial on having been first.
        """
        place = self._place
        identity = [place.source, code_digest(make, place.claim), name, self.seed, plain(settings), place.data,
                    place.device]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

        def make_apart(folder: Path) -> None:
            with self._other_streams(name):
                make(folder)

        folder = make_once(place, digest, make_apart)
        self._kept["shared"][name] = digest
        return folder

    def summary(self) -> dict[str, Any]:
        """What is kept in the ledger's row, JSON: empty kinds are left out, files are names inside `folder`."""
        found = {kind: value for kind, value in self._kept.items() if value}
        if self._scalars:
            found["scalars"] = {name: s.points() for name, s in self._scalars.items()}
        return found

    def _file(self, name: str, suffix: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / (re.sub(r"[^\w.-]+", "_", name).lstrip(".") + suffix)

    @contextlib.contextmanager
    def _other_streams(self, name: str) -> Iterator[None]:
        import numpy
        import torch

        before = {p: g.get_state() for p, g in self.streams.items()}
        outside = random.getstate(), numpy.random.get_state()
        gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        with torch.random.fork_rng(devices=gpus):
            for purpose, generator in self.streams.items():
                generator.manual_seed(stream_seed(self.seed, f"{name}/{purpose}"))
            seed_globals(stream_seed(self.seed, name))
            try:
                yield
            finally:
                for purpose, generator in self.streams.items():
                    generator.set_state(before[purpose])
                random.setstate(outside[0])
                numpy.random.set_state(outside[1])


class _Series:
    """A scalar over steps, thinned to every 2^k-th point when it grows past POINTS; the last point is always kept."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.y: list[float | None] = []
        self.every, self.seen, self.last = 1, 0, (0.0, 0.0)

    def add(self, step: int, value: float) -> None:
        self.last = (float(step), value)
        if self.seen % self.every == 0:
            self.x.append(float(step))
            self.y.append(plain(value))
            if len(self.x) > POINTS:
                self.x, self.y, self.every = self.x[::2], self.y[::2], self.every * 2
        self.seen += 1

    def points(self) -> dict[str, list[Any]]:
        tail = [] if self.x[-1] == self.last[0] else [self.last]
        return {"x": self.x + [t[0] for t in tail], "y": self.y + [plain(t[1]) for t in tail]}


def plain(value: Any) -> Any:
    """A JSON value: arrays and tensors as lists, numpy and torch scalars as numbers, what is not finite as None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):
        return plain((value.detach() if hasattr(value, "detach") else value).tolist())
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _items(values: Any) -> list[Any]:
    if hasattr(values, "detach"):
        values = values.detach()
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _numbers(values: Any) -> list[float | None]:
    return [plain(float(v)) for v in _items(values)]


def _picture(name: str, pixels: Any) -> Any:
    import numpy
    from PIL import Image

    array = numpy.asarray(pixels.detach().float().cpu() if hasattr(pixels, "detach") and pixels.is_floating_point()
                          else pixels.cpu() if hasattr(pixels, "cpu") else pixels)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] not in (1, 3, 4)) or 0 in array.shape:
        raise ValueError(f"image {name!r}: needs [H,W] or [C,H,W] with C = 1, 3 or 4, got {list(array.shape)}")
    if array.dtype != numpy.uint8:
        array = (numpy.nan_to_num(array.astype(numpy.float64), nan=0.0).clip(0, 1) * 255).round().astype(numpy.uint8)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    return Image.fromarray(numpy.ascontiguousarray(array))
