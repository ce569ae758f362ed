"""Files that a form brought: bounded in number, size and type, named safely, looked into only by a worker process."""

import re
import shutil
from pathlib import Path, PurePosixPath

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from precis.errors import InputError
from precis.web.helpers import Helpers

MAX_FILES, MAX_FIELDS, MAX_TEXT = 2000, 300, 64 << 10
NAME_LENGTH, DEPTH = 100, 3
LEAST_FREE = 1 << 30  # bytes that stay free on the disk
ANY = ("name",)  # kinds of a file that the job opens itself, such as weights: only its size is looked at


async def read_form(request: Request) -> FormData:
    """The form, with its files spooled to disk; the Guard bounds the whole body."""
    from starlette.exceptions import HTTPException

    try:
        return await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_TEXT)
    except HTTPException as error:
        if error.status_code == 413:
            raise
        raise InputError(f"the form cannot be read: {error.detail}") from None


def texts_of(form: FormData) -> dict[str, str]:
    """Its fields that are no files; a field that comes twice is an error."""
    found: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            if name in found:
                raise InputError(f"the form holds {name!r} twice")
            found[name] = value
    return found


def files_of(form: FormData) -> dict[str, list[UploadFile]]:
    """{field: its files}; browsers send an empty one where none was chosen, which is none."""
    found: dict[str, list[UploadFile]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and value.filename:
            found.setdefault(name, []).append(value)
    return found


def save(files: list[UploadFile], folder: Path) -> Path:
    """Write them into `folder`; the path of the one file, or the folder that holds several.  Blocks: for a thread."""
    folder.mkdir(parents=True)
    if len(files) > 1:
        folder = folder / _common(files)
    taken: set[PurePosixPath] = set()
    for number, file in enumerate(files):
        size = file.size or 0
        if size == 0:
            raise InputError("the file is empty", file=safe_name(file.filename or ""))
        if shutil.disk_usage(folder.parent if not folder.exists() else folder).free < size + LEAST_FREE:
            raise InputError("there is not enough space left on this machine's disk for that upload")
        place = safe_path(file.filename or "", keep=len(files) > 1)
        if place in taken:
            place = place.with_name(f"{place.stem[:80]}-{number}{place.suffix}")
        taken.add(place)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            shutil.copyfileobj(file.file, out, 1 << 20)
    return folder if len(files) > 1 else target


def safe_name(name: str) -> str:
    """A file's name in which nothing can be an address: letters, digits and ._- alone, the ending kept."""
    name = re.sub(r"[^\w .-]", "_", name.replace("\\", "/").rsplit("/", 1)[-1], flags=re.ASCII).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    stem, suffix = stem[:NAME_LENGTH].lstrip("-"), suffix[:12]
    return (stem or "file") + (f".{suffix}" if suffix else "")


def safe_path(name: str, *, keep: bool) -> PurePosixPath:
    """`safe_name`, below the last folders of a chosen folder if `keep`: a folder of pictures means its classes."""
    *folders, last = name.replace("\\", "/").split("/")
    kept = [safe_name(part) for part in folders[1:] if part not in ("", ".", "..")] if keep else []
    return PurePosixPath(*kept[-DEPTH:], safe_name(last))


def _common(files: list[UploadFile]) -> str:
    """The chosen folder's own name, where all files come from one."""
    tops = {(file.filename or "").replace("\\", "/").split("/")[0] for file in files if "/" in (file.filename or "")}
    return safe_name(tops.pop()) if len(tops) == 1 else "files"


async def check_upload(helpers: Helpers, path: Path, kinds: tuple[str, ...], what: str) -> None:
    """InputError, in the words of the command line, unless the content is of one of `kinds`; all of it, a picture's
    pixels and an archive's directory included, is read in a process of its own."""
    await helpers.ask({"do": "inspect", "path": str(path), "kinds": list(kinds), "what": what})


def give_up(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

