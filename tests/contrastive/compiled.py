"""Compiled and eager losses, in a process of its own: functions whose shapes are checked do not compile."""

import torch

from precis.contrastive.ntxent_loss import info_nce, nt_xent

g = torch.Generator().manual_seed(0)
z1, z2, queue = (torch.randn(n, 8, generator=g) for n in (6, 6, 10))
for loss, given in ((nt_xent, (z1, z2)), (info_nce, (z1, z2, queue))):
    grads = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        a = given[0].clone().requires_grad_()
        value = call(a, *given[1:], 0.3)
        value.backward()
        grads.append((value.detach(), a.grad))
    for eager, compiled in zip(*grads):
        torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
