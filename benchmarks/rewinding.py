"""Pruning and retraining, against scripts of one network at a time; and what a pruned network is worth at inference.

Retrain: 20 steps of 64 of ten pruned perceptrons 64-300-100-10 in one stack, against ten trained one after the other
under the hooks of `torch.nn.utils.prune`.  Select: global magnitude masks of a ResNet-20, against that module's
`global_unstructured`.  Memory: tensors that a pruned network holds, ours (weights and masks) against the hooks' (two
copies and a mask).

Inference: the same network at a density, dense with its zeros, with useless units deleted (`compact`), and with its
linear layers as sparse rows (CSR), all against the dense network before pruning.  `ratio` is theirs over ours: above 1
we are faster.  Zeros in dense matrices are at 1, whatever the papers' compression says.  Last rows: the density from
which sparse rows are no longer faster than a dense layer of 1,000 × 1,000, for one input and for 64.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks._measured import versus
from precis.nn.backbones import backbone
from precis.nn.stacked import StackedMLP
from precis.sparsity.compact import compact
from precis.sparsity.csr import CsrLinear, to_csr
from precis.sparsity.masks import MaskedTraining, apply_masks_, magnitude_masks, prunable
from precis.train.many import ManySGD

COPIES, STEPS = 10, 20
DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    return [_retrain(repeats), _select(repeats), _memory(), *_inference(repeats), *_crossover(repeats)]


def _retrain(repeats: int) -> dict[str, Any]:
    stack = StackedMLP(COPIES, [64, 300, 100, 10])
    x, y = torch.randn(COPIES, 64, 64), torch.randint(0, 10, (COPIES, 64))
    weights = {name: p for name, p in stack.named_parameters() if name.endswith("weight")}
    masks = magnitude_masks(weights, density=0.05, stacked=True)
    singles = stack.to_modules()
    for single in singles:
        layers = [(m, "weight") for m in single if isinstance(m, nn.Linear)]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.95)
    solvers = [torch.optim.SGD(single.parameters(), 0.01, momentum=0.9) for single in singles]
    solver = ManySGD(stack.parameters(), 0.01, momentum=0.9)

    def ours() -> None:
        with MaskedTraining(stack, masks):
            for _ in range(STEPS):
                solver.zero_grad()
                (COPIES * F.cross_entropy(stack(x).flatten(0, 1), y.flatten())).backward()
                solver.step()

    def theirs() -> None:
        for single, one, a, b in zip(singles, solvers, x, y):
            for _ in range(STEPS):
                one.zero_grad()
                F.cross_entropy(single(a), b).backward()
                one.step()

    return versus(f"retrain {COPIES} pruned perceptrons, {STEPS} steps", ours, theirs, repeats)


def _select(repeats: int) -> dict[str, Any]:
    net = backbone("resnet20", (3, 32, 32), 10)

    def theirs() -> None:
        layers = [(m, "weight") for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.9)
        for m, name in layers:
            prune.remove(m, name)

    net_ours = copy.deepcopy(net)
    return versus("masks of a ResNet-20 at 0.1", lambda: magnitude_masks(prunable(net_ours), density=0.1), theirs,
                max(3, repeats // 2))  # fmt: skip


def _memory() -> dict[str, Any]:
    net = backbone("lenet300", (1, 28, 28), 10)
    masks = magnitude_masks(prunable(net), density=0.1)
    hooked = copy.deepcopy(net)
    layers = [(m, "weight") for m in hooked.modules() if isinstance(m, nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.9)
    held = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
    ours = held(net.parameters()) + held(masks.values())
    theirs = held(hooked.parameters()) + held(hooked.buffers()) + held(m.weight for m, _ in layers)
    return {"what": "kB held by a pruned LeNet-300-100", "ours kB": ours / 1e3, "theirs kB": theirs / 1e3,
            "ratio": theirs / ours}  # fmt: skip


def _inference(repeats: int) -> list[dict[str, Any]]:
    """Every way of running a pruned network, for one input and for 64.

    Magnitudes of networks that were never trained: which units die there says nothing of trained ones, so the masks
    remove two thirds of the units of every hidden layer, as a density of a tenth roughly does, and thin out the rest.
    """
    found = []
    for spec, shape in (("lenet300", (1, 28, 28)), ("conv:24x3", (3, 32, 32))):
        net = backbone(spec, shape, 10, generator=torch.Generator().manual_seed(0)).eval()
        masks = magnitude_masks(prunable(net), density=0.3)
        layers = list(masks)
        for name, after in zip(layers, layers[1:]):
            kept = torch.arange(len(masks[name])) % 3 == 0
            masks[name][~kept] = False
            masks[after][:, ~kept] = False
        pruned = apply_masks_(copy.deepcopy(net), masks)
        example = torch.rand(64, *shape)
        nets = {"zeros in dense layers": pruned, "units deleted": compact(pruned, masks, example).module}
        if spec == "lenet300":
            nets["sparse rows"] = to_csr(pruned, masks)
        density = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        for batch in (1, 64):
            x = example[:batch]
            for kind, model in nets.items():
                what = f"{spec}, {100 * density:.0f} %, batch {batch}: {kind}"
                found.append(versus(what, _call(model, x), _call(net, x), 3 * repeats))
    return found


def _call(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return model(x)

    return call


def _crossover(repeats: int) -> list[dict[str, Any]]:
    """For each batch the largest density of those tried at which sparse rows are faster, by the whole interval."""
    found = []
    layer = nn.Linear(1000, 1000)
    for batch in (1, 64):
        x, best = torch.randn(batch, 1000), None
        for density in DENSITIES:
            pruned = apply_masks_(copy.deepcopy(layer), magnitude_masks({"weight": layer.weight}, density=density))
            row = versus(f"1000×1000, batch {batch}: sparse rows, density {density:g}", _call(CsrLinear(pruned), x),
                       _call(layer, x), repeats)  # fmt: skip
            if best is None and float(row["interval"].partition("-")[0]) > 1:
                best = row
        name = f"1000×1000, batch {batch}: sparse rows are faster at none of {DENSITIES[0]} … {DENSITIES[-1]}"
        found.append(best or {"what": name, "threads": torch.get_num_threads()})
    return found
