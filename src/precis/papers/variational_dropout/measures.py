"""What the claims measure of a trained net: accuracy, density, how far weights can be removed, and the bound."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.sparsity.variational_dropout import model_kl, to_dense, variational_layers
from precis.train.classify import predict

from .training import Net

STEP = 1.1  # between neighbouring compressions that are tried


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """In percent, in evaluation mode."""
    return 100 * float((predict(net, x).argmax(1) == y).float().mean())


def density(net: Net) -> float:
    """Share of the weights that evaluation uses."""
    layers = variational_layers(net)
    return sum(int(layer.mask().sum()) for _, layer in layers) / sum(layer.weight.numel() for _, layer in layers)


def log_compression(net: Net) -> float:
    """log of weights over surviving weights; a net of none counts as one of one."""
    layers = variational_layers(net)
    total = sum(layer.weight.numel() for _, layer in layers)
    return math.log(total / max(1, sum(int(layer.mask().sum()) for _, layer in layers)))


def rows(net: Net) -> list[dict[str, Any]]:
    """A row a layer, for the report."""
    return [
        {"layer": name.removeprefix("net."), "weights": layer.weight.numel(), "surviving": int(layer.mask().sum()),
         "removed %": 100 - 100 * float(layer.mask().float().mean())}
        for name, layer in variational_layers(net)
    ]  # fmt: skip


@torch.no_grad()
def log_removable(net: Net, x: Tensor, y: Tensor, points: float = 1.0) -> float:
    """log of the largest compression at which accuracy is within `points` of the net as it is evaluated.

    Weights go in order of falling α, of equal ones the smaller |θ| first; of a dense net in order of rising |θ|.
    Compressions tried: 1, 1.1, 1.21, … up to ten weights left.
    """
    least = accuracy(net, x, y) - points
    plain = to_dense(net, threshold=math.inf)  # every weight of θ
    weights = [m.weight for m in plain.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    size = torch.cat([w.flatten() for w in weights])
    order = size.abs().argsort(stable=True)  # the first to go first
    if layers := variational_layers(net):
        log_alpha = torch.cat([layer.log_alpha.flatten() for _, layer in layers])
        order = order[log_alpha[order].argsort(descending=True, stable=True)]
    best, compression = 0.0, STEP
    while len(size) / compression >= 10:
        left = size.clone()
        left[order[: len(size) - round(len(size) / compression)]] = 0
        for weight, part in zip(weights, left.split([w.numel() for w in weights])):
            weight.copy_(part.view_as(weight))
        if accuracy(plain, x, y) >= least:
            best = math.log(compression)
        compression *= STEP
    return best


def share_at_clip(net: Net) -> float:
    """Share of weights whose log α lies on its upper bound."""
    values = [(layer.log_alpha >= layer.max_log_alpha - 1e-6) for _, layer in variational_layers(net)]  # type: ignore[operator]
    return float(torch.cat([v.flatten() for v in values]).float().mean())


@torch.no_grad()
def full_bound(net: Net, x: Tensor, y: Tensor, generator: torch.Generator, draws: int = 10) -> float:
    """The variational bound in nats an example at λ = 1, the likelihood averaged over draws of the noise."""
    layers = [layer for _, layer in variational_layers(net)]
    for layer in layers:
        layer.generator = generator
    net.train()
    nll = sum(float(F.cross_entropy(net(x), y)) for _ in range(draws)) / draws
    net.eval()
    return -nll - float(model_kl(net)) / net.n_train
