"""How the fits of a run ended: by which rule, whether its sign was ever seen, and the curve that shows it."""

from typing import Any

from precis.lab.figures import curves
from precis.papers.job import Work
from precis.papers.work import save

from .options import TASKS

Lines = dict[str, tuple[list[int], list[float]]]


def stop_of(job: Any, sigma: float | None) -> Any:
    """The rule that ends the fits; without a known noise there is none to stop at."""
    stop = job.stop or TASKS[job.task].stop
    return "steps" if stop == "noise" and sigma is None else stop


def misfit(losses: list[float]) -> float:
    """The loss at the end, averaged over some ten steps as the rule "noise" does."""
    mean = 0.0
    for step, loss in enumerate(losses, 1):
        mean += (loss - mean) * max(0.1, 1 / step)
    return mean


def tell_of_stops(
    job: Any, work: Work, sigma: float | None, fits: list[dict[str, Any]], steps: int | None
) -> None:  # fmt: skip
    """Note where the budget was spent before the rule's sign was seen.

    fits: their "at" and "curve"; steps: the most that each had.
    """
    stop = stop_of(job, sigma)
    spent, more = ("time", "--minutes") if job.minutes is not None else ("steps", "--steps")
    if stop == "noise" and sigma is not None:
        left = [m for m in (misfit(fit["curve"]["loss"][1]) for fit in fits) if m > sigma**2]
        if left:
            work.note(
                f"the {spent} ran out before the noise level was reached{_some(left, fits)}: the misfit came down to "
                f"{255 * max(left) ** 0.5:.1f} of 255, the noise is {255 * sigma:.1f}; the result is the last average, "
                f"and finer detail may be missing.  More ({more}) or a larger network (--size) come closer"
            )
    if stop == "variance":
        patience = max(200, (steps or 0) // 10)
        still = [fit for fit in fits if fit["curve"]["loss"][0][-1] - fit["at"] < patience]
        if still:
            work.note(
                f"the {spent} ran out before the outputs had settled{_some(still, fits)}: their variance counts as "
                f"least once {patience} steps have brought no lower one; the result is that of step "
                f"{still[0]['at']:,}.  Give more ({more})"
            )


def write_curve(work: Work, curve: Lines, at: int, sigma: float | None, fits: int) -> None:
    """curve.png: misfit and variance by step, the noise where it is known, and the step that was taken."""
    loss = curve["loss"]
    series: dict[str, Any] = {"misfit": loss}
    if "variance" in curve:
        series["variance of the last outputs"] = curve["variance"]
    if sigma:
        series["σ² of the noise"] = ([loss[0][0], loss[0][-1]], [sigma**2] * 2)
    series[f"taken at step {at:,}"] = ([at, at], [min(loss[1]), max(loss[1])])
    label = "mean square" + (f", first of {fits} fits" if fits > 1 else "")
    save(work.folder / "curve.png", curves(series, y_label=label, log_y=True).png())
    for name, (steps, values) in curve.items():
        work.curve(name, steps, values)


def _some(part: list[Any], whole: list[Any]) -> str:
    return f" in {len(part)} of {len(whole)} fits" if len(whole) > 1 else ""
