"""Run a paper's job from its options to `result.json`: for the command line, the site and `precis.run`."""

import dataclasses
import errno
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from precis.errors import InputError, RunFailed, Stopped
from precis.papers.catalogue import Paper
from precis.papers.job import Job, option_of
from precis.papers.work import REPORT, RunFolder, finite, open_folder, writing

_FUNCTION = re.compile(r"(.+\.py|\w+(?:\.\w+)*):\w+(?:\.\w+)*")  # file.py:build, pkg.module:build
_NOT_SETTINGS = ("input", "seed", "device")
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "Pillow", "torch_geometric", "gymnasium")


class Finished(NamedTuple):
    """A finished run: its folder, what `result.json` holds, and the metrics as the job gave them (they may be inf)."""

    folder: Path
    result: dict[str, Any]
    metrics: dict[str, float | None]


def run_job(
    paper: Paper, job: Job, *, out: Path | None = None, resume: bool = False,
    listen: Callable[[dict[str, Any]], None] | None = None, stopping: Callable[[], bool] = lambda: False,
) -> Finished:
    """Do the job in its folder.  InputError leaves no folder; RunFailed and Stopped keep what was done."""
    with tempfile.TemporaryDirectory(prefix="precis-sample-") as sample_folder:
        given = job.input
        if given is None:
            if listen:
                listen({"event": "sample"})
            job.input = job.sample(Path(sample_folder))
        else:
            check_input(given, job.kinds)
        device = pick_device(job.device)
        begun = {
            "paper": paper.id, "input": given if given is None else _absolute(given), "seed": job.seed,
            "device": device, "settings": settings_of(job),
        }
        if stopping():
            raise Stopped("stopped before any work")
        folder, going_on, made = open_folder(begun, _stem(str(job.input)), out, resume)
        try:
            work = RunFolder(folder, device, begun, resume=going_on, made=made, listen=listen, stopping=stopping)
        except OSError as error:
            if failure := _failure(error, folder):
                raise failure from error
            raise
        try:
            if given is None and Path(str(job.input)).is_relative_to(sample_folder):
                work.note(f"no INPUT was named: the built-in sample {Path(str(job.input)).name} was used")
            if getattr(job, "minutes", None) is not None:
                work.repeatable = False
                work.note("the time was limited by the clock: another run may do more steps or fewer")
            metrics = job.run(work)
            result = _result(paper, job, given, metrics, device)
            if not (folder / REPORT).exists():
                _write_report(paper, job, work, result, given)
            return Finished(folder, work.finish(result), metrics)
        except InputError:
            work.discard()
            raise
        except RunFailed as error:
            raise RunFailed(f"{error} (what was finished is in {folder})") from error
        except Stopped as error:
            how = f"--out {shlex.quote(str(folder))} --resume"
            raise Stopped(f"stopped; the same command with {how} goes on") from error
        except (MemoryError, OSError, RuntimeError) as error:
            if failure := _failure(error, folder):
                raise failure from error
            raise
        finally:
            work.close()


def check_input(given: str, kinds: tuple[str, ...]) -> None:
    """InputError unless the path exists and its content is of one of `kinds`.

    "name" takes anything; "program" also file.py:build and pkg.module:build, whose reader says what is wrong in them.
    """
    if "name" in kinds or not kinds:
        return
    if "program" in kinds and _FUNCTION.fullmatch(given):
        return
    path = Path(given).expanduser()
    if not path.exists():
        raise InputError(f"no such file or folder; INPUT is {either(kinds)}", file=given)
    if path.is_dir() and not any(path.iterdir()) or path.is_file() and not path.stat().st_size:
        raise InputError(f"is empty; INPUT must be {either(kinds)}{_endings(path, kinds)}", file=given)
    from precis.data import kinds_of

    found = kinds_of(path)
    if not found & set(kinds):
        what = f"looks like {either(sorted(found), brief=True)}" if found else "is of no kind that precis reads"
        raise InputError(f"{what}; INPUT must be {either(kinds)}{_endings(path, kinds)}", file=given)


def _endings(path: Path, kinds: tuple[str, ...]) -> str:
    """What was looked for in a folder that should hold pictures."""
    if not path.is_dir() or "images" not in kinds:
        return ""
    from precis.data.images import SUFFIXES

    return f"; looked for files ending in {', '.join(SUFFIXES)}"


def pick_device(asked: str) -> str:
    """The device of `--device`: auto takes CUDA where there is one, else the CPU."""
    if asked == "cpu":
        return asked
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.cuda.is_available() if asked == "cuda" else torch.backends.mps.is_available()
    if not there:
        raise InputError(f"--device {asked}: this machine (or this build of torch) has none; use --device cpu")
    return asked


def settings_of(job: Job) -> dict[str, Any]:
    """The job's options as JSON values, without input, seed and device."""
    return {
        f.name: finite(getattr(job, f.name)) for f in dataclasses.fields(job) if f.name not in _NOT_SETTINGS
    }


def versions() -> dict[str, str]:
    """Of precis, Python and those packages that this process has loaded."""
    modules = {"scikit-learn": "sklearn", "scikit-image": "skimage", "Pillow": "PIL"}
    found = {"precis": _version("precis-papers"), "python": sys.version.split()[0]}
    for package in _PACKAGES:
        if modules.get(package, package) in sys.modules:
            found[package] = _version(package)
    return found


