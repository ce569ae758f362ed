"""A run as it happens: its `events.jsonl` followed from a byte offset, told to any number of pages at once.

An event's id is the offset behind its last line, so a page that lost its connection names the last id it saw and gets
what came since.  The file is read once for all who watch, a few times a second; what was written in between reaches
every page as the same bytes, which are made once.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from precis.papers.work import EVENTS, of_batches
from precis.web.runs import Runs

EVERY = 0.3  # seconds between two looks at the file
BEAT = 15.0  # seconds of silence before a line that keeps the connection
POINTS = 400  # of a curve, at most twice as many
BEHIND = 4 << 20  # bytes: who is further behind gets the whole state anew
RECENT = 40  # log lines from which the time left is estimated
KEPT = 64  # states of runs kept in memory
Point = tuple[int | float, int | float | None]


class Digest:
    """What the events so far amount to: progress, curves of bounded length, the latest pictures, notes."""

    def __init__(self) -> None:
        self.offset = 0
        self.last: dict[str, Any] = {}
        self.curves: dict[str, _Curve] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.trials: dict[str, dict[str, dict[str, str]]] = {}
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0
        self._recent: list[tuple[float, int]] = []

    def feed(self, data: bytes, at: int) -> None:
        """Whole lines that begin at offset `at`; a line that is no event is passed over."""
        for line in data.splitlines(keepends=True):
            at += len(line)
            try:
                event = json.loads(line)
                self._take(event, at)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        self.offset = at

    def _take(self, event: dict[str, Any], at: int) -> None:
        kind = event["event"]
        self.seconds = float(event.get("seconds", self.seconds))
        if kind == "log":
            step, total, scalars = event["step"], event["total"], of_batches(event["scalars"])
            self.last = {"step": step, "total": total, "now": event.get("now", ""), "told": event.get("left")}
            self.last["scalars"] = {**self.last.get("scalars", {}), **scalars}
            if self._recent and step < self._recent[-1][1]:
                self._recent = []  # another phase begins, whose pace the last one's tells nothing of
            self._recent = [*self._recent[1 - RECENT :], (self.seconds, step)]
            for name, value in scalars.items():
                self.curves.setdefault(name, _Curve()).add(step, value)
        elif kind == "image":
            self.images[event["file"]] = {"name": event["name"], "file": event["file"], "step": event["step"], "at": at}
        elif kind == "note":
            self.notes.append(event["text"])
        elif kind == "trial":
            arms = self.trials.setdefault(event["claim"], {})
            arms.setdefault(event["arm"], {})[str(event["seed"])] = event["state"]
        elif kind == "verdict":
            self.verdicts[event["claim"]] = {k: event.get(k) for k in ("verdict", "reason", "profile", "n")}

    def left(self) -> float | None:
        """Seconds that the rest will take at the pace of the last lines; a check says it itself."""
        if self.last.get("told") is not None:
            return float(self.last["told"])
        if len(self._recent) < 2 or self.last.get("total", 0) <= 0:
            return None
        (t0, s0), (t1, s1) = self._recent[0], self._recent[-1]
        return (self.last["total"] - s1) * (t1 - t0) / (s1 - s0) if s1 > s0 else None

    def now(self) -> dict[str, Any]:
        """Where it stands: what is wanted of the latest moment alone."""
        return {
            "seconds": self.seconds, "left": self.left(), "scalars": self.last.get("scalars", {}),
            **{name: self.last.get(name) for name in ("step", "total", "now")},
        }

    def message(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        return {
            "offset": self.offset, **self.now(),
            "curves": {name: curve.points() for name, curve in self.curves.items()},
            "images": list(self.images.values()), "notes": self.notes, "trials": self.trials, "verdicts": self.verdicts,
        }


class _Curve:
    """Points of a curve, thinned by half each time there are too many; the last is always kept."""

    def __init__(self) -> None:
        self.kept: list[Point] = []
        self.end: Point | None = None
        self.every, self.count = 1, 0

    def add(self, x: int | float, y: int | float | None) -> None:
        self.end = (x, y)
        if self.count % self.every == 0:
            self.kept.append(self.end)
            if len(self.kept) > 2 * POINTS:
                self.kept, self.every = self.kept[::2], 2 * self.every
        self.count += 1

    def points(self) -> list[Point]:
        whole = self.end is None or (self.kept and self.kept[-1] == self.end)
        return self.kept if whole else [*self.kept, self.end]  # type: ignore[list-item]


class Feed:
    """One run's events for all who watch it."""

    def __init__(self, runs: Runs, run: str) -> None:
        self.runs, self.run = runs, run
        self.file: Path = runs.folder / run / EVENTS
        self.digest = Digest()
        self.state = ""
        self.before, self.packet = 0, b""
        self.watchers = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Take in what the file holds by now."""
        async with self._reading:
            found = self.runs.get(self.run)
            state = found.state if found else "interrupted"
            seen, size = self.digest.offset, _size(self.file)
            if size < self.digest.offset:
                self.digest = Digest()  # another run's file is there now
            if size > self.digest.offset:
                start = self.digest.offset
                if size - start > BEHIND // 4:
                    data = await asyncio.to_thread(_lines, self.file, start)
                    await asyncio.to_thread(self.digest.feed, data, start)
                else:
                    data = _lines(self.file, start)
                    self.digest.feed(data, start)
                if data:
                    self.before, self.packet = start, self._packet(self._delta(data, start))
            if self.digest.offset != seen or state != self.state:
                self.state = state
                self._changed.set()
                self._changed = asyncio.Event()

    def _delta(self, data: bytes, start: int) -> dict[str, Any]:
        part = Digest()
        part.feed(data, start)
        return {**part.message(), **self.digest.now()}

    def _packet(self, message: dict[str, Any]) -> bytes:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False)
        return f"id: {message['offset']}\ndata: {text}\n\n".encode()

    def since(self, offset: int) -> bytes:
        """What came after `offset`, as one event; the whole state where the page is too far behind, or lost."""
        if offset > self.digest.offset or self.digest.offset - offset > BEHIND:
            return self._packet({**self.digest.message(), "reset": True})
        data = _lines(self.file, offset)[: self.digest.offset - offset]
        return self._packet(self._delta(data, offset))

    async def stream(self, offset: int, closing: asyncio.Event) -> AsyncIterator[bytes]:
        """Server-sent events from `offset` to the run's end."""
        self.watchers += 1
        told = ""
        try:
            yield b"retry: 1500\n\n"
            while not closing.is_set():
                changed = self._changed
                if offset != self.digest.offset:
                    yield self.packet if offset == self.before and self.packet else self.since(offset)
                    offset = self.digest.offset
                if self.state != told:
                    told = self.state
                    over = told not in ("queued", "running", "stopping")
                    yield f"event: {'end' if over else 'state'}\ndata: {json.dumps(told)}\n\n".encode()
                    if over:
                        return
                if offset == self.digest.offset and not changed.is_set():
                    try:
                        await asyncio.wait_for(changed.wait(), BEAT)
                    except TimeoutError:
                        yield b": here\n\n"
        finally:
            self.watchers -= 1


