"""Looking into a finished run: a window on a picture ("zoom"), a turn around a shape ("orbit").

The page asks for a coarse picture while the hand moves and a sharp one when it rests; both are drawn by `Job.view` in a
helper process that keeps the fitted model.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any

from precis.errors import InputError
from precis.web.helpers import Helpers
from precis.web.runs import Run

SIZES = (8.0, 1024.0)  # pixels a side
PLACES: dict[str, dict[str, tuple[float, float]]] = {
    "zoom": {"x0": (-1.0, 2.0), "y0": (-1.0, 2.0), "x1": (-1.0, 2.0), "y1": (-1.0, 2.0)},
    "orbit": {"azimuth": (-3600.0, 3600.0), "elevation": (-90.0, 90.0), "distance": (0.1, 100.0)},
}
SMALLEST = 1e-6  # share of the picture that a window may be


def read(kind: str, query: Mapping[str, str]) -> tuple[dict[str, float], tuple[int, int]]:
    """(where to look from, size in pixels) from the address; InputError names what is wrong."""
    if kind not in PLACES:
        raise InputError(f"there is no viewer {kind!r}; there are {', '.join(PLACES)}")
    at = {name: _number(query, name, *bounds) for name, bounds in PLACES[kind].items()}
    if kind == "zoom" and (at["x1"] - at["x0"] < SMALLEST or at["y1"] - at["y0"] < SMALLEST):
        raise InputError("the window must have x0 < x1 and y0 < y1")
    return at, (int(_number(query, "width", *SIZES)), int(_number(query, "height", *SIZES)))


def _number(query: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        value = float(query.get(name, ""))
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, got {query.get(name, 'none')[:40]!r}")
    return value


async def draw(
    helpers: Helpers, paper: str, run: Run, kind: str, asked: tuple[dict[str, float], tuple[int, int]]
) -> bytes:
    """The view as PNG."""
    at, size = asked
    answer: dict[str, Any] = await helpers.view(
        run.id, {"do": "view", "paper": paper, "folder": str(run.folder), "kind": kind, "at": at, "size": list(size)}
    )
    return base64.b64decode(answer["png"])
