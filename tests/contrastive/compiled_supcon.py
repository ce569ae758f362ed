"""Compiled and eager losses, in a process of its own: functions whose shapes are checked do not compile."""

import torch
from torch import Tensor

from precis.contrastive.supcon_loss import sup_con

g = torch.Generator().manual_seed(0)
z, labels = torch.randn(6, 2, 8, generator=g), torch.tensor([0, 1, 0, -1, 2, 1])


def both(features: Tensor) -> Tensor:
    return torch.stack([sup_con(features, labels), sup_con(features, labels, reduction_form="in", contrast="one")])


found = []
for call in (both, torch.compile(both, fullgraph=True, backend="aot_eager")):
    given = z.clone().requires_grad_()
    values = call(given)
    (values * torch.tensor([1.0, 3.0])).sum().backward()
    found.append((values.detach(), given.grad))
for eager, compiled in zip(*found):
    torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
