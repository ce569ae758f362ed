"""A helper process of the site: it opens what users sent, imports papers' claims, and keeps fitted models for viewers.

One request a line on stdin, one answer a line on stdout, both JSON.  The site ends it when it takes too long, and
nothing that happens in here reaches the site itself.
"""

import base64
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed

UNPACKED, MEMBERS, RATIO = 4 << 30, 200_000, 200
PIXELS = 256 << 20
MEMORY = 4 << 30  # bytes of address space for looking into uploads


def inspect(path: str, kinds: list[str], what: str) -> dict[str, Any]:
    """The kinds of an upload; InputError if it is none of `kinds`, or would unpack to more than a machine holds."""
    _limit_memory()
    place = Path(path)
    for file in [place] if place.is_file() else (p for p in place.rglob("*") if p.is_file()):
        _bounded(file)
    from precis.data import kinds_of
    from precis.papers.running import either

    found = kinds_of(place)
    wanted = set(kinds)
    if "name" in wanted:  # the paper looks into it itself
        return {"kinds": sorted(found)}
    if not found or (wanted and not found & wanted):
        named = f"looks like {either(sorted(found), brief=True)}" if found else "is of no kind that precis reads"
        raise InputError(f"{named}; {what} must be {either(kinds)}" if kinds else named, file=place.name)
    return {"kinds": sorted(found)}


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass  # Windows, macOS: the time limit serves alone


def _bounded(file: Path) -> None:
    """InputError for an archive or a picture whose content is out of all proportion to its size."""
    with file.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InputError("the archive is broken", file=file.name) from None
        total = sum(member.file_size for member in members)
        if len(members) > MEMBERS or total > UNPACKED:
            raise InputError("the archive would unpack to more than 4 GB", file=file.name)
        if total > 64 << 20 and total > RATIO * file.stat().st_size:
            raise InputError("the archive unpacks to more than 200 times its size", file=file.name)
    else:
        _bounded_picture(file)


def _bounded_picture(file: Path) -> None:
    from precis.data.kinds import is_image

    with file.open("rb") as stream:
        if not is_image(stream.read(512)):
            return
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(file) as picture:
            width, height = picture.size
    except Exception:  # a broken picture: its reader says what is wrong
        return
    if width * height > PIXELS:
        raise InputError(f"the picture has {width}×{height} pixels: at most {PIXELS >> 20} million", file=file.name)


def claims(paper: str) -> dict[str, Any]:
    """What the form of a check needs to know of the paper's claims."""
    from precis.lab.fingerprint import source_fingerprint
    from precis.papers.catalogue import find
    from precis.papers.opening import claims_of

    return {
        name: {
            "statement": claim.statement, "takes": list(claim.takes), "arms": len(claim.arms) + len(claim.sabotaged),
            "source": source_fingerprint(claim),
            "profiles": {p: {"seeds": one.seeds, "scale": one.scale} for p, one in claim.profiles.items()},
        }
        for name, claim in claims_of(find()[paper]).items()
    }


_JOBS: dict[str, Any] = {}


def view(paper: str, folder: str, kind: str, at: dict[str, float], size: list[int]) -> dict[str, Any]:
    """Pixels of a finished run through `Job.view`, as a PNG in base64; the job's modules keep what they loaded."""
    from precis.papers.work import to_picture

    if paper not in _JOBS:
        from precis.papers.catalogue import find
        from precis.papers.opening import job_of

        _JOBS[paper] = job_of(find()[paper])()
    picture, _ = to_picture(_JOBS[paper].view(Path(folder), kind, at, (size[0], size[1])))
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return {"png": base64.b64encode(out.getvalue()).decode()}


def _answer(line: str) -> dict[str, Any]:
    request = json.loads(line)
    do: Any = {"inspect": inspect, "claims": claims, "view": view}[request.pop("do")]
    try:
        return {"value": do(**request)}
    except InputError as error:
        return {"input": str(error)}
    except (RunFailed, MemoryError, OSError) as error:
        return {"failed": str(error) or type(error).__name__}
    except Exception as error:  # a bug in a paper must be told, not end the helper
        import traceback

        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a paper prints must not stand among the answers
    for line in sys.stdin:
        answers.write(json.dumps(_answer(line), allow_nan=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
