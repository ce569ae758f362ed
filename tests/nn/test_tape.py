from functools import cache

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from precis.data.program import Program
from precis.nn.tape import Tape, activations, feature_map, layers, watch


def modules() -> nn.Sequential:
    """ReLUs as modules, one of them in place."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(80, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


class Functional(nn.Module):
    """The same operations on the same weights, with functional ReLUs, and its parts registered in another order."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.head, self.hidden = net[8], net[6]
        self.norm, self.second, self.first = net[1], net[3], net[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x)).flatten(1)
        return self.head(F.relu(self.hidden(x)))


def build() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = modules().eval()
        with torch.no_grad():
            net[1].running_mean.normal_()
        return net


def picture(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@cache
def every_kind() -> dict[str, nn.Module]:
    net, x = build(), picture()
    return {
        "eager": net, "script": torch.jit.script(net), "trace": torch.jit.trace(net, x),
        "export": torch.export.export(net, (x,)).module(), "program": Program("script", torch.jit.script(net)),
    }  # fmt: skip


def score_of(model, x: torch.Tensor) -> torch.Tensor:
    with torch.jit.optimized_execution(False):
        return model(x)[:, 1].sum()


def guided(model) -> torch.Tensor:
    x = picture().requires_grad_()
    score = score_of(model, x)
    with Tape(score).guided():
        return torch.autograd.grad(score, x)[0]


def test_guided_gradients_equal_captum_for_every_kind_of_model():
    net = build()
    expected = captum.attr.GuidedBackprop(build()).attribute(picture().requires_grad_(), target=1)
    assert float(expected.abs().sum()) > 0
    assert torch.equal(guided(net), expected)
    for name, model in {**every_kind(), "functional": Functional(net)}.items():
        for _ in range(3):  # a scripted module is optimised from its second call on
            torch.testing.assert_close(guided(model), expected, rtol=0, atol=1e-7, msg=name)


def test_guided_by_hand():
    # relu(w relu(x)) with gradients of both signs: only positive ones may pass each ReLU
    x = torch.tensor([1.0, 2.0, -1.0], requires_grad=True)
    score = (torch.relu(x) * torch.tensor([1.0, -1.0, 1.0])).sum()
    plain = torch.autograd.grad(score, x, retain_graph=True)[0]
    with Tape(score).guided():
        (found,) = torch.autograd.grad(score, x, retain_graph=True)
    assert plain.tolist() == [1, -1, 0] and found.tolist() == [1, 0, 0]


def test_no_hook_is_left_behind():
    x = picture().requires_grad_()
    net = build()
    score = net(x)[:, 1].sum()
    before = torch.autograd.grad(score, x, retain_graph=True)[0]
    tape = Tape(score)
    with pytest.raises(RuntimeError, match="stop"), tape.guided():
        inside = torch.autograd.grad(score, x, retain_graph=True)[0]
        raise RuntimeError("stop")
    assert not torch.equal(inside, before)
    assert torch.equal(torch.autograd.grad(score, x, retain_graph=True)[0], before)
    with pytest.raises(RuntimeError, match="stop"), watch(net, ["0", "4"]):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_a_net_without_rectifiers_has_no_guided_gradient():
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    score = net(torch.rand(2, 3)).sum()
    with pytest.raises(ValueError, match="has none"), Tape(score).guided():
        pass
    with pytest.raises(ValueError, match="no gradient|nothing that has a gradient"):
        Tape(torch.rand(()))


def test_maps_are_counted_from_the_output_and_equal_captum():
    net = build()
    for model in every_kind().values():
        x = picture().requires_grad_()
        tape = Tape(score_of(model, x))
        for which, module in ((0, net[4]), (1, net[2])):
            tap = tape.spatial(which)
            found = {}
            handle = module.register_forward_hook(lambda m, i, o, f=found: f.update(value=o))
            score = net(picture())[:, 1].sum()
            handle.remove()
            torch.testing.assert_close(tap.value, found["value"].detach())
            torch.testing.assert_close(tap.grad, torch.autograd.grad(score, found["value"])[0])
        with pytest.raises(ValueError, match="there are 2 rectified maps"):
            tape.spatial(2)
    cam = captum.attr.LayerGradCam(net, net[4]).attribute(picture(), target=1)
    tap = Tape(score_of(net, picture().requires_grad_())).spatial()
    assert torch.equal((tap.grad.mean((2, 3), keepdim=True) * tap.value).sum(1, keepdim=True), cam)


def test_watched_modules_by_name():
    net = build()
    with watch(net, ["6"]) as values:
        score = net(picture())[:, 1].sum()
    tap = Tape(score, values).named("6")
    expected = ((tap.value > 0) * net[8].weight[1]).detach()
    torch.testing.assert_close(tap.grad, expected)
    with pytest.raises(ValueError, match="'0' was not watched"):
        Tape(score, values).named("0")
    with pytest.raises(ValueError, match="no module is called 'x'"), watch(net, ["x"]):
        pass


def test_layers_follow_execution_and_not_registration():
    net = build()
    names = ["8", "6", "3", "1", "0"]
    for kind, model in every_kind().items():
        found = layers(model, picture())
        assert [layer.name for layer in found] == names, kind
        assert [layer.order for layer in found] == [0, 1, 2, 3, 4]
        assert found[2].params == ("3.bias", "3.weight") and found[2].kind == "Convolution"
        assert set(found[3].buffers) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    functional = Functional(net).requires_grad_(False)
    assert [layer.name for layer in layers(functional, picture())] == ["head", "hidden", "second", "norm", "first"]
    assert not any(p.requires_grad for p in functional.parameters())


def test_activations_are_the_same_for_every_kind():
    net, x = build(), picture(5)
    expected = {}
    y = x
    for i, module in enumerate(net):
        y = module(y).clone()
        expected[str(i)] = y.flatten(1).detach()
    expected["1"] = net[1](net[0](x)).flatten(1).detach()  # the module after it works in place
    for kind, model in every_kind().items():
        if kind == "export":  # its batch is fixed
            continue
        found = activations(model, x, ["0", "1", "3", "8"], batch=2)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], msg=f"{kind} {name}")
    fixed = activations(every_kind()["export"], x[:4], ["1", "6"], batch=2)
    torch.testing.assert_close(fixed["6"], expected["6"][:4])
    eager = activations(net, x, ["4", "3"], pool="mean")  # a module without parameters, by its name
    torch.testing.assert_close(eager["4"], expected["4"].view(5, 5, -1).mean(2))
    most = activations(net, x, ["3"], pool="max")["3"]
    torch.testing.assert_close(most, expected["3"].view(5, 5, -1).amax(2))
    assert activations(net, x, ["0"], pool=lambda v: v[:, :, 0, 0])["0"].shape == (5, 4)


