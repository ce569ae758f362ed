"""RevNet: a residual network whose blocks can be undone, so that activations need not be stored.

    y₁ = x₁ + F(x₂),  y₂ = x₂ + G(y₁),   F, G = (norm–ReLU–convolution) × 2 (basic) or × 3 (bottleneck)

on two halves of the channels.  Gomez, Ren, Urtasun, Grosse, NeurIPS 2017, §3 (arXiv 1707.04585); what the paper leaves
open is as in its code: the first unit of every stage changes the shape and is not undone, its input is stored.
`fully_reversible`: nor is that; stages begin with a rearrangement of pixels into channels instead (i-RevNet, Jacobsen,
Smeulders, Oyallon, ICLR 2018, arXiv 1802.07088), and the picture itself can be rebuilt.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.cost import saved_bytes
from precis.nn.layers import Standardise, drawn_from, initialise
from precis.nn.norm import make_norm
from precis.nn.replay import recomputed
from precis.nn.resnet import Pad
from precis.nn.reversible import AdditiveCoupling, ReversibleSequence

Halves = tuple[Tensor, Tensor]
HALF = (torch.bfloat16, torch.float16)


class RevNet(nn.Module):
    """Maps pictures [B,C,H,W], uint8 or float in [0,1], to logits [B,K] (features if classes=None).

    units: blocks a stage, each of two functions.  filters: channels of the stem and of each stage, both halves
    together, so one number more than stages; even.  bottleneck: 1×1–3×3–1×1 with ¼ of the output's channels inside.
    stem: "cifar" 3×3; "imagenet" 7×7/2 and max-pool.  strides of the stages: 1, 2, 2, ….
    save: "output" keeps the picture, the stem's output and one output a stage for the backward pass, and computes all
    else again; "all" is ordinary autograd, for comparison and for `torch.func`.  every: see `ReversibleSequence`.
    Under autocast the halves stay float32.  Convolutions are He normal, by fan-out (the paper's code cuts the normal
    off at two deviations).

    fully_reversible: the stem and every further stage move 2×2 pixels into channels, so that C channels become 4C, 16C,
    … and H, W must divide by 2^stages; inside, functions have ¼ of the unit's channels.  No filters, stem or strides
    are given.  Nothing is kept but the last output, and `picture` undoes `streams`.
    """

    def __init__(
        self, units: Sequence[int], filters: Sequence[int] | None = None, *, bottleneck: bool = False,
        classes: int | None = 10, stem: Literal["cifar", "imagenet"] = "cifar", norm: str = "batch",
        save: Literal["output", "all"] = "output", every: int = 0, in_channels: int = 3,
        strides: Sequence[int] | None = None, fully_reversible: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not units or min(units) < 1:
            raise ValueError(f"units: at least one a stage, got {list(units)}")
        self.fully_reversible, self.save = fully_reversible, save
        options: dict[str, Any] = {"save": save, "every": every}
        with drawn_from(generator):
            self.stem = nn.Sequential(Standardise(in_channels))
            if fully_reversible:
                if filters is not None or strides is not None or stem != "cifar":
                    raise ValueError("a fully reversible net has no filters, strides or stem: its channels are the "
                                     "picture's, times 4 a stage")  # fmt: skip
                channels = self._undoable(units, in_channels, norm, options)
            else:
                channels = self._staged(units, filters, in_channels, bottleneck, stem, norm, strides, options)
            self.out_dim = channels
            self.last = _Last(make_norm(norm, channels), classes, channels)
            initialise(self, generator)

    def _undoable(self, units: Sequence[int], channels: int, norm: str, options: dict[str, Any]) -> int:
        blocks: list[nn.Module] = []
        channels *= 4
        for i, n in enumerate(units):
            blocks += [Unshuffle()] if i else []
            channels *= 4 if i else 1
            half, inner = channels // 2, max(1, channels // 4)
            blocks += [AdditiveCoupling(*(Residual(half, half, inner, norm=norm) for _ in "FG")) for _ in range(n)]
        self.body = ReversibleSequence(blocks, **options)
        return channels

    def _staged(
        self, units: Sequence[int], filters: Sequence[int] | None, in_channels: int, bottleneck: bool, stem: str,
        norm: str, strides: Sequence[int] | None, options: dict[str, Any],
    ) -> int:  # fmt: skip
        strides = tuple(strides or (1, *[2] * (len(units) - 1)))
        if filters is None or len(filters) != len(units) + 1 or len(strides) != len(units):
            raise ValueError(f"filters of the stem and of each of {len(units)} stages, and a stride a stage, are "
                             f"wanted; got {filters} and {strides}")  # fmt: skip
        if odd := [c for c in filters if c % 2 or c < 2]:
            raise ValueError(f"channels are split into halves and must be even, got {odd[0]}")
        kernel, step = (7, 2) if stem == "imagenet" else (3, 1)
        self.stem.extend([
            nn.Conv2d(in_channels, filters[0], kernel, step, kernel // 2, bias=norm == "none"),
            make_norm(norm, filters[0]), nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if stem == "imagenet" else []),
        ])  # fmt: skip
        self.starts, self.runs = nn.ModuleList(), nn.ModuleList()
        for i, (n, before, after, stride) in enumerate(zip(units, filters, filters[1:], strides)):
            a, b = before // 2, after // 2
            inner = max(1, b // 4) if bottleneck else None
            self.starts.append(Start(a, b, inner, stride, norm, after_stem=i == 0))
            blocks = [AdditiveCoupling(*(Residual(b, b, inner, norm=norm) for _ in "FG")) for _ in range(n - 1)]
            self.runs.append(ReversibleSequence(blocks, **options))
        return filters[-1]

    def stages(self, x: Tensor) -> list[Halves]:
        """Both halves after every stage; of a fully reversible net, after the last one."""
        if self.fully_reversible:
            side = 2 ** (1 + sum(isinstance(block, Unshuffle) for block in self.body.blocks))
            if x.shape[-1] % side or x.shape[-2] % side:
                raise ValueError(f"height and width must divide by {side}, got {tuple(x.shape[-2:])}")
            return [self.body(*(half.clone() for half in F.pixel_unshuffle(self.stem(x), 2).chunk(2, 1)))]
        h = self._part(self.stem, x)
        first, second = (h.float() if h.dtype in HALF and torch.is_autocast_enabled(h.device.type) else h).chunk(2, 1)
        found = []
        for start, run in zip(self.starts, self.runs):
            first, second = run(*self._part(start, first, second))
            found.append((first, second))
        return found

    def streams(self, x: Tensor) -> Halves:
        """Both halves of the last stage's output."""
        return self.stages(x)[-1]

    def features(self, x: Tensor) -> Float[Tensor, "b out"]:
        """Means over positions after a last norm and ReLU [B,out_dim]."""
        pooled: Tensor = self._part(self.last, *self.streams(x), False)
        return pooled

    def forward(self, x: Tensor) -> Float[Tensor, "b out"]:
        logits: Tensor = self._part(self.last, *self.streams(x), True)
        return logits

    @torch.no_grad()
    def picture(self, first: Tensor, second: Tensor) -> Float[Tensor, "b c h w"]:
        """The pictures whose `streams` these are, in [0,1]; of a fully reversible net."""
        if not self.fully_reversible:
            raise ValueError("only a net with fully_reversible=True can be undone down to the picture")
        first, second = self.body.reconstruct(first, second)[0]
        x, scale = F.pixel_shuffle(torch.cat((first, second), 1), 2), self.stem[0]
        assert isinstance(scale, Standardise)
        return x * scale.std.view(-1, 1, 1) + scale.mean.view(-1, 1, 1)

    def _part(self, module: nn.Module, *args: Any) -> Any:
        """A part that cannot be undone: its input is kept, unless all is."""
        return module(*args) if self.save == "all" else recomputed(module, *args)


