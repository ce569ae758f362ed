"""Tables made by hand, for tests of what is said of them."""

from typing import Any

import numpy as np

from precis.lab import Table


def table(alpha: float = 0.05, **arms: Any) -> Table:
    """One metric "m"; each arm a list of values, by seed, or of dicts, by task."""
    rows = {arm: {seed: {"m": value} for seed, value in enumerate(values)} for arm, values in arms.items()}
    return Table(rows, tuple(range(max(len(values) for values in arms.values()))), alpha)


def spread(mean: float, width: float = 0.1, n: int = 5) -> list[float]:
    """n values about `mean`, evenly `width` apart."""
    return [float(x) for x in mean + width * (np.arange(n) - (n - 1) / 2)]
