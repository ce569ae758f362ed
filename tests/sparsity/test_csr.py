import torch
from tests.helpers import check_component
from torch import nn

from precis.nn.backbones import backbone
from precis.sparsity.csr import CsrLinear, to_csr
from precis.sparsity.masks import apply_masks_, magnitude_masks, prunable


def test_sparse_rows_compute_the_same():
    net = backbone("mlp:30-20", (1, 8, 8), 4, generator=torch.Generator().manual_seed(0))
    masks = magnitude_masks(prunable(net, exclude=["head"]), density=0.1)
    apply_masks_(net, masks)
    sparse = to_csr(net, masks)
    x = torch.rand(5, 1, 8, 8)
    assert torch.allclose(sparse(x), net(x), atol=1e-6) and torch.allclose(sparse(x[:1]), net(x[:1]), atol=1e-6)
    assert [type(m) for m in (*sparse.layers, sparse.head)] == [CsrLinear, CsrLinear, nn.Linear]
    assert isinstance(net.layers[0], nn.Linear) and sparse.layers[0].values.numel() == int(
        masks["layers.0.weight"].sum())  # fmt: skip


def test_leading_axes_no_bias_and_the_inside_of_attention():
    layer = CsrLinear(nn.Linear(6, 3, bias=False))
    x = torch.randn(2, 4, 6)
    assert layer(x).shape == (2, 4, 3)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    masks = magnitude_masks(prunable(block), density=0.3)
    apply_masks_(block, masks)
    sparse = to_csr(block, masks)
    assert isinstance(sparse.linear1, CsrLinear) and isinstance(sparse.self_attn.out_proj, nn.Linear)
    y = torch.randn(2, 5, 8)
    assert torch.allclose(sparse.linear1(y), block.linear1(y), atol=1e-6)


def test_it_keeps_what_every_component_keeps():
    def build(generator: torch.Generator) -> CsrLinear:
        layer = nn.Linear(6, 5)
        with torch.no_grad():
            layer.weight.normal_(generator=generator).mul_(layer.weight.abs() > 0.7)
            layer.bias.zero_()
        return CsrLinear(layer)

    with torch.random.fork_rng():
        check_component(build, torch.randn(4, 6), state=False, seeded=False)
