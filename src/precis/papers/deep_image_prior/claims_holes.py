"""The claim about what the prior cannot know: what is behind a hole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from precis.data.embedded import photo
from precis.data.images import as_float
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Interaction

from .arms import psnr_in, restore
from .classical import biharmonic
from .crops import reduce

PHOTO = "chelsea"
# (row, column) of the centres of holes, as shares of the photograph's shorter side, and how far a seed moves them
PLACES = {
    "eye": ((0.385, 0.573), (0.457, 1.057)),
    "fur": ((0.167, 0.800), (0.667, 0.367), (0.133, 0.433), (0.633, 0.600)),
}
MOVED = 0.02
SHARE = 0.12


@dataclass(frozen=True)
class Holes:
    """Windows of size² of the photograph, its shorter side reduced to `side`."""

    size: int
    side: int
    steps: int
    width: int
    scales: int
    ema: float = 0.95


class SemanticHoles(Claim):
    """The same number of pixels is missing: scattered over the window that holds an eye; a square on the fur; a square
    that hides the eye.  Seeds go through the eyes and places of fur and move the square a little.  PSNR is that inside
    the hole.  Broken arms: the network's output is a linear map of z but for the normalisation (no activations, no
    sigmoid), for the scattered pixels and for the fur.
    """

    name = "semantic_holes"
    statement = (
        "The advantage of a deep image prior over a smooth interpolant, which it has for scattered pixels and for a "
        "hole in fur, is lost where the hole hides meaning."
    )
    arms = (
        "dip_scattered", "dip_fur", "dip_eye", "biharmonic_scattered", "biharmonic_fur", "biharmonic_eye",
        "linear_scattered", "linear_fur",
    )  # fmt: skip
    sabotaged = {"linear_scattered": "dip_scattered", "linear_fur": "dip_fur"}
    profiles = {
        "smoke": Profile(Holes(32, 50, 8, 8, 2), seeds=2, scale="32×32, 2 scales × 8, 8 steps"),
        "quick": Profile(Holes(64, 100, 150, 32, 4), seeds=4, scale="64×64, 4 scales × 32, 150 steps"),
        "full": Profile(
            Holes(128, 150, 600, 32, 5, 0.98), seeds=3,
            scale="128×128, 5 scales × 32, 600 steps (GPU: 256×256, 5 scales × 128, 5,000 steps)",
            cuda=Holes(256, 300, 5000, 128, 5, 0.99),
        ),
    }  # fmt: skip
    hypotheses = (
        Interaction("psnr", ("dip_scattered", "biharmonic_scattered"), ("dip_eye", "biharmonic_eye")),
        Interaction("psnr", ("dip_fur", "biharmonic_fur"), ("dip_eye", "biharmonic_eye")),
    )
    untried = "One photograph of a cat; PSNR says little of how plausible a filled hole looks."

    def load(self, settings: Any, source: Path | None) -> Tensor:
        return torch.from_numpy(reduce(as_float(photo(PHOTO)), settings.side))[None]

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        method, _, place = arm.partition("_")
        truth, missing = hole(place, seed, data, settings.size, record.streams["data"])
        known = 1 - missing
        if method == "biharmonic":
            made = biharmonic(truth * known, known)
        else:
            fit = restore(
                method, settings, truth * known, truth, record, sigma=0.0, mask=known, where=missing
            ).fit
            made = fit.ema.cpu()
        record.image(f"{place} measured", (truth * known)[0])
        record.image(arm, (truth * known + made.clamp(0, 1) * missing)[0])
        return {"psnr": psnr_in(made, truth, missing)}


def hole(
    place: str, seed: int, picture: Float[Tensor, "1 3 h w"], size: int, generator: torch.Generator
) -> tuple[Float[Tensor, "1 3 {size} {size}"], Float[Tensor, "1 1 {size} {size}"]]:
    """A window of the picture, and 1 where pixels are missing: `SHARE` of them, rounded to a square's."""
    centres = PLACES["fur" if place == "fur" else "eye"]
    side, edge = min(picture.shape[-2:]), round((SHARE * size**2) ** 0.5)
    moved = MOVED * (2 * torch.rand(2, generator=generator) - 1)
    centre = [round(side * (c + float(m))) for c, m in zip(centres[seed % len(centres)], moved)]
    start = [min(max(c - size // 2, 0), n - size) for c, n in zip(centre, picture.shape[-2:])]
    window = picture[..., start[0] : start[0] + size, start[1] : start[1] + size].clone()
    missing = torch.zeros(1, 1, size, size)
    if place == "scattered":
        missing.view(-1)[torch.randperm(size**2, generator=generator)[: edge**2]] = 1
    else:
        top, left = (min(max(c - s - edge // 2, 0), size - edge) for c, s in zip(centre, start))
        missing[..., top : top + edge, left : left + edge] = 1
    return window, missing
