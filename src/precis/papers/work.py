"""The folder of a run: where a job writes, what it tells while it works, and how it ends.

`run.json` is written first and means *begun*, `events.jsonl` has a line for every log, image and note, `result.json`
comes last and means *finished*.  Every other file appears under its name whole or not at all (`writing`).
"""

import csv
import errno
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from precis.errors import InputError, Stopped

BEGUN, EVENTS, RESULT, REPORT = "run.json", "events.jsonl", "result.json", "report.md"
OWN = {BEGUN, EVENTS, RESULT}
POINTS = 400  # of a curve in result.json


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path beside `path` (same suffix) to write to; renamed to `path` at the end, gone if anything is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)
        raise


def save(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    with writing(path) as beside:
        beside.write_bytes(content)


def save_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file with a line of names, whole or not at all."""
    with writing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON, whole or not at all; a number that is not finite is a bug here."""
    with writing(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """A JSON value of it: not-finite numbers to None, paths to text, tuples to lists, scalars of arrays to numbers."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [finite(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    number = float(value)
    return number if math.isfinite(number) else None


def of_batches(scalars: Mapping[str, Any], name: str = "accuracy, training batch") -> dict[str, Any]:
    """A line of a training loop as it is shown: its accuracy is of a batch, a run's metric of that name is held out."""
    training = "loss" in scalars
    return {name if training and key == "accuracy" else key: value for key, value in scalars.items()}


class RunFolder:
    """What a job gets as `work`; `listen` hears every event, `stopping` says whether the user asked to stop."""

    def __init__(
        self, folder: Path, device: str, begun: dict[str, Any], *, resume: bool = False, made: tuple[Path, ...] = (),
        listen: Callable[[dict[str, Any]], None] | None = None, stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.device, self.resume = folder, device, resume
        self.repeatable = True
        self.notes: list[str] = []
        self.shown: list[str] = []
        self.pictures: list[str] = []
        self.curves: dict[str, dict[str, list[float | int]]] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self._made, self._listen, self._stopping = made, listen, stopping
        self._before = self._recall() if resume else 0.0
        self._start = time.monotonic()
        self._events = _locked(folder / EVENTS)
        if not resume:
            write_json(folder / BEGUN, begun)
        elif not (folder / EVENTS).read_bytes().endswith(b"\n"):
            self._events.write("\n")  # a crash cut the last line off: it must not spoil the next

    @property
    def seconds(self) -> float:
        """Of work in this folder, what an interrupted run had done included."""
        return self._before + time.monotonic() - self._start

    def log(self, step: int, total: int, **scalars: float) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self._tell({"event": "log", "step": int(step), "total": int(total), "scalars": values})
        if self._stopping():
            raise Stopped("stopped")

    def image(self, name: str, pixels: Any, step: int | None = None) -> None:
        file = f"{name}.png"
        picture, odd = to_picture(pixels)
        with writing(self._inside(file)) as beside:
            picture.save(beside)
        if odd:
            self.note(f"{file}: {odd} values were not finite and are shown as black")
        if file not in self.pictures:
            self.pictures.append(file)
        self._tell({"event": "image", "name": name, "file": file, "step": step})

    def curve(self, name: str, steps: Sequence[float | int], values: Sequence[float | int]) -> None:
        if len(steps) != len(values):
            raise ValueError(f"curve {name!r}: {len(steps)} steps and {len(values)} values")
        last, count = len(steps) - 1, min(len(steps), POINTS)
        rows = [round(i * last / max(1, count - 1)) for i in range(count)]
        self.curves[name] = {"steps": [steps[i] for i in rows], "values": [values[i] for i in rows]}

    def note(self, text: str) -> None:
        line = " ".join(text.split())
        if line not in self.notes:
            self.notes.append(line)
            self._tell({"event": "note", "text": line})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.tables[name] = [dict(row) for row in rows]

    def show(self, file: str) -> None:
        self._inside(file)
        self.shown = [file, *(name for name in self.shown if name != file)]
        self._tell({"event": "show", "file": file})

    def files(self) -> list[str]:
        """What the run made, what to look at first in front; our own records are not among them."""
        found = sorted(
            path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        )
        first = self.shown + [name for name in self.pictures if name not in self.shown]
        return [name for name in first if name in found] + [n for n in found if n not in first and n not in OWN]

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write `result.json`, the last file; not-finite numbers are null in it, with a note."""
        for name in self.shown:
            if not (self.folder / name).exists():
                self.note(f"{name} was to be shown but was not written")
        for name, value in result["metrics"].items():
            if value is not None and not math.isfinite(value):
                self.note(f"{name} is {float(value)}, which JSON cannot say: it is null")
        whole = finite(result | {"repeatable": self.repeatable, "notes": self.notes})
        whole |= {"tables": finite(self.tables)} if self.tables else {}
        whole |= {"seconds": round(self.seconds, 3), "peak_memory_mb": peak_memory_mb(self.device)}
        whole |= {"curve": finite(self.curves)} if self.curves else {}
        whole |= {"files": self.files()}
        write_json(self.folder / RESULT, whole)
        for file in self.folder.rglob("*.safetensors"):  # safetensors makes them for their owner alone
            file.chmod((self.folder / RESULT).stat().st_mode)
        (self.folder / BEGUN).unlink(missing_ok=True)
        self._drop_checkpoints()
        self.close()
        return dict(whole)

    def _drop_checkpoints(self) -> None:
        """Hidden folders with states of a training: kept up to here, so that what comes after it need not repeat it."""
        for folder in self.folder.glob(".*"):
            files = [file for file in folder.rglob("*") if file.is_file()]
            if folder.is_dir() and (not files or any(file.suffix == ".safetensors" for file in files)):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        self._events.close()

    def discard(self) -> None:
        """Leave no folder behind: for bad input found late.  Files that are not ours are never deleted."""
        self.close()
        if self.resume:
            return
        for name in (*OWN, *self.pictures):
            (self.folder / name).unlink(missing_ok=True)
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                return

    def _inside(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()) or name in OWN:
            raise ValueError(f"{name!r} is no name for a file of this run")
        return self.folder / name

    def _tell(self, event: dict[str, Any]) -> None:
        event["seconds"] = round(self.seconds, 3)
        self._events.write(json.dumps(finite(event), ensure_ascii=False, allow_nan=False) + "\n")
        self._events.flush()
        if self._listen:
            self._listen(event)

    def _recall(self) -> float:
        """Take up notes, pictures and seconds of the interrupted run."""
        for leftover in self.folder.rglob(".*.part*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        seconds = 0.0
        for event in read_events(self.folder):
            seconds = event.get("seconds", seconds)
            if event["event"] == "note":
                self.notes.append(event["text"])
            elif event["event"] == "image" and event["file"] not in self.pictures:
                self.pictures.append(event["file"])
            elif event["event"] == "show":
                self.shown = [event["file"], *(name for name in self.shown if name != event["file"])]
        return seconds


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; a last line that was cut off by a crash is left out."""
    try:
        lines = (folder / EVENTS).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def open_folder(
    begun: dict[str, Any], stem: str, out: Path | None, resume: bool
) -> tuple[Path, bool, tuple[Path, ...]]:
    """(folder, whether an unfinished run goes on in it, folders made): rule 1 of a run's folder.

    `begun` is what `run.json` holds; a run goes on only where paper, input and settings are the same.
    """
    if out is not None:
        return _named(out, begun, resume)
    base = f"{begun['paper']}-{re.sub(r'[^A-Za-z0-9._-]+', '_', stem).strip('.') or 'input'}"
    names = (Path(base if number == 1 else f"{base}-{number}") for number in range(1, 10_000))
    if resume:
        taken = [name for name in names if (name / BEGUN).exists() and not (name / RESULT).exists()]
        fitting = [name for name in taken if not differences(name, begun)]
        if taken and not fitting:
            different = differences(taken[-1], begun)
            raise InputError(f"--resume: the unfinished run has another {different}", file=taken[-1])
        if not fitting:
            raise InputError(f"--resume: no unfinished run of these settings is in ./{base} or its numbered siblings")
        return fitting[-1], True, ()
    for name in names:
        try:
            name.mkdir()
            return name, False, (name,)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"cannot make the folder: {error.strerror}; name another by --out", file=name) from None
    raise InputError(f"--out: too many folders are called {base}; name another")


def _named(out: Path, begun: dict[str, Any], resume: bool) -> tuple[Path, bool, tuple[Path, ...]]:
    if out.exists() and not out.is_dir():
        raise InputError("--out must be a folder, and this is a file", file=out)
    if out.is_dir() and any(out.iterdir()):
        if not resume:
            unfinished = (out / BEGUN).exists() and not (out / RESULT).exists()
            hint = "go on with --resume, or name another" if unfinished else "name another or an empty one"
            raise InputError(f"the folder is not empty: {hint}", file=out)
        if (out / RESULT).exists():
            raise InputError("--resume: the run in this folder is finished", file=out)
        if not (out / BEGUN).exists():
            raise InputError("--resume: the folder holds something, but no unfinished run", file=out)
        if different := differences(out, begun):
            raise InputError(f"--resume: the unfinished run in this folder has another {different}", file=out)
        return out, True, ()
    if resume:
        raise InputError("--resume: there is no unfinished run in this folder", file=out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out cannot be made: {error.strerror}", file=out) from None
    if not os.access(out, os.W_OK):
        raise InputError("--out cannot be written to", file=out)
    return out, False, tuple(made)


def differences(folder: Path, begun: dict[str, Any]) -> str:
    """In which of paper, input and settings the run begun in `folder` differs, in words; '' if in none."""
    try:
        there = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=folder / BEGUN) from None
    for name in ("paper", "input", "seed", "device"):
        if there.get(name) != begun.get(name):
            return f"{name}: {there.get(name)}, not {begun.get(name)}"
    old, new = there.get("settings", {}), begun["settings"]
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)}, not {new.get(name)}" for name in changed)


def _locked(file: Path) -> Any:
    """The file opened for appending and locked, so that two runs never share a folder."""
    handle = file.open("a", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # Windows: the lock is a courtesy
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            handle.close()
            raise InputError("another run is writing into this folder", file=file.parent) from None
    return handle


def to_picture(pixels: Any) -> tuple[Any, int]:
    """(Pillow image, number of values that were not finite) of [H,W] or [C,H,W] in 0…1, or uint8."""
    import numpy as np
    from PIL import Image

    if hasattr(pixels, "detach"):
        pixels = pixels.detach().float().cpu().numpy() if pixels.is_floating_point() else pixels.cpu().numpy()
    array = np.asarray(pixels)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"a picture is [H,W] or [C,H,W] with 1, 3 or 4 channels, not {np.shape(pixels)}")
    odd = 0
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
        odd = int((~np.isfinite(array)).sum())
        array = (np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array)), odd


def peak_memory_mb(device: str) -> float | None:
    """Peak of the GPU's memory if the work was there, else of this process; None where the system does not say."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        return round(float(torch.cuda.max_memory_allocated()) / 2**20, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
