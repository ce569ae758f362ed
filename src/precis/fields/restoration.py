"""Restoring one picture with an untrained network: fit it to what was measured, and stop in time.

    min_θ ‖ m ⊙ (A f_θ(z) − y) ‖² / Σm,    z fixed, at each step z' = z + σ_p N(0, 1)

A: identity, a downsampler, a feature extractor; m: 1 where y is known.  Natural structure is fitted long before noise,
so the answer lies on the way.  It is read as the exponential average of the outputs, which removes most of their
fluctuation.  Ulyanov, Vedaldi, Lempitsky, CVPR 2018, §2 and the released notebooks (arXiv 1711.10925).

When to stop, with no clean picture to look at?  Either where the variance of the last outputs is least: it falls while
structure is fitted and rises when noise is (Wang et al., arXiv 2112.06074).  Or, where the noise is white and its
deviation σ known or estimated, once the misfit is as large as the noise, ‖f_θ(z') − y‖² = σ² (the discrepancy principle
of Morozov, 1966): nearer to the target a fit can only come by fitting noise.  With much noise on z the variance is that
of the jitter, and its minimum comes early; the misfit is the safer sign then.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.errors import RunFailed
from precis.fields.restoration_operators import Downsampler, centre_crop, centre_pad, estimate_noise, padded_size
from precis.train.loop import Budget, Curve, Run, fit
from precis.train.schedule import Schedule

__all__ = ["BlindStop", "Downsampler", "Fit", "OutputAverage", "centre_crop", "centre_pad", "estimate_noise",
           "fit_untrained", "padded_size"]  # fmt: skip

Number = float | int
Stop = Literal["variance", "noise", "steps", "loss"]
FALL = 10**0.5  # of the fitted PSNR by 5 dB, as a ratio of losses
IMPROVED = 1.005
_KEPT = ("steps", "backtracks", "at", "least", "looked", "misfit", "best", "last", "safe", "chosen")


class Fit(NamedTuple):
    """Pictures [1,C,H,W]: `best` is the answer, by the rule `stop`; `ema` and `last`, the average and the output at the
    last step.  `at`: the step of `best`; `curve`: metrics on the way, "loss" at every step; `backtracks`: how often
    weights were restored.
    """

    best: Tensor
    ema: Tensor
    last: Tensor
    at: int
    curve: dict[str, Curve]
    backtracks: int
    run: Run


class OutputAverage:
    """x̄ ← β x̄ + (1 − β) x of the outputs, divided by 1 − βᵗ so that the first ones do not linger."""

    def __init__(self, decay: Number) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the average must lie in [0, 1), got {decay}")
        self.decay, self.sum, self.steps = float(decay), torch.zeros(0), 0

    def update(self, x: Float[Tensor, "*shape"]) -> None:
        if self.steps == 0:
            self.sum = torch.zeros_like(x)
        self.sum.lerp_(x, 1 - self.decay)
        self.steps += 1

    def value(self) -> Float[Tensor, "*shape"]:
        return self.sum / (1 - self.decay**self.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum, self.steps = state["sum"].to(self.sum.device), state["steps"]


class BlindStop:
    """The variance of the last `window` outputs, as thumbnails of at most `side` pixels, and where it was least.

        V_t = mean over pixels of Σ_n (x_n − x̄)²/W,    n = t − W + 1 … t

    `update(x)` returns true when V has its least value so far; `waited` counts the steps since.
    """

    def __init__(self, window: int = 32, side: int = 64) -> None:
        self.window, self.side = window, side
        self.kept, self.seen = torch.zeros(0), 0
        self.variance, self.least, self.waited = float("inf"), float("inf"), 0

    def update(self, x: Float[Tensor, "1 c h w"]) -> bool:
        if max(x.shape[-2:]) > self.side:
            scale = self.side / max(x.shape[-2:])
            height, width = (max(1, round(n * scale)) for n in x.shape[-2:])
            x = F.adaptive_avg_pool2d(x, (height, width))
        if self.seen == 0:
            self.kept = x.new_zeros(self.window, *x.shape[1:])
        self.kept[self.seen % self.window] = x[0]
        self.seen += 1
        if self.seen < self.window:
            return False
        self.variance = float(self.kept.var(0, correction=0).mean())
        self.waited += 1
        if self.variance < self.least:
            self.least, self.waited = self.variance, 0
        return self.waited == 0

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "seen": self.seen, "least": self.least, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.seen = state["kept"].to(self.kept.device), state["seen"]
        self.least, self.waited = state["least"], state["waited"]


def fit_untrained(
    net: nn.Module,
    z: Float[Tensor, "1 d h w"],
    target: Float[Tensor, "1 ..."],
    *,
    steps: int | None = None,
    operator: Callable[[Tensor], Tensor] | None = None,
    mask: Float[Tensor, "1 ..."] | None = None,
    crop: tuple[int, int] | None = None,
    lr: Number = 0.01,
    schedule: Schedule | None = None,
    input_noise: "Number | Callable[[int], Number]" = 0.0,
    ema: Number = 0.99,
    stop: Stop = "variance",
    sigma: Number | None = None,
    patience: int | None = None,
    callback: Callable[[int, Tensor, Tensor], dict[str, float] | None] | None = None,
    every: int = 10,
    generator: torch.Generator | None = None,
    minutes: Number | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    log: Callable[..., None] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
) -> Fit:
    """Fit `net(z)` to `target` with Adam, in place and in training mode; the restored picture.

    operator: A, from the net's picture to something of the target's shape.  mask: m, of the target's shape or one that
    broadcasts to it.  crop: (H, W), the middle of the net's output is the picture (nets want sides that are multiples).
    input_noise: σ_p, or a function of the step (from 0); drawn by `generator`.  ema: β of the average.

    stop: "steps", the average after all steps; "variance", the average at the least variance of the last 32 outputs,
    and the fit ends once that is `patience` steps old (default: 200 or a tenth of `steps`, whichever is more); "noise",
    the average when the loss (itself averaged over some ten steps) has come down to `sigma`², else after all steps,
    and the fit ends `patience` steps later (default: 0); "loss", the output at the least loss, updated when it falls by
    0.5 %, whose weights the net is left with.

    callback(step, output, average) -> scalars for the curve: at steps (from 1) that are multiples of `every`.
    If the fitted PSNR falls by more than 5 dB between two looks (10 steps), the weights of the last look are restored.
    log, folder, resume, minutes, precision: of `precis.train.loop.fit`.

    Raises ValueError for shapes that do not fit or an empty mask, RunFailed if the loss stays infinite.
    """
    if stop not in ("variance", "noise", "steps", "loss"):
        raise ValueError(f'stop must be "variance", "noise", "steps" or "loss", got {stop!r}')
    if (stop == "noise") != (sigma is not None):
        raise ValueError('stop="noise" needs sigma, and no other rule takes it')
    waits = patience if patience is not None else 0 if stop == "noise" else max(200, (steps or 0) // 10)
    state = _Restoration(
        net.train(), z, target, operator or (lambda x: x), _mask_of(mask, target), crop, input_noise, generator,
        OutputAverage(ema), BlindStop() if stop == "variance" else None, stop, sigma, callback, every,
    )  # fmt: skip
    keep: dict[str, Any] = {"net": net, "restoration": state}
    if generator is not None:
        keep["generator"] = generator
    run = fit(
        state.step, range(1), budget=Budget(steps=steps, minutes=minutes), schedule=schedule, log=log,
        optimizer=torch.optim.Adam(net.parameters(), lr=lr, fused=True), precision=precision, folder=folder,
        resume=resume, stop=lambda *_: state.waited() >= waits, keep=keep,
    )  # fmt: skip
    return state.finish(run)


class _Restoration:
    """A running `fit_untrained`: what changes with every step."""

    def __init__(
        self, net: nn.Module, z: Tensor, target: Tensor, operator: Callable[[Tensor], Tensor], mask: Tensor | None,
        crop: tuple[int, int] | None, input_noise: Any, generator: torch.Generator | None, average: OutputAverage,
        blind: BlindStop | None, stop: str, aim: float | None, callback: Any, every: int,
    ) -> None:  # fmt: skip
        self.net, self.z, self.target, self.operator, self.mask = net, z, target, operator, mask
        self.crop, self.generator, self.average, self.blind = crop, generator, average, blind
        self.stop, self.callback, self.every = stop, callback, every
        self.aim = None if aim is None else float(aim) ** 2
        self.misfit = 0.0
        self.sigma: Callable[[int], Number] = input_noise if callable(input_noise) else lambda _: input_noise
        self.total = float(target.numel() if mask is None else mask.sum())
        self.steps, self.backtracks, self.at = 0, 0, 0
        self.least, self.looked = float("inf"), float("inf")
        self.best, self.last = torch.zeros(0), torch.zeros(0)
        self.safe: list[Tensor] = []  # weights at the last look, to go back to
        self.chosen: list[Tensor] = []  # weights of the least loss

    def step(self, _: Any) -> dict[str, Any]:
        """Loss of one step; averages and checks on the way."""
        out, loss = self.forward()
        number = float(loss.detach())
        if self.steps % 10 == 0:
            if number < FALL * self.looked:
                self.looked, self.safe = number, _copies(self.net)
            else:
                out, loss = self.back()
                number = float(loss.detach())
        elif not number < float("inf"):
            out, loss = self.back()
            number = float(loss.detach())
        self.steps += 1
        self.observe(out.detach(), number)
        scalars: dict[str, Any] = {"loss": loss}
        if self.blind is not None and self.blind.seen >= self.blind.window:
            scalars["variance"] = self.blind.variance
        if self.callback is not None and self.steps % self.every == 0:
            with torch.no_grad():
                scalars |= self.callback(self.steps, self.last, self.average.value()) or {}
        return scalars

    def forward(self) -> tuple[Tensor, Tensor]:
        z, sigma = self.z, self.sigma(self.steps)
        if sigma:
            g = self.generator
            noise = torch.randn(z.shape, generator=g, device=z.device if g is None else g.device, dtype=z.dtype)
            z = torch.add(z, noise.to(z.device), alpha=float(sigma))
        out = self.net(z)
        out = out if self.crop is None else centre_crop(out, self.crop)
        out = _full(out)
        with torch.autocast(out.device.type, enabled=False):
            made = self.operator(out)
        if made.shape != self.target.shape:
            raise ValueError(f"the net makes {list(made.shape)}, the target is {list(self.target.shape)}")
        error = made - self.target
        if self.mask is None:
            return out, error.square().mean()
        return out, (error.square() * self.mask).sum() / self.total

    def back(self) -> tuple[Tensor, Tensor]:
        """Restore the weights of the last look, and evaluate again."""
        if not self.safe:
            raise RunFailed("the network's first output is not finite")
        self.backtracks += 1
        _load(self.net, self.safe)
        return self.forward()

    def observe(self, out: Tensor, loss: float) -> None:
        self.last = out
        self.average.update(out)
        self.misfit += (loss - self.misfit) * max(0.1, 1 / self.steps)
        reached = self.aim is not None and not self.at and self.misfit <= self.aim
        if reached or (self.blind is not None and self.blind.update(out)):
            self.best, self.at = self.average.value(), self.steps
        if self.stop == "loss" and loss * IMPROVED < self.least:
            self.least, self.best, self.at, self.chosen = loss, out.clone(), self.steps, _copies(self.net)

    def waited(self) -> int:
        """Steps since the place to stop; −1 before there is one."""
        if self.blind is not None:
            return self.blind.waited if self.blind.seen >= self.blind.window else -1
        return self.steps - self.at if self.aim is not None and self.at else -1

    def finish(self, run: Run) -> Fit:
        if self.stop == "steps" or not self.at:  # fewer steps than the window of variances
            self.best, self.at = self.average.value(), self.steps
        if self.chosen:
            _load(self.net, self.chosen)
        return Fit(self.best, self.average.value(), self.last, self.at, run.curves, self.backtracks, run)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: getattr(self, name) for name in _KEPT}
        return state | {"average": self.average.state_dict(), "blind": self.blind and self.blind.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here = lambda x: x.to(self.z.device) if isinstance(x, Tensor) else x
        for name in _KEPT:
            value = state[name]
            setattr(self, name, [here(x) for x in value] if isinstance(value, list) else here(value))
        self.average.load_state_dict(state["average"])
        self.average.sum = here(self.average.sum)
        if self.blind is not None:
            self.blind.load_state_dict(state["blind"])
            self.blind.kept = here(self.blind.kept)


def _mask_of(mask: Tensor | None, target: Tensor) -> Tensor | None:
    """m as large as the target; ValueError if it says nothing."""
    if mask is None:
        return None
    mask = mask.to(target).expand_as(target)
    if not float(mask.sum()) > 0:
        raise ValueError("the mask knows no pixel")
    return mask


def _full(x: Tensor) -> Tensor:
    """Half precision to float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@torch.no_grad()
def _copies(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@torch.no_grad()
def _load(net: nn.Module, weights: list[Tensor]) -> None:
    for p, saved in zip(net.parameters(), weights, strict=True):
        p.copy_(saved)
