"""The claim on which the method stands: what the network fits easily."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precis.fields.deep_image_prior import dip_input
from precis.fields.restoration import fit_untrained
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import AtLeast, Equivalent, Less

from .arms import make_net
from .crops import MORE, SCORED, Pictures, load_pictures
from .targets import SPREAD, targets


@dataclass(frozen=True)
class Impedance:
    """Crops of size² from photographs whose shorter side is `side`, and the network."""

    size: int
    side: int
    steps: int
    width: int
    scales: int
    photos: tuple[str, ...] = SCORED


class NoiseImpedance(Claim):
    """Targets of equal mean and variance in each channel: natural; the same with noise of half its deviation added;
    the same with its pixels shuffled; Gaussian noise.  "area" is the mean over steps of ln(MSE/variance): its
    difference is the mean logarithm of how many times smaller the error is, so ln 2 is "half the error throughout".

    Broken arm: the natural picture, and a network whose output pixels are permuted.  "fall": by how many dB the PSNR
    to the picture without noise has fallen from its peak when the fit of the noisy one ends; half a dB is well above
    what it fluctuates by.
    """

    name = "noise_impedance"
    statement = (
        "An untrained convolutional network fits a natural picture, also with noise on it, much faster than the same "
        "pixels shuffled or white noise, so that a noisy picture is cleanest before it is fitted."
    )
    arms = ("natural", "noisy", "shuffled", "noise", "permuted")
    sabotaged = {"permuted": "natural"}
    takes = ("image", "images")
    profiles = {
        "smoke": Profile(Impedance(32, 64, 8, 8, 2), seeds=2, scale="32×32, 2 scales × 8, 8 steps"),
        "quick": Profile(Impedance(64, 128, 200, 32, 4), seeds=3, scale="64×64, 4 scales × 32, 200 steps"),
        "full": Profile(
            Impedance(128, 192, 600, 32, 5, MORE), seeds=3,
            scale="128×128, 5 scales × 32, 600 steps (GPU: 256×256, 5 scales × 128, 2,400 steps)",
            cuda=Impedance(256, 256, 2400, 128, 5, MORE),
        ),
    }  # fmt: skip
    hypotheses = (
        Less("area", "natural", "shuffled", by=math.log(2)), Less("area", "natural", "noise", by=math.log(2)),
        Less("area", "noisy", "shuffled", by=math.log(1.5)), Less("area", "noisy", "noise", by=math.log(1.5)),
        AtLeast("fall", "noisy", 0.5), Less("area", "natural", "noisy", counts=False),
        Equivalent("area", "shuffled", "noise", within=0.1, counts=False),
    )  # fmt: skip
    untried = "One network; the noise on z that the restorations add was left out, as in the paper's experiment."

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(source, settings.size, settings.side, settings.photos)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        streams, size = record.streams, (settings.size, settings.size)
        picture = data.crop(seed, settings.size, streams["data"])
        clean, target = targets(arm, picture, streams["noise"])
        z = dip_input("noise", 32, size, generator=streams["init"]).to(record.device)
        net = make_net(arm, settings, size, record)
        clean = clean.to(record.device)
        to_clean = lambda step, out, average: {"psnr": float(-10 * (out - clean).square().mean().log10())}
        fit = fit_untrained(
            net, z, target.to(record.device), steps=settings.steps, stop="steps", callback=to_clean,
            every=min(10, settings.steps), log=record.log,
        )  # fmt: skip
        steps, losses = fit.curve["loss"]
        logs = [math.log(loss / SPREAD**2) for loss in losses]
        record.curve("ln(MSE/variance)", steps, logs)
        record.curve("psnr to the picture without noise", *fit.curve["psnr"])
        record.image(f"{arm} target", target[0].clamp(0, 1))
        record.image(f"{arm} fitted", fit.last[0])
        psnr = fit.curve["psnr"].values
        return {"area": sum(logs) / len(logs), "fall": max(psnr) - psnr[-1], "error_at_end": logs[-1]}
