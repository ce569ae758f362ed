import pytest
import torch
from torch import nn

from precis.nn.backbones import backbone
from precis.nn.norm import fold_batchnorm, make_norm, pick_groups, recalibrate


def moved(model: nn.Module) -> nn.Module:
    """Statistics and affine parts away from where they start."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model


@pytest.mark.parametrize("channels, groups, wanted", [(64, 32, 32), (48, 32, 24), (7, 4, 1), (24, 100, 24), (1, 32, 1)])
def test_pick_groups_is_the_largest_divisor(channels, groups, wanted):
    assert pick_groups(channels, groups) == wanted


def test_pick_groups_refuses_no_channels():
    with pytest.raises(ValueError, match="at least 1"):
        pick_groups(0, 4)


def test_make_norm_gives_torchs_layers():
    x = torch.randn(4, 48, 5, 5) * 3 + 1
    layer = make_norm("layer", 48)
    assert torch.allclose(layer(x), nn.LayerNorm([48, 5, 5], elementwise_affine=False)(x), atol=1e-5)
    instance = make_norm("instance", 48)
    assert torch.allclose(instance(x), nn.GroupNorm(48, 48)(x), atol=1e-5)
    assert make_norm("group", 48).num_groups == 24
    assert make_norm("group", 48, channels_per_group=8).num_groups == 6
    assert make_norm("group", 4, channels_per_group=8).num_groups == 1
    assert make_norm("batch", 48, momentum=0.3).momentum == 0.3
    assert make_norm("none", 48)(x) is x
    assert not make_norm("group", 48, zero_init=True)(x).any()
    with pytest.raises(ValueError, match="called 'bath'"):
        make_norm("bath", 48)


@pytest.mark.parametrize("spec", ["conv:8x3", "small_resnet:width=8", "resnet20:width=4", "resnet20:width=4,preact"])
def test_folded_is_the_same_in_evaluation(spec):
    torch.manual_seed(0)
    model = moved(backbone(spec, (3, 16, 16), 10)).eval()
    x = torch.rand(5, 3, 16, 16)
    folded = fold_batchnorm(model)
    assert (folded(x) - model(x)).abs().max() < 1e-5 * model(x).abs().max()
    left = sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    # a pre-activated block's first norm follows a sum, and so does the last one of the net
    assert left == (9 if "preact" in spec else 0)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_folding_leaves_a_norm_whose_input_is_used_elsewhere():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    model = moved(Both()).eval()
    x = torch.randn(3, 2, 4, 4)
    folded = fold_batchnorm(model)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert torch.equal(folded(x), model(x))


def test_folding_a_linear_layer_and_a_net_that_cannot_be_traced():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())

        def forward(self, x):
            return self.body(x) if x.sum() > 0 else self.body(-x)

    model = moved(Branching()).eval()
    folded = fold_batchnorm(model)
    assert isinstance(folded.body[1], nn.Identity)
    x = torch.randn(6, 3)
    assert torch.allclose(folded(x), model(x), atol=1e-6)


def test_recalibrate_gives_exact_means_over_unequal_batches():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    x = torch.randn(50, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1) + 100
    model.train()
    assert recalibrate(model, [x[:7], x[7:30], x[30:]]) is model
    values = x.double().transpose(0, 1).flatten(1)
    assert torch.allclose(model[0].running_mean.double(), values.mean(1), rtol=1e-6)
    assert torch.allclose(model[0].running_var.double(), values.var(1), rtol=1e-4)
    assert model[0].training and model[0].momentum == 0.1 and not model[0]._forward_pre_hooks


def test_recalibrate_on_one_batch_equals_a_pass_with_momentum_one():
    torch.manual_seed(0)
    model, other = (moved(backbone("conv:6x3", (1, 8, 8), 4, generator=torch.Generator().manual_seed(1)))
                    for _ in range(2))  # fmt: skip
    x = torch.rand(32, 1, 8, 8)
    other.load_state_dict(model.state_dict())
    for norm in other.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    other.train()(x)
    recalibrate(model.eval(), [(x, torch.zeros(32))])
    for (name, a), b in zip(model.named_buffers(), other.buffers()):
        if "running" in name:
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name
    assert not model.training


def test_recalibrate_puts_everything_back_after_an_error():
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(model, [])
    assert model[0].momentum == 0.1 and not model[0].training
