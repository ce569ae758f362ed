"""From `siren/gradient_blend` and options to `lab.check`: for the command line, the site and `precis.check`."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from precis.errors import InputError, need
from precis.lab.claim import Claim
from precis.lab.loading import PaperSource
from precis.papers.catalogue import Library
from precis.papers.opening import claim_of, claims_of

PROFILES = ("smoke", "quick", "full", "paper")


def select(library: Library, ids: Sequence[str]) -> list[tuple[PaperSource, type[Claim]]]:
    """The claims meant by `paper` and `paper/claim`, each once, in the order asked for."""
    if not ids:
        raise InputError("name what to check: a paper, or paper/claim; `precis list` shows all")
    chosen: dict[str, tuple[PaperSource, type[Claim]]] = {}
    for given in ids:
        name, slash, claim = given.partition("/")
        paper = library[name]
        found = [claim_of(paper, claim)] if slash else list(claims_of(paper).values())
        if not found:
            raise InputError("holds no claim with a name", file=paper.source.folder / "claims.py")
        for one in found:
            chosen.setdefault(f"{paper.id}/{one.name}", (paper.source, one))
    return list(chosen.values())


def check_claims(
    library: Library, ids: Sequence[str], *, profile: str = "quick", data: str | Path | None = None,
    seeds: int | None = None, device: str = "auto", until_verdict: bool = False, max_seeds: int = 20,
    engine: str = "local", address: str | None = None, workers: int | None = None,
    listen: Callable[[Any], None] | None = None,
) -> list[dict[str, Any]]:
    """One report (an entry of `check --json`) a claim; the verdicts are in the ledger afterwards."""
    if profile not in PROFILES:
        raise InputError(f"--profile must be one of {', '.join(PROFILES)}, not {profile!r}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")
    if address is not None and engine != "ray":
        raise InputError("--address is the Ray cluster's: it goes with --engine ray")
    source = None if data is None else Path(data).expanduser()
    kinds = None if source is None else _kinds(source)
    runner = _engine(engine, address)
    claims = select(library, ids)
    from precis.lab.check import check

    return check(
        claims, profile=profile, data=source, kinds=kinds, seeds=seeds, device=device, until_verdict=until_verdict,
        max_seeds=max_seeds, workers=workers, engine=runner, listen=listen,
    )


def exit_code(entries: list[dict[str, Any]], *, strict: bool = False) -> int:
    """0 if every claim that was run is supported (`smoke`: if its trials finished); `strict` counts *not run*."""
    for entry in entries:
        if entry["verdict"] is not None:
            if entry["verdict"] != "supported":
                return 1
        elif entry["failures"] or (strict and not (entry["ran"] and entry["profile"] == "smoke")):
            return 1
    return 0


def _kinds(source: Path) -> set[str]:
    if not source.exists():
        raise InputError("--data: no such file or folder", file=source)
    from precis.data import kinds_of

    return set(kinds_of(source))


def _engine(name: str, address: str | None) -> Any:
    """None for this machine's processes, which `lab.check` makes itself."""
    if name == "local":
        return None
    if name != "ray":
        raise InputError(f"--engine must be local or ray, not {name!r}")
    if find_spec("precis.lab.ray_engine") is None:
        raise InputError("--engine ray: this version of precis has no Ray engine yet; use --engine local")
    need("cluster")
    from importlib import import_module

    return import_module("precis.lab.ray_engine").RayEngine(address=address)
