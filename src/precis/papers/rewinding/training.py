"""What the claims train: a dense network once a seed, and from its checkpoints every way of retraining it.

Perceptrons are retrained as one stack: copies differ in masks, starting weights, momentum and rates.  Residual networks
are retrained one by one.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.lab.claim import Recorder
from precis.lab.trial import streams
from precis.nn.backbones import backbone
from precis.nn.layers import Standardise
from precis.nn.stacked import StackedMLP
from precis.papers.pools import Pool, Split
from precis.sparsity.masks import Masks, apply_masks_, geometric, magnitude_masks
from precis.sparsity.rewinding import History, Trainer, iterative, prune_and_retrain, retrain_plan
from precis.train.augment import preset
from precis.train.checkpoint import load_state, save_state
from precis.train.classify import predict
from precis.train.many import ManySGD

from .setting import Replay, Setting, is_stacked, rates_of, split

WEIGHT_DECAY = 2e-4


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def each_cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over copies of each one's mean loss: x [M,B,D], y [M,B].  A copy that diverged spoils no other's gradient."""
    x, y = batch
    each = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
    return each.nan_to_num(0.0, 0.0, 0.0).sum()


def many_sgd(parameters: Any) -> ManySGD:
    return ManySGD(parameters, lr=1.0, momentum=0.9, weight_decay=WEIGHT_DECAY)


def build(settings: Setting, pool: Pool, data: Split, generator: torch.Generator) -> nn.Module:
    """The dense network of a seed, a perceptron as a stack of one copy."""
    if is_stacked(settings):
        hidden = [int(n) for n in settings.model.removeprefix("mlp:").split("-")]
        return StackedMLP(1, [data.x.shape[1], *hidden, pool.classes], generators=[generator]).to(data.x.device)
    model = backbone(settings.model, pool.images.shape[1:], pool.classes, generator=generator)
    for layer in model.modules():
        if isinstance(layer, Standardise):
            layer.fit(data.x.cpu())
    return model.to(data.x.device)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a stack that can be pruned."""
    return {name: p for name, p in model.named_parameters() if name.endswith("weight")}


def dense(settings: Setting, pool: Pool, seed: int, record: Recorder) -> History:
    """The first training of a seed, once for all claims and arms."""

    def make(folder: Path) -> None:
        data = split(pool, settings, seed, record.device)
        replay = replay_of(settings, data, seed)
        history = History(rates_of(settings), 1, settings.every)
        model = build(settings, pool, data, streams(seed)["init"])
        trainer = Trainer(replay, cross_entropy)
        if is_stacked(settings):
            one_copy = lambda step, rounds: tuple(part[None] for part in replay(step, rounds))
            trainer = Trainer(one_copy, each_cross_entropy, many_sgd)
        trainer(model, history.rates, history=history, log=record.log)
        save_state(folder / "history.safetensors", [
            [step, kept.model_state, kept.optimizer_state] for step, kept in history.checkpoints.items()
        ])  # fmt: skip

    folder = record.shared("dense", make, [settings])
    history = History(rates_of(settings), 1, settings.every)
    for step, model_state, optimizer_state in load_state(folder / "history.safetensors"):
        history.add(step, model_state, optimizer_state)  # loading puts them where the model is
    return history


def replay_of(settings: Setting, data: Split, seed: int) -> Replay:
    augment = preset(settings.augment, settings.size) if settings.augment else None
    return Replay(data.x, data.y, settings.batch, seed, augment)


class Copy(NamedTuple):
    """One retraining: a seed, an arm, a density, a share t of the steps."""

    seed: int
    arm: str
    density: float
    t: float


def method_of(arm: str, history: History) -> tuple[Any, History]:
    """The arm's method, and the history that it reads: for "fine_tune_RATE" one whose last rate is that."""
    if not arm.startswith("fine_tune_"):
        return arm, history
    rates = torch.full_like(history.rates, float(arm.rpartition("_")[2]))
    return "fine_tune", History(rates, history.steps_per_epoch, history.every_epochs, history.checkpoints)


