"""Momentum contrast: negatives from a queue of older keys, made by a slowly moving copy of the encoder.

    L = −log( e^{q·k/τ} / (e^{q·k/τ} + Σ_{j in Q} e^{q·j/τ}) ),   θ_k ← m θ_k + (1 − m) θ_q

q is the trained encoder's embedding of one view, k the copy's of the other.  The copy moves *before* the keys are made,
the keys enter the queue after the loss, the oldest leave.  Only parameters are averaged: the copy's batch-norm
statistics are of its own passes.  He et al., CVPR 2020, §3 (arXiv 1911.05722); v2: arXiv 2003.04297.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from precis.contrastive.ntxent_loss import info_nce
from precis.train.ema import ema_


class MomentumQueue(nn.Module):
    """The last K keys [K,D], at first random unit vectors of `generator`."""

    keys: Tensor
    position: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue holds at least one key of one number, got {size} of {dim}")
        device = generator.device if generator is not None else None
        drawn = torch.randn(size, dim, generator=generator, device=device)
        self.register_buffer("keys", F.normalize(drawn, dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @property
    def filled(self) -> int:
        """How many of the K are keys that were pushed, not random vectors."""
        return min(int(self.pushed), len(self.keys))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "b d"]) -> None:
        """Put keys in the place of the oldest; of more than K the last K count."""
        kept = keys[-len(self.keys) :].to(self.keys.dtype)
        at = (self.position + len(keys) - len(kept) + torch.arange(len(kept), device=kept.device)) % len(self.keys)
        self.keys[at] = kept
        self.position.add_(len(keys)).remainder_(len(self.keys))
        self.pushed.add_(len(keys))


class MomentumTwin(nn.Module):
    """A copy of `online` without gradients that follows it: parameters by `update`, buffers by its own passes."""

    def __init__(self, online: nn.Module, momentum: float | int = 0.999) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum must lie in [0, 1], got {momentum}")
        self.momentum = momentum
        self.twin = copy.deepcopy(online).requires_grad_(False)
        self._online = (online,)  # in a tuple: it is not ours to register

    @torch.no_grad()
    def update(self) -> None:
        """θ_k ← m θ_k + (1 − m) θ_q."""
        ema_(self.twin, self._online[0], self.momentum)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.twin(x)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics of each of `splits` parts of the batch by itself, as on so many devices."""

    def __init__(self, channels: int, splits: int, **options: Any) -> None:
        super().__init__(channels, **options)
        self.splits = splits

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if not self.training:
            return super().forward(x)
        if len(x) < 2 * self.splits:
            raise ValueError(f"a batch of {len(x)} has no {self.splits} parts of two: take fewer or more pictures")
        return torch.cat([super(SplitBatchNorm2d, self).forward(part) for part in x.tensor_split(self.splits)])


def split_batch_norms(module: nn.Module, splits: int) -> nn.Module:
    """`module` with each `nn.BatchNorm2d` replaced, in place, by one over `splits` parts of the batch."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            new = SplitBatchNorm2d(
                child.num_features, splits, eps=child.eps, momentum=child.momentum, affine=child.affine,
                track_running_stats=child.track_running_stats,
            )  # fmt: skip
            new.load_state_dict(child.state_dict())
            setattr(module, name, new.to(next(iter(child.state_dict().values())).device).train(child.training))
        else:
            split_batch_norms(child, splits)
    return module


class MoCo(nn.Module):
    """`loss(v1, v2)` of two views [N,C,H,W] in [0,1]; one call is one training step of the queue and the copy.

    encoder: [B,C,H,W] → h [B,·]; head: h → z [B,D], with `dim_out` (else name `dim`).  symmetric: both views are asked
    for, and the mean taken; the keys of both enter the queue.  split_bn: batch norm over so many parts of the batch,
    of which the keys see another shuffle than the queries: the stand-in, on one device, for the shuffling between GPUs
    that keeps batch statistics from telling which views belong together.  `generator` draws the queue and the shuffles.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, queue_size: int = 4096, momentum: float | int = 0.99,
        temperature: float | int = 0.2, symmetric: bool = True, split_bn: int = 0, *, dim: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, head
        self.temperature, self.symmetric, self.split_bn = temperature, symmetric, split_bn
        if split_bn:
            split_batch_norms(self, split_bn)
        self.twin = MomentumTwin(nn.Sequential(self.encoder, self.head), momentum)
        dim = dim if dim is not None else getattr(head, "dim_out", None)
        if dim is None:
            raise ValueError("the head has no `dim_out`: name the embedding's `dim`")
        self.queue = MomentumQueue(queue_size, dim, generator)
        self.generator = generator

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b width"], Float[Tensor, "b dim"]]:
        """(h, z): the representation and what the loss sees of it."""
        h = self.encoder(x)
        return h, self.head(h)

    def loss(self, v1: Float[Tensor, "n c h w"], v2: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """InfoNCE, in nats, of the views of N pictures against the queue, which then takes up the keys."""
        self.twin.update()
        n = len(v1)
        asked = torch.cat([v1, v2]) if self.symmetric else v1
        q = self(asked)[1]
        k = self._keys(torch.cat([v2, v1]) if self.symmetric else v2)
        old = self.queue.keys.clone()  # the graph keeps them, and they are overwritten below
        parts = [info_nce(a, b, old, self.temperature) for a, b in zip(q.split(n), k.split(n))]
        self.queue.push(k)
        return torch.stack(parts).mean()

    @torch.no_grad()
    def _keys(self, views: Tensor) -> Tensor:
        if not self.split_bn:
            return F.normalize(self.twin(views).float(), dim=1)
        source = self.generator.device if self.generator is not None else views.device
        order = torch.randperm(len(views), generator=self.generator, device=source).to(views.device)
        keys = torch.empty_like(order)
        keys[order] = torch.arange(len(order), device=order.device)
        return F.normalize(self.twin(views[order]).float(), dim=1)[keys]
