"""Claims about what a fit is worth between its samples, with and without derivatives in the loss.

Every second pixel of a picture is kept, and the others, where no network was ever told anything, are scored.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from precis.data.shapes import band_limited
from precis.fields.poisson import gradient_rows, image_gradient, image_laplacian
from precis.fields.siren_fit import evaluate_image, fit_derivatives
from precis.lab.claim import Claim, Metrics, Profile, Recorder, Tuning
from precis.lab.hypotheses import Greater
from precis.nn.coordinates import coordinate_grid

from .arms import RATES, capped_psnr, make_net
from .claims_images import MORE, PICTURED
from .crops import SCORED, Pictures, load_pictures

GRADIENT_WEIGHT, LAPLACIAN_WEIGHT = 0.1, 0.01


@dataclass(frozen=True)
class Kept:
    """Crops of size², of which every second pixel is kept, from photographs whose shorter side is `side`."""

    size: int
    side: int
    steps: int
    width: int = 64
    batch: int | None = None
    photos: tuple[str, ...] = SCORED


class Samples(NamedTuple):
    """A picture [1,S,S] in [0, 1] and the derivatives that are given at its kept pixels, in units of coordinates."""

    image: Tensor
    gradient: Float[Tensor, "n 1 2"]
    laplacian: Float[Tensor, "n 1"]


class _Between(Claim):
    """One sine network, three losses: mean (Φ − y)², + 0.1 × relative error of ∇Φ, + 0.01 × relative error of ΔΦ."""

    arms = ("values", "gradients", "gradients_laplacians", "bicubic")
    sabotaged = {"permuted": "gradients"}
    tuning = Tuning({"lr": RATES}, "psnr")
    profiles = {
        "smoke": Profile(Kept(16, 32, 4), seeds=2, scale="8×8 of 16×16 pixels kept, width 64, 4 steps"),
        "quick": Profile(Kept(64, 128, 250), scale="32×32 of 64×64 pixels kept, width 64, 250 steps"),
        "full": Profile(
            Kept(96, 192, 1000, 96, None, MORE),
            scale="48×48 of 96×96 pixels kept, width 96, 1,000 steps (GPU: 256×256, 256, 4,000)",
            cuda=Kept(256, 256, 4000, 256, None, MORE),
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("psnr", "gradients", "values", by=1),
        Greater("psnr", "gradients_laplacians", "values", by=1),
        Greater("psnr", "gradients", "bicubic", counts=False),
        Greater("psnr", "values", "bicubic", counts=False),
    )

    def samples(self, seed: int, settings: Any, data: Any, generator: torch.Generator) -> Samples:
        raise NotImplementedError

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        streams, size, device = record.streams, settings.size, record.device
        image, gradient, laplacian = (x.to(device) for x in self.samples(seed, settings, data, streams["data"]))
        kept = image[:, ::2, ::2]
        if seed < PICTURED:
            record.image("truth", image[0])
            record.image("kept", kept[0])
        if arm == "bicubic":
            value = bicubic(kept)
        else:
            if arm == "permuted":
                gradient = gradient[torch.randperm(len(gradient), generator=streams["noise"]).to(device)]
            net = make_net("siren", size // 2, settings.width, streams["init"], device=device)
            coords = coordinate_grid((size, size), device=device).view(size, size, 2)[::2, ::2].reshape(-1, 2)
            run = fit_derivatives(
                net, coords, values=kept.flatten(1).T * 2 - 1, gradients=None if arm == "values" else 2 * gradient,
                laplacians=2 * laplacian if arm == "gradients_laplacians" else None,
                weights=(1.0, GRADIENT_WEIGHT, LAPLACIAN_WEIGHT), batch=settings.batch, generator=streams["data"],
                steps=settings.steps, lr=record.tuned["lr"], log=record.log,
                measure=lambda net: {"psnr": between(evaluate_image(net, image.shape[1:]), image)},
            )  # fmt: skip
            record.curve("psnr", *run.curves["psnr"])
            value = evaluate_image(net, image.shape[1:])
        if seed < PICTURED:
            record.image(arm, value[0])
        at_samples = capped_psnr(value[:, ::2, ::2], kept)
        return {"psnr": between(value, image), "psnr_at_samples": at_samples}


class TrueDerivativesBetweenSamples(_Between):
    """The picture is a sum of 96 waves below 0.9 of the Nyquist frequency of *all* pixels, so that the kept ones alias.

    Its derivatives are known in closed form and carry what the kept values do not.  Scored are the left-out pixels that
    have kept ones on either side.  Margin 1 dB, below which nobody sees a difference.  The weights 1, 0.1, 0.01 of the
    terms were set on waves that no verdict uses, the rate of each arm is tuned on such too.  The broken arm gets
    the gradients permuted among the pixels.  Bicubic interpolation is context.
    """

    name = "true_derivatives_between_samples"
    statement = (
        "Fitting the true derivatives beside the values gives a better function between the samples than fitting the "
        "values alone."
    )
    untried = "Noisy derivatives, other spacings than two pixels and pictures with edges were not tried."

    def samples(self, seed: int, settings: Any, data: Any, generator: torch.Generator) -> Samples:
        size = settings.size
        waves = band_limited(size, seed)
        grid = coordinate_grid((size, size), dtype=torch.float64).numpy()
        kept = grid.reshape(size, size, 2)[::2, ::2].reshape(-1, 2)

        def rows(values: np.ndarray, *shape: int) -> Tensor:
            return torch.from_numpy(values).float().reshape(*shape)

        return Samples(
            rows(waves.value(grid), 1, size, size), rows(waves.gradient(kept), -1, 1, 2),
            rows(waves.laplacian(kept), -1, 1),
        )  # fmt: skip


class EstimatedDerivativesBetweenSamples(_Between):
    """Crops of photographs; the derivatives are central and five-point differences of the kept pixels themselves.

    They hold nothing that the kept values do not, and miss what lies between, so that no gain is to be expected.
    Margin, weights and broken arm are those of the claim with true derivatives; rates are tuned on `chelsea`.
    """

    name = "estimated_derivatives_between_samples"
    statement = (
        "Fitting derivatives estimated from the same samples gives a better function between the samples than fitting "
        "the values alone."
    )
    takes = ("image", "images")
    untried = "Better estimates than differences of neighbours, and other spacings than two pixels, were not tried."

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(source, settings.size, settings.side, settings.photos)

    def samples(self, seed: int, settings: Any, data: Any, generator: torch.Generator) -> Samples:
        image = data.crop(seed, settings.size, generator)
        kept = image[:, ::2, ::2].contiguous()
        return Samples(image, gradient_rows(image_gradient(kept)), image_laplacian(kept).flatten(1).T.contiguous())


def bicubic(kept: Float[Tensor, "1 n n"]) -> Float[Tensor, "1 m m"]:
    """Twice as many pixels a side, the kept ones at even places; beyond the last the border is repeated."""
    n = kept.shape[1]
    at = torch.arange(2 * n, device=kept.device) / 2 / (n - 1) * 2 - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)[None]
    return F.grid_sample(kept[None], grid, mode="bicubic", padding_mode="border", align_corners=True)[0]


def between(value: Float[Tensor, "1 m m"], image: Float[Tensor, "1 m m"]) -> float:
    """PSNR at the left-out pixels that have kept ones on either side."""
    left_out = torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
    left_out[::2, ::2] = False
    left_out[-1], left_out[:, -1] = False, False
    return capped_psnr(value[:, left_out], image[:, left_out])
