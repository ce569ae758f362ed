"""Deep Image Prior: an hourglass network whose untrained structure prefers pictures to noise.

    x̂ = f_θ*(z),    θ* = argmin_θ E(f_θ(z); x_0) reached by few steps from random weights,    z ~ U(0, 0.1) fixed

f at each scale: [1×1 skip ‖ strided 3×3, 3×3, the scales below, upsampled] → norm → 3×3 → 1×1, every convolution
followed by normalisation and LeakyReLU 0.2; at the end 1×1 and a sigmoid.  Ulyanov, Vedaldi, Lempitsky, CVPR 2018, §2
and supplement (arXiv 1711.10925).  Normalisation always takes the statistics of the picture itself, also in `eval()`:
with running averages the results are destroyed.  The fit itself is `precis.fields.restoration.fit_untrained`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from precis.fields.restoration import Fit, fit_untrained
from precis.nn.coordinates import coordinate_grid

Number = float | int
Pad = Literal["reflection", "zero"]
Upsample = Literal["bilinear", "nearest"]
Downsample = Literal["stride", "avg", "max"]
Activation = Literal["leaky_relu", "none"]


class SkipNet(nn.Module):
    """The paper's `skip` network: z [1,in_ch,H,W] to a picture [1,out_ch,H,W].

    down, up, skip: channels of each scale, finest first; skip 0 leaves that branch out.  down_filter, up_filter: odd
    kernel sizes, one or one a scale.  H and W must be multiples of `multiple` = 2^scales and at least twice that.
    activation "none" leaves a net that is linear but for its normalisation (and the sigmoid), as a control.
    recompute: so many of the finest scales keep nothing for the backward pass but their input, for large pictures.

    Weights and biases are U(±1/√fan_in), drawn by `generator`.
    """

    def __init__(
        self, in_ch: int = 32, out_ch: int = 3, *, down: Sequence[int] = (128,) * 5, up: Sequence[int] = (128,) * 5,
        skip: Sequence[int] = (4,) * 5, upsample: Upsample = "bilinear", down_filter: int | Sequence[int] = 3,
        up_filter: int | Sequence[int] = 3, downsample: Downsample = "stride", one_by_one_up: bool = True,
        pad: Pad = "reflection", sigmoid: bool = True, activation: Activation = "leaky_relu", recompute: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        scales = len(down)
        if not scales or len(up) != scales or len(skip) != scales:
            raise ValueError(f"down, up and skip name the same scales, got {len(down)}, {len(up)} and {len(skip)}")
        filters = [(k,) * scales if isinstance(k, int) else tuple(k) for k in (down_filter, up_filter)]
        if any(len(f) != scales or min(f) < 1 or not all(k % 2 for k in f) for f in filters):
            raise ValueError(f"filters must be odd, one or one a scale, got {down_filter} and {up_filter}")
        self.in_ch, self.out_ch, self.multiple, self.recompute = in_ch, out_ch, 2**scales, recompute
        self.scales = nn.ModuleList()
        for i in range(scales):
            self.scales.append(
                _Scale(
                    in_ch if i == 0 else down[i - 1], down[i], up[i], skip[i], up[i + 1] if i < scales - 1 else down[i],
                    filters[0][i], filters[1][i], upsample, downsample, one_by_one_up, pad, activation,
                )  # fmt: skip
            )
        self.last = nn.Conv2d(up[0], out_ch, 1, device="meta")
        self.sigmoid = sigmoid
        self.to_empty(device="cpu")
        # the faster layout for these convolutions, on a CPU above all
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights again."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                for p in (module.weight, module.bias):
                    assert p is not None
                    nn.init.uniform_(p, -bound, bound, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, z: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 {self.out_ch} h w"]:
        if any(n % self.multiple or n < 2 * self.multiple for n in z.shape[-2:]):
            raise ValueError(
                f"sides must be multiples of {self.multiple} and at least {2 * self.multiple}, got "
                f"{z.shape[-2]}×{z.shape[-1]}"
            )
        x = self.last(self._from(0, z.contiguous(memory_format=torch.channels_last)))
        return torch.sigmoid(x) if self.sigmoid else x

    def _from(self, i: int, x: Tensor) -> Tensor:
        """The hourglass from scale i on."""
        scale: Any = self.scales[i]
        spare = i < self.recompute and torch.is_grad_enabled()
        skip, deep = checkpoint(scale.split, x, use_reentrant=False) if spare else scale.split(x)
        if i + 1 < len(self.scales):
            deep = self._from(i + 1, deep)
        return checkpoint(scale.join, skip, deep, use_reentrant=False) if spare else scale.join(skip, deep)


class _Scale(nn.Module):
    """One scale: what goes down and past, and how it is joined with what comes back up."""

    def __init__(
        self, width: int, down: int, up: int, skip: int, below: int, down_filter: int, up_filter: int,
        upsample: str, downsample: str, one_by_one_up: bool, pad: Pad, activation: Activation,
    ) -> None:  # fmt: skip
        super().__init__()
        self.upsample = upsample
        self.skip = _Conv(width, skip, 1, pad, activation) if skip else None
        self.down = nn.Sequential(
            _Conv(width, down, down_filter, pad, activation, downsample),
            _Conv(down, down, down_filter, pad, activation),
        )
        self.norm = _norm(skip + below)
        self.up = nn.Sequential(_Conv(skip + below, up, up_filter, pad, activation))
        if one_by_one_up:
            self.up.append(_Conv(up, up, 1, pad, activation))

    def split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        return None if self.skip is None else self.skip(x), self.down(x)

    def join(self, skip: Tensor | None, deep: Tensor) -> Tensor:
        x: Tensor = F.interpolate(deep, scale_factor=2, mode=self.upsample)
        if skip is not None:
            x = torch.cat([skip, x], 1)
        return self.up(self.norm(x))  # type: ignore[no-any-return]


class _Conv(nn.Module):
    """Padding, convolution, halving, normalisation, activation."""

    def __init__(
        self, width: int, out: int, kernel: int, pad: Pad, activation: Activation, downsample: str | None = None
    ) -> None:
        super().__init__()
        if downsample not in (None, "stride", "avg", "max"):
            raise ValueError(f"downsample must be stride, avg or max, got {downsample!r}")
        mode: Literal["reflect", "zeros"] = "reflect" if pad == "reflection" else "zeros"
        self.conv = nn.Conv2d(
            width, out, kernel, 2 if downsample == "stride" else 1, kernel // 2, padding_mode=mode, device="meta"
        )
        self.norm, self.downsample, self.activation = _norm(out), downsample, activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.downsample == "avg":
            x = F.avg_pool2d(x, 2)
        elif self.downsample == "max":
            x = F.max_pool2d(x, 2)
        x = self.norm(x)
        return F.leaky_relu(x, 0.2, inplace=True) if self.activation == "leaky_relu" else x


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False, device="meta")


def dip_input(
    kind: Literal["noise", "meshgrid"], channels: int, size: tuple[int, int], scale: Number = 0.1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "1 {channels} {size[0]} {size[1]}"]:  # fmt: skip
    """The fixed input z: U(0, scale), or "meshgrid": the column and row as 0 … 1 from left to right, top to bottom."""
    if kind == "noise":
        return scale * torch.rand(1, channels, *size, generator=generator)
    if kind != "meshgrid" or channels != 2:
        raise ValueError(f'z is "noise", or "meshgrid" with 2 channels, got {kind!r} with {channels}')
    grid = coordinate_grid(size, align_corners=True, span=(0, 1))
    return grid.flip(1).T.reshape(1, 2, *size)


def feature_inversion(
    net: nn.Module, z: Float[Tensor, "1 d h w"], features: Float[Tensor, "1 ..."],
    model: Callable[[Tensor], Tensor], *, steps: int | None = 3100, lr: Number = 1e-3, **options: Any,
) -> Fit:  # fmt: skip
    """The picture f(z) whose features under `model` are `features`: what a network still knows of its input.

        min_θ ‖φ(f_θ(z)) − φ_0‖² / ‖φ_0‖²

    model: φ, from a picture [1,C,H,W] to features, such as `precis.nn.tape.feature_map(network, layer)`.  The answer is
    the average at the end (`stop="steps"`); options are those of `fit_untrained`.  §3.4 and the released notebook.
    Raises ValueError if all features are 0.
    """
    scale = features.square().mean().sqrt()
    if not float(scale) > 0:
        raise ValueError("the features are all 0: nothing can be inverted")
    return fit_untrained(
        net, z, features / scale, operator=lambda x: model(x) / scale, steps=steps, lr=lr,
        **{"stop": "steps", "ema": 0.9, **options},
    )  # fmt: skip
