"""Memory as the allocator saw it: a check of `precis.nn.cost.saved_bytes`, which asks autograd."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Allocated(NamedTuple):
    """Bytes above what was allocated before: at the most, and when the function had returned, its result still held."""

    peak: int
    left: int


def allocated_bytes(fn: Callable[..., Any], *args: Any, device: str | torch.device = "cpu") -> Allocated:
    """What `fn(*args)` allocates for tensors on `device`: by the statistics of a GPU's allocator, on the CPU by the
    profiler's record of every allocation and release.  Scratch memory that libraries take for themselves is not in it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = fn(*args)
        torch.cuda.synchronize(device)
        peak, now = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
        del result
        return Allocated(peak - before, now - before)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read at its first use: it tells of its own starts otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = fn(*args)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    del result
    steps = [e for e in events if e.get("name") == "[memory]" and e["args"].get("Device Type") == 0]
    now = peak = 0
    for event in sorted(steps, key=lambda e: (e["ts"], e["args"].get("Ev Idx", 0))):
        now += event["args"]["Bytes"]
        peak = max(peak, now)
    return Allocated(peak, now)
