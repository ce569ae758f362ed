"""Helper processes as the site sees them: one for looking into uploads and papers, one a viewer, each with a limit."""

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from precis.errors import InputError, RunFailed

WAITING = 12  # requests that may queue at one helper
IDLE = 600.0  # seconds after which a helper that nobody asked is ended
MODELS = 2  # viewers that keep their model at once
ANSWER = 64 << 20
CLOSING = "the site is being closed"


class Helper:
    """One worker process; requests one after another.  It is started when first asked, and again if it died."""

    def __init__(self, limit: float, threads: int = 1) -> None:
        self.limit, self.threads = limit, threads
        self.used = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._ended = False

    async def ask(self, request: dict[str, Any]) -> Any:
        """The answer; InputError and RunFailed as they were raised in there, RunFailed if it takes too long."""
        if self._waiting >= WAITING:
            raise RunFailed("this machine is busy with others' requests: try again")
        self._waiting += 1
        try:
            async with self._turn:
                if self._ended:
                    raise RunFailed(CLOSING)
                self.used = time.monotonic()
                try:
                    answer = await asyncio.wait_for(self._exchange(request), self.limit)
                except TimeoutError:
                    raise RunFailed(f"this took more than {self.limit:.0f} s and was given up") from None
                finally:
                    self.used = time.monotonic()
        finally:
            self._waiting -= 1
        if "input" in answer:
            raise InputError(answer["input"])
        if "failed" in answer:
            raise RunFailed(answer["failed"])
        return answer["value"]

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        process = await self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request, allow_nan=False).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except BaseException as error:  # cancelled or broken: its next answer would be another question's
            await self.close()
            if isinstance(error, OSError | ValueError):
                raise RunFailed("the helper process ended early") from None
            raise
        if not line:
            await self.close()
            raise RunFailed("the helper process ended early (out of memory?)")
        found: dict[str, Any] = json.loads(line)
        return found

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "precis.web.worker", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=ANSWER, env=child_environment(self.threads),
            )
            if self._ended:  # in the meantime: `end` found no process to kill
                await self.close()
                raise RunFailed(CLOSING)
        return self._process

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())

    async def end(self) -> None:
        """Close it for good: who waits for it is told so."""
        self._ended = True
        await self.close()


class Helpers:
    """All helpers of a site: `ask` for uploads and papers, `view` for a viewer's pictures."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._turns = asyncio.Semaphore(2)
        self._waiting = 0
        self._viewers: dict[str, Helper] = {}
        self._asked: set[Helper] = set()

    async def ask(self, request: dict[str, Any]) -> Any:
        """From a fresh process: it may bound its own memory, and sees files as they are now."""
        if self._waiting >= WAITING:
            raise RunFailed("this machine is busy with others' requests: try again")
        self._waiting += 1
        helper = Helper(limit=60.0)
        self._asked.add(helper)
        try:
            async with self._turns:
                return await helper.ask(request)
        finally:
            self._waiting -= 1
            self._asked.remove(helper)
            await helper.close()

    async def view(self, run: str, request: dict[str, Any]) -> Any:
        helper = self._viewers.pop(run, None) or Helper(limit=60.0, threads=self.threads)
        self._viewers[run] = helper  # the latest used stands last
        while len(self._viewers) > MODELS:
            await self._viewers.pop(next(iter(self._viewers))).close()
        return await helper.ask(request)

    async def rest(self) -> None:
        """End those that nobody has asked for a while."""
        now = time.monotonic()
        for name, helper in list(self._viewers.items()):
            if now - helper.used > IDLE:
                await self._viewers.pop(name).close()

    async def close(self) -> None:
        """End all of them, and what they are doing."""
        for helper in [*self._viewers.values(), *self._asked]:
            await helper.end()


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment, with so many threads, and this very precis on the path.

    Threads sleep while they wait for each other: on a machine that has other work, too, threads that spin instead made
    a picture of a scene take eight times as long.
    """
    import precis

    place = os.path.dirname(os.path.dirname(os.path.abspath(precis.__file__)))
    paths = [place, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "OMP_WAIT_POLICY": "passive", **os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1",
    }
