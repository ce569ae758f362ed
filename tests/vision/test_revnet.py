import copy

import pytest
import torch
import torch.nn.functional as F
from tests.helpers import check_component
from torch import Tensor, nn

from precis.nn.backbones import backbone
from precis.nn.cost import count, saved_bytes
from precis.nn.reversible import AdditiveCoupling, ReversibleSequence
from precis.train.checkpoint import load_model, save_model
from precis.train.classify import fit_classifier
from precis.train.loop import Budget
from precis.vision.revnet import REVNETS, RevNet, Start, Unshuffle, max_batch

SMALL = {"units": (2, 3), "filters": (8, 8, 12)}


def params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def seeded(seed: int = 0, **options) -> RevNet:
    return RevNet(**SMALL | options, generator=torch.Generator().manual_seed(seed))


def gradient(net: nn.Module, x: Tensor) -> Tensor:
    loss = F.cross_entropy(net(x), torch.arange(len(x)) % 10)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


@pytest.mark.parametrize(("name", "number", "twin"), [
    ("revnet38", 464_890, ("resnet32:preact", 464_154)), ("revnet110", 1_729_194, ("resnet110:preact", 1_727_962)),
    ("revnet164", 1_748_778, ("resnet164", 1_703_258)),
])  # fmt: skip
def test_the_papers_nets_have_its_parameters_and_so_have_their_twins(name, number, twin):
    assert params(RevNet(**REVNETS[name])) == number
    assert params(backbone(twin[0], (3, 32, 32), 10)) == twin[1]


def test_the_net_for_imagenet():
    with torch.device("meta"):
        net = RevNet(**REVNETS["revnet104"])
    assert params(net) == 45_428_072
    assert [tuple(a.shape) for a, _ in net.to("meta").eval().stages(torch.zeros(1, 3, 224, 224, device="meta"))] == [
        (1, 256, 56, 56), (1, 512, 28, 28), (1, 1024, 14, 14), (1, 1664, 7, 7)
    ]  # fmt: skip


def plainly(net: RevNet, x: Tensor) -> Tensor:
    """Layer by layer from the equations, with ordinary autograd."""
    h = net.stem(x)
    c = h.shape[1] // 2
    x1, x2 = h[:, :c], h[:, c:]
    for start, run in zip(net.starts, net.runs):
        y1 = start.down1(x1) + start.f.layers(x2)
        x1, x2 = y1, start.down2(x2) + start.g.layers(y1)
        for block in run.blocks:
            y1 = x1 + block.f.layers(x2)
            x1, x2 = y1, x2 + block.g.layers(y1)
    return net.last.head(F.relu(net.last.norm(torch.cat((x1, x2), 1))).mean((2, 3)))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("options", [
    {}, {"bottleneck": True}, {"norm": "group"}, {"fully_reversible": True, "filters": None},
], ids=["basic", "bottleneck", "group norm", "whole"])  # fmt: skip
def test_rebuilt_and_stored_activations_give_one_net(dtype, tolerance, options):
    net = seeded(**options).to(dtype)
    stored = RevNet(**SMALL | options, save="all").to(dtype)
    stored.load_state_dict(net.state_dict())
    x = torch.rand(6, 3, 8, 8, dtype=dtype)
    a, b = gradient(net, x), gradient(stored, x)
    assert float((a - b).norm() / b.norm()) < tolerance
    assert all(torch.equal(p, q) for p, q in zip(net.buffers(), stored.buffers()))
    assert torch.equal(net(x), stored(x)) and torch.equal(net.eval()(x), stored.eval()(x))
    if not options.get("fully_reversible"):
        again = copy.deepcopy(stored).train()
        c = torch.autograd.grad(plainly(again, x).square().sum(), list(again.parameters()))
        d = torch.autograd.grad(stored.train()(x).square().sum(), list(stored.parameters()))
        assert all(torch.allclose(p, q, atol=1e-5 if dtype == torch.float32 else 1e-12) for p, q in zip(c, d))


def test_first_units_change_the_shape_and_their_first_norm_is_the_stems():
    net = RevNet((1, 1), (8, 8, 12), in_channels=1)
    first, second = net.starts
    assert not isinstance(first.f.layers[0], nn.BatchNorm2d) and isinstance(first.g.layers[0], nn.BatchNorm2d)
    assert isinstance(second.f.layers[0], nn.BatchNorm2d)
    a, b = second(torch.ones(2, 4, 5, 5), torch.ones(2, 4, 5, 5))
    assert a.shape == b.shape == (2, 6, 3, 3)
    pooled = second.down1(torch.arange(32.0).view(1, 2, 4, 4).repeat(1, 2, 1, 1))
    assert pooled.shape == (1, 6, 2, 2) and not pooled[:, [0, 5]].any() and float(pooled[0, 1, 0, 0]) == 2.5
    assert isinstance(Start(4, 8, 2, 2, "batch", after_stem=False).down1, nn.Conv2d)


