import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from precis.nn.backbones import backbone
from precis.nn.stacked import StackedMLP
from precis.sparsity.masks import (
    MaskedTraining,
    apply_masks_,
    density_of,
    geometric,
    layer_sparsity,
    linear,
    magnitude_masks,
    n_of_m_masks,
    permuted_masks,
    prunable,
)

G = lambda seed=0: torch.Generator().manual_seed(seed)


def small() -> nn.Module:
    return backbone("small_resnet:width=4", (3, 8, 8), 5, generator=G())


class Tied(nn.Module):
    """An encoder layer, an embedding whose weight is the decoder's too, and one linear map under two names."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.a, self.b, self.decode = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 7)
        self.again = self.a
        self.b.weight = self.a.weight
        self.decode.weight = self.embed.weight

    def forward(self, x):
        return self.decode(self.b(self.again(self.a(self.layer(self.embed(x))))))


def test_weights_of_layers_are_prunable_once_and_nothing_else():
    names = set(prunable(Tied()))
    assert names == {"layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight", "layer.linear1.weight",
                     "layer.linear2.weight", "a.weight"}  # fmt: skip
    net = small()
    convolutions = {f"{n}.weight" for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(prunable(net)) == convolutions
    assert set(prunable(net, kinds=(nn.Linear,))) == {"head.weight"}
    assert "head.weight" not in prunable(net, exclude=["head"]) and len(prunable(net, exclude=["*"])) == 0
    assert set(prunable(net, include=["stem.*", "head"])) == {"stem.0.weight", "head.weight"}


def test_global_magnitude_is_that_of_torch_prune():
    net, reference = small(), small()
    masks = None
    for k in range(9):
        masks = magnitude_masks(prunable(net), masks, density=1 - (k + 1) / 10)
        layers = [(m, "weight") for m in reference.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=1 / (10 - k))
        total = sum(m.numel() for m in masks.values())
        pruned = {n: m for n, m in reference.named_modules() if hasattr(m, "weight_mask")}
        theirs = {f"{n}.weight": m.weight_mask.bool() for n, m in pruned.items()}
        wrong = sum(int((masks[name] != theirs[name]).sum()) for name in masks)
        assert wrong <= k + 1  # torch rounds what a round removes, we round what is left of the whole
        assert sum(int(m.sum()) for m in masks.values()) == round((1 - (k + 1) / 10) * total)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from(["global", "layer"]), st.booleans())
def test_exactly_the_asked_number_survives_nested_and_copies_apart(seed, density, scope, ties):
    params = {"a": torch.randn(3, 7, 5, generator=G(seed)), "b": torch.randn(3, 11, generator=G(seed + 1))}
    if ties:
        params = {name: p.round() for name, p in params.items()}
    masks = magnitude_masks(params, density=density, scope=scope, stacked=True)
    smaller = magnitude_masks(params, masks, density=density * 0.7, scope=scope, stacked=True)
    for m in range(3):
        one = magnitude_masks({name: p[m] for name, p in params.items()}, density=density, scope=scope)
        assert all(torch.equal(masks[name][m], one[name]) for name in params)
        counts = [int(one[name].sum()) for name in params]
        wanted = [round(density * p[m].numel()) for p in params.values()]
        assert counts == wanted if scope == "layer" else sum(counts) == round(density * 46)
    assert all(bool((smaller[name] <= masks[name]).all()) for name in params)


def test_ties_go_to_the_first_and_what_cannot_be_is_told():
    masks = magnitude_masks({"a": torch.tensor([1.0, -1, 1, 2]), "b": torch.tensor([1.0, 1])}, density=0.5)
    assert masks["a"].tolist() == [True, True, False, True] and masks["b"].tolist() == [False, False]
    with pytest.raises(ValueError, match="keeps 5 of 6 weights, but fewer are alive"):
        magnitude_masks({"a": torch.ones(4), "b": torch.ones(2)}, {k: m for k, m in masks.items()}, density=0.8)
    with pytest.raises(ValueError, match="a holds a weight that is not a number"):
        magnitude_masks({"a": torch.tensor([float("nan")])}, density=0.5)
    with pytest.raises(ValueError, match="density must lie in"):
        magnitude_masks({"a": torch.ones(1)}, density=1.5)


def test_rounds_of_both_schedules():
    assert geometric(0.5) == pytest.approx([0.8, 0.64, 0.512, 0.5])
    assert geometric(0.1, rounds=10) == pytest.approx([0.1 ** (k / 10) for k in range(1, 11)])
    assert geometric(0.9) == [0.9] and linear(0.95) == [0.95]
    assert linear(0.1) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert linear(0.3, rounds=7) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert linear(0.25) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25])
    with pytest.raises(ValueError, match="between 0 and 1"):
        geometric(1.0)


def test_ten_rounds_keep_the_powers_of_four_fifths():
    net, masks = small(), None
    n = sum(p.numel() for p in prunable(net).values())
    for k in range(1, 11):
        masks = magnitude_masks(prunable(net), masks, density=0.8**k)
        assert abs(sum(int(m.sum()) for m in masks.values()) - n * 0.8**k) <= 1
    assert density_of(masks) == pytest.approx(0.8**10, abs=1 / n)
    rows = layer_sparsity(masks)
    assert sum(r.total for r in rows) == n and rows[0].shape == (4, 3, 3, 3)


def test_two_of_four():
    weight = torch.tensor([[1.0, -3, 2, 0.5, 4, 4, 4, 4]])
    masks = n_of_m_masks({"w": weight})
    assert masks["w"].tolist() == [[False, True, True, False, True, True, False, False]]
    within = n_of_m_masks({"w": weight}, {"w": weight.abs() < 3})
    assert within["w"].tolist() == [[True, False, True, False, False, False, False, False]]
    odd = torch.ones(2, 3)
    assert n_of_m_masks({"w": odd})["w"].all()
    with pytest.raises(ValueError, match="n of m"):
        n_of_m_masks({"w": odd}, n=5, m=4)


def test_permuted_masks_keep_every_layers_number():
    masks = magnitude_masks(prunable(small()), density=0.3)
    moved = permuted_masks(masks, G())
    assert [r.kept for r in layer_sparsity(moved)] == [r.kept for r in layer_sparsity(masks)]
    assert any(not torch.equal(moved[name], masks[name]) for name in masks)


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_dead_weights_stay_zero_and_the_others_train_as_under_torch_prune(name):
    net, x, y = small(), torch.rand(12, 3, 8, 8), torch.arange(12) % 5
    masks = magnitude_masks(prunable(net), density=0.3)
    reference = copy.deepcopy(net)
    for layer, m in reference.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            prune.custom_from_mask(m, "weight", masks[f"{layer}.weight"])
    keys = list(net.state_dict())
    ours, theirs = OPTIMISERS[name](net.parameters()), OPTIMISERS[name](reference.parameters())
    with MaskedTraining(net, masks):
        for _ in range(4):
            for model, solver in ((net, ours), (reference, theirs)):
                solver.zero_grad()
                F.cross_entropy(model(x), y).backward()
                if model is net:
                    assert all(bool((dict(net.named_parameters())[k].grad[~m] == 0).all()) for k, m in masks.items())
                solver.step()
            for k, m in masks.items():
                dead = dict(net.named_parameters())[k].detach()[~m]
                assert bool((dead == 0).all()) and not bool(torch.signbit(dead).any())
    for layer, m in reference.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            assert torch.allclose(net.get_submodule(layer).weight, m.weight_orig * m.weight_mask, atol=1e-6), layer
    assert list(net.state_dict()) == keys and copy.deepcopy(net) is not net
    parameter = net.head.weight
    assert not parameter._post_accumulate_grad_hooks  # nothing stays behind
    for value in ours.state[parameter].values():
        if value.shape == parameter.shape:
            assert bool((value[~masks["head.weight"]] == 0).all())


def test_carried_momentum_and_shared_weights_are_masked():
    net = Tied()
    solver = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x = torch.arange(6).view(2, 3)
    net(x).square().mean().backward()
    solver.step()  # momentum of weights that are going to die
    masks = magnitude_masks(prunable(net), density=0.5)
    with MaskedTraining(net, masks):
        for _ in range(3):
            solver.zero_grad()
            net(x).square().mean().backward()
            solver.step()
    assert net.b.weight is net.a.weight and bool((net.b.weight[~masks["a.weight"]] == 0).all())
    packed = "layer.self_attn.in_proj_weight"
    assert bool((net.layer.self_attn.in_proj_weight[~masks[packed]] == 0).all())
    with torch.no_grad():
        net.a.weight.add_(1)  # the masks have let go
    assert bool((net.a.weight != 0).any())


def test_copies_in_a_stack_train_as_they_would_alone():
    stack = StackedMLP(3, [4, 8, 2])
    params = {name: p for name, p in stack.named_parameters() if name.endswith("weight")}
    masks = magnitude_masks(params, density=0.4, stacked=True)
    single = stack.to_modules()[1]
    x = torch.randn(3, 6, 4, generator=G())
    with MaskedTraining(stack, masks):
        solver = torch.optim.SGD(stack.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            solver.zero_grad()
            stack(x).square().mean((1, 2)).sum().backward()
            solver.step()
    own = {"0.weight": masks["layers.0.weight"][1].T, "2.weight": masks["layers.1.weight"][1].T}
    with MaskedTraining(single, own):
        solver = torch.optim.SGD(single.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            solver.zero_grad()
            single(x[1]).square().mean().backward()
            solver.step()
    assert torch.allclose(stack.to_modules()[1][0].weight, single[0].weight, atol=1e-6)


def test_a_mask_that_does_not_fit_is_refused():
    net = small()
    with pytest.raises(ValueError, match="no such parameter"):
        apply_masks_(net, {"nobody.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="bool of the same shape"):
        apply_masks_(net, {"head.weight": torch.ones(5, 16)})
