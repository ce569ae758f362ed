"""Augmentation of whole batches on the device: one resampling, one colour matrix a sample, no picture by itself.

    x ↦ noise(cutout(blur(colour(x ∘ A_b))))

A_b joins crop, flip, affine map and RandAugment's geometric draws of sample b, and is sampled once (bilinear).  Every
draw comes from the generator in one go for the batch, and a sample's picture never depends on its mates.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from precis.train import colour, randaugment

Number = int | float
Images = Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]


class Affine(NamedTuple):
    """Uniform ranges: ±degrees, ±shift (share of the side), scale from … to, ±shear (tangent)."""

    degrees: Number = 0
    shift: Number = 0
    scale: tuple[Number, Number] = (1, 1)
    shear: Number = 0


@dataclass(frozen=True)
class Augment:
    """`augment(x, generator)`: uint8 or float [B,C,H,W] → float [B,C,size,size] in [0,1].  What is None or 0 is off.

    size: None keeps H × W.  crop: share of the area, `ratio` of width to height log-uniform.  flip: probability.
    shift_pad: whole pixels, up to so many, beyond which the border (or black, `padding="zeros"`) continues; alone with
    flips it is done on the bytes, exactly.
    jitter: strengths of brightness, contrast, saturation (factor in 1 ± s) and hue (± s turns), in one order a batch,
    with probability jitter_p, clamped once; hue as a rotation in YIQ, or "hsv", exactly.  grey_p: luma alone.  blur_p,
    blur_sigma in pixels.  noise: standard deviation.  cutout: side of a square set to 0, in pixels.
    randaugment: (operations, magnitude of 10), Cubuk et al. 2020 (arXiv 1909.13719).
    A crop wider than twice the output is read from a picture halved as often as needed, against aliasing.
    """

    size: int | None = None
    crop: tuple[Number, Number] | None = None
    ratio: tuple[Number, Number] = (3 / 4, 4 / 3)
    flip: Number = 0.0
    shift_pad: int = 0
    affine: Affine | None = None
    jitter: tuple[Number, Number, Number, Number] | None = None
    jitter_p: Number = 1.0
    grey_p: Number = 0.0
    blur_p: Number = 0.0
    blur_sigma: tuple[Number, Number] = (0.1, 2.0)
    noise: Number = 0.0
    cutout: int = 0
    randaugment: tuple[int, Number] | None = None
    hue: Literal["yiq", "hsv"] = "yiq"
    padding: Literal["border", "zeros"] = "border"

    def __post_init__(self) -> None:
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop is a range of shares in (0, 1], got {self.crop}")
        for name in ("flip", "jitter_p", "grey_p", "blur_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        if self.jitter is not None and not (max(self.jitter[:3]) <= 1 and 0 <= self.jitter[3] <= 0.5):
            raise ValueError(f"jitter: three strengths up to 1 and a hue up to 0.5, got {self.jitter}")

    @torch.no_grad()
    def __call__(self, x: Images, generator: torch.Generator | None = None) -> Float[Tensor, "b c s t"]:
        draw = _Draws(x, generator)
        size = (self.size, self.size) if self.size else (x.shape[2], x.shape[3])
        operations = None
        if self.randaugment is not None:
            operations = randaugment.draw(draw, *self.randaugment)
        if self._pixelwise(x, size):
            x = random_shift(x, self.shift_pad, generator, self._edge(), flip=self.flip)
            x = _to_float(x)
        else:
            x = self._resample(_to_float(x), size, draw, operations)
        if self.jitter is not None or self.grey_p:
            x = self._colour(x, draw)
        if operations is not None:
            x = randaugment.recolour(x, operations)
        if self.blur_p:
            sigma = draw.uniform(*self.blur_sigma)
            taps = min(2 * math.ceil(3 * self.blur_sigma[1]) + 1, 2 * min(x.shape[2:]) - 1, _odd(min(x.shape[2:])))
            x = torch.where(draw.chance(self.blur_p).view(-1, 1, 1, 1), colour.blur(x, sigma, taps), x)
        if self.cutout:
            x = x * ~_squares(x, self.cutout, draw)
        if self.noise:
            x = (x + self.noise * draw.normal(x.shape)).clamp_(0, 1)
        return x

    def _edge(self) -> Literal["replicate", "zeros"]:
        return "zeros" if self.padding == "zeros" else "replicate"

    def _pixelwise(self, x: Tensor, size: tuple[int, int]) -> bool:
        """Whether pixels only move as they are."""
        same = size == tuple(x.shape[2:])
        return same and self.crop is None and self.affine is None and self.randaugment is None

    def _resample(self, x: Tensor, size: tuple[int, int], draw: "_Draws", operations: Any) -> Tensor:
        """The map from output to input, in coordinates −1 … 1, as 3×3 matrices; sampled once."""
        b, _, h, w = x.shape
        aspect = h / w
        total = torch.eye(3, dtype=x.dtype, device=x.device).repeat(b, 1, 1)
        if self.crop is not None:
            total = total @ _crop(self.crop, self.ratio, (h, w), draw)
        if self.shift_pad:
            moves = [draw.integers(2 * self.shift_pad + 1) - self.shift_pad for _ in range(2)]
            total = total @ _affine(draw, dx=2 * moves[0] / w, dy=2 * moves[1] / h)
        if self.affine is not None:
            a = self.affine
            total = total @ _affine(
                draw, angle=draw.uniform(-a.degrees, a.degrees) * math.pi / 180, scale=1 / draw.uniform(*a.scale),
                shear=draw.uniform(-a.shear, a.shear), dx=2 * draw.uniform(-a.shift, a.shift),
                dy=2 * draw.uniform(-a.shift, a.shift), aspect=aspect,
            )  # fmt: skip
        if operations is not None:
            for parameters in randaugment.geometry(operations):
                total = total @ _affine(draw, aspect=aspect, **parameters)
        if self.flip:
            sign = 1 - 2 * draw.chance(self.flip).to(x.dtype)
            total = total * torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], 1)[:, None]
        return _sample(x, total[:, :2], size, self.padding)

    def _colour(self, x: Tensor, draw: "_Draws") -> Tensor:
        """Jitter and grey as one matrix; the exact hue, which is none, stands between two."""
        strengths = self.jitter or (0, 0, 0, 0)
        three = x.shape[1] == 3
        if not three and (strengths[2] or strengths[3] or self.grey_p):
            strengths = (*strengths[:2], 0, 0)  # a grey picture has no colour to change
        chain, on = colour.ColourMatrix(x), draw.chance(self.jitter_p)
        for i in draw.order(4):
            s = strengths[i]
            if not s:
                continue
            if i == 3:
                turn = draw.uniform(-s, s) * on
                if self.hue == "hsv":
                    x = colour.hue_hsv(chain.apply(x), turn)
                    chain = colour.ColourMatrix(x)
                else:
                    chain.hue(turn)
            else:
                factor = torch.where(on, draw.uniform(1 - s, 1 + s), torch.ones_like(on, dtype=x.dtype))
                (chain.brightness, chain.contrast, chain.saturation)[i](factor)
        if self.grey_p and three:
            chain.saturation(1 - draw.chance(self.grey_p).to(x.dtype))
        return chain.apply(x)


PRESETS: dict[str, Augment] = {
    "none": Augment(),
    "simclr": Augment(crop=(0.08, 1), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey_p=0.2, blur_p=0.5),
    "mocov2": Augment(crop=(0.2, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.5),
    "supcon": Augment(crop=(0.2, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2),
    "glyph": Augment(affine=Affine(20, 0.12, (0.75, 1.25)), jitter=(0.4, 0, 0, 0), noise=0.1),
    "cifar": Augment(shift_pad=4, flip=0.5, padding="zeros"),
    "S0": Augment(),
    "S1": Augment(crop=(0.8, 1), ratio=(1, 1), flip=0.5),
    "S2": Augment(crop=(0.8, 1), ratio=(1, 1), flip=0.5, affine=Affine(10, 0.05, (0.9, 1.1)), jitter=(0.2, 0.3, 0, 0)),
    "S3": Augment(flip=0.5, affine=Affine(0, 0.1, (0.5, 2))),
    "S4": Augment(flip=0.5, affine=Affine(0, 0.1, (0.5, 2)), randaugment=(2, 9), cutout=4),
}


def preset(name: str, size: int | None = None, *, s: Number | None = None, flip: bool = True) -> Augment:
    """A known setting: simclr, mocov2, supcon, glyph, cifar, S0 … S4 (weak to strong), none.

    size: of the output.  s: strength of `simclr`'s colours; 1, or 0.5 and no blur up to 64 pixels (SimCLR, app. B.9).
    flip=False for pictures whose mirror image means something else (characters).  S4 cuts out a quarter of the side.
    """
    if name not in PRESETS:
        raise ValueError(f"no augmentation is called {name!r}: {', '.join(PRESETS)}")
    made = replace(PRESETS[name], size=size)
    small = size is not None and size <= 64
    if name == "simclr":
        strength = (0.5 if small else 1.0) if s is None else s
        made = replace(made, jitter=(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength))
        made = replace(made, blur_p=0.0) if small else made
    elif s is not None:
        raise ValueError(f"s is a strength of simclr, not of {name}")
    if name == "S4" and size is not None:
        made = replace(made, cutout=max(1, size // 4))
    return made if flip else replace(made, flip=0.0)


def random_shift(
    x: Tensor, pad: int, generator: torch.Generator | None = None, mode: Literal["replicate", "zeros"] = "replicate", *,
    flip: Number = 0.0,
) -> Tensor:  # fmt: skip
    """Each picture of x [..,B,C,H,W], of any type, moved by −pad … pad whole pixels along both axes.

    Equal to padding by `pad` and cutting H × W out at random; all channels of a picture move alike.  `flip`: the
    probability of a mirror image, by the same gather.
    """
    if pad < 0:
        raise ValueError(f"pad must be at least 0, got {pad}")
    if pad == 0 and not flip:
        return x
    *lead, c, h, w = x.shape
    flat = x.reshape(-1, c, h * w)
    draw = _Draws(flat, generator)
    at_y, at_x = (
        torch.arange(n, device=x.device) + draw.integers(2 * pad + 1)[:, None] - pad if pad else
        torch.arange(n, device=x.device).expand(len(flat), n) for n in (h, w)
    )  # fmt: skip
    if flip:
        at_x = torch.where(draw.chance(flip)[:, None], at_x.flip(1), at_x)
    rows, columns = at_y.clamp(0, h - 1), at_x.clamp(0, w - 1)
    index = (rows[:, :, None] * w + columns[:, None, :]).flatten(1)[:, None].expand_as(flat)
    moved = flat.gather(2, index)
    if mode == "zeros":
        inside = (rows == at_y)[:, :, None] & (columns == at_x)[:, None, :]
        moved = moved * inside.flatten(1)[:, None]
    return moved.view(*lead, c, h, w)


class _Draws:
    """Random numbers for a batch, one a sample, on its device."""

    def __init__(self, x: Tensor, generator: torch.Generator | None) -> None:
        self.n, self.device, self.generator = len(x), x.device, generator
        self.source = generator.device if generator is not None else x.device
        self.dtype = x.dtype if x.is_floating_point() else torch.float32

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.source).to(self.device, self.dtype)

    def uniform(self, low: Number, high: Number, columns: int | None = None) -> Tensor:
        shape = (self.n,) if columns is None else (self.n, columns)
        return low + (high - low) * self._rand(*shape)

    def chance(self, p: Number) -> Tensor:
        return self._rand(self.n) < p

    def integers(self, n: int) -> Tensor:
        return torch.randint(n, (self.n,), generator=self.generator, device=self.source).to(self.device)

    def normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.source).to(self.device, self.dtype)

    def order(self, n: int) -> list[int]:
        return torch.randperm(n, generator=self.generator, device=self.source).tolist()


def _to_float(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _odd(n: int) -> int:
    return n if n % 2 else n - 1


def _crop(area: tuple[Number, Number], ratio: tuple[Number, Number], size: tuple[int, int], draw: _Draws) -> Tensor:
    """Random resized crops: of ten tries (all drawn at once) the first that fits, else the widest that does."""
    h, w = size
    share = draw.uniform(*area, 10)
    aspect = torch.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1]), 10)) * h / w  # in shares of the sides
    wide, high = (share * aspect).sqrt(), (share / aspect).sqrt()
    first = ((wide <= 1) & (high <= 1)).to(torch.uint8).argmax(1, keepdim=True)
    wide, high = wide.gather(1, first)[:, 0].clamp(max=1), high.gather(1, first)[:, 0].clamp(max=1)
    dx, dy = ((2 * draw.uniform(0, 1) - 1) * (1 - side) for side in (wide, high))
    return _matrix(wide, torch.zeros_like(wide), dx, torch.zeros_like(wide), high, dy)


def _affine(
    draw: _Draws, *, angle: Any = 0.0, scale: Any = 1.0, shear: Any = 0.0, dx: Any = 0.0, dy: Any = 0.0,
    aspect: float = 1.0, shear_y: Any = 0.0,
) -> Tensor:  # fmt: skip
    """Rotation (radians) · shear · scale, then a shift, of output coordinates; `aspect` = height/width."""
    full = lambda v: torch.as_tensor(v, dtype=draw.dtype, device=draw.device).expand(draw.n)
    angle, scale, shear, dx, dy, shear_y = map(full, (angle, scale, shear, dx, dy, shear_y))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    a, b = cos - sin * shear_y, cos * shear - sin
    c, d = sin + cos * shear_y, sin * shear + cos
    return _matrix(a, b * aspect, dx, c / aspect, d, dy)


def _matrix(a: Tensor, b: Tensor, dx: Tensor, c: Tensor, d: Tensor, dy: Tensor) -> Tensor:
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, dx, c, d, dy, zero, zero, one], 1).view(-1, 3, 3)


def _sample(x: Tensor, theta: Tensor, size: tuple[int, int], padding: str) -> Tensor:
    """x at theta · output coordinates, from the picture halved ⌊log₂(input pixels per output pixel)⌋ times."""
    b, c, h, w = x.shape
    pitch = torch.stack([theta[:, 0, :2].norm(dim=1) * w / size[1], theta[:, 1, :2].norm(dim=1) * h / size[0]]).amax(0)
    level = pitch.clamp(min=1).log2().floor().long()
    grid = F.affine_grid(theta, [b, c, *size], align_corners=False)
    read = lambda source, at: F.grid_sample(source, at, padding_mode=padding, align_corners=False)
    levels = level.unique().tolist()
    if levels == [0]:
        return read(x, grid)
    out = x.new_empty(b, c, *size)
    for n in levels:
        chosen = (level == n).nonzero()[:, 0]
        small = F.avg_pool2d(x[chosen], 2**n, ceil_mode=True) if n else x[chosen]
        # a side that 2ⁿ does not divide ends in a cell that is partly empty: coordinates are of the whole cells
        full = torch.tensor([w / (small.shape[3] * 2**n), h / (small.shape[2] * 2**n)], dtype=x.dtype, device=x.device)
        out[chosen] = read(small, (grid[chosen] + 1) * full - 1)
    return out


def _squares(x: Tensor, side: int, draw: _Draws) -> Tensor:
    """True in a square of `side` pixels around a random pixel [B,1,H,W], cut off at the border."""
    masks = []
    for n in x.shape[2:]:
        start = draw.integers(n)[:, None] - side // 2
        at = torch.arange(n, device=x.device)
        masks.append((at >= start) & (at < start + side))
    return masks[0][:, None, :, None] & masks[1][:, None, None, :]
