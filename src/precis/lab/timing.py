"""Time two or more functions against each other, in turns, so that a busy machine slows all of them alike.

In each round every function runs once, and the next round begins with the next function.  A ratio of times is the
geometric mean of the rounds' ratios, its interval Student's t on their logarithms (times are skewed, logarithms of
neighbouring times' ratios much less).
"""

import gc
import sys
from collections.abc import Callable
from math import ceil, exp, log
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from precis.lab.statistics import paired_interval

SHORTEST = 1e-3  # seconds of one sample: what runs faster is called several times over


class Timing(NamedTuple):
    """Seconds of one call.  `ratio`, with its 95 % interval: the first function's time over the second's."""

    medians: dict[str, float]
    ratio: float
    interval: tuple[float, float]
    seconds: dict[str, tuple[float, ...]]

    def against(self, a: str, b: str, alpha: float = 0.05) -> tuple[float, tuple[float, float]]:
        """Time of a over time of b, and its interval."""
        return _ratio(self.seconds[a], self.seconds[b], alpha)


def interleaved(fns: dict[str, Callable[[], Any]], repeats: int = 20, warmup: int = 3) -> Timing:
    """Time the functions `fns`, `repeats` rounds after `warmup` calls of each; waits for a GPU that is in use.

    A call under a millisecond is repeated to about that, and the mean taken.  ValueError for fewer than two functions,
    three repeats or one warm-up.
    """
    if len(fns) < 2 or repeats < 3 or warmup < 1:
        raise ValueError("timing wants at least two functions, three repeats and one warm-up")
    names = list(fns)
    calls = dict.fromkeys(names, 1)
    for name in names:
        fastest = min(_sample(fns[name], 1) for _ in range(warmup))
        calls[name] = max(1, ceil(SHORTEST / max(fastest, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            seconds[name].append(_sample(fns[name], calls[name]))
        names.append(names.pop(0))
    kept = {name: tuple(seconds[name]) for name in fns}
    first, second, *_ = kept.values()
    return Timing({name: median(times) for name, times in kept.items()}, *_ratio(first, second), kept)


def _sample(fn: Callable[[], Any], calls: int) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        _wait()
        start = perf_counter()
        for _ in range(calls):
            fn()
        _wait()
        return max(perf_counter() - start, 1e-9) / calls
    finally:
        if collecting:
            gc.enable()


def _wait() -> None:
    """Until the GPU is idle: its work is only queued when a call returns.  Starts no GPU that is not in use."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def _ratio(a: tuple[float, ...], b: tuple[float, ...], alpha: float = 0.05) -> tuple[float, tuple[float, float]]:
    found = paired_interval([log(x) for x in a], [log(x) for x in b], alpha)
    return exp(found.estimate), (exp(found.low), exp(found.high))
