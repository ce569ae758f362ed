"""What every component must keep, whatever it computes: `check_component`."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from precis.train.checkpoint import load_state, save_state


def check_component(
    build: Callable[[torch.Generator], nn.Module],
    *inputs: Any,
    call: Callable[..., Any] | None = None,
    batch_dim: int | None = 0,
    batched: tuple[bool, ...] | None = None,
    subset: bool = True,
    order: bool = True,
    dtype: bool = True,
    device: bool = True,
    unmodified: bool = True,
    state: bool = True,
    seeded: bool = True,
    deterministic: bool = True,
    gradient: bool = True,
    tolerance: float = 1e-5,
    tmp_path: Any = None,
) -> None:
    """Assert what DESIGN asks of a component; switch off by name what does not apply to it.

    build(generator): makes the module, drawing its weights from the generator only.
    inputs: example inputs, tensors or nests of them.  `batch_dim` is the axis of the batch in inputs and outputs (None:
        there is none), `batched` says which of the inputs have it (default: all).
    call(module, *inputs): what to evaluate, if not the module itself; its output is a tensor or a nest of them.

    subset: part of the batch gives the same rows.          order: a permuted batch gives permuted rows.
    dtype: float64 weights and inputs give float64.         device: outputs lie where the inputs do (CUDA too, if any).
    unmodified: inputs keep their values.                   state: the state dict goes to a fresh module, also by file.
    seeded: the same seed gives the same module, another    deterministic: in evaluation mode, twice the same bits,
        seed another; the global generator is not touched.      and no buffer changes.
    gradient: every trainable parameter that takes part gets a finite gradient, at least one is not zero.
    """
    run = call or (lambda module, *given: module(*given))
    make = lambda seed=0: build(torch.Generator().manual_seed(seed))
    has_batch = (True,) * len(inputs) if batched is None else batched
    module = make().eval()
    with torch.no_grad():
        before = copy.deepcopy(inputs)
        output = run(module, *inputs)
        if unmodified:
            _same(before, inputs, 0, "the inputs were modified")
        if deterministic:
            buffers = copy.deepcopy(dict(module.named_buffers()))
            _same(output, run(module, *inputs), 0, "evaluating twice gives two results")
            _same(buffers, dict(module.named_buffers()), 0, "evaluation changes a buffer")
        if batch_dim is not None:
            _check_batch(run, module, inputs, has_batch, batch_dim, output, subset, order, tolerance)
        if dtype:
            _check_dtype(run, module, inputs, output)
        if device:
            _check_device(run, module, inputs, tolerance)
        if seeded:
            _check_seeds(make, run, inputs, output)
        if state:
            _check_state(make, run, module, inputs, output, tmp_path)
    if gradient and any(p.requires_grad for p in module.parameters()):
        _check_gradient(run, make(), inputs)


def _check_batch(
    run: Any,
    module: nn.Module,
    inputs: Any,
    has_batch: Any,
    dim: int,
    output: Any,
    subset: bool,
    order: bool,
    tol: float,
) -> None:
    n = next(leaf for leaf, own in zip(inputs, has_batch) if own and tree_leaves(leaf))
    n = tree_leaves(n)[0].shape[dim]
    assert n >= 3, "give at least three items, or batch_dim=None"

    def rows(index: Tensor) -> Any:
        pick = lambda x: x.index_select(dim, index.to(x.device)) if isinstance(x, Tensor) else x
        given = [tree_map(pick, x) if own else x for x, own in zip(inputs, has_batch)]
        return run(module, *given), tree_map(pick, output)

    if subset:
        for index in (torch.arange(1, 2), torch.arange(n - 1)):
            _same(*rows(index), tol, f"items {index.tolist()} alone give other results than in their batch")
    if order:
        _same(*rows(torch.arange(n).flip(0).roll(1)), tol, "the order of the batch changes results")


def _check_dtype(run: Any, module: nn.Module, inputs: Any, output: Any) -> None:
    double = copy.deepcopy(module).double()
    wide = lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
    result = run(double, *tree_map(wide, inputs))
    for got, narrow in zip(tree_leaves(result), tree_leaves(output), strict=True):
        if isinstance(got, Tensor) and narrow.is_floating_point():
            assert got.dtype == torch.float64, f"float64 in gives {got.dtype} out"
            torch.testing.assert_close(got.float(), narrow.float(), atol=1e-3, rtol=1e-3)


def _check_device(run: Any, module: nn.Module, inputs: Any, tol: float) -> None:
    for name in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        move = lambda x, to=name: x.to(to) if isinstance(x, Tensor) else x
        result = run(copy.deepcopy(module).to(name), *tree_map(move, inputs))
        for got in tree_leaves(result):
            if isinstance(got, Tensor):
                assert got.device.type == name, f"inputs on {name} give an output on {got.device}"


def _check_seeds(make: Any, run: Any, inputs: Any, output: Any) -> None:
    before = torch.get_rng_state()
    again, other = make(0).eval(), make(1).eval()
    run(again, *inputs)
    assert torch.equal(before, torch.get_rng_state()), "the global random generator was used"
    _same(output, run(again, *inputs), 0, "the same seed gives two results")
    drawn = [p for p in make(0).parameters() if p.numel() > 1]
    if any(float(p.detach().float().std()) > 0 for p in drawn):
        pairs = zip(again.parameters(), other.parameters())
        assert any(not torch.equal(a, b) for a, b in pairs), "another seed gives the same weights"


def _check_state(make: Any, run: Any, module: nn.Module, inputs: Any, output: Any, tmp_path: Any) -> None:
    state = module.state_dict()
    if tmp_path is not None:
        save_state(tmp_path / "state.safetensors", dict(state))
        state = load_state(tmp_path / "state.safetensors")
    fresh = make(1).eval()
    fresh.load_state_dict(state)
    _same(output, run(fresh, *inputs), 0, "a state dict loaded into a fresh module gives other results")


def _check_gradient(run: Any, module: nn.Module, inputs: Any) -> None:
    leaves = [leaf for leaf in tree_leaves(run(module, *inputs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    assert leaves, "no output depends on a parameter"
    sum(leaf.square().mean() for leaf in leaves).backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads), "a gradient is not finite"
    assert any(g.abs().sum() > 0 for g in grads), "all gradients are zero"


def _same(a: Any, b: Any, tol: float, message: str) -> None:
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        if isinstance(x, Tensor):
            torch.testing.assert_close(y, x, atol=tol, rtol=tol, equal_nan=True, msg=lambda text: f"{message}: {text}")
        else:
            assert x == y, message
