import math

import pytest
import torch
import torch.nn.functional as F
from tests.helpers import check_component

from precis.contrastive.prvipe import (
    Lifter3D,
    PoseEmbedder,
    PrVIPE,
    TemporalPoseEmbedder,
    cancelled,
    matching_distance,
    prior_kl,
)
from precis.contrastive.prvipe_loss import PoseEmbedding

K = torch.randn(5, 13, 2, generator=torch.Generator().manual_seed(0))
MASK = torch.rand(5, 13, generator=torch.Generator().manual_seed(1)) > 0.3


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("mask_input", [True, False])
def test_component(gaussian, mask_input, tmp_path):
    build = lambda g: PoseEmbedder(hidden=16, gaussian=gaussian, mask_input=mask_input, generator=g)
    parts = lambda net, k, m: [t for t in net(k, m) if t is not None]
    check_component(build, K, MASK, call=parts, tmp_path=tmp_path)


def test_lifter_and_clips_as_components(tmp_path):
    check_component(lambda g: Lifter3D(hidden=16, generator=g), K, tmp_path=tmp_path)
    clips = torch.randn(4, 7, 13, 2, generator=torch.Generator().manual_seed(2))
    build = lambda g: TemporalPoseEmbedder(hidden=16, frame_dim=8, generator=g)
    check_component(build, clips, call=lambda net, k: list(net(k)), tmp_path=tmp_path)
    with pytest.raises(ValueError, match="clips of 7 frames"):
        TemporalPoseEmbedder(hidden=16, frame_dim=8)(clips[:, :5])


def by_hand(net, x):
    """The network written out from its state dict, in evaluation mode."""
    s = net.state_dict()

    def layer(x, name):
        x = F.linear(x, s[f"{name}.0.weight"], s[f"{name}.0.bias"])
        mean, var = s[f"{name}.1.running_mean"], s[f"{name}.1.running_var"]
        return F.relu((x - mean) / (var + 1e-5).sqrt() * s[f"{name}.1.weight"] + s[f"{name}.1.bias"])

    x = layer(x, "trunk.first")
    for b in range(2):
        x = x + layer(layer(x, f"trunk.blocks.{b}.0"), f"trunk.blocks.{b}.1")
    mean = F.linear(x, s["heads.mean.weight"], s["heads.mean.bias"])
    raw = F.linear(x, s["heads.std.weight"], s["heads.std.bias"])
    return mean, torch.where(raw > 0, raw, raw.exp() - 1) + 1


def test_the_network_is_the_paper_s():
    net = PoseEmbedder(hidden=16, dim=8, dropout=0.0, generator=torch.Generator().manual_seed(0)).double()
    net.train()(torch.randn(40, 13, 2).double())  # statistics that are not 0 and 1
    net.eval()
    found = net(K.double())
    for a, b in zip(found, by_hand(net, K.double().flatten(1))):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    assert (found.std > 0).all() and found.mean.shape == (5, 8)
    big = PoseEmbedder(hidden=400, generator=torch.Generator().manual_seed(0))
    weight, bias = big.trunk.blocks[0][0][0].weight, big.trunk.blocks[0][0][0].bias
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert float(bias.detach().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.15)


def test_masks():
    net = PoseEmbedder(hidden=16, mask_input=True, generator=torch.Generator().manual_seed(0)).eval()
    whole = torch.ones(5, 13, dtype=torch.bool)
    assert torch.equal(net(K).mean, net(K, whole).mean)
    spoiled = K.where(MASK[..., None], torch.tensor(99.0))
    assert torch.equal(net(K, MASK).mean, net(spoiled, MASK).mean)
    assert not torch.equal(net(K, MASK).mean, net(K * MASK[..., None]).mean)  # it is told, not only shown a zero


def test_leading_axes_are_kept():
    net = PoseEmbedder(hidden=16, dim=4, generator=torch.Generator().manual_seed(0)).eval()
    many = K.expand(3, 2, -1, -1, -1)
    torch.testing.assert_close(net(many).mean[2, 1], net(K).mean)


def test_the_loss_is_its_three_terms():
    net = PrVIPE(PoseEmbedder(hidden=16, dim=4, dropout=0.0, generator=torch.Generator().manual_seed(0))).eval()
    views, noise = torch.stack([K, K.flip(0)]), torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(1))
    apart = ~torch.eye(5, dtype=torch.bool)
    out = net.loss(views, apart, noise=noise, samples=6)
    both = net(views.flatten(0, 1))
    z = [PoseEmbedding(both.mean[s], both.std[s]).sample(6, noise=n) for s, n in zip((slice(5), slice(5, 10)), noise)]
    positive = matching_distance(*z, net.sigmoid).mean()
    torch.testing.assert_close(out["loss"], out["triplet"] + 0.005 * positive + 0.001 * prior_kl(*both))
    alone = net.loss(views, apart, noise=noise, samples=6, pairwise=0, prior=0)
    torch.testing.assert_close(alone["loss"], alone["triplet"])


def test_biases_that_batch_norm_cancels_have_no_gradient():
    net = PoseEmbedder(hidden=8, dropout=0.0, generator=torch.Generator().manual_seed(0)).double()
    net(torch.randn(64, 13, 2).double()).mean.square().sum().backward()
    silent = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() < 1e-9}
    assert silent == {name for name, _ in net.named_parameters() if cancelled(name)} and len(silent) == 5
