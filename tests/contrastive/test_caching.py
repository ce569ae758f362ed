import pytest
import torch

from precis.contrastive.caching import cached_backward
from precis.contrastive.ntxent import ProjectionHead, SimCLR, nt_xent
from precis.nn.backbones import ConvNet


def build(norm):
    g = torch.Generator().manual_seed(0)
    encoder = ConvNet(1, 4, 2, norm, generator=g)
    return SimCLR(encoder, ProjectionHead(encoder.out_dim, dim_out=6, generator=g)).double()


@pytest.mark.parametrize("micro", [2, 3, 7])
def test_gradients_are_those_of_the_whole_batch(micro):
    g = torch.Generator().manual_seed(1)
    views = [torch.rand(7, 1, 8, 8, generator=g, dtype=torch.float64) for _ in range(2)]
    whole, parts = build("none"), build("none")
    value = nt_xent(whole(views[0])[1], whole(views[1])[1], 0.5)
    value.backward()
    torch.testing.assert_close(cached_backward(parts, views, lambda a, b: nt_xent(a, b, 0.5), micro), value.detach())
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-8, msg=name)


def test_running_statistics_move_once_a_part():
    views = [torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)] * 2
    model, plain = build("batch"), build("batch")
    cached_backward(model, views, nt_xent, 3)
    for view in views:
        for part in view.split(3):
            plain(part)
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="at least one picture"):
        cached_backward(model, views, nt_xent, 0)
