"""What the network is fitted to in order to see what it resists: a picture, it and noise, its pixels shuffled, noise.

All have the same mean and variance in every channel.  Figure 2 of the paper.
"""

import torch
from jaxtyping import Float
from torch import Tensor

KINDS = ("natural", "noisy", "shuffled", "noise")
MEAN, SPREAD = 0.5, 0.15  # of every channel of every target: three deviations lie within the sigmoid's range
NOISE = 0.5  # of the noisy target, in standard deviations of the picture's channel


def targets(
    arm: str, picture: Float[Tensor, "1 c h w"], generator: torch.Generator
) -> tuple[Float[Tensor, "1 c h w"], Float[Tensor, "1 c h w"]]:
    """What the arm is fitted to, and the picture in it: for "noisy" that without the noise, in the target's units."""
    noise = torch.randn(picture.shape, generator=generator)
    order = torch.randperm(picture[0, 0].numel(), generator=generator)
    if arm == "noise":
        return _alike(noise), _alike(noise)
    if arm == "shuffled":
        shuffled = _alike(picture.flatten(2)[..., order].unflatten(2, picture.shape[2:]))
        return shuffled, shuffled
    if arm != "noisy":
        return _alike(picture), _alike(picture)
    deviation = picture.std((-2, -1), correction=0, keepdim=True)
    noisy = picture + NOISE * deviation * noise
    mean, spread = noisy.mean((-2, -1), keepdim=True), noisy.std((-2, -1), correction=0, keepdim=True)
    return MEAN + SPREAD * (picture - mean) / spread, _alike(noisy)


def _alike(x: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
    """Each channel moved and scaled to the common mean and deviation."""
    spread = x.std((-2, -1), correction=0, keepdim=True).clamp(min=1e-6)
    return MEAN + SPREAD * (x - x.mean((-2, -1), keepdim=True)) / spread
