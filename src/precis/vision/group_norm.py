"""Group normalisation: statistics over groups of a sample's channels, and none over the batch.

    x̂_i = (x_i − μ_i)/√(σ_i² + ε),   y_i = γ_c x̂_i + β_c

μ_i and σ_i² (biased) are of the set S_i of entries that share with i:
batch norm: the channel · layer norm: the sample · instance norm: sample and channel · group norm: the sample and
⌊channel/(C/G)⌋.  γ and β are one a channel in all four; layer norm is G = 1, instance norm G = C.
Wu and He, ECCV 2018, §3 (arXiv 1803.08494).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from precis.nn.norm import BatchNorm, pick_groups


def normalize(
    x: Float[Tensor, "n c *positions"],
    kind: Literal["batch", "layer", "instance", "group"],
    *,
    groups: int | None = None,
    weight: Float[Tensor, "c"] | None = None,
    bias: Float[Tensor, "c"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "n c *positions"]:
    """x (N,C,*) normalised over the set of its `kind`, times `weight` plus `bias` [C]; `groups` for "group" (32).

    Statistics of bfloat16 and float16 inputs are float32.  ValueError if the groups do not divide the channels, or if
    batch statistics would be of one value.
    """
    channels = x.shape[1]
    if kind == "batch":
        if x.numel() == channels:
            raise ValueError("batch norm of one sample at one position: a variance over one value does not exist")
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    found = {"layer": 1, "instance": channels, "group": 32 if groups is None else groups}.get(kind)
    if found is None:
        raise ValueError(f"no normalisation is called {kind!r}: batch, layer, instance, group")
    check_groups(channels, found)
    return F.group_norm(x, found, weight, bias, eps)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of (N,C,*), any number of positions: `torch.nn.GroupNorm`, which it is, with the defaults of
    the paper, a start at zero, and groups of other channels than neighbouring ones.

    zero_init: γ starts at 0 (the last norm of a residual block, §4.1).  order: a permutation [C]; the groups are of
    consecutive channels *in it*.
    """

    order: Tensor | None

    def __init__(
        self, channels: int, groups: int = 32, *, eps: float = 1e-5, affine: bool = True, zero_init: bool = False,
        order: Int[Tensor, "c"] | None = None,
    ) -> None:  # fmt: skip
        check_groups(channels, groups)
        super().__init__(groups, channels, eps=eps, affine=affine)
        if zero_init and affine:
            nn.init.zeros_(self.weight)
        if order is not None and sorted(order.tolist()) != list(range(channels)):
            raise ValueError(f"order must be a permutation of {channels} channels")
        self.register_buffer("order", order)

    def forward(self, x: Float[Tensor, "n c *positions"]) -> Float[Tensor, "n c *positions"]:
        if self.order is None:
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        x = F.group_norm(x[:, self.order], self.num_groups, None, None, self.eps)[:, self.order.argsort()]
        if not self.affine:
            return x
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)


class Replacement(NamedTuple):
    """A layer that `convert_norms` replaced: its name in the module, channels, and groups of the new one."""

    name: str
    channels: int
    groups: int


def convert_norms(
    module: nn.Module,
    kind: Literal["group", "layer", "instance"] = "group",
    *,
    groups: int = 32,
    channels_per_group: int | None = None,
    keep_affine: bool = True,
    calibrate: Tensor | None = None,
    orders: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, list[Replacement]]:
    """Replace every batch norm of `module` (1-d, 2-d, 3-d, synchronised), in place; returns it, and what was replaced.

    The new layer has `pick_groups(channels, groups)` groups (or of `channels_per_group` channels), and the old one's γ
    and β (1 and 0 without `keep_affine`), `requires_grad`, device, type and mode; a layer that is registered twice is
    replaced once and stays shared.
    If `module` itself is a batch norm, the new layer is returned.  `orders`: permutations of channels by layer name.

    calibrate: a batch of inputs, on which γ and β are set so that each channel has the mean and the variance after the
    new layer that it had after the old one in evaluation mode.  Layers are set in the order in which they are called,
    so that each sees what the calibrated ones before it give; two forward passes in all.
    """
    old = {name: m for name, m in module.named_modules(remove_duplicate=False) if isinstance(m, BatchNorm)}
    targets = {} if calibrate is None else _moments_after(module, set(old.values()), calibrate)
    made: dict[nn.Module, GroupNorm] = {}
    held = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    fallback = next(held, calibrate)
    replaced = []
    for name, norm in old.items():
        if norm not in made:
            channels = norm.num_features
            wanted = groups if channels_per_group is None else max(1, channels // channels_per_group)
            g = {"group": pick_groups(channels, wanted), "layer": 1, "instance": channels}[kind]
            made[norm] = _like(norm, g, keep_affine, calibrate is not None, (orders or {}).get(name), fallback)
            replaced.append(Replacement(name, channels, g))
        if not name:
            module = made[norm]
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, made[norm])
    if calibrate is not None:
        _calibrate(module, {made[norm]: target for norm, target in targets.items()}, calibrate)
    return module, replaced