@pytest.mark.parametrize("units", [1, 2, 5])
def test_what_is_kept_is_the_picture_the_stem_and_one_output_a_stage(units):
    x = torch.rand(4, 3, 16, 16)
    net = RevNet((units,) * 3, (8, 8, 16, 24))
    assert saved_bytes(net, x) == 4 * 4 * (3 * 256 + 8 * 256 + 8 * 256 + 16 * 64 + 24 * 16)
    whole = RevNet((units,) * 3, fully_reversible=True)
    assert saved_bytes(whole, x) == 4 * x.numel()
    assert saved_bytes(net, (255 * x).byte()) == saved_bytes(net, x) - 3 * x.numel()


@pytest.mark.parametrize("training", [True, False])
def test_the_picture_is_rebuilt_from_the_last_features(training):
    net = RevNet((2, 2, 2), fully_reversible=True, generator=torch.Generator().manual_seed(0))
    x = torch.rand(6, 3, 16, 16)
    net.stem[0].fit(x)
    net.train(training)
    with torch.no_grad():
        y = net.streams(x)
    assert [tuple(t.shape) for t in y] == [(6, 96, 2, 2)] * 2
    assert (net.picture(*y) - x).norm() / x.norm() < 1e-3
    double = net.double()
    assert (double.picture(*double.streams(x.double())) - x).norm() / x.norm() < 1e-9
    a, b = (torch.rand(2, 3, 4, 6) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(Unshuffle().inverse(*Unshuffle()(a, b)), (a, b)))


def test_the_largest_batch_is_the_largest():
    net = seeded()
    limit = 200_000
    n = max_batch(net, (3, 8, 8), limit)
    kept = lambda n: saved_bytes(net, torch.rand(n, 3, 8, 8))
    assert kept(n) <= limit < kept(n + 1)
    assert max_batch(net, (3, 8, 8), 100) == 0
    plain = seeded(save="all")
    assert max_batch(plain, (3, 8, 8), limit) < n / 3


def test_autocast_casts_functions_and_not_the_halves():
    net = seeded()
    with torch.autocast("cpu", torch.bfloat16):
        halves = net.stages(torch.rand(4, 3, 8, 8))
        logits = net(torch.rand(4, 3, 8, 8))
    assert all(h.dtype == torch.float32 for pair in halves for h in pair) and logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_it_learns_and_is_loaded_again(tmp_path):
    x = (255 * torch.rand(64, 3, 8, 8)).byte()
    y = (x[:, :, :4].float().mean((1, 2, 3)) > x[:, :, 4:].float().mean((1, 2, 3))).long()
    net = seeded(classes=2)
    fit_classifier(net, (x, y), budget=Budget(epochs=12), batch=16, lr=0.1)
    right = float((net(x.float() / 255).argmax(1) == y).float().mean())
    assert right > 0.9
    save_model(tmp_path, net, {"units": [2, 3], "filters": [8, 8, 12], "classes": 2})
    assert torch.allclose(load_model(tmp_path)(x), net.eval()(x), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"fully_reversible": True, "filters": None}])
def test_it_is_a_component(options, tmp_path):
    build = lambda generator: RevNet(**SMALL | options, generator=generator)
    check_component(build, torch.rand(4, 3, 8, 8), tmp_path=tmp_path, tolerance=1e-4)


def test_it_is_counted_and_stacks_when_all_is_stored():
    x = torch.rand(5, 3, 8, 8)
    net = seeded(save="all")
    assert count(net, x).params == params(net) == count(seeded(), x).params
    nets = [seeded(i, save="all").eval() for i in range(3)]
    weights, buffers = torch.func.stack_module_state(nets)
    one = lambda p, b: torch.func.functional_call(nets[0], (p, b), (x,))
    with torch.no_grad():
        together = torch.vmap(one)(weights, buffers)
    assert all(torch.allclose(a, n(x), atol=1e-5) for a, n in zip(together, nets))


@pytest.mark.parametrize("call, words", [
    (lambda: RevNet((1, 1), (8, 9, 8)), "must be even, got 9"),
    (lambda: RevNet((1, 1), (8, 8)), "filters of the stem and of each of 2 stages"),
    (lambda: RevNet((1, 0), (8, 8, 8)), "at least one a stage"),
    (lambda: RevNet((1, 1), (8, 16, 8)), "cannot go from 8 to 4 channels"),
    (lambda: RevNet((1,), (8, 8), fully_reversible=True), "has no filters"),
    (lambda: RevNet((1, 1), fully_reversible=True)(torch.zeros(1, 3, 6, 6)), r"must divide by 4, got \(6, 6\)"),
    (lambda: seeded().picture(torch.zeros(1, 6, 4, 4), torch.zeros(1, 6, 4, 4)), "fully_reversible=True"),
])  # fmt: skip
def test_errors_teach(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_all_couplings_of_a_net_are_undone_at_once():
    net = seeded()
    assert [len(run.blocks) for run in net.runs] == [1, 2]
    assert all(isinstance(b, AdditiveCoupling) for run in net.runs for b in run.blocks)
    assert sum(isinstance(m, ReversibleSequence) for m in RevNet((2, 2, 2), fully_reversible=True).modules()) == 1
