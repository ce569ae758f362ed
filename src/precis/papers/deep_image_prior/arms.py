"""The networks that the claims compare, and how one of them restores a picture.

dip        the skip network, `scales` scales of `width` channels, 4 on each skip
permuted   the same network, its output pixels put in an order drawn once: what it makes easily is no longer what lies
           together in a picture.  Broken: the structure of the network is there, and says nothing of pictures.
linear     the same network without activations and sigmoid: a linear map of z, but for the normalisation
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.deep_image_prior import SkipNet, dip_input
from precis.fields.restoration import BlindStop, Fit, fit_untrained
from precis.lab.claim import Metrics, Recorder
from precis.nn.image import psnr


class Permuted(nn.Module):
    """A network whose output pixels are put in another order."""

    def __init__(self, net: nn.Module, order: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("order", order, persistent=False)

    def forward(self, z: Float[Tensor, "1 d h w"]) -> Float[Tensor, "1 c h w"]:
        x = self.net(z)
        return x.flatten(2)[..., self.get_buffer("order")].unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


class Restored(NamedTuple):
    """What a fit gave, and its PSNR at several moments."""

    fit: Fit
    metrics: Metrics


def make_net(arm: str, settings: Any, size: tuple[int, int], record: Recorder, channels: int = 3) -> nn.Module:
    """The arm's network, its weights the same in every arm of a seed."""
    sizes = (settings.width,) * settings.scales
    plain: dict[str, Any] = {"activation": "none", "sigmoid": False} if arm.startswith("linear") else {}
    net: nn.Module = SkipNet(
        32, channels, down=sizes, up=sizes, skip=(4,) * settings.scales, generator=record.streams["init"], **plain
    )
    if arm.startswith("permuted"):
        net = Permuted(net, torch.randperm(size[0] * size[1], generator=record.streams["eval"]))
    return net.to(record.device)


def restore(
    arm: str, settings: Any, target: Tensor, truth: Float[Tensor, "1 c h w"], record: Recorder, *, sigma: float,
    operator: Any = None, mask: Tensor | None = None, where: Tensor | None = None, lr: float = 0.01,
    noise: float | None = None,
) -> Restored:  # fmt: skip
    """Fit the arm's network for all steps; PSNR (dB, on the clipped picture, over `where`) at several moments.

    psnr: of the average at the blind stop, where the misfit is as large as `noise` (None: after all steps);
    psnr_variance: where the outputs vary least; psnr_oracle: at the best moment; psnr_end, psnr_last: average and
    output at the end.
    """
    device, size = record.device, (truth.shape[-2], truth.shape[-1])
    net = make_net(arm, settings, size, record, truth.shape[1])
    z = dip_input("noise", 32, size, generator=record.streams["init"]).to(device)
    truth = truth.to(device)
    score = lambda x: psnr_in(x, truth, where)
    blind, least = BlindStop(), {"psnr": float("nan"), "at": 0}

    def look(step: int, out: Tensor, average: Tensor) -> dict[str, float]:
        found = {"psnr": score(average), "psnr_raw": score(out)}
        if blind.update(out):
            least.update(psnr=found["psnr"], at=step)
        return found

    fit = fit_untrained(
        net, z, target.to(device), operator=operator, mask=None if mask is None else mask.to(device),
        steps=settings.steps, lr=lr, input_noise=sigma, ema=settings.ema, stop="steps" if noise is None else "noise",
        sigma=noise, patience=settings.steps, callback=look, every=1, generator=record.streams["noise"],
        log=record.log,
    )  # fmt: skip
    for name in ("psnr", "psnr_raw", "loss"):
        record.curve(name, *fit.curve[name])
    curve = fit.curve["psnr"]
    return Restored(fit, {
        "psnr": score(fit.best), "psnr_variance": least["psnr"],
        "psnr_oracle": max(*curve.values, score(fit.best)), "psnr_end": score(fit.ema),
        "psnr_last": score(fit.last), "stopped_at": fit.at, "varied_least_at": least["at"],
        "best_at": curve.steps[curve.values.index(max(curve.values))],
    })  # fmt: skip


def psnr_in(x: Float[Tensor, "1 c h w"], truth: Float[Tensor, "1 c h w"], where: Tensor | None = None) -> float:
    """PSNR of the clipped picture, over the pixels where `where` [1,1,H,W] is 1."""
    x = x.clamp(0, 1)
    if where is None:
        return float(psnr(x, truth))
    inside = where.to(x.device).expand_as(x) > 0.5
    return float(psnr(x[inside][None], truth[inside][None]))
