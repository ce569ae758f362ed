"""The smaller network inside a pruned one: units that nothing reads, or that always say the same, are deleted.

Zeros that are scattered over dense matrices save no time.  What does is a smaller matrix: in the exported graph of the
model, to a fixpoint,

  (i)   a unit or channel whose outgoing weights are all zero is deleted;
  (ii)  one that is a constant (its incoming weights are all zero) is folded, through activation and batch norm, into
        the next bias, b ← b + W[:, c] · value, and deleted; before zero padding only if its value is 0;
  (iii) so is an attention head that nothing reads, or whose values are constants.

Channels that a residual sum, a concatenation or a depthwise convolution ties together go only all at once.  What the
analysis does not understand stays dense.  The result is compared with the model, and the model itself is given back
where it differs.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from precis.sparsity.attention import open_attention
from precis.sparsity.compact_flow import Analysis
from precis.sparsity.masks import apply_masks_

TOLERANCE = 1e-5
RANDOM_INPUTS = 256


class Compact(NamedTuple):
    """`module`: the smaller network, or the masked one where `reason` says why.  `deleted`: units by layer.

    `program`: the smaller network as a `torch.export.ExportedProgram`, None beside a `reason`.  `error`: the largest
    difference of outputs that was seen, in units of max(1, largest output).
    """

    module: nn.Module
    program: Any
    deleted: dict[str, int]
    error: float
    reason: str
    parameters: int
    parameters_before: int


def compact(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> Compact:
    """`model` under `masks` without its useless units, in evaluation mode on the CPU; `example` [B,…]: inputs of it.

    Verified on `example` and on 256 random inputs like it: max|Δ| ≤ 1e-5 · max(1, max|y|).
    """
    dense = apply_masks_(copy.deepcopy(model).cpu().eval(), masks)
    example = example.cpu()
    before = sum(p.numel() for p in dense.parameters())

    def as_it_is(reason: str, error: float = 0.0) -> Compact:
        return Compact(dense, None, {}, error, reason, before, before)

    if len(example) == 1:  # an export would take 1 for a constant
        example = torch.cat([example, example])
    with torch.no_grad():
        if not isinstance(dense(example), Tensor):
            return as_it_is("the model returns something other than one tensor")
    try:
        program = _exported(dense, example)
    except Exception as failed:  # whatever Python the model does that a graph cannot
        return as_it_is(f"the model cannot be exported as a graph ({_first_line(failed)})")
    graph = program.module()
    smaller, deleted = _shrink(graph)
    if not deleted:
        return as_it_is("no unit could be deleted: every one has a weight left before and behind it")
    try:
        exported = torch.export.export(smaller, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        error = _difference(dense, smaller, example)
    except Exception as failed:
        return as_it_is(f"the smaller graph does not run ({_first_line(failed)})")
    if not error <= TOLERANCE:
        return as_it_is(f"the smaller network differs by {error:.1e}", error)
    after = sum(p.numel() for p in smaller.parameters())
    return Compact(smaller, exported, deleted, error, "", after, before)


def _exported(model: nn.Module, example: Tensor) -> Any:
    """The graph, of a copy whose attention is opened where that is possible."""
    dynamic = ({0: torch.export.Dim.AUTO},)
    if any(isinstance(m, nn.MultiheadAttention) for m in model.modules()):
        try:
            return torch.export.export(open_attention(copy.deepcopy(model)), (example,), dynamic_shapes=dynamic)
        except Exception:  # masks, or weights that are asked for: heads then stay as they are
            pass
    return torch.export.export(model, (example,), dynamic_shapes=dynamic)


@torch.no_grad()
def _shrink(graph: Any) -> tuple[nn.Module, dict[str, int]]:
    """A graph module without the units that may go, and how many those are by layer."""
    names = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
    tensors = {name: _attribute(graph, name) for name in names}
    places = {name: t.data_ptr() if t.numel() else name for name, t in tensors.items()}
    state = {name: t.detach().clone() for name, t in tensors.items()}
    added: dict[Any, str] = {}
    gone: set[int] = set()
    while True:
        found = Analysis(graph, state, places, added)
        new = found.removable() - gone
        if not new:
            break
        _fold(found, state, added, new)
        gone |= new
    gone -= _kept_for_width(found, gone)
    for (name, dim), ids in found.rows.items():
        state[name] = state[name].index_select(dim, _where(ids, lambda i: i not in gone))
    for node, (argument, new_value) in found.resizes.items():
        value = new_value(lambda ids: len(_where(ids, lambda i: i not in gone)))
        node.args = (*node.args[:argument], value, *node.args[argument + 1 :])
    for name in names:
        _set(graph, name, state[name])
    for node, name in added.items():
        _attach(graph, node, name, state[name])
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.graph.erase_node(node)  # it asks for the shapes of the example
        elif node.op == "output":
            node.args = (node.args[0][0],)
    graph.graph.set_codegen(torch.fx.graph.CodeGen())  # one tensor in, one out: no nests to take apart at every call
    deleted = {layer: len(_where(ids, lambda i: i in gone)) for layer, ids in found.made.items()}
    return torch.fx.GraphModule(graph, graph.graph).eval(), {layer: n for layer, n in deleted.items() if n}


def _fold(found: Analysis, state: dict[str, Tensor], added: dict[Any, str], new: set[int]) -> None:
    """Put the constants of `new` units into their readers' biases; set their weights on either side to 0."""
    for read in found.reads:
        at = _where(read.flow.ids, lambda i: i in new)
        if not len(at):
            continue
        columns = state[read.weight].index_select(1, at).double()
        shift = (columns.flatten(2).sum(2) if columns.ndim > 2 else columns) @ read.flow.value[at]
        if bool((shift != 0).any()):
            name = read.bias or f"{read.weight.rpartition('.')[0]}.bias".lstrip(".")
            if read.bias is None:
                added[read.node] = name
                state[name] = torch.zeros(len(shift), dtype=state[read.weight].dtype)
            state[name] = (state[name].double() + shift).to(state[name].dtype)
        state[read.weight].index_fill_(1, at, 0.0)
    for layer, ids in found.made.items():
        state[found.weight_of[layer]].index_fill_(0, _where(ids, lambda i: i in new), 0.0)


