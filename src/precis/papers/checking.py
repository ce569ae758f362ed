"""From `siren/gradient_blend` and options to `lab.check`: for the command line, the site and `precis.check`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from glob import glob
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
    _see(profile, workers, engine, address)
    source = None if data is None else Path(data).expanduser()
    kinds = None if source is None else _kinds(source)
    claims = select(library, ids)
    with _engine(engine, address, workers) as runner:
        from precis.lab.check import check

        return check(
            claims, profile=profile, data=source, kinds=kinds, seeds=seeds, device=device, until_verdict=until_verdict,
            max_seeds=max_seeds, workers=workers, engine=runner, listen=listen,
        )


def sweep_claims(
    library: Library, ids: Sequence[str], over: Sequence[str] = (), *, profile: str = "quick", device: str = "auto",
    engine: str = "local", address: str | None = None, workers: int | None = None,
    listen: Callable[[Any], None] | None = None,
) -> list[dict[str, Any]]:
    """One report a data set and claim; `over` holds "data=a,b,c" (names, patterns) and "seeds=20"."""
    _see(profile, workers, engine, address)
    paths, seeds = axes(over)
    sets: list[tuple[Path | None, set[str] | None]] = [(path, _kinds(path)) for path in paths]
    claims = select(library, ids)
    with _engine(engine, address, workers) as runner:
        from precis.lab.check import sweep

        return sweep(claims, sets or [(None, None)], profile=profile, seeds=seeds, device=device, workers=workers,
                     engine=runner, listen=listen)


def axes(over: Sequence[str]) -> tuple[list[Path], int | None]:
    """The data sets, each once, and the number of seeds that `--over` names."""
    paths: dict[Path, None] = {}
    seeds: int | None = None
    for word in over:
        name, equals, values = word.partition("=")
        if not equals or name not in ("data", "seeds") or not values:
            raise InputError(f"--over takes data=PATH,PATH,… and seeds=N, not {word!r}")
        if name == "seeds":
            if not values.isdigit():
                raise InputError(f"--over seeds=N takes one number, not {values!r}")
            seeds = int(values)
            continue
        for value in filter(None, values.split(",")):
            given = Path(value).expanduser()
            found = [given] if given.exists() else [Path(one) for one in sorted(glob(str(given)))]
            if not found:
                raise InputError("--over data: no such file or folder", file=given)
            paths |= dict.fromkeys(found)
    return list(paths), seeds


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


def _see(profile: str, workers: int | None, engine: str, address: str | None) -> None:
    if profile not in PROFILES:
        raise InputError(f"--profile must be one of {', '.join(PROFILES)}, not {profile!r}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")
    if engine not in ("local", "ray"):
        raise InputError(f"--engine must be local or ray, not {engine!r}")
    if address is not None and engine != "ray":
        raise InputError("--address is the Ray cluster's: it goes with --engine ray")


def _engine(name: str, address: str | None, workers: int | None) -> AbstractContextManager[Any]:
    """None for this machine's processes, which `lab.check` makes itself."""
    if name == "local":
        return nullcontext()
    need("cluster")
    from precis.lab.ray_engine import RayEngine

    return RayEngine(address, workers)