def retrain_stack(
    copies: Sequence[Copy], histories: Mapping[int, History], splits: Mapping[int, Split], settings: Setting,
    pool: Pool, log: Any = None,
) -> list[float]:  # fmt: skip
    """Accuracy (%) on the test rows of every copy, all with one t, pruned in one shot and retrained in one stack."""
    plans, masks = [], []
    for copy in copies:
        method, history = method_of(copy.arm, histories[copy.seed])
        plans.append(retrain_plan(method, history, round(copy.t * settings.steps)))
        trained = build(settings, pool, splits[copy.seed], torch.Generator())
        trained.load_state_dict(history.at(settings.steps).model_state)
        weights = {name: p for name, p in trained.named_parameters() if name.endswith("weight")}
        masks.append(magnitude_masks(weights, density=copy.density, stacked=True))
    starts = [plan.start for plan in plans if plan.start is not None]
    device = splits[copies[0].seed].x.device
    stack = StackedMLP(len(copies), trained.sizes).to(device)  # type: ignore[arg-type]
    stack.load_state_dict({name: torch.cat([s.model_state[name] for s in starts]) for name in stack.state_dict()})
    merged: Masks = {name: torch.cat([m[name] for m in masks]) for name in masks[0]}
    momentum = {}
    for i, p in enumerate(stack.parameters()):
        zero = torch.zeros_like(p[:1], device="cpu")  # of a start before the first step
        parts = [s.optimizer_state.get(i, {"momentum_buffer": zero})["momentum_buffer"] for s in starts]
        momentum[i] = {"momentum_buffer": torch.cat(parts)}
    replays = [replay_of(settings, data, seed) for seed, data in splits.items()]
    whose = torch.tensor([list(splits).index(copy.seed) for copy in copies], device=device)

    def batches(step: int, rounds: int) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(part) for part in zip(*(replay(step, rounds) for replay in replays)))
        return x[whose], y[whose]

    rates = torch.stack([plan.rates for plan in plans], 1).float().to(device)
    apply_masks_(stack, merged)
    trainer = Trainer(batches, each_cross_entropy, many_sgd)
    trainer(stack, rates, position=plans[0].position, optimizer_state=momentum, masks=merged, log=log)
    with torch.no_grad():
        answers = stack(torch.stack([splits[copy.seed].test_x for copy in copies])).argmax(2)
    wanted = torch.stack([splits[copy.seed].test_y for copy in copies])
    return (100 * (answers == wanted).float().mean(1)).tolist()


def retrain_one(
    copy: Copy, history: History, data: Split, settings: Setting, pool: Pool, log: Any = None
) -> float:  # fmt: skip
    """Accuracy (%) of one network, pruned in one shot."""
    method, history = method_of(copy.arm, history)
    found = prune_and_retrain(
        partial(build, settings, pool, data, torch.Generator()), history,
        Trainer(replay_of(settings, data, copy.seed), cross_entropy), density=copy.density,
        t=round(copy.t * settings.steps), method=method, log=log,
    )  # fmt: skip
    return _accuracy(found.model, data)


def retrain_rounds(
    copy: Copy, history: History, data: Split, settings: Setting, pool: Pool, log: Any = None
) -> dict[float, float]:
    """Accuracies (%) at the densities of the setting, with rounds of 20 % of the rest down to the least of them."""
    method, history = method_of(copy.arm, history)
    falling = sorted({*geometric(min(settings.densities)), *settings.densities}, reverse=True)
    found = iterative(
        partial(build, settings, pool, data, torch.Generator()), history,
        Trainer(replay_of(settings, data, copy.seed), cross_entropy), densities=falling,
        t=round(copy.t * settings.steps), method=method, log=log,
    )  # fmt: skip
    return {one.density: _accuracy(one.model, data) for one in found if one.density in settings.densities}


def _accuracy(model: nn.Module, data: Split) -> float:
    return 100 * float((predict(model, data.test_x).argmax(1) == data.test_y).float().mean())


def dense_accuracy(history: History, settings: Setting, pool: Pool, data: Split) -> float:
    model = build(settings, pool, data, torch.Generator())
    model.load_state_dict(history.at(settings.steps).model_state)
    if is_stacked(settings):
        with torch.no_grad():
            return 100 * float((model(data.test_x[None])[0].argmax(1) == data.test_y).float().mean())
    return _accuracy(model.eval(), data)
