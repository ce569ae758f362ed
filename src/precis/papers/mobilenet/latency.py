"""How long one picture takes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

RUNS, BEFORE = 50, 5


def milliseconds(fn: Callable[[], Any]) -> tuple[float, float]:
    """Median and 90th percentile of 50 calls after 5, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        with torch.inference_mode():
            for i in range(BEFORE + RUNS):
                begun = time.perf_counter()
                fn()
                if i >= BEFORE:
                    times.append(1e3 * (time.perf_counter() - begun))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times)), float(np.quantile(times, 0.9))
