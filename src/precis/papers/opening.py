"""A paper's Python files: its one `Job` and its claims, with one-line errors where a file cannot be imported."""

import types
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from precis.errors import InputError
from precis.lab import loading
from precis.lab.claim import Claim
from precis.papers.catalogue import Paper, nearest
from precis.papers.job import Job

T = TypeVar("T")


def job_of(paper: Paper) -> type[Job]:
    """The `Job` subclass of the paper's job.py."""
    module = _imported(paper, "job", lambda: loading.load_module(paper.source, "job"))
    found = [
        c for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Job) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise InputError(f"must hold one subclass of Job, and holds {len(found)}", file=_file(paper, "job"))
    if taken := {"out", "resume", "json", "listen", "paper"} & {f.name for f in fields(found[0])}:
        raise InputError(f"--{taken.pop()} is the command's own option: call it another", file=_file(paper, "job"))
    return found[0]


def claims_of(paper: Paper) -> dict[str, type[Claim]]:
    """The claims of the paper's claims.py by name."""
    return _imported(paper, "claims", lambda: loading.claims_of(paper.source))


def claim_of(paper: Paper, name: str) -> type[Claim]:
    """One claim by its name, `-` read as `_`."""
    claims = claims_of(paper)
    found = claims.get(name.replace("-", "_"))
    if found is None:
        raise InputError(f"{paper.id} has no claim {name!r}{nearest(name, claims, 'it has ' + ', '.join(claims))}")
    return found


def make_job(paper: Paper, input: str | Path | None = None, **options: Any) -> Job:
    """The paper's job with these options, checked as the command line checks them."""
    job_class = job_of(paper)
    hints = get_type_hints(job_class)
    known = [f.name for f in fields(job_class) if f.name != "input"]
    for name, value in options.items():
        if name not in known:
            raise InputError(f"{paper.id} has no option {name!r}{nearest(name, known, 'it has ' + ', '.join(known))}")
        if not _fits(value, hints[name]):
            raise InputError(f"{name} must be {_words(hints[name])}, not {value!r}")
    return job_class(input=None if input is None else str(input), **options)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if origin is tuple:
        parts = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(v, parts[0]) for v in value)
        return len(parts) == len(value) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _file(paper: Paper, name: str) -> Path:
    return paper.source.folder / f"{name}.py"


def _imported(paper: Paper, name: str, load: Callable[[], T]) -> T:
    file = _file(paper, name)
    if not file.exists():
        raise InputError(f"is missing: {paper.id} has nothing to {'run' if name == 'job' else 'check'}", file=file)
    try:
        return load()
    except SyntaxError as error:
        raise InputError(f"is not Python: {error.msg}", file=error.filename or file, line=error.lineno) from None
    except ImportError as error:
        raise InputError(f"cannot be imported: {error}", file=file) from error