def _kept_for_width(found: Analysis, gone: set[int]) -> set[int]:
    """A unit for each layer that would have none left: a layer of no width is nothing that kernels take."""
    kept: set[int] = set()
    for ids in [*found.made.values(), *(flow.ids for flow in found.flows.values())]:
        every = ids.tolist()
        if every and all(i in gone and i not in kept for i in every):
            kept |= found.companions(every[0])
    return kept


def _attach(graph: Any, node: Any, name: str, bias: Tensor) -> None:
    """Give a layer without a bias the one that constants were folded into."""
    _set(graph, name, bias)
    with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
        made = graph.graph.get_attr(name)
    node.args = (*node.args[:2], made, *node.args[3:])


@torch.no_grad()
def _difference(dense: nn.Module, smaller: nn.Module, example: Tensor) -> float:
    shape = (RANDOM_INPUTS, *example.shape[1:])
    generator = torch.Generator().manual_seed(0)
    if example.is_floating_point():
        other = torch.randn(shape, generator=generator).to(example) * example.std() + example.mean()
    else:
        other = torch.randint(0, int(example.max()) + 1, shape, generator=generator).to(example)
    worst = 0.0
    for batch in (example, *other.split(len(example))):
        if len(batch) == len(example) or batch is other:
            y, z = dense(batch), smaller(batch)
            worst = max(worst, float((y - z).abs().max() / y.abs().max().clamp(min=1)))
    return worst


def _where(ids: Tensor, wanted: Callable[[int], bool]) -> Tensor:
    """Positions of the numbers that are wanted."""
    return torch.tensor([k for k, i in enumerate(ids.tolist()) if wanted(i)], dtype=torch.int64)


def _attribute(root: Any, name: str) -> Tensor:
    found: Tensor = operator.attrgetter(name)(root)
    return found


def _set(root: Any, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = root.get_submodule(path)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        setattr(owner, leaf, nn.Parameter(value, requires_grad=value.is_floating_point()))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
