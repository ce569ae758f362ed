"""`precis new ID`: a folder for a paper of one's own, which runs, checks and passes `precis doctor` as written."""

import datetime
import re
from importlib.resources import files
from pathlib import Path

from precis.errors import InputError
from precis.papers.catalogue import find

FILES = ("summary.md", "method.py", "job.py", "claims.py")


def write_paper(name: str, into: Path) -> Path:
    """Write the folder `into/id` and return it; InputError if there is one, or the id is taken."""
    paper = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", paper):
        raise InputError(f"an id is in snake_case (small letters, digits, _; a letter first), not {name!r}")
    if taken := find().by_name.get(paper):
        raise InputError(f"the id {paper!r} is taken", file=taken[0].source.folder)
    folder = into.expanduser() / paper
    template = files("precis.papers.template")
    texts = {file: (template / f"{file}.tmpl").read_text(encoding="utf-8") for file in FILES}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        raise InputError("is there already: nothing was written", file=folder) from None
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", file=folder) from None
    for file, text in texts.items():
        text = re.sub(r"\bID\b", paper, text).replace("YEAR", str(datetime.date.today().year))
        (folder / file).write_text(text, encoding="utf-8")
    return folder
