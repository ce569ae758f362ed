import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import precis.sparsity
from precis.nn.backbones import backbone
from precis.sparsity.masks import n_of_m_masks, prunable
from precis.sparsity.rewinding import (
    METHODS,
    History,
    Row,
    Trainer,
    best_compression,
    iterative,
    last_rate,
    prune_and_retrain,
    retrain_plan,
    sample_rates,
    sgd,
    step_schedule,
    sweep,
)

G = lambda seed=0: torch.Generator().manual_seed(seed)
X, Y = torch.rand(40, 1, 8, 8, generator=G(5)), torch.arange(40) % 4
SPE, EPOCHS = 5, 6
BUILD = partial(backbone, "conv:4x2", (1, 8, 8), 4)


def batches(step: int, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(40, generator=G(1000 * rounds + step // SPE))
    chosen = order[8 * (step % SPE) :][:8]
    return X[chosen], Y[chosen]


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


TRAIN = Trainer(batches, loss)


@pytest.fixture(scope="module")
def history() -> History:
    """Six epochs of a net with batch norm, a checkpoint after each."""
    rates = sample_rates(step_schedule(0.1, {3: 0.1, 5: 0.01}), EPOCHS, SPE)
    kept = History(rates, SPE)
    TRAIN(BUILD(generator=G()), rates, history=kept)
    return kept


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


def same(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def test_names_of_the_family_are_lazy():
    assert precis.sparsity.retrain_plan is retrain_plan and set(METHODS) <= set(METHODS)
    assert all(hasattr(precis.sparsity, name) for name in precis.sparsity.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = precis.sparsity.nothing


def test_training_is_that_of_a_plain_loop(history):
    model, solver = BUILD(generator=G()).train(), None
    solver = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    for step in range(EPOCHS * SPE):
        solver.param_groups[0]["lr"] = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001][step // SPE]
        solver.zero_grad()
        loss(model, batches(step, 0)).backward()
        solver.step()
    final = history.at(EPOCHS * SPE)
    assert all(torch.allclose(final.model_state[k], v, atol=1e-6) for k, v in model.state_dict().items())
    assert torch.allclose(final.optimizer_state[0]["momentum_buffer"], solver.state[next(model.parameters())][
        "momentum_buffer"], atol=1e-6)  # fmt: skip
    assert [c.epoch for c in history.checkpoints.values()] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", METHODS[:4])
def test_nothing_pruned_and_no_retraining_is_nothing_done(history, method):
    found = prune_and_retrain(BUILD, history, TRAIN, density=1, t=0, method=method)
    assert same(found.model.state_dict(), history.at(30).model_state) and found.epochs == 0


def test_weight_rewinding_of_the_whole_net_is_the_first_training_again(history):
    for t in (2, 6):
        found = prune_and_retrain(BUILD, history, TRAIN, density=1, t=t, method="weight_rewind")
        assert same(found.model.state_dict(), history.at(30).model_state), t  # to the bit


def test_plans_are_those_of_the_paper(history):
    for t in (1, 4, 6):
        steps = t * SPE
        tail = history.rates[30 - steps :]
        plans = {method: retrain_plan(method, history, t) for method in METHODS}
        assert torch.equal(plans["weight_rewind"].rates, tail) and torch.equal(plans["lr_rewind"].rates, tail)
        assert torch.equal(plans["reinit"].rates, tail) and plans["reinit"].start is None
        for method in ("fine_tune", "weight_rewind_low_lr"):
            assert plans[method].rates.tolist() == [history.rates[-1]] * steps
        for method in ("weight_rewind", "weight_rewind_low_lr"):
            start = plans[method].start
            assert start is history.at(30 - steps) and start.epoch == EPOCHS - t
            assert "blocks.0.1.running_mean" in start.model_state  # batch norm's statistics go back too
        for method in ("lr_rewind", "fine_tune"):
            assert plans[method].start is history.at(30)
        assert {p.position for p in plans.values()} == {30 - steps}


def test_momentum_goes_with_the_weights_and_is_masked(history):
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            if not seen.get("first"):
                seen["first"] = copy.deepcopy(self.state_dict()["state"])
            return super().step(closure)

    spying = Trainer(batches, loss, lambda p: Spy(p, lr=1.0, momentum=0.9, weight_decay=2e-4))
    for method, step in (("weight_rewind", 20), ("lr_rewind", 30)):
        seen.clear()
        found = prune_and_retrain(BUILD, history, spying, density=0.5, t=2, method=method)
        kept = history.at(step).optimizer_state[0]["momentum_buffer"]
        assert torch.equal(seen["first"][0]["momentum_buffer"], kept)
        mask = found.masks["blocks.0.0.weight"]
        assert bool((found.state.optimizer_state[0]["momentum_buffer"][~mask] == 0).all())
        assert bool((found.model.blocks[0][0].weight[~mask] == 0).all())


def test_masks_are_those_of_torch_prune_on_the_trained_weights(history):
    found = prune_and_retrain(BUILD, history, TRAIN, density=0.25, t=1, method="weight_rewind")
    reference = BUILD()
    reference.load_state_dict(history.at(30).model_state)
    layers = [(m, "weight") for m in reference.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    n = sum(m.weight.numel() for m, _ in layers)
    prune.global_unstructured(layers, prune.L1Unstructured, amount=n - round(0.25 * n))
    for name, mask in found.masks.items():
        assert torch.equal(mask, reference.get_submodule(name.rpartition(".")[0]).weight_mask.bool())


def test_rounds_are_nested_start_from_the_last_and_can_be_taken_up(history):
    densities = [0.8, 0.64, 0.512]
    found = iterative(BUILD, history, TRAIN, densities=densities, t=1, method="lr_rewind")
    n = sum(p.numel() for p in prunable(BUILD()).values())
    for k, one in enumerate(found):
        assert sum(int(m.sum()) for m in one.masks.values()) == round(densities[k] * n) and one.epochs == k + 1
    assert all(bool((found[2].masks[k] <= found[1].masks[k]).all()) for k in found[2].masks)
    resumed = iterative(BUILD, history, TRAIN, densities=densities, t=1, method="lr_rewind", begin=found[:1])
    assert same(resumed[2].model.state_dict(), found[2].model.state_dict())
    rewound = iterative(BUILD, history, TRAIN, densities=densities[:2], t=2, method="weight_rewind")
    one_shot = prune_and_retrain(BUILD, history, TRAIN, density=0.8, t=2, method="weight_rewind")
    assert same(rewound[0].model.state_dict(), one_shot.model.state_dict())
    with pytest.raises(ValueError, match="must fall"):
        iterative(BUILD, history, TRAIN, densities=[0.5, 0.5], t=1, method="lr_rewind")


def test_rounds_within_a_pattern_keep_it_and_their_number(history):
    found = iterative(BUILD, history, TRAIN, densities=[0.5, 0.4, 0.3], t=1, method="lr_rewind", project=n_of_m_masks)
    n = sum(p.numel() for p in prunable(BUILD()).values())
    for one, density in zip(found, (0.5, 0.4, 0.3)):
        assert sum(int(m.sum()) for m in one.masks.values()) == round(density * n)
        for mask in one.masks.values():
            if mask[0].numel() % 4 == 0:
                assert int(mask.reshape(-1, 4).sum(1).max()) <= 2


def test_new_weights_are_the_builders(history):
    seeds = iter([7, 8])
    build = lambda: BUILD(generator=G(next(seeds)))
    fresh = prune_and_retrain(build, history, TRAIN, density=1, t=0, method="reinit")
    assert same(fresh.model.state_dict(), BUILD(generator=G(7)).state_dict())


def test_schedules_schedulers_and_the_last_rate():
    rates = sample_rates(step_schedule(0.1, {91: 0.1, 136: 0.01}), 182, 10)
    assert rates[[0, 909, 910, 1359, 1360, 1819]].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert float(last_rate(rates)) == pytest.approx(0.001)
    model = nn.Linear(2, 2)
    solver = torch.optim.SGD(model.parameters(), 0.4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(solver, [2, 3], 0.5)
    assert sample_rates(scheduler, 4, 2).tolist() == pytest.approx([0.4] * 4 + [0.2] * 2 + [0.1] * 2)
    assert solver.param_groups[0]["lr"] == 0.4 and scheduler.last_epoch == 0
    falling = torch.linspace(1, 0, 101, dtype=torch.float64)
    assert float(last_rate(falling)) == pytest.approx(falling[-5:].mean())  # at 0 nothing would be trained


def test_adam_is_rewound_with_its_step_count(history):
    trainer = Trainer(batches, loss, lambda p: torch.optim.Adam(p, lr=1.0))
    rates = torch.full((20,), 0.01, dtype=torch.float64)
    kept = History(rates, SPE)
    trainer(BUILD(generator=G()), rates, history=kept)
    assert kept.at(10).optimizer_state[0]["step"] == 10
    found = prune_and_retrain(BUILD, kept, trainer, density=1, t=2, method="weight_rewind")
    assert same(found.model.state_dict(), kept.at(20).model_state)


def test_a_stack_of_copies_retrains_as_they_would_alone(history):
    from precis.nn.stacked import StackedMLP
    from precis.train.many import ManySGD

    x = X.flatten(1)

    def stacked(model, batch):
        logits = model(batch[0])
        labels = batch[1].expand(len(logits), -1)
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(len(logits), -1).mean(1).sum()

    make = lambda step, rounds: (x[8 * (step % SPE) :][:8], Y[8 * (step % SPE) :][:8])
    rates = torch.tensor([[0.1, 0.02]]).repeat(6, 1)
    many = Trainer(make, stacked, lambda p: ManySGD(p, lr=1.0, momentum=0.9, weight_decay=2e-4))
    stack = StackedMLP(2, [64, 9, 4])
    singles = stack.to_modules()
    many(stack, rates)
    one = Trainer(make, loss, sgd)
    for m, single in enumerate(singles):
        one(single, rates[:, m])
        assert torch.allclose(stack.to_modules()[m][0].weight, single[0].weight, atol=1e-6)


def test_what_cannot_be_planned_is_told(history):
    with pytest.raises(ValueError, match="t must lie between 0 and the 6 epochs"):
        retrain_plan("lr_rewind", history, 7)
    with pytest.raises(ValueError, match=r"no checkpoint of epoch 0.4; there are 0, 1, 2"):
        retrain_plan("weight_rewind", history, 5.6)


def test_a_sweep_and_the_best_compression():
    points = {("fine_tune", 0.5): 90, ("fine_tune", 0.2): 80, ("lr_rewind", 0.5): 91, ("lr_rewind", 0.2): 89.6}
    rows = sweep(lambda m, d, t, s: (points[m, d] + s, t), ["fine_tune", "lr_rewind"], [0.5, 0.2], [3.0], [0, 1, 2])
    assert len(rows) == 12 and rows[0] == Row("fine_tune", 0.5, 3.0, 0, 90, 3.0)
    dense = {0: 90.0, 1: 91.0, 2: 92.0}
    assert best_compression(rows, dense) == {"fine_tune": 2.0, "lr_rewind": 2.0}
    assert best_compression(rows, dense, tolerance=0.5) == {"fine_tune": 2.0, "lr_rewind": 5.0}
    assert best_compression(rows, dense, tolerance=-5) == {"fine_tune": 1.0, "lr_rewind": 1.0}
