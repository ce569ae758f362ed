"""Pictures: augmentation, an epoch of training, and group norms, against what one would otherwise use.

Augmentation: 256 pictures of 32 × 32 as bytes, SimCLR's crop, flip, jitter and grey, or the shift and flip of CIFAR,
against the same with Pillow, picture by picture, as a data set's transform does it.  Epoch: steps of 128 with the
small-image augmentation, against a `DataLoader` over such a transform and a plain loop (no workers, so that both have
the same cores).  Limits of an epoch: the same steps against nothing but their convolutions, forward and backward, and
against square products with as many multiply–adds, the arithmetic of these cores; there `ratio` is the share of our
time that the limit takes.  Group norm: a training step of our `GroupNorm` against torch's own layer and against one
written with reshapes, in channels-last order; evaluation of a residual net with batch norm folded away against the
net as it is.  `ratio` is theirs over ours.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks._measured import versus
from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.nn.norm import fold_batchnorm
from precis.train.augment import Augment, preset
from precis.train.classify import fit_classifier
from precis.train.loop import Budget
from precis.vision.group_norm import GroupNorm

SIDE = 32
STEPS = 4


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    images = torch.randint(0, 256, (1024, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.randint(0, 10, (1024,))
    pillow = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images]
    some, generator = images[:256], torch.Generator().manual_seed(0)
    strong, weak = preset("simclr", SIDE), preset("cifar", SIDE)
    ready = lambda transform: torch.stack([transform(p) for p in pillow[:256]])
    return [
        versus("augment, SimCLR, 256 pictures", lambda: strong(some, generator), lambda: ready(pillow_simclr), repeats),
        versus("augment, shift and flip, 256", lambda: weak(some, generator), lambda: ready(pillow_cifar), repeats),
        *(_epoch(spec, images, labels, pillow, weak, repeats) for spec in ("conv:24x3", "small_resnet:width=24")),
        *(row for spec in ("conv:24x3", "resnet20") for row in _limits(spec, images, labels, weak, repeats)),
        *_norms(repeats),
    ]


def pillow_simclr(picture: Image.Image) -> Tensor:
    """A random resized crop, flip, colour jitter (strength 0.5) and grey, one picture at a time."""
    width, height = picture.size
    area, ratio = random.uniform(0.08, 1) * width * height, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    w, h = min(round((area * ratio) ** 0.5), width), min(round((area / ratio) ** 0.5), height)
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if random.random() < 0.8:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(random.uniform(0.6, 1.4))
        hue, saturation, value = picture.convert("HSV").split()
        turned = (np.asarray(hue).astype(int) + round(255 * random.uniform(-0.1, 0.1))) % 256
        hue = Image.fromarray(turned.astype(np.uint8))
        picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if random.random() < 0.2:
        picture = ImageOps.grayscale(picture).convert("RGB")
    return _tensor(picture)


def pillow_cifar(picture: Image.Image) -> Tensor:
    """Four black pixels around, a random cut of the old size, a flip."""
    wide = ImageOps.expand(picture, 4)
    left, top = random.randint(0, 8), random.randint(0, 8)
    picture = wide.crop((left, top, left + SIDE, top + SIDE))
    return _tensor(ImageOps.mirror(picture) if random.random() < 0.5 else picture)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class _Pictures(Dataset):
    def __init__(self, pictures: list[Image.Image], labels: Tensor) -> None:
        self.pictures, self.labels = pictures, labels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return pillow_cifar(self.pictures[index]), self.labels[index]


def _epoch(
    spec: str, images: Tensor, labels: Tensor, pillow: list[Image.Image], augment: Augment, repeats: int
) -> dict[str, Any]:
    ours_net, theirs_net = (backbone(spec, (3, SIDE, SIDE), 10) for _ in range(2))
    loader = DataLoader(_Pictures(pillow, labels), 128, shuffle=True, drop_last=True)
    solver = torch.optim.SGD(theirs_net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def theirs() -> None:
        for step, (x, y) in enumerate(loader):
            if step == STEPS:
                return
            solver.zero_grad()
            F.cross_entropy(theirs_net(x), y).backward()
            solver.step()

    def ours() -> None:
        fit_classifier(ours_net, (images, labels), augment=augment, budget=Budget(steps=STEPS), batch=128)

    return versus(f"{STEPS} steps of 128, {spec}", ours, theirs, max(3, repeats // 2))


def _limits(spec: str, images: Tensor, labels: Tensor, augment: Augment, repeats: int) -> list[dict[str, Any]]:
    net = backbone(spec, (3, SIDE, SIDE), 10).to(memory_format=torch.channels_last)
    batch = torch.rand(128, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    calls: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    keep = lambda module, args, output: calls.append((module, args[0].detach(), torch.ones_like(output)))
    hooks = [module.register_forward_hook(keep) for module in net.modules() if isinstance(module, nn.Conv2d)]
    net(batch)
    for hook in hooks:
        hook.remove()
    inputs = [x.requires_grad_(i > 0) for i, (_, x, _) in enumerate(calls)]  # pictures need no gradient
    square = torch.rand(1024, 1024)
    products = max(1, round(3 * STEPS * count(net, batch).macs / len(square) ** 3))

    def ours() -> None:
        fit_classifier(net, (images, labels), augment=augment, budget=Budget(steps=STEPS), batch=128)

    def convolutions() -> None:
        for _ in range(STEPS):
            for (conv, _, gradient), x in zip(calls, inputs):
                x.grad = conv.weight.grad = None
                conv(x).backward(gradient)

    def arithmetic() -> None:
        for _ in range(products):
            square @ square

    repeats = max(3, repeats // 2)
    return [
        versus(f"{STEPS} steps of 128, {spec}, convolutions alone", ours, convolutions, repeats),
        versus(f"{STEPS} steps of 128, {spec}, as products of 1,024²", ours, arithmetic, repeats),
    ]


class ReshapedNorm(nn.Module):
    """Group norm as the six lines in the paper have it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, self.groups, c // self.groups, h, w)
        mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, correction=0)
        x = ((x - mean) / (variance + 1e-5).sqrt()).reshape(n, c, h, w)
        return x * self.weight.view(1, c, 1, 1) + self.bias.view(1, c, 1, 1)


def _norms(repeats: int) -> list[dict[str, Any]]:
    x = torch.randn(32, 64, SIDE, SIDE).contiguous(memory_format=torch.channels_last).requires_grad_()

    def step(layer: nn.Module) -> Callable[[], Any]:
        return lambda: layer(x).square().mean().backward()

    ours = step(GroupNorm(64, 8))
    net = backbone("resnet20", (3, SIDE, SIDE), 10).eval().to(memory_format=torch.channels_last)
    folded, y = fold_batchnorm(net), torch.rand(32, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    free, usual = torch.no_grad()(lambda: folded(y)), torch.no_grad()(lambda: net(y))
    return [
        versus("group norm, against torch's layer", ours, step(nn.GroupNorm(8, 64)), repeats),
        versus("group norm, against reshapes", ours, step(ReshapedNorm(64, 8)), repeats),
        versus("ResNet-20 evaluated, batch norm folded", free, usual, repeats),
    ]
