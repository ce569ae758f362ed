"""One layer of a decoder and the mixing after it, on channels-last maps.

    r = relu(U x),   y_c = Σ_k W_ck (γ_k (r_k − μ_k)/√(σ²_k + ε) + β_k)

μ and σ² are taken over the pixels of each picture.  Small maps go through torch's own layers.  For a large map,
standardising and mixing are done as the one affine map of r that they are, W' = W diag(γ/√(σ² + ε)) and
b = W(β − γμ/√(σ² + ε)), so that the standardised map is never written; and backward keeps only x, a quarter of r where
U doubles the sides, and evaluates r again.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5
LARGE = 1 << 18  # values of a map from which on the memory that is saved is worth more than the calls
ROWS = 1 << 11  # pixels at a time on a processor, so that what is computed of them stays in its cache
Upsample = Callable[[Tensor], Tensor]


def relu_norm_mix(
    x: Float[Tensor, "b k h w"], gain: Float[Tensor, "k"], offset: Float[Tensor, "k"], weight: Float[Tensor, "c k"],
    upsample: Upsample, large: bool | None = None,
) -> Float[Tensor, "b c h2 w2"]:  # fmt: skip
    """y of the module's docstring; `upsample` is U, linear in each channel; `large` decides the way (default: size)."""
    if large is None:
        large = 4 * x.numel() >= LARGE
    if large:
        return _ReluNormMix.apply(x, gain, offset, weight, upsample)  # type: ignore[no-any-return]
    return mix(standardise(upsample(x).relu(), gain, offset), weight)


def norm_relu_mix(
    x: Float[Tensor, "b k h w"], gain: Float[Tensor, "k"], offset: Float[Tensor, "k"], weight: Float[Tensor, "c k"],
    upsample: Upsample,
) -> Float[Tensor, "b c h2 w2"]:  # fmt: skip
    """Σ_k W_ck relu(γ_k (u_k − μ_k)/√(σ²_k + ε) + β_k), u = U x: the order of the paper's text."""
    return mix(standardise(upsample(x), gain, offset).relu(), weight)


def standardise(
    u: Float[Tensor, "b k h w"], gain: Float[Tensor, "k"], offset: Float[Tensor, "k"]
) -> Float[Tensor, "b k h w"]:  # fmt: skip
    """γ (u − μ)/√(σ² + ε) + β, each picture by itself.  For one picture that is batch norm, which keeps the layout."""
    if len(u) == 1:
        return F.batch_norm(u, None, None, gain, offset, True, 0.0, EPS)
    return F.instance_norm(u, weight=gain, bias=offset, eps=EPS)


def mix(x: Float[Tensor, "b k h w"], weight: Float[Tensor, "c k"]) -> Float[Tensor, "b c h w"]:
    """Σ_k W_ck x_k at every pixel; the result lies channels last if x does."""
    return F.conv2d(x, weight[:, :, None, None])


class _ReluNormMix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, upsample: Upsample
    ) -> Tensor:  # fmt: skip
        with torch.autocast(x.device.type, enabled=False):
            u = upsample(x)
            u = u.relu() if u is x else u.relu_()
            mean, variance = moments(_rows(u))
            rstd = (variance + EPS).rsqrt()
            folded, bias = _fold(gain, offset, weight, mean, rstd)
            pictures = zip(u.split(1), folded.to(x.dtype), bias.to(x.dtype), strict=True)
            mixed = [F.conv2d(one, w[:, :, None, None], b) for one, w, b in pictures]
            y = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        ctx.save_for_backward(x, gain, offset, weight, mean, rstd)
        ctx.upsample = upsample
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, weight, mean, rstd = ctx.saved_tensors
        with torch.enable_grad():
            source = x.detach().requires_grad_()
            u = ctx.upsample(source)
        r = _rows(u.detach().relu() if u is source else u.detach().relu_())
        g = _rows(grad)
        folded, _ = _fold(gain, offset, weight, mean, rstd)
        wide, n = folded.dtype, r.shape[1]
        gain, offset, weight = (p.to(wide) for p in (gain, offset, weight))
        of_folded = (g.mT @ r).to(wide)
        of_bias = g.sum(1, dtype=wide)
        scale = gain * rstd  # [b,k]
        of_weight = of_folded * scale[:, None] + of_bias[..., None] * (offset - mean * scale)[:, None]
        of_shift = of_bias @ weight
        of_scale = (of_folded * weight).sum(1) - of_shift * mean
        slope = -(rstd**3) * of_scale * gain / n  # twice the gradient of the variance, over n
        level = -of_shift * scale / n - slope * mean
        of_r = g @ folded.to(g.dtype)
        slope, level = slope.to(r.dtype)[:, None], level.to(r.dtype)[:, None]
        for at in _parts(r):
            part = of_r[:, at]
            part.addcmul_(r[:, at], slope).add_(level)
            torch.ops.aten.threshold_backward.grad_input(part, r[:, at], 0, grad_input=part)
        of_u = of_r.unflatten(1, u.shape[-2:]).permute(0, 3, 1, 2)
        of_x = of_u if u is source else torch.autograd.grad(u, source, of_u)[0]
        return of_x, (of_scale * rstd).sum(0).to(x), of_shift.sum(0).to(x), of_weight.sum(0).to(x), None


def moments(r: Float[Tensor, "b n k"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Mean and (biased) variance over n, in two passes, float32 at the least."""
    wide = torch.promote_types(r.dtype, torch.float32)
    mean = r.sum(1, dtype=wide) / r.shape[1]
    squares = sum((r[:, at] - mean[:, None]).square_().sum(1) for at in _parts(r))
    assert isinstance(squares, Tensor)
    return mean, squares / r.shape[1]


def _fold(gain: Tensor, offset: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """W' [b,c,k] and b [b,c]."""
    gain, offset, weight = (p.to(mean.dtype) for p in (gain, offset, weight))
    scale = gain * rstd
    return weight * scale[:, None], (offset - mean * scale) @ weight.T


def _parts(r: Tensor) -> Iterator[slice]:
    step = ROWS if r.device.type == "cpu" else r.shape[1]
    return (slice(at, at + step) for at in range(0, r.shape[1], step))


def _rows(x: Tensor) -> Tensor:
    """[b,k,h,w] to [b,hw,k], without a copy if it lies channels last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])