class Feeds:
    """The feeds of a site; one loop reads for all that are watched."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.closing = asyncio.Event()
        self._feeds: dict[str, Feed] = {}

    async def of(self, run: str) -> Feed:
        feed = self._feeds.pop(run, None) or Feed(self.runs, run)
        self._feeds[run] = feed  # the latest used stands last
        for name in [n for n, f in self._feeds.items() if not f.watchers][: max(0, len(self._feeds) - KEPT)]:
            del self._feeds[name]
        await feed.refresh()
        return feed

    @property
    def watchers(self) -> int:
        return sum(feed.watchers for feed in self._feeds.values())

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            started = time.monotonic()
            for feed in [f for f in self._feeds.values() if f.watchers]:
                await feed.refresh()
            await asyncio.sleep(max(0.05, EVERY - (time.monotonic() - started)))

    def close(self) -> None:
        """Let every page go; it comes back to the next site with the last id it saw."""
        self.closing.set()
        for feed in self._feeds.values():
            feed._changed.set()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _lines(path: Path, start: int) -> bytes:
    """The whole lines from `start` on; if that is inside a line, from the next one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, start - 1))
            before = file.read(1) if start else b"\n"
            data = file.read(os.fstat(file.fileno()).st_size - start)
    except OSError:
        return b""
    if before != b"\n":
        skipped = data.find(b"\n") + 1
        data = b" " * (skipped - 1) + b"\n" + data[skipped:] if skipped else b""
    return data[: data.rfind(b"\n") + 1]