def check_groups(channels: int, groups: int) -> None:
    """ValueError, with the nearest numbers that would do, if `groups` does not divide `channels`."""
    if groups >= 1 and channels % groups == 0:
        return
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    below = max((g for g in divisors if g < groups), default=None)
    above = min((g for g in divisors if g > groups), default=None)
    near = " or ".join(str(g) for g in (below, above) if g is not None)
    raise ValueError(f"{groups} groups do not divide {channels} channels; {near} would")


def _like(
    norm: Any, groups: int, keep_affine: bool, affine: bool, order: Tensor | None, fallback: Tensor | None
) -> GroupNorm:
    """A group norm in the place of `norm`; with an affine part even where that has none, if `affine`.

    Device and type are those of `fallback`, the model's first floating-point tensor, where `norm` itself has none.
    """
    new = GroupNorm(norm.num_features, groups, eps=norm.eps, affine=norm.affine or affine, order=order)
    like = norm.weight if norm.affine else norm.running_mean
    like = fallback if like is None else like
    if like is not None:
        new = new.to(like.device, like.dtype)
    if norm.affine:
        with torch.no_grad():
            if keep_affine:
                new.weight.copy_(norm.weight)
                new.bias.copy_(norm.bias)
        new.weight.requires_grad_(norm.weight.requires_grad)
        new.bias.requires_grad_(norm.bias.requires_grad)
    return new.train(norm.training)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    axes = [d for d in range(x.ndim) if d != 1]
    return x.mean(axes), x.var(axes, correction=0)


@torch.no_grad()
def _moments_after(module: nn.Module, norms: set[Any], batch: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel after each of `norms`, in evaluation mode, at its first call."""
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(norm: nn.Module, _: Any, output: Tensor) -> None:
        found.setdefault(norm, _moments(output))

    _run(module, [norm.register_forward_hook(keep) for norm in norms], batch)
    return found


@torch.no_grad()
def _calibrate(module: nn.Module, targets: Mapping[Any, tuple[Tensor, Tensor]], batch: Tensor) -> None:
    left = dict(targets)

    def set_affine(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if norm not in left:
            return None
        mean, variance = left.pop(norm)
        sign = torch.where(norm.weight < 0, -1.0, 1.0).to(norm.weight)
        norm.weight.fill_(1)
        norm.bias.zero_()
        plain = norm.forward(inputs[0])
        plain_mean, plain_variance = _moments(plain)
        norm.weight.copy_(sign * torch.where(plain_variance > 0, variance / plain_variance, 1.0).sqrt())
        norm.bias.copy_(mean - norm.weight * plain_mean)
        shape = (-1, *[1] * (plain.ndim - 2))
        return plain * norm.weight.view(shape) + norm.bias.view(shape)

    _run(module, [norm.register_forward_hook(set_affine) for norm in targets], batch)


def _run(module: nn.Module, hooks: list[Any], batch: Tensor) -> None:
    """One forward pass in evaluation mode; modes and hooks are as before afterwards."""
    modes = {m: m.training for m in module.modules()}
    try:
        module.eval()(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for m, training in modes.items():
            m.training = training
