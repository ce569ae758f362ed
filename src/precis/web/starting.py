"""From a filled form to a run in the queue."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request

from precis.errors import InputError
from precis.papers.catalogue import Paper
from precis.papers.checking import PROFILES
from precis.papers.job import OfRun
from precis.papers.opening import job_of
from precis.web import forms, uploads
from precis.web.runs import fits

MOST_SEEDS = 1000


async def run(site: Any, paper: Paper, request: Request, filled: dict[str, str]) -> str:
    """Queue the paper's job; the run's id.  `filled` takes what was typed, for a form that comes back."""
    job_class = job_of(paper)
    options = forms.fields_of(job_class)
    form = await uploads.read_form(request)
    try:
        texts, files = uploads.texts_of(form), uploads.files_of(form)
        filled.update(texts)
        allowed = {field.name for field in options if field.kind == "file"} | {"input"}
        if unknown := sorted(set(files) - allowed):
            raise InputError(f"{paper.id} takes no file as {unknown[0]!r}")
        chosen = _input(texts, files, job_class.kinds)
        title = chosen if isinstance(chosen, str) else chosen[0].filename if chosen else "sample"
        name = site.runs.new_id(paper.id, Path(str(title)).name)
        folder = site.runs.uploads / name
        with _kept_if_whole(folder):
            paths = {}
            for field, its in files.items():
                if field == "input" and not isinstance(chosen, list):
                    continue
                if field != "input" and len(its) > 1:
                    raise InputError(f"--{field.replace('_', '-')} takes one file, got {len(its)}")
                paths[field] = await asyncio.to_thread(uploads.save, its, folder / field)
                kinds = job_class.kinds if field == "input" else uploads.ANY
                what = "INPUT" if field == "input" else f"--{field.replace('_', '-')}"
                await uploads.check_upload(site.helpers, paths[field], kinds, what)
            asked = forms.read(paper, options, texts, paths, lambda wanted, name: _folder(site, paper, wanted, name))
            given = chosen if isinstance(chosen, str) else str(paths["input"]) if chosen else None
            words = forms.arguments(options, asked, given)
            title = chosen if isinstance(chosen, str) else paths["input"].name if chosen else ""
            site.queue.submit({"id": name, "kind": "run", "paper": paper.id, "title": title or "the built-in sample",
                               "argv": ["run", paper.id, *words]})
        return str(name)
    finally:
        await form.close()


def _folder(site: Any, paper: Paper, wanted: OfRun, name: str) -> Path | None:
    run = site.runs.get(name)
    return run.folder if run is not None and fits(run, wanted, paper.id) else None


def _input(texts: dict[str, str], files: dict[str, Any], kinds: tuple[str, ...]) -> Any:
    """The files of INPUT, the name typed for it, or None for the built-in sample."""
    source = texts.pop(forms.CHOICE, "")
    typed = texts.get("input", "").strip()
    if source == "sample":
        texts.pop("input", None)
        return None
    if files.get("input"):
        texts.pop("input", None)
        return files["input"]
    if typed:
        if "name" not in kinds and kinds:
            raise InputError("INPUT is a file here: choose one, or the built-in sample")
        if "/" in typed or "\\" in typed or typed.startswith((".", "~", "-")) or "\0" in typed:
            raise InputError("INPUT is a name here: a path on this machine cannot be named on the site")
        return typed
    if source == "upload":
        raise InputError("choose a file, or the built-in sample")
    return None


async def check(site: Any, paper: Paper, request: Request, filled: dict[str, str]) -> str:
    """Queue a check of the paper's claims, or of those chosen; the run's id."""
    form = await uploads.read_form(request)
    try:
        files = uploads.files_of(form)
        claims = [str(value) for name, value in form.multi_items() if name == "claim"]
        texts = {n: v for n, v in form.multi_items() if isinstance(v, str) and n != "claim"}
        filled.update(texts)
        if unknown := sorted((set(texts) | set(files)) - {"profile", "seeds", "until_verdict", "device", "data"}):
            raise InputError(f"a check has no option {unknown[0]!r}")
        profile = texts.get("profile") or "quick"
        if profile not in PROFILES:
            raise InputError(f"--profile must be one of {', '.join(PROFILES)}, not {profile!r}")
        for name in claims:
            if name not in paper.claims:
                raise InputError(f"{paper.id} has no claim {name!r}")
        ids = [f"{paper.id}/{name}" for name in dict.fromkeys(claims)] or [paper.id]
        device = texts.get("device") or "auto"
        if device not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device must be one of auto, cpu, cuda, mps, not {device!r}")
        options: dict[str, Any] = {"ids": ids, "profile": profile, "device": device}
        if seeds := texts.get("seeds", "").strip():
            if not re.fullmatch("[0-9]{1,6}", seeds) or not 3 <= int(seeds) <= MOST_SEEDS:
                raise InputError(f"--seeds must be a whole number from 3 to {MOST_SEEDS}, got {seeds!r}")
            options["seeds"] = int(seeds)
        options["until_verdict"] = texts.get("until_verdict") == "on"
        title = ", ".join(claims) if 0 < len(claims) < 3 else f"{len(claims)} claims" if claims else "all claims"
        name = site.runs.new_id(paper.id, f"check-{profile}")
        with _kept_if_whole(site.runs.uploads / name):
            if data := files.get("data"):
                path = await asyncio.to_thread(uploads.save, data, site.runs.uploads / name / "data")
                await uploads.check_upload(site.helpers, path, (), "--data")
                options["data"] = str(path)
            site.queue.submit({"id": name, "kind": "check", "paper": paper.id, "title": f"{title} at {profile}",
                               "argv": _words(options), "options": options})
        return str(name)
    finally:
        await form.close()


def _words(options: dict[str, Any]) -> list[str]:
    words = ["check", *options["ids"], "--profile", options["profile"], "--device", options["device"]]
    words += ["--data", options["data"]] if options.get("data") else []
    words += ["--seeds", str(options["seeds"])] if options.get("seeds") else []
    return words + (["--until-verdict"] if options["until_verdict"] else [])


@contextlib.contextmanager
def _kept_if_whole(folder: Path) -> Any:
    """What was uploaded goes again if the form is refused."""
    try:
        yield
    except BaseException:
        uploads.give_up(folder)
        raise
