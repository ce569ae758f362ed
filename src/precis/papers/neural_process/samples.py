"""Something to learn from where no INPUT is named, for every task: nothing is fetched."""

import csv
from pathlib import Path

import numpy as np

SIDE = 16  # of the digits


def make_sample(task: str, folder: Path) -> str:
    """Put the sample of a task into `folder`; what INPUT would be."""
    if task == "functions":
        return str(daily_curves(folder / "daily_curves.csv"))
    if task == "complete":
        from precis.data import embedded

        np.savez(folder / "digits.npz", images=embedded.digits(SIDE).images)
        return str(folder / "digits.npz")
    from .strokes import characters

    images, labels = characters(120, 12, 28, seed=7)
    pixels = np.rint(255 * (1 - images.numpy())).astype(np.uint8)
    np.savez(folder / "characters.npz", images=pixels, labels=labels.numpy())
    return str(folder / "characters.npz")


def daily_curves(path: Path, days: int = 200, seed: int = 3) -> Path:
    """Temperatures through days of one place: 10 to 24 readings a day, no two days alike; the last day's evening is
    left to be predicted."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["id", "x", "y"])
        for day in range(days):
            hours = np.sort(rng.uniform(0, 24, rng.integers(10, 25)))
            mean, swing, peak = rng.normal(14, 5), abs(rng.normal(7, 3)), rng.normal(15, 1.2)
            front, drop = rng.uniform(0, 24), rng.normal(0, 3)  # a front passes at some hour
            y = mean + swing * np.cos((hours - peak) * np.pi / 12) + drop / (1 + np.exp(-(hours - front) * 1.5))
            y += rng.normal(0, 0.3, len(hours))
            name = f"day {day + 1}"
            for hour, value in zip(hours, y):
                out.writerow([name, f"{hour:.2f}", "" if day == days - 1 and hour > 12 else f"{value:.2f}"])
    return path
