"""SimCLR: two augmentations of a picture must be recognised as a pair among those of other pictures.

    h = f(v),   z = g(h)/‖g(h)‖,   L = NT-Xent(z of view 1, z of view 2)

f is the encoder, g a small head that is thrown away: h is the representation.  Chen, Kornblith, Norouzi, Hinton, ICML
2020 (arXiv 2002.05709), §2.  `MoCo` takes its negatives from a queue instead of the batch: `precis.contrastive.moco`.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from precis.contrastive.moco import MoCo, MomentumQueue, MomentumTwin
from precis.contrastive.ntxent_loss import alignment, info_nce, nt_xent, uniformity
from precis.nn.layers import drawn_from, initialise

__all__ = [
    "MoCo", "MomentumQueue", "MomentumTwin", "ProjectionHead", "SimCLR", "alignment", "info_nce", "nt_xent",
    "uniformity",
]  # fmt: skip


class ProjectionHead(nn.Module):
    """`layers` linear maps with ReLU (after batch norm, if asked for) between them: [B,dim_in] → [B,dim_out].

    The output is not normalised: the losses do that.  dim_hidden: dim_in, if None.
    """

    def __init__(
        self, dim_in: int, dim_hidden: int | None = None, dim_out: int = 128, layers: int = 2,
        batch_norm: bool = False, *, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if layers < 1:
            raise ValueError(f"a head has at least one layer, got {layers}")
        hidden = dim_in if dim_hidden is None else dim_hidden
        widths = [dim_in, *[hidden] * (layers - 1), dim_out]
        self.dim_out = dim_out
        made: list[nn.Module] = []
        with drawn_from(generator):
            for i, (a, b) in enumerate(zip(widths, widths[1:])):
                last = i == layers - 1
                made.append(nn.Linear(a, b, bias=last or not batch_norm))
                if not last:
                    made += [*([nn.BatchNorm1d(b)] if batch_norm else []), nn.ReLU()]
            self.layers = nn.Sequential(*made)
            initialise(self, generator)

    def forward(self, h: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        return self.layers(h)


class SimCLR(nn.Module):
    """An encoder [B,C,H,W] → h [B,·], a head h → z [B,D], and the loss of two views.

    chunk, gather: as in `nt_xent`.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, temperature: float | int = 0.5, *, chunk: int | None = None,
        gather: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.head, self.temperature = encoder, head, temperature
        self.chunk, self.gather = chunk, gather

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b width"], Float[Tensor, "b dim"]]:
        """(h, z): the representation and what the loss sees of it."""
        h = self.encoder(x)
        return h, self.head(h)

    def loss(self, v1: Float[Tensor, "n c h w"], v2: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """NT-Xent, in nats, of two views of N pictures; both go through in one pass, and share batch statistics."""
        z = self(torch.cat([v1, v2]))[1]
        return nt_xent(z[: len(v1)], z[len(v1) :], self.temperature, chunk=self.chunk, gather=self.gather)
