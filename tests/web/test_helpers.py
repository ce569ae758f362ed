"""Helper processes: what becomes of those who wait when the site is closed."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from precis.errors import RunFailed
from precis.web.helpers import Helpers


@pytest.mark.parametrize("slow", [False, True], ids=["at work", "still starting"])
def test_a_site_that_closes_answers_everybody_who_waits(
    slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = tmp_path / "python"
    deaf.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    deaf.chmod(0o755)
    monkeypatch.setattr("precis.web.helpers.sys.executable", str(deaf))
    start = asyncio.create_subprocess_exec

    async def started(*args: Any, **options: Any) -> Any:
        process = await start(*args, **options)
        await asyncio.sleep(0.5 * slow)  # it runs already, but nobody holds it yet
        return process

    monkeypatch.setattr("precis.web.helpers.asyncio.create_subprocess_exec", started)

    async def closed() -> list[object]:
        helpers = Helpers(1)
        asked = [helpers.view("a", {}), helpers.view("a", {}), helpers.view("b", {}), helpers.ask({})]
        tasks = [asyncio.create_task(one) for one in asked]
        while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 3:
            await asyncio.sleep(0.01)
        await helpers.close()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    with ThreadPoolExecutor(1) as apart:  # a browser that other tests keep open has its loop in this thread
        told = apart.submit(asyncio.run, closed()).result()
    assert [type(one) for one in told] == [RunFailed] * 4
    assert str(told[1]) == "the site is being closed", "who waited for its turn starts no new process"
    assert not any(Path(f"/proc/{pid}").exists() for pid in (tmp_path / "pids").read_text().split())
