"""The claims of Nerfies, in the order of the summary; all at one profile score one set of runs (see `arms`)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Greater, Less, NotWorse

from .arms import train_and_score
from .places import Moving, Scored, read_moving

QUICK = Moving(
    "flatland", frames=24, size=48, steps=400, rays=96, samples=24, test_samples=48, lr=4e-3, warp_lr=2e-3, code_lr=2e-2
)  # fmt: skip
FULL = Moving(
    "bust", frames=60, size=32, steps=1200, rays=512, samples=32, test_samples=48, lr=2e-2, warp_lr=2e-3,
    code_lr=2e-2, template="planes",
)  # fmt: skip
SMOKE = Moving(
    "flatland", frames=4, size=12, steps=3, rays=32, samples=8, test_samples=8, lr=4e-3, warp_lr=2e-3, code_lr=2e-2,
    grid=24,
)  # fmt: skip


class _Runs(Claim):
    """The moving flatland: a head that turns, bends and wanders before boxes, 24 instants seen by a camera that sweeps
    ±35°.  Scored are the pictures of a second camera, 12° further, at the same instants, each under its instant's code.

    All arms start from the same template weights, see the same rays in the same order for as many steps and at the same
    rates, which rise over the first tenth of a run.  These were set on seeds from 10,000 on, which no verdict uses:
    4e-3 for the template, static ones included, 2e-3 for the field, all of whose units may die at 4e-3, and 2e-2 for
    the frames' deformation codes.  Codes begin within 0.05 of each other; the paper's 250,000 steps of 1e-3 carry them
    anywhere, a few hundred do not.  At full the planes have the job's 2e-2, their small network 1e-3, and the planes'
    variation is lightly penalised: with 2e-2 for both, on such a seed, the field had no effect and all arms' pictures
    were 2.4 dB worse.

    An earlier record, of three seeds, came out inconclusive throughout.  Its template was at fault: it could draw
    nothing sharper than a fifth of a unit, the size of the head, since the bands and first densities of the tiny
    network are made for scenes five times as large.  It now works in fitting lengths (`unit`), in all arms.
    A second record, of five seeds and 500 steps, was inconclusive throughout again: codes had the field's rate, and in
    some seeds the field ended without any effect (log Σ exactly 0; one seed of five for the method, three for
    `one_band`).  Codes were given a rate of their own on seeds from 10,000 on, and the steps cut to 400 for time.
    """

    runs = "moving"
    profiles = {
        "smoke": Profile(SMOKE, seeds=2, scale="flatland, 4 frames of 12 pixels, 3 steps"),
        "quick": Profile(QUICK, seeds=5, scale="flatland, 24 frames of 48 pixels, template 4×64, 400 steps"),
        "full": Profile(
            FULL, seeds=3, scale="a bust in space, 60 frames of 32², planes, 1,200 steps (GPU: 64², 12,000 steps)",
            cuda=replace(FULL, size=64, steps=12_000, rays=4096, samples=64, test_samples=96, background_points=4096),
        ),
        "paper": Profile(
            Moving("bust", frames=60, size=256, steps=250_000, rays=6144, samples=256, test_samples=256, lr=1e-3,
                   warp_lr=1e-3, code_lr=1e-3, template="vanilla", bands=8, depth=6, width=128,
                   background_points=16_384),
            seeds=3, gpus=1, scale="template 8×256, field 6×128, 250,000 steps of 6,144 rays (the paper: 8 GPUs)",
        ),
    }  # fmt: skip

    def load(self, settings: Any, source: Path | None) -> Scored | None:
        return None if source is None else read_moving(source, settings.size)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        return train_and_score(arm, seed, settings, data, record)


class Deformation(_Runs):
    """PSNR of moving pixels (those that show the head), the mean over views; margin 1 dB, below which nobody sees a
    difference.  The baselines have the same template and no field; "nerf_code" has the appearance code that SE(3) has.
    The broken arm is the method with the deformation codes permuted anew among the frames at every step, so that a
    code says nothing about its frame.  All pixels are context.
    """

    name = "deformation"
    statement = (
        "Of a subject that moves, a deformation field renders new views better than a static field does, with or "
        "without a code per photograph in its colours."
    )
    arms = ("se3", "nerf", "nerf_code")
    sabotaged = {"permuted": "se3"}
    takes = ("scene",)
    hypotheses = (
        Greater("psnr_moving", "se3", "nerf", by=1),
        Greater("psnr_moving", "se3", "nerf_code", by=1),
        Greater("psnr", "se3", "nerf", counts=False),
        Greater("psnr", "se3", "nerf_code", counts=False),
    )
    untried = (
        "People and real photographs, LPIPS, Neural Volumes, NSFF and D-NeRF, and motions that change what is "
        "connected to what were not tried."
    )


class Elastic(_Runs):
    """Primary, declared beforehand: the depth of the moving part from the second camera (log of the mean error).

    λ = 0.01, as for the paper's captures, against 0; nothing else differs, so the baseline is the method without its
    mechanism, and no broken arm is needed.  Mean |log Σ| at the head and PSNR are context.
    """

    name = "elastic"
    statement = "The elastic term makes the geometry of the moving part more accurate."
    arms = ("se3", "no_elastic")
    hypotheses = (
        Less("log_depth_error", "se3", "no_elastic"),
        Less("log_stretch", "se3", "no_elastic", counts=False),
        Greater("psnr_moving", "se3", "no_elastic", counts=False),
    )
    untried = "Other weights than 0.01, smaller baselines between the cameras, and real captures were not tried."


class CoarseToFine(_Runs):
    """Bands of the deformation's encoding: opened over the first 60 % (the method), all four from the start, or one.

    The baselines are the method without its mechanism, so that no broken arm is needed.
    """

    name = "coarse_to_fine"
    statement = (
        "Opening the deformation's frequency bands one after the other renders the moving part better than all of them "
        "from the start, and better than the lowest alone."
    )
    arms = ("se3", "all_bands", "one_band")
    takes = ("scene",)
    hypotheses = (
        Greater("psnr_moving", "se3", "all_bands"),
        Greater("psnr_moving", "se3", "one_band"),
        Less("log_depth_error", "se3", "all_bands", counts=False),
    )
    preconditions = tuple(
        Precondition("log_stretch", arm, at_least=math.log(1e-4), why="a field had no effect, its units having died")
        for arm in ("se3", "all_bands", "one_band")
    )
    untried = "More bands than four, other shares of the run than 60 %, and motions of finer detail were not tried."


class Background(_Runs):
    """Drift: log of the mean ‖T(x) − x‖ at static surface points that training never saw, over all frames; it has to
    fall by half.  Static pixels must not get worse by more than 0.5 dB.  The baseline is the method without its
    mechanism, so that no broken arm is needed.
    """

    name = "background"
    statement = (
        "Points that are known to stand still keep the deformation field from moving the static scene, at no cost to "
        "its picture."
    )
    arms = ("se3", "no_background")
    takes = ("scene",)
    hypotheses = (
        Less("log_drift", "se3", "no_background", by=math.log(2)),
        NotWorse("psnr_static", "se3", "no_background", margin=0.5),
        Greater("psnr_static", "se3", "no_background", counts=False),
    )
    untried = "Points that structure from motion found, wrong ones among them, and other weights were not tried."


class SE3(_Runs):
    """At full only: turns of ±30° in place of ±12° (bust: ±14°), a field of screw motions against one of shifts.

    The perceptrons have the same layers but for the last, of six or three outputs.  No broken arm: the baseline is the
    method without its mechanism.  Margin 0.5 dB.
    """

    name = "se3"
    statement = "Where things turn far, a field of rigid motions renders them better than a field of shifts."
    runs = "turning"
    arms = ("se3", "translation")
    profiles = {
        name: replace(profile, settings=replace(profile.settings, turn=30.0),
                      cuda=profile.cuda and replace(profile.cuda, turn=30.0))
        for name, profile in _Runs.profiles.items() if name != "quick"
    }  # fmt: skip
    takes = ("scene",)
    hypotheses = (Greater("psnr_moving", "se3", "translation", by=0.5),)
    untried = "Turns beyond 30°, and fields with a pivot or an additional shift, were not tried."


class Ghosts(_Runs):
    """The share of ∫σ that lies where no frame has anything (two cells of margin) and some photograph looks through, on
    a grid over the scene's box, as a logarithm; for fields that move, the worst of five frames.  Space that nobody sees
    is left out: nothing tells any method what is there.  The broken arm permutes codes, as in `deformation`.  Context:
    connected blobs of a density above 10 with more than four cells there.
    """

    name = "ghosts"
    statement = "A static field of a moving subject leaves matter where there is nothing; a deformation field less."
    arms = ("se3", "nerf")
    sabotaged = {"permuted": "se3"}
    hypotheses = (
        Less("log_free_share", "se3", "nerf"),
        Less("log_blobs", "se3", "nerf", counts=False),
    )
    untried = "Ghosts in real captures, where nobody knows what is empty, were not looked for."
