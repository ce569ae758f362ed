"""A claim about time: how long until a picture is good."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from precis.data.scenes3d import Capture, Scene
from precis.fields.nerf import NerfMLP
from precis.fields.nerf_fast import fast_renderer
from precis.fields.nerf_fit import Measure, dense_renderer, fit_dense
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Less

from .arms import Views, build, renderer, score, steps_to, train, watched
from .fast import make_model, train_fast
from .places import load_place, photos_of, place_of


@dataclass(frozen=True)
class Race:
    """The PSNR to reach, and each runner's steps at the most; a runner is measured every so many."""

    views: Views
    goal: float | int
    fast_steps: int
    fast_every: int
    paper_steps: int
    paper_rays: int = 1024


class FastTraining(Claim):
    """Seconds of processor time (on a GPU: of the clock) of training alone, until the (watched) test views reach a
    PSNR; as logarithms.  A runner that never does is given the time of all its steps, and the record says so.

    Measured again after a fault was mended: rays ended where the grid's largest densities added up to opaque, which cut
    off what grazing rays saw behind a surface, and the fast model got worse from some hundred steps on.

    The fast model is compared with the tiny network, by a factor of two, and at full with the paper's network, by 20;
    at quick the paper's network does not run.  On a processor it has 100 steps of 256 rays there, about five minutes,
    which cannot make it good: the ratio is then at least what is found.  No broken arm, since time is measured.
    """

    name = "fast_training"
    statement = (
        "Sampling only occupied space, with features on planes or in hash tables, reaches a given quality many times "
        "sooner than a deep network does."
    )
    arms = ("fast", "tiny", "paper")
    takes = ("scene",)
    hypotheses = (
        Less("log_seconds", "fast", "tiny", by=math.log(2)),
        Less("log_seconds", "fast", "paper", by=math.log(20), profiles=("full",)),
    )
    profiles = {
        "smoke": Profile(
            Race(Views("flatland", 16, 3, 32, 6, 6, every=2), 20, 3, 2, 1, 2), seeds=2, scale="flatland, 16 px, 3 steps"
        ),
        "quick": Profile(
            Race(Views("flatland", 64, 600, 96, lr=8e-3, bands=7), 18, 200, 10, 2, 32), seeds=3,
            scale="flatland, 64 px, to 18 dB; fast 200, tiny 600 steps at the most",
        ),
        "full": Profile(
            Race(Views("lego", 100, 1500, 128, 32, 32, 4e-3, 64, 10, 4, every=125, watched=2), 22, 300, 25, 100, 256),
            seeds=3, scale="lego, 100×100, to 22 dB; fast 300, tiny 1,500, the paper's network 100 steps at the most",
            cuda=Race(Views("lego", 100, 20_000, 1024, 64, 64, 1e-3, 64, 10, 4, every=250), 22, 2500, 50, 20_000),
        ),
    }  # fmt: skip
    untried = "Hash tables, compiled kernels, and pictures of 800×800 were not timed here."

    def load(self, settings: Any, source: Path | None) -> Scene | None:
        return load_place(settings.views.scene, settings.views.size, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        views, test = place_of(seed, settings.views.scene, settings.views.size, data)
        clock = _Clock(record.device)
        runner = {"fast": _fast, "tiny": _tiny, "paper": _paper}[arm]
        curve = runner(views, test, settings, record, clock)
        seconds = clock.at(steps_to(curve, settings.goal))
        record.curve("psnr", clock.seconds, curve["psnr"])
        best = max(curve["psnr"])
        if best < settings.goal:
            record.note(f"{arm} never reached {settings.goal:g} dB: {best:.1f} dB after {curve['step'][-1]} steps")
        return {"log_seconds": math.log(max(seconds, 1e-3)), "psnr": curve["psnr"][-1], "steps": curve["step"][-1]}


def _fast(views: Capture, test: Capture, settings: Race, record: Recorder, clock: "_Clock") -> dict[str, list[float]]:
    with clock:
        model = make_model(views, record)
    render = fast_renderer(model, near=views.near, far=views.far)
    measure, curve = clock.watch(lambda: score(render, watched(test, settings.views), record))
    with clock:
        train_fast(model, views, record, steps=settings.fast_steps, measure=measure, every=settings.fast_every)
    return curve


def _tiny(views: Capture, test: Capture, settings: Race, record: Recorder, clock: "_Clock") -> dict[str, list[float]]:
    own = settings.views
    net = build("nerf", own, record.streams["init"]).to(record.device)
    render = renderer("nerf", net, views, own)
    measure, curve = clock.watch(lambda: score(render, watched(test, settings.views), record))
    with clock:
        train("nerf", net, views, own, record, measure=measure)
    return curve


def _paper(views: Capture, test: Capture, settings: Race, record: Recorder, clock: "_Clock") -> dict[str, list[float]]:
    nets = [NerfMLP(generator=record.streams["init"]).to(record.device) for _ in range(2)]
    render = dense_renderer(nets[0], views.near, views.far, fine=nets[1])
    measure, curve = clock.watch(lambda: score(render, watched(test, settings.views), record))
    with clock:
        fit_dense(
            nets[0], photos_of(views, record), views.near, views.far, fine=nets[1], rays=settings.paper_rays,
            crop_steps=settings.paper_steps // 40, generator=record.streams["noise"], steps=settings.paper_steps,
            measure=measure, every=settings.views.every, log=record.log,
        )  # fmt: skip
    return curve


class _Clock:
    """Seconds inside of `with`, without those that measuring takes."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.spent, self.began = 0.0, 0.0
        self.steps: list[float] = []
        self.seconds: list[float] = []

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def __enter__(self) -> None:
        self.began = self.now()

    def __exit__(self, *error: object) -> None:
        self.spent += self.now() - self.began

    def watch(self, score_now: Callable[[], float]) -> tuple[Measure, dict[str, list[float]]]:
        """A measurement for a recipe, and the curve that it fills."""
        curve: dict[str, list[float]] = {"step": [], "psnr": []}

        def measure(step: int) -> dict[str, float]:
            self.spent += self.now() - self.began
            self.steps.append(step)
            self.seconds.append(self.spent)
            curve["step"].append(step)
            curve["psnr"].append(score_now())
            self.began = self.now()
            return {"psnr": curve["psnr"][-1]}

        return measure, curve

    def at(self, step: float) -> float:
        """Seconds at a step between measurements; beyond the last, those of the last."""
        return float(np.interp(step, [0, *self.steps], [0, *self.seconds]))
