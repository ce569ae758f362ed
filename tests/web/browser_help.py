"""A site in a process of its own and a Chromium that looks at it; whoever uses them skips where there is none."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 240_000  # milliseconds after which a condition is given up: a hang, not a busy machine

SIDEWAYS = "() => document.documentElement.scrollWidth - innerWidth"

# Of every visible text: the worst contrast between its colour and what is behind it, and whose it is (WCAG 2, 1.4.3).
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (c) => {
    const f = c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2];
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length < 4 || c[3] > 0.99) return c;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  let worst = [21, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility({ checkOpacity: true })) continue;
    if (node.closest("svg, script, noscript, option, button:disabled")) continue;
    const a = light(parse(getComputedStyle(node).color)), b = light(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${node.tagName}.${node.className}: ${walk.currentNode.data.trim()}`];
  }
  return worst;
}"""


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: install chromium to run the tests in a browser")
    return found


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser with an empty profile of its own."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    program = chromium()
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, headless=True)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def serving(home: Path, papers: Path) -> Iterator[str]:
    """`precis serve` on a port of the system's choice; its address."""
    environment = environment_of(home, papers)
    process = subprocess.Popen(
        [sys.executable, "-m", "precis", "serve", "--port", "0"], env=environment, cwd=home.parent,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)/", line)
        assert found, line
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment_of(home: Path, papers: Path) -> dict[str, str]:
    paths = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))
    return {
        **os.environ, "PYTHONPATH": paths, "PRECIS_HOME": str(home), "PRECIS_PAPERS": str(papers),
        "OMP_NUM_THREADS": "1",
    }


class Watched:
    """A page whose complaints are kept: errors on the console, exceptions, answers that failed."""

    def __init__(self, page: Any) -> None:
        self.page, self.complaints = page, []  # type: tuple[Any, list[str]]
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("response", lambda r: self.complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
