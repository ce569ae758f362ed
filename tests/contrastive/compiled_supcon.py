"""Compiled and eager losses, in a process of its own: functions whose shapes are checked do not compile."""

import torch

from precis.contrastive.supcon_loss import sup_con

g = torch.Generator().manual_seed(0)
z, labels = torch.randn(6, 2, 8, generator=g), torch.tensor([0, 1, 0, -1, 2, 1])
mask = (torch.rand(6, 6, generator=g) < 0.5).float()
for options in ({"labels": labels, "reduction_form": "in"}, {"mask": mask, "empty": "zero", "contrast": "one"}):
    grads = []
    for call in (sup_con, torch.compile(sup_con, fullgraph=True, backend="aot_eager")):
        a = z.clone().requires_grad_()
        value = call(a, temperature=0.3, **options)
        value.backward()
        grads.append((value.detach(), a.grad))
    for eager, compiled in zip(*grads):
        torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
