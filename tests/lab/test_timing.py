import gc
import sys
from math import exp, log
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from precis.lab import timing
from precis.lab.timing import Timing, interleaved


class Clock:
    """A clock that only the timed functions move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


def test_medians_ratio_and_interval_of_known_times(clock):
    generator = np.random.default_rng(0)
    order = []

    def takes(name, seconds):
        def fn():
            order.append(name)
            clock.now += seconds * exp(0.1 * generator.standard_normal())

        return fn

    found = interleaved({"slow": takes("slow", 6), "fast": takes("fast", 2)}, repeats=15, warmup=2)
    assert isinstance(found, Timing)
    slow, fast = np.array(found.seconds["slow"]), np.array(found.seconds["fast"])
    assert len(slow) == len(fast) == 15
    assert found.medians == {"slow": median(slow), "fast": median(fast)}
    logs = np.log(slow) - np.log(fast)
    assert found.ratio == pytest.approx(exp(logs.mean())) and 2.7 < found.ratio < 3.3
    theirs = stats.ttest_1samp(logs, 0).confidence_interval()
    assert tuple(map(log, found.interval)) == pytest.approx((theirs.low, theirs.high))
    turned, interval = found.against("fast", "slow")
    assert turned == pytest.approx(1 / found.ratio) and interval[0] == pytest.approx(1 / found.interval[1])
    assert order[4:8] == ["slow", "fast", "fast", "slow"] and order[:4] == ["slow", "slow", "fast", "fast"]


def test_a_machine_that_slows_down_slows_both(clock):
    def takes(seconds):
        def fn():
            clock.now += seconds * (1 + clock.now)

        return fn

    found = interleaved({"a": takes(0.01), "b": takes(0.01)}, repeats=40)
    assert found.seconds["a"][-1] > 1.5 * found.seconds["a"][0]
    assert found.ratio == pytest.approx(1, abs=0.01) and found.interval[0] < 1 < found.interval[1]


def test_three_functions_and_calls_too_short_to_time(clock):
    calls = dict.fromkeys("abc", 0)

    def takes(name, seconds):
        def fn():
            calls[name] += 1
            clock.now += seconds

        return fn

    found = interleaved({"a": takes("a", 1e-5), "b": takes("b", 1.0), "c": takes("c", 0.0)}, repeats=3, warmup=1)
    assert calls["a"] == 1 + 3 * 100 and calls["b"] == 1 + 3
    assert found.medians["a"] == pytest.approx(1e-5) and found.ratio == pytest.approx(1e-5)
    assert found.medians["c"] > 0 and found.against("b", "a")[0] == pytest.approx(1e5)


def test_the_collector_is_off_while_timed_and_on_again_after_an_error():
    seen = []
    interleaved({"a": lambda: seen.append(gc.isenabled()), "b": lambda: None}, repeats=3, warmup=1)
    assert seen and not any(seen) and gc.isenabled()
    with pytest.raises(KeyError):
        interleaved({"a": lambda: {}["x"], "b": lambda: None})
    assert gc.isenabled()


def test_a_real_difference_is_seen():
    found = interleaved({"more": lambda: sum(range(60_000)), "less": lambda: sum(range(6_000))}, repeats=10)
    assert found.ratio > 1 and all(seconds > 0 for times in found.seconds.values() for seconds in times)


@pytest.mark.parametrize(
    ("fns", "options"),
    [({"a": print}, {}), ({"a": print, "b": print}, {"repeats": 2}), ({"a": print, "b": print}, {"warmup": 0})],
)
def test_too_little_to_compare(fns, options):
    with pytest.raises(ValueError):
        interleaved(fns, **options)


@pytest.mark.parametrize("in_use", [True, False])
def test_a_gpu_in_use_is_waited_for_and_one_that_is_not_stays_alone(clock, monkeypatch, in_use):
    """A stand-in whose calls only queue a second of work, done when one waits for it."""
    queued = []

    class Queue:
        @staticmethod
        def is_initialized():
            return in_use

        @staticmethod
        def synchronize():
            assert in_use
            clock.now += len(queued)
            queued.clear()

    no_mps = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Queue, backends=no_mps))

    def launch():
        queued.append(1)

    def launch_twice():
        queued.extend([1, 1])

    found = interleaved({"once": launch, "twice": launch_twice}, repeats=3, warmup=1)
    if in_use:
        assert found.medians == {"once": 1.0, "twice": 2.0}
    else:
        assert max(found.medians.values()) < 1e-6
