"""The site's addresses, and what each does.

    /                              the library            /runs                 all runs
    /papers/ID                     a paper, its forms     /runs/ID              one, live or ended
    /papers/ID/CLAIM-PROFILE       a claim                /runs/ID/events       its events as they come
    POST /papers/ID/run, /check    start                  POST /runs/ID/stop, /resume
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from precis.errors import InputError, RunFailed
from precis.lab.ledger import Ledger
from precis.lab.ledger import home as default_home
from precis.lab.pages import TEMPLATES
from precis.papers.catalogue import Paper
from precis.papers.opening import job_of
from precis.web import pages, results, safety, starting, viewers
from precis.web.helpers import Helpers
from precis.web.live import Feeds
from precis.web.queue import Queue, words_of
from precis.web.runs import Run, Runs
from precis.web.shelf import Shelf

PAGE = 40  # runs on a page of the history
STREAMS = 500  # pages that may watch at once


class Site:
    """What the routes share."""

    def __init__(self, home: Path, count: int | None = None) -> None:
        self.home = home
        self.runs = Runs(home)
        self.queue = Queue(self.runs, count)
        self.helpers = Helpers(self.queue.cores)
        self.shelf = Shelf(home, self.helpers)
        self.feeds = Feeds(self.runs)

    def run(self, request: Request) -> Run:
        found = self.runs.get(request.path_params["run"])
        if found is None:
            raise HTTPException(404, "there is no such run: /runs shows all")
        return found


def make_app(
    home: Path | None = None, *, host: str = "127.0.0.1", token: str | None = None, cores: int | None = None
) -> Starlette:
    """The application; runs are made below `home`.  Served by uvicorn (`precis serve`), or driven by tests."""
    safety.check_token(host, token)
    site = Site((home or default_home()).absolute(), cores)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        site.runs.prepare()
        tasks = [asyncio.create_task(site.queue.watch(site.helpers.rest)), asyncio.create_task(site.feeds.watch())]
        try:
            yield
        finally:
            site.feeds.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await site.helpers.close()
            site.queue.close()

    app = Starlette(
        routes=_ROUTES, lifespan=lifespan,
        exception_handlers={InputError: _error, RunFailed: _error, HTTPException: _error, Exception: _error},
    )
    app.state.site = site
    app.add_middleware(safety.Guard, host=host, token=token)
    return app


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _page(text: str, code: int = 200, *, styles: bool = False) -> Response:
    headers = {"content-security-policy": safety.policy(True)} if styles else None
    return HTMLResponse(text, code, headers)


async def _error(request: Request, error: Exception) -> Response:
    """The command line's words: InputError is 400, RunFailed 503; a bug is told in the server's log alone."""
    if isinstance(error, InputError):
        code, told = 400, str(error)
    elif isinstance(error, HTTPException):
        code, told = error.status_code, str(error.detail)
    else:
        code = 503 if isinstance(error, RunFailed) else 500
        told = str(error) if code == 503 else "this is a bug in precis or in the paper: the server's log tells more"
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": told}, code)
    return _page(pages.error(code, told), code)


async def library(request: Request) -> Response:
    site, ask = _site(request), request.query_params
    view = site.shelf.view()
    family, query = ask.get("family", "")[:100], ask.get("q", "")[:200]
    return _page(pages.library(view, family, query, site.runs.active()))


def paper_page(site: Site, paper: Paper, **form: Any) -> str:
    try:
        job: Any = job_of(paper)
    except InputError as error:
        job = str(error)
    runs = site.runs.all()
    return pages.paper(site.shelf.view(), paper, job, site.shelf.claims_known(paper), runs, **form)


async def paper(request: Request) -> Response:
    site = _site(request)
    found = site.shelf.paper(request.path_params["paper"])
    if found.id != request.path_params["paper"]:
        return RedirectResponse(f"/papers/{found.id}", 307)
    return _page(paper_page(site, found), styles=True)


async def card(request: Request) -> Response:
    file = _site(request).shelf.paper(request.path_params["paper"]).assets / "card.webp"
    if not file.is_file():
        raise HTTPException(404, "this paper has no picture yet")
    return FileResponse(file, media_type="image/webp", headers={"cache-control": "max-age=600"})


async def check_form(request: Request) -> Response:
    site = _site(request)
    found = site.shelf.paper(request.path_params["paper"])
    try:
        return _page(pages.check_form(found, await site.shelf.claims(found)), styles=True)
    except InputError as error:  # the form's place tells it: the page around it is as it should be
        return _page(pages.check_form(found, {}, str(error)), styles=True)


async def claim(request: Request) -> Response:
    site, (name, _, profile) = _site(request), request.path_params["claim"].rpartition("-")
    found = site.shelf.paper(request.path_params["paper"])
    its = pages.claim_entry(site.shelf.view(), found, name, profile)
    if its is None:
        raise HTTPException(404, f"{found.id} has no verdict of a claim {name!r} at {profile!r} here")
    entry = pages.marked(its, site.shelf.claims_known(found))
    marks = (bool(entry.get("recorded")), bool(entry.get("older_source")))
    key = (found.id, name, profile, entry.get("finished"), str(found.source.folder), *marks)
    return _page(await site.shelf.page(key, lambda: pages.claim(entry, found, site.home)), styles=True)


async def evidence(request: Request) -> Response:
    """A picture that a trial left, by its hash."""
    digest = request.path_params["name"].removesuffix(".png")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise HTTPException(404, "there is no such picture")
    with Ledger(_site(request).home, read_only=True) as ledger:
        file = ledger.artefact(digest)
    if not file.is_file() or file.open("rb").read(8) != b"\x89PNG\r\n\x1a\n":
        raise HTTPException(404, "there is no such picture")
    return FileResponse(file, media_type="image/png", headers={"cache-control": "max-age=86400"})


async def start(request: Request) -> Response:
    """Run it, or check it: the form becomes a run in the queue, or comes back with what is wrong in it."""
    site = _site(request)
    found = site.shelf.paper(request.path_params["paper"])
    kind = "check" if request.url.path.endswith("/check") else "run"
    filled: dict[str, str] = {}
    try:
        made = await (starting.check if kind == "check" else starting.run)(site, found, request, filled)
    except InputError as error:
        if "application/json" in request.headers.get("accept", ""):
            raise
        return _page(paper_page(site, found, error=str(error), filled=filled, asked=kind), 400, styles=True)
    return RedirectResponse(f"/runs/{made}", 303)


async def runs(request: Request) -> Response:
    found = _site(request).runs.all()
    asked = request.query_params.get("page", "1")
    last = max(1, -(-len(found) // PAGE))
    if not re.fullmatch("[0-9]{1,6}", asked) or not 1 <= int(asked) <= last:
        raise InputError(f"page must be a number from 1 to {last}, got {asked!r}")
    page = int(asked)
    return _page(pages.runs(found[(page - 1) * PAGE : page * PAGE], page, last))


async def run(request: Request) -> Response:
    site = _site(request)
    one = site.run(request)
    title = one.paper
    views: tuple[str, ...] = ()
    try:
        about = site.shelf.view().library[one.paper]
        title = about.title
        views = job_of(about).views if one.kind == "run" and one.state == "finished" else ()
    except InputError:
        pass  # the paper has gone, or does not import: its run can still be looked at
    command = words_of(one.record["argv"]) if one.record.get("argv") else ""
    return _page(pages.run(one, title, command, views), styles=True)


async def state(request: Request) -> Response:
    site = _site(request)
    one = site.run(request)
    feed = await site.feeds.of(one.id)
    return JSONResponse({"state": one.state, "words": one.words, "ahead": one.ahead, **feed.digest.message()})


async def events(request: Request) -> Response:
    """Server-sent events from the offset of the last one that the page saw."""
    site = _site(request)
    one = site.run(request)
    asked = request.headers.get("last-event-id") or request.query_params.get("from", "0")
    if not re.fullmatch(r"[0-9]{1,15}", asked):
        raise InputError(f"an event's number is its offset in bytes, not {asked[:40]!r}")
    if site.feeds.watchers >= STREAMS:
        raise RunFailed("too many pages are watching: close some")
    feed = await site.feeds.of(one.id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = feed.stream(int(asked), site.feeds.closing)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def stop(request: Request) -> Response:
    site = _site(request)
    one = site.run(request)
    site.queue.stop(one)
    return RedirectResponse(f"/runs/{one.id}", 303)


async def resume(request: Request) -> Response:
    site = _site(request)
    one = site.run(request)
    site.queue.resume(one)
    return RedirectResponse(f"/runs/{one.id}", 303)


async def file(request: Request) -> Response:
    one = _site(request).run(request)
    path = results.inside(one.folder, request.path_params["name"])
    return results.answer(path, download="download" in request.query_params, live=one.active)


async def archive(request: Request) -> Response:
    one = _site(request).run(request)
    if not one.folder.is_dir():
        raise HTTPException(404, "this run left no folder")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", one.id)
    headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(results.zipped(one.folder, name), media_type="application/zip", headers=headers)


async def view(request: Request) -> Response:
    site = _site(request)
    one = site.run(request)
    if one.state != "finished" or one.kind != "run":
        raise HTTPException(404, "only a finished run can be looked into")
    about = site.shelf.paper(one.paper)
    kind = request.path_params["kind"]
    if kind not in job_of(about).views:
        raise HTTPException(404, f"{about.id} has no viewer {kind!r}")
    asked = viewers.read(kind, request.query_params)
    try:
        png = await viewers.draw(site.helpers, about.id, one, kind, asked)
    except InputError:
        if "probe" not in request.query_params:
            raise
        return Response(status_code=204)  # the page asks whether this run has such a view
    return Response(png, media_type="image/png", headers={"cache-control": "no-store"})


async def style(request: Request) -> Response:
    return FileResponse(TEMPLATES / "style.css", media_type="text/css")


_ROUTES = [
    Route("/", library),
    Route("/style.css", style),
    Route("/files/{name}", evidence),
    Route("/papers/{paper}", paper),
    Route("/papers/{paper}/card.webp", card),
    Route("/papers/{paper}/check-form", check_form),
    Route("/papers/{paper}/run", start, methods=["POST"]),
    Route("/papers/{paper}/check", start, methods=["POST"]),
    Route("/papers/{paper}/{claim}", claim),
    Route("/runs", runs),
    Route("/runs/{run}", run),
    Route("/runs/{run}/state", state),
    Route("/runs/{run}/events", events),
    Route("/runs/{run}/stop", stop, methods=["POST"]),
    Route("/runs/{run}/resume", resume, methods=["POST"]),
    Route("/runs/{run}/zip", archive),
    Route("/runs/{run}/view/{kind}", view),
    Route("/runs/{run}/files/{name:path}", file),
    Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
]
