"""`precis doctor`: is everything sound?  One finding a line; nothing is repaired and nothing is written."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from precis.errors import EXTRAS, InputError, RunFailed, install_line, missing
from precis.lab.words import counted
from precis.papers.catalogue import Library, Paper
from precis.papers.opening import claims_of, job_of


class Finding(NamedTuple):
    """`sound` is False for what is broken, None for what is only told."""

    sound: bool | None
    text: str


def examine(library: Library) -> Iterator[Finding]:
    """All findings: the installation, the user's folders, then every paper."""
    yield from _installation()
    yield from _folders()
    for problem in library.problems:
        yield Finding(False, problem)
    for paper in library:
        broken = list(problems_of(paper))
        if broken:
            yield from (Finding(False, f"{paper.id}: {line}") for line in broken)
        else:
            claims = f"{len(paper.claims)} claim{'' if len(paper.claims) == 1 else 's'}"
            yield Finding(True, f"{paper.id}: {claims}, {_recorded(paper)}")
    if not len(library):
        yield Finding(None, "no papers were found")


def problems_of(paper: Paper) -> Iterator[str]:
    """What is wrong in a paper's folder: job, claims against front matter, recorded verdicts, shipped weights."""
    try:
        job_of(paper)
    except Exception as error:  # whatever a paper's own file raises is a finding, not the end of the examination
        yield _words(error)
    try:
        claims = claims_of(paper)
    except Exception as error:
        yield _words(error)
    else:
        told, made = set(paper.claims), set(claims)
        if missing := told - made:
            yield f"summary.md has claims that claims.py lacks: {', '.join(sorted(missing))}"
        if missing := made - told:
            yield f"claims.py has claims that summary.md lacks: {', '.join(sorted(missing))}"
        for name in sorted(told & made):
            if paper.claims[name] != " ".join(claims[name].statement.split()):
                yield f"claim {name}: the statements in summary.md and claims.py differ"
            if not claims[name].arms or not claims[name].profiles:
                yield f"claim {name}: it has no arms or no profiles"
    try:
        recorded = paper.recorded
    except InputError as error:
        yield str(error)
    else:
        if unknown := set(recorded) - set(paper.claims):
            yield f"assets/recorded.json has claims that summary.md lacks: {', '.join(sorted(unknown))}"
    yield from _weights(paper.assets)


def _recorded(paper: Paper) -> str:
    """How many claims have a recorded verdict, and how many of those are of an older source."""
    from precis.lab.fingerprint import source_fingerprint

    if not paper.recorded:
        return "nothing recorded"
    now = {name: source_fingerprint(claim) for name, claim in claims_of(paper).items()}
    older = sum(
        any(report.get("source") != now[name] for report in profiles.values())
        for name, profiles in paper.recorded.items()
    )
    return f"{len(paper.recorded)} recorded" + (f", {older} of an older source (`make results`)" if older else "")


def _installation() -> Iterator[Finding]:
    from precis.papers.running import versions

    yield Finding(None, f"precis {versions()['precis']}, Python {platform.python_version()}, {platform.platform()}")
    try:
        import torch
    except Exception as error:
        yield Finding(False, f"torch cannot be imported: {_words(error)}")
    else:
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        where = ", ".join(gpus) or ("MPS" if torch.backends.mps.is_available() else "no GPU")
        yield Finding(True, f"torch {torch.__version__}, {counted(os.cpu_count() or 1, 'core')}, {where}")
    for extra in EXTRAS:
        lacking = missing(extra)
        told = f"lacks {', '.join(lacking)}: {install_line(extra)}" if lacking else "present"
        yield Finding(None if lacking else True, f"extra {extra}: {told}")


def _folders() -> Iterator[Finding]:
    from precis.lab.ledger import Ledger, home

    place = home()
    if not place.exists():
        yield Finding(None, f"PRECIS_HOME {place}: not there yet; the first check makes it")
    else:
        try:
            ledger = Ledger(place, read_only=True)
            broken = ledger.verify()
            ledger.close()
        except (InputError, RunFailed) as error:
            broken = [str(error)]
        yield from (Finding(False, f"ledger: {line}") for line in broken)
        if not broken:
            yield Finding(True, f"PRECIS_HOME {place}: the ledger is sound")
    data = os.environ.get("PRECIS_DATA")
    if not data:
        yield Finding(None, "PRECIS_DATA is not set: standard data sets come from the download cache")
    else:
        there = Path(data).expanduser().is_dir()
        yield Finding(there, f"PRECIS_DATA {data}" + ("" if there else ": no such folder"))


def _weights(assets: Path) -> Iterator[str]:
    """Shipped weights and tables lie beside a JSON that holds, with how they were made, their `sha256`."""
    for file in sorted(path for path in assets.rglob("*") if path.suffix in (".safetensors", ".npz")):
        beside = file.with_suffix(".json")
        try:
            made: Any = json.loads(beside.read_text(encoding="utf-8"))
        except FileNotFoundError:
            yield f"{file.name}: {beside.name}, which tells how it was made, is missing"
            continue
        except (OSError, ValueError) as error:
            yield f"{beside.name}: cannot be read: {error}"
            continue
        if not isinstance(made, dict) or made.get("sha256") != hashlib.sha256(file.read_bytes()).hexdigest():
            yield f"{file.name}: it is not the file that {beside.name} tells of (sha256)"


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
