"""Losses compiled and eager, in a process of its own: functions whose shapes are checked do not compile."""

from functools import partial

import torch

from precis.contrastive.clae_loss import plain_info_nce, uel_loss
from precis.contrastive.debiased import debiased_nt_xent
from precis.contrastive.ntxent_loss import info_nce, nt_xent
from precis.contrastive.rocl import multi_view_nt_xent
from precis.contrastive.supcon_loss import sup_con

g = torch.Generator().manual_seed(0)
z1, z2, queue = (torch.randn(n, 8, generator=g) for n in (6, 6, 10))
views, labels = torch.randn(3, 6, 8, generator=g), torch.tensor([0, 1, 0, -1, 2, 1])
LOSSES = {
    "nt_xent": (nt_xent, z1, z2, 0.3),
    "info_nce": (info_nce, z1, z2, queue, 0.3),
    "plain_info_nce": (plain_info_nce, z1, z2, 0.3),
    "uel_loss": (uel_loss, z1, z2, 0.3),
    "debiased_nt_xent": (debiased_nt_xent, views, 0.3, 0.1),
    "multi_view_nt_xent": (multi_view_nt_xent, views, 0.3),
    "detached": (multi_view_nt_xent, views, 0.3, True),
    "out": (sup_con, views.transpose(0, 1), labels),
    "in": (partial(sup_con, reduction_form="in", contrast="one"), views.transpose(0, 1), labels),
}
for name, (loss, first, *others) in LOSSES.items():
    found = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        z = first.clone().requires_grad_()
        value = call(z, *others)
        value.backward()
        found.append((value.detach(), z.grad))
    for eager, compiled in zip(*found):
        torch.testing.assert_close(eager, compiled, atol=1e-5, rtol=1e-5)
    print(name, flush=True)
