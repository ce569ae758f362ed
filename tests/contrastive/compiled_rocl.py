"""The loss of several views, compiled and eager, in a process of its own: functions whose shapes are checked do not
compile."""

import torch

from precis.contrastive.rocl import multi_view_nt_xent

views = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
for detach in (False, True):
    found = []
    for call in (multi_view_nt_xent, torch.compile(multi_view_nt_xent, fullgraph=True, backend="aot_eager")):
        z = views.clone().requires_grad_()
        value = call(z, 0.3, detach)
        value.backward()
        found.append((value.detach(), z.grad))
    for eager, compiled in zip(*found):
        torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
print("equal")
