"""How far predicted bands can be trusted: nominal against observed coverage, and one factor that mends σ."""

import math
from statistics import NormalDist

import numpy as np

from precis.lab.figures import Chart, curves

LEVELS = np.arange(5, 100, 5)  # % of central intervals
WIDTHS = np.array([NormalDist().inv_cdf(0.5 + level / 200) for level in LEVELS])  # in standard deviations
NARROW, WIDE = 80, 98  # % inside the 90 % band below and above which it is said to be wrong


class Calibration:
    """Standardised errors z = (y − μ)/σ of values that were not shown, by how many were; a function counts once."""

    def __init__(self) -> None:
        self.errors: dict[int, list[np.ndarray]] = {}

    def add(self, shown: int, z: np.ndarray) -> None:
        """The errors of one function or picture, of any shape."""
        self.errors.setdefault(shown, []).append(np.abs(z).ravel())

    def coverage(self, shown: int) -> np.ndarray:
        """Observed coverage in % at each of LEVELS, the mean over functions."""
        inside = [(z[:, None] <= WIDTHS).mean(0) for z in self.errors[shown]]
        return 100 * np.mean(inside, 0)

    def at(self, level: int, shown: int) -> float:
        """Observed coverage, in %, of the central interval of `level` %."""
        return float(self.coverage(shown)[int(np.flatnonzero(LEVELS == level)[0])])

    def error(self, shown: int) -> float:
        """The mean distance between nominal and observed coverage, as a share."""
        return float(np.abs(self.coverage(shown) - LEVELS).mean()) / 100

    def few_some_many(self) -> list[int]:
        """Of the counts that at least half as many functions have as any: the first, the middle and the last."""
        most = max(map(len, self.errors.values()), default=0)
        counts = sorted(n for n, errors in self.errors.items() if 2 * len(errors) >= most)
        return sorted({counts[0], counts[len(counts) // 2], counts[-1]}) if counts else []

    def sigma_scale(self) -> float:
        """The factor on σ of the largest likelihood, √(mean z²): every function weighs alike at every count."""
        squares = [float(np.square(z).mean()) for errors in self.errors.values() for z in errors]
        return max(math.sqrt(float(np.mean(squares))), 1e-3) if squares else 1.0

    def chart(self) -> Chart:
        """Observed over nominal coverage; on the diagonal the bands hold what they promise."""
        lines = {f"{n} shown": (LEVELS, self.coverage(n)) for n in self.few_some_many()}
        lines["as promised"] = (LEVELS, LEVELS.astype(float))
        return curves(lines, x_label="promised coverage (%)", y_label="observed coverage (%)")

    def notes(self, unit: str, mended: bool = False) -> list[str]:
        """What to tell where the 90 % band is far off; `unit`: what is shown, in the plural; `mended`: by a factor."""
        more = "" if mended else "; --recalibrate scales σ to fit"
        found, told = {n: self.at(90, n) for n in self.few_some_many()}, []
        narrow, wide = [n for n, c in found.items() if c < NARROW], [n for n, c in found.items() if c > WIDE]
        for wrong, counts in (("narrow", narrow), ("wide", wide)):
            where = [f"{found[n]:.0f} % where {n} {unit if n > 1 else unit[:-1]} {'are' if n > 1 else 'is'} shown"
                     for n in counts]  # fmt: skip
            if where:
                told.append(f"The 90 % band is too {wrong}: on held-out data it holds {', '.join(where)}.  "
                            f"calibration.png has the other bands{more}.")  # fmt: skip
        return told
