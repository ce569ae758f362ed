"""What the claims train: a small residual net with any normalisation, several seeds in one pass, at any batch size."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from precis.lab.claim import Recorder
from precis.nn.resnet import ResNet
from precis.papers import small_nets
from precis.papers.pools import Pool, Split
from precis.papers.small_nets import Residual
from precis.train.checkpoint import load_state, save_state
from precis.train.many import Many

NORMS = {"gn": "group", "bn": "batch", "ln": "layer", "in": "instance", "none": "none"}


def make_net(norm: str, settings: Residual, pool: Pool, generator: torch.Generator) -> ResNet:
    """The net with its convolutions and head drawn by `generator`: the same for every norm."""
    return ResNet(
        settings.stages, settings.widths, strides=settings.strides, stem_width=settings.stem_width,
        in_channels=pool.images.shape[1], classes=pool.classes, norm=NORMS[norm], zero_init=norm != "none",
        channels_per_group=settings.channels_per_group, generator=generator,
    )  # fmt: skip


def train(
    norm: str, batch: int, settings: Residual, pool: Pool, seeds: Sequence[int], lr: float, record: Recorder
) -> tuple[Many, Split]:
    """`small_nets.train` of the net with this norm: the rate ∝ batch, and decay on γ and β too, as in the paper."""
    return small_nets.train(partial(make_net, norm, settings, pool), batch, settings, pool, seeds, lr, record)


def trained_bn(settings: Residual, pool: Pool, seed: int, lr: float, record: Recorder) -> nn.Module:
    """The batch norm net of one seed, trained at 32 samples a batch, once for all claims that read it."""

    def make(folder: Path) -> None:
        many, _ = train("bn", 32, settings, pool, (seed,), lr, record)
        save_state(folder / "net.safetensors", dict(many.module(0).state_dict()))

    folder = record.shared("bn_32", make, [settings, lr])
    net = make_net("bn", settings, pool, torch.Generator().manual_seed(0)).to(record.device)
    net.load_state_dict(load_state(folder / "net.safetensors"))
    return net.eval()


def positions(settings: Residual) -> int:
    """Positions of the deepest map: with them, m = N · positions values make a batch statistic there."""
    return max(1, math.ceil(settings.size / math.prod(settings.strides))) ** 2
