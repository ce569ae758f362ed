"""precis: machine-learning paper summaries you can run.

    precis.library()                            the papers; precis.library()["siren"].claims
    precis.run("siren", "photo.jpg")            a paper's job on your input: the folder and what result.json holds
    precis.check("siren/gradient_blend")        claims as experiments: one report a claim

Importing precis imports nothing heavy; each call imports what it needs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from precis.errors import InputError, RunFailed, Stopped
    from precis.papers.catalogue import Library
    from precis.papers.running import Finished

__all__ = ["InputError", "RunFailed", "Stopped", "check", "library", "run"]


def library() -> "Library":
    """All papers that are found; `library().problems` has a line for each that could not be read."""
    from precis.papers.catalogue import find

    return find()


def run(
    paper: str, input: str | Path | None = None, *, out: str | Path | None = None, resume: bool = False,
    listen: Callable[[dict[str, Any]], None] | None = None, **options: Any,
) -> "Finished":
    """Run a paper's job on `input` (None: its built-in sample); `options` are those of `precis run PAPER --help`.

    `listen` hears every log, image and note as a dict, and before them that a sample is being made.  Raises InputError,
    RunFailed or Stopped.
    """
    from precis.papers.opening import make_job
    from precis.papers.running import run_job

    found = library()[paper]
    job = make_job(found, input, **options)
    return run_job(found, job, out=None if out is None else Path(out), resume=resume, listen=listen)


def check(*claims: str, **options: Any) -> list[dict[str, Any]]:
    """Check `paper` or `paper/claim`; one report a claim, as `precis check --json` gives it.

    Options: profile, data, seeds, device, until_verdict, max_seeds, engine, address, workers, listen.  A script that
    calls this needs `if __name__ == "__main__":`, since trials run in processes of their own.
    """
    from precis.papers.checking import check_claims

    return check_claims(library(), claims, **options)


def __getattr__(name: str) -> Any:
    if name in ("InputError", "RunFailed", "Stopped"):
        from precis import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