def test_a_module_called_twice_gives_its_last_activation():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(torch.relu(self.linear(x))))

    net, x = Twice(), torch.rand(3, 4)
    found = activations(net, x, ["linear", "norm"])
    torch.testing.assert_close(found["linear"], net.linear(torch.relu(net.linear(x))).detach())
    torch.testing.assert_close(found["norm"], net(x).detach())


def test_names_that_are_not_there():
    for model in (build(), torch.jit.script(build())):
        with pytest.raises(ValueError, match="no module is called 'nine'|'nine' took no part"):
            activations(model, picture(), ["nine"])
    with pytest.raises(TypeError, match="torch.nn.Module"):
        activations(lambda x: x, picture(), ["0"])


@pytest.mark.parametrize("layer", ["0", "1", "3", "6"])
def test_a_feature_map_has_the_gradient_of_the_part_below_it(layer):
    net = build()
    part = net[: int(layer) + 1]
    weight = torch.rand(part(picture()).shape)
    x = picture().requires_grad_()
    (expected,) = torch.autograd.grad((part(x) * weight).sum(), x)
    for kind, model in every_kind().items():
        x = picture().requires_grad_()
        value = feature_map(model, layer)(x)
        torch.testing.assert_close(value, part(x), msg=kind)
        (found,) = torch.autograd.grad((value * weight).sum(), x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=kind)
    assert all(p.grad is None for p in net.parameters())


def test_a_feature_map_of_a_block_by_its_module():
    net = nn.Sequential(build()[:5], nn.Flatten(), nn.Linear(80, 2))
    x = picture().requires_grad_()
    value = feature_map(net, "0")(x)
    torch.testing.assert_close(value, net[0](x))
    (found,) = torch.autograd.grad(value.square().sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(net[0](x).square().sum(), x)[0])


def test_captum_misses_functional_rectifiers_and_the_tape_does_not():
    functional = Functional(build())
    with pytest.warns(UserWarning):
        captums = captum.attr.GuidedBackprop(functional).attribute(picture().requires_grad_(), target=1)
    x = picture().requires_grad_()
    (plain,) = torch.autograd.grad(functional(x)[:, 1].sum(), x)
    assert torch.equal(captums, plain) and not torch.allclose(guided(functional), plain)