class Residual(nn.Module):
    """A residual function F or G of one half [B,c_in,H,W]: norm–ReLU–convolution, twice, or thrice with `inner`
    channels between 1×1 convolutions.  after_stem: without the first norm and ReLU, since the stem has had them.
    """

    def __init__(
        self, c_in: int, c_out: int, inner: int | None = None, *, stride: int = 1, norm: str = "batch",
        after_stem: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        shapes = [(c_in, c_out, 3, stride), (c_out, c_out, 3, 1)]
        if inner is not None:
            shapes = [(c_in, inner, 1, 1), (inner, inner, 3, stride), (inner, c_out, 1, 1)]
        layers: list[nn.Module] = []
        for a, b, kernel, step in shapes:
            layers += [] if after_stem and not layers else [make_norm(norm, a), nn.ReLU()]
            layers.append(nn.Conv2d(a, b, kernel, step, kernel // 2, bias=norm == "none"))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.layers(x)


class Start(nn.Module):
    """The first unit of a stage: y₁ = D₁(x₁) + F(x₂), y₂ = D₂(x₂) + G(y₁), F with a stride; its input is not rebuilt.

    D: average pooling and zero channels, or, of a bottleneck, a 1×1 convolution; the identity where nothing changes.
    """

    def __init__(self, c_in: int, c_out: int, inner: int | None, stride: int, norm: str, *, after_stem: bool) -> None:
        super().__init__()
        self.f = Residual(c_in, c_out, inner, stride=stride, norm=norm, after_stem=after_stem)
        self.g = Residual(c_out, c_out, inner, norm=norm)

        def down() -> nn.Module:
            if c_in == c_out and stride == 1:
                return nn.Identity()
            return Pad(c_in, c_out, stride) if inner is None else nn.Conv2d(c_in, c_out, 1, stride, bias=norm == "none")

        self.down1, self.down2 = down(), down()

    def forward(self, x1: Float[Tensor, "b c h w"], x2: Float[Tensor, "b c h w"]) -> Halves:
        y1 = self.down1(x1).to(x1.dtype) + self.f(x2).to(x1.dtype)
        return y1, self.down2(x2).to(x2.dtype) + self.g(y1).to(x2.dtype)


class Unshuffle(nn.Module):
    """2×2 pixels of each half become four channels: a change of shape that is undone exactly, and draws on nothing."""

    def forward(self, x1: Float[Tensor, "b c h w"], x2: Float[Tensor, "b c h w"]) -> Halves:
        return F.pixel_unshuffle(x1, 2), F.pixel_unshuffle(x2, 2)

    def inverse(self, y1: Float[Tensor, "b c h w"], y2: Float[Tensor, "b c h w"]) -> Halves:
        return F.pixel_shuffle(y1, 2), F.pixel_shuffle(y2, 2)


class _Last(nn.Module):
    """Both halves, normalised once more, ReLU, means over positions [B,C]; then the logits, if they are asked for."""

    def __init__(self, norm: nn.Module, classes: int | None, channels: int) -> None:
        super().__init__()
        self.norm = norm
        self.head = nn.Identity() if classes is None else nn.Linear(channels, classes)

    def forward(self, first: Tensor, second: Tensor, logits: bool) -> Tensor:
        pooled = F.relu(self.norm(torch.cat((first, second), 1))).mean((2, 3))
        out: Tensor = self.head(pooled) if logits else pooled
        return out


def _basic(n: int, last: int) -> dict[str, Any]:
    return {"units": (n, n, n), "filters": (32, 32, 64, last)}


REVNETS: dict[str, dict[str, Any]] = {
    "revnet38": _basic(3, 112),
    "revnet110": _basic(9, 128),
    "revnet164": {"units": (9, 9, 9), "filters": (32, 128, 256, 512), "bottleneck": True},
    "revnet104": {"units": (2, 2, 11, 2), "filters": (128, 512, 1024, 2048, 3328), "bottleneck": True,
                  "stem": "imagenet", "classes": 1000},
}  # fmt: skip
"""The paper's nets, `RevNet(**REVNETS["revnet38"])`.  Their residual twins of as many parameters, in
`precis.nn.backbones`: resnet32:preact, resnet110:preact, resnet164 and resnet101:preact."""


def max_batch(model: nn.Module, shape: Sequence[int], memory: int) -> int:
    """The largest batch of inputs of `shape` [C,H,W] of whose forward pass autograd keeps at most `memory` bytes.

    What is kept (`precis.nn.cost.saved_bytes`, parameters left out) is measured at two and four inputs in training mode
    and is a straight line.  0 if not even one fits.  Statistics and modes of the model are as before.
    """
    import copy

    device = next(model.parameters()).device
    ghost = copy.deepcopy(model).train()
    kept = {n: saved_bytes(ghost, torch.zeros(n, *shape, device=device)) for n in (2, 4)}
    each = (kept[4] - kept[2]) / 2
    fixed = kept[2] - 2 * each
    return max(0, int((memory - fixed) // max(each, 1.0)))
