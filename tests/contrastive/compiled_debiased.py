"""Compiled and eager losses, in a process of its own: functions whose shapes are checked do not compile."""

import torch

from precis.contrastive.debiased import debiased_nt_xent

views = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
grads = []
for call in (debiased_nt_xent, torch.compile(debiased_nt_xent, fullgraph=True, backend="aot_eager")):
    z = views.clone().requires_grad_()
    value = call(z, 0.3, 0.1)
    value.backward()
    grads.append((value.detach(), z.grad))
for eager, compiled in zip(*grads):
    torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
