"""CLAE's further losses, compiled and eager, in a process of its own: functions whose shapes are checked do not
compile."""

import torch

from precis.contrastive.clae import plain_info_nce, uel_loss

g = torch.Generator().manual_seed(0)
z1, z2 = (torch.randn(6, 8, generator=g) for _ in range(2))
for loss in (plain_info_nce, uel_loss):
    found = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        a = z1.clone().requires_grad_()
        value = call(a, z2, 0.3)
        value.backward()
        found.append((value.detach(), a.grad))
    for eager, compiled in zip(*found):
        torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