def command_of(paper: Paper, job: Job, given: str | None) -> str:
    """The command that does the same again: INPUT and the options that are not the default."""
    words = ["precis", "run", paper.id] + ([given] if given is not None else [])
    for f in dataclasses.fields(job):
        value, option = getattr(job, f.name), option_of(type(job), f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if f.name == "input" or value == default:
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            words += [option, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)


def _result(
    paper: Paper, job: Job, given: str | None, metrics: dict[str, float | None], device: str
) -> dict[str, Any]:
    return {
        "paper": paper.id, "task": getattr(job, "task", None), "input": given or Path(str(job.input)).name,
        "metrics": metrics, "settings": settings_of(job),
        "seed": job.seed, "device": device, "repeatable": True, "notes": [], "versions": versions(),
    }


def _write_report(paper: Paper, job: Job, work: RunFolder, result: dict[str, Any], given: str | None) -> None:
    task = f", {result['task']}" if result["task"] else ""
    lines = [f"# {paper.title}{task}: {result['input']}", "", f"    {command_of(paper, job, given)}", ""]
    files = work.files()
    pictures = _pictures(work, files)
    lines += [line for name in pictures for line in (f"![{name}]({name.replace(' ', '%20')})", "")]
    meanings = job.meanings(result["metrics"])
    lines += ["| metric | value | what it is |", "|---|---:|---|"] if meanings else ["| metric | value |", "|---|---:|"]
    for name, value in result["metrics"].items():
        words = f" {meanings.get(name, '')} |" if meanings else ""
        lines.append(f"| {name.replace('_', ' ')} | {number(value)} |{words}")
    lines.append("")
    for name, rows in work.tables.items():
        lines += _as_markdown(name, rows)
    if work.notes:
        lines += ["Notes:", "", *(f"- {note}" for note in work.notes), ""]
    others = [name for name in files if name not in pictures and name != REPORT]
    if others:
        lines += [f"Files: {', '.join(_listed(others))}.", ""]
    lines += [f"Seed {job.seed}, device {result['device']}, {work.seconds:.1f} s; "
              + ", ".join(f"{name} {value}" for name, value in result["versions"].items()) + ".", ""]
    with writing(work.folder / REPORT) as beside:
        beside.write_text("\n".join(lines), encoding="utf-8")


def _as_markdown(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A table under its name; numbers to the right."""
    if not rows:
        return []
    cells = [[_cell(value) for value in row.values()] for row in rows]
    ruled = ["---:" if isinstance(value, int | float) else "---" for value in rows[0].values()]
    head = [column.replace("_", " ") for column in rows[0]]
    lines = [f"| {' | '.join(row)} |" for row in (head, ruled, *cells)]
    return [f"{name.replace('_', ' ').capitalize()}:", "", *lines, ""]


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "×".join(map(str, value))
    return number(float(value)) if isinstance(value, int | float) else str(value).replace("|", "\\|")


def _listed(files: list[str], most: int = 8) -> list[str]:
    """Links to the files; of a folder that holds more than a few, to the folder, with their number."""
    folders = Counter(name.rpartition("/")[0] for name in files)
    found = {}
    for name in files:
        folder = name.rpartition("/")[0]
        many = folder and folders[folder] > most
        found[f"{folder}/" if many else name] = f" ({folders[folder]} files)" if many else ""
    return [f"[{name}]({name.replace(' ', '%20')}){number}" for name, number in found.items()]


def _pictures(work: RunFolder, files: list[str], most: int = 12) -> list[str]:
    """What a person wants to see: what the job showed and what lies beside the report; series in folders if that is
    all there is."""
    found = [name for name in files if name.endswith((".png", ".jpg", ".webp", ".gif", ".svg"))]
    first = [name for name in found if "/" not in name or name in work.shown or name in work.pictures]
    return (first or found)[:most]


def number(value: float | None) -> str:
    """A metric as people read it: four figures, whole numbers as they are."""
    if value is None:
        return "not given"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _failure(error: Exception, folder: Path) -> RunFailed | None:
    """RunFailed for memory and disk; None for what is a bug."""
    kept = f"what was finished is in {folder}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return RunFailed(f"the disk is full ({kept}; --resume goes on)")
    words = str(error).lower()
    starved = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    if isinstance(error, MemoryError) or any(sign in words for sign in starved):
        return RunFailed(f"out of memory: try a smaller input or fewer points at once ({kept})")
    return None


_IN_WORDS = {
    "image": "an image",
    "images": "images (a folder or an archive of them, or a Parquet, CSV or array file)",
    "frames": "frames (a video, or a folder of its pictures)",
    "scene": "a scene (photographs with their cameras: transforms.json, COLMAP, LLFF, Nerfies or .npz)",
    "points": "points (.ply or .xyz)",
    "table": "a table",
    "audio": "audio (.wav)",
    "program": "a program (a function that builds a model: file.py:build or pkg.module:build)",
}


def either(kinds: tuple[str, ...] | list[str], brief: bool = False) -> str:
    """Kinds of input in words; `brief`: without what they may be."""
    named = [_IN_WORDS.get(kind, kind) for kind in kinds]
    named = [said.partition(" (")[0] for said in named] if brief else named
    return " or ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def _absolute(given: str) -> str:
    path = Path(given).expanduser()
    return str(path.resolve()) if path.exists() else given


def _stem(given: str) -> str:
    """What the run's folder is called by: the name of the file without its ending; of a function, that of its file."""
    path = Path(given).expanduser()
    if not path.exists() and (function := _FUNCTION.fullmatch(given)):
        place = function[1]
        return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return (path.resolve().stem or "root") if path.exists() else given


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "precis-papers":
            return "source"
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
