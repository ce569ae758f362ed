"""Several conditional neural processes of one shape, evaluated and trained in one pass, one `bmm` a layer.

The formulas are those of `precis.fields.neural_process`; copy m of the M has weights, context and targets of its own.
On CPUs small nets are bound by the overhead of each operation, so that five copies cost far less than five runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal

from precis.fields.neural_process import CNP
from precis.nn.stacked import StackedLinear


class StackedCNP(nn.Module):
    """M CNPs: ctx_x [M,B,n,dx], ctx_y [M,B,n,dy], tgt_x [M,B,m,dx], ctx_mask [M,B,n] | None -> Normal [M,B,m,dy].

    Made of M modules of one shape, whose weights are copied; `to_modules` gives them back.
    """

    def __init__(self, modules: Sequence[CNP]) -> None:
        super().__init__()
        first, copies = modules[0], len(modules)
        if any(_shapes(one) != _shapes(first) or one.min_sigma != first.min_sigma for one in modules):
            raise ValueError("the modules must have layers of the same sizes and the same min_sigma")
        if first.encode.activation != "relu" or first.encode.last_activation:
            raise ValueError("a CNP's encoder has ReLUs and a linear last layer")
        self.copies, self.min_sigma = copies, first.min_sigma
        self.encoder: Sequence[StackedLinear] = _stack(copies, first.encode.linears)
        self.empty = nn.Parameter(torch.stack([m.encode.empty.detach() for m in modules])[:, None])
        self.from_x = StackedLinear(copies, first.from_x.in_features, first.from_x.out_features)
        self.from_r = StackedLinear(copies, first.from_r.in_features, first.from_r.out_features, bias=False)
        self.layers: Sequence[StackedLinear] = _stack(copies, first.linears)
        for m, module in enumerate(modules):
            for stack, single in self._pairs(module):
                stack.put(m, single)

    def forward(
        self, ctx_x: Float[Tensor, "c b n dx"], ctx_y: Float[Tensor, "c b n dy"], tgt_x: Float[Tensor, "c b m dx"],
        ctx_mask: Bool[Tensor, "c b n"] | None = None,
    ) -> Normal:
        r = self.encode(ctx_x, ctx_y, ctx_mask)
        c, b, m, _ = tgt_x.shape
        h = self.from_x(tgt_x.flatten(1, 2)).unflatten(1, (b, m)) + self.from_r(r)[:, :, None]
        h = h.flatten(1, 2)
        for layer in self.layers:
            h = layer(h.relu())
        mean, s = h.unflatten(1, (b, m)).chunk(2, -1)
        return Normal(mean, self.min_sigma + (1 - self.min_sigma) * F.softplus(s))

    def encode(
        self, ctx_x: Float[Tensor, "c b n dx"], ctx_y: Float[Tensor, "c b n dy"],
        mask: Bool[Tensor, "c b n"] | None = None,
    ) -> Float[Tensor, "c b latent"]:
        """The mean code r of each context; masked pairs change nothing, an empty context has the learned code."""
        b, n = ctx_x.shape[1:3]
        if n == 0:
            return self.empty.expand(-1, b, -1)
        pairs = torch.cat([ctx_x, ctx_y], -1)
        if mask is not None:
            pairs = pairs.masked_fill(~mask[..., None], 0.0)
        h = pairs.flatten(1, 2)
        for layer in self.encoder[:-1]:  # type: ignore[index]
            h = layer(h).relu()
        codes = self.encoder[-1](h).unflatten(1, (b, n))
        if mask is None:
            return codes.mean(2)
        weight = mask[..., None].to(codes)
        count = weight.sum(2)
        return torch.where(count > 0, (codes * weight).sum(2) / count.clamp(min=1), self.empty)

    def losses(
        self, ctx_x: Float[Tensor, "c b n dx"], ctx_y: Float[Tensor, "c b n dy"], tgt_x: Float[Tensor, "c b m dx"],
        tgt_y: Float[Tensor, "c b m dy"], ctx_mask: Bool[Tensor, "c b n"] | None = None,
    ) -> Float[Tensor, " c"]:
        """−log Q per target point of each copy, in nats; the gradient of their sum is each copy's own."""
        return -self(ctx_x, ctx_y, tgt_x, ctx_mask).log_prob(tgt_y).sum(-1).mean((1, 2))

    def to_modules(self) -> list[CNP]:
        """The copies as CNPs, weights copied, in evaluation mode."""
        found = []
        for m in range(self.copies):
            widths = [layer.d_out for layer in self.encoder]
            decoder = [self.from_x.d_out, *(layer.d_out for layer in self.layers)]
            one = CNP(
                self.from_x.d_in, decoder[-1] // 2, widths[-1], widths[:-1], decoder[:-1], self.min_sigma,
                torch.Generator(),
            )  # fmt: skip
            with torch.no_grad():
                for stack, single in self._pairs(one):
                    single.load_state_dict(stack.take(m).state_dict())
                one.encode.empty.copy_(self.empty[m, 0])
            found.append(one.to(self.empty).eval())
        return found

    def _pairs(self, one: CNP) -> list[tuple[StackedLinear, Any]]:
        stacks = [*self.encoder, self.from_x, self.from_r, *self.layers]
        return list(zip(stacks, [*one.encode.linears, one.from_x, one.from_r, *one.linears], strict=True))


def _stack(copies: int, linears: Any) -> Any:
    return nn.ModuleList(StackedLinear(copies, layer.in_features, layer.out_features) for layer in linears)


def _shapes(one: CNP) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in one.parameters()]
