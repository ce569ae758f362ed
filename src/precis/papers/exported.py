"""An exported program as a network that can be trained again: its graph, with torch's layers where it has theirs.

What `torch.export` writes is a graph of operations that reads weights by name.  Linear maps, convolutions, batch norms
and dropout in it become `nn.Linear`, `nn.Conv1d` … under the names that their weights have, so that they can be found,
pruned, replaced and trained like those of any module; the state dict keeps its names.  The rest of the graph stays.
"""

from typing import Any

import torch
from torch import fx, nn

from precis.data.program import Program
from precis.errors import InputError

CONVOLUTIONS: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
FREE = 'torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))'


def as_layers(program: Program, spec: str) -> fx.GraphModule:
    """The network, computing the same in evaluation mode; InputError for a program that cannot be trained again."""
    if program.kind == "script":
        raise InputError("a TorchScript archive cannot be pruned, since its layers are compiled into it: give the "
                         "model saved by torch.export (.pt2), or file.py:build with its --weights",
                         file=spec)  # fmt: skip
    if program.batch is not None:
        raise InputError(f"was exported for {program.batch} inputs at a time, and retraining takes other numbers: give "
                         f"file.py:build with its --weights, or export it with a free first size, {FREE}",
                         file=spec)  # fmt: skip
    given: Any = program.module
    graph = fx.Graph()
    outputs: Any = graph.graph_copy(given.graph, {})
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    net = fx.GraphModule(given, graph)
    for node in list(net.graph.nodes):
        if node.op == "call_module":  # the checks of shapes, which know the sizes of the example
            net.graph.erase_node(node)
            net.delete_submodule(str(node.target))
        elif node.op == "call_function" and str(node.target).startswith("aten."):
            _layer_of(net, node)
    for node in reversed(list(net.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            net.graph.erase_node(node)
    net.recompile()
    return net


def _layer_of(net: fx.GraphModule, node: fx.Node) -> None:
    """Let a layer do what the node does, if it is one of a layer's operations on weights of its own."""
    kind = str(node.target).split(".")[1]
    found = _arguments(node)
    if kind == "dropout":
        name = f"dropout_{node.name}".replace("dropout_dropout", "dropout")
        net.add_submodule(name, nn.Dropout(found["p"]))
    elif kind in ("linear", "batch_norm", *CONVOLUTIONS):
        weights = {leaf: value.target for leaf, value in found.items() if getattr(value, "op", "") == "get_attr"}
        name = str(weights.get("weight", "")).rpartition(".")[0]
        if not name or any(str(target) != f"{name}.{leaf}" for leaf, target in weights.items()):
            return  # functional, or with the weights of two modules
        holder = net.get_submodule(name)
        made = _made(kind, found, holder)
        if made is None or type(holder) is not type(made) and not _only(holder, made):
            return
        if type(holder) is type(made):
            if repr(holder) != repr(made):  # one weight in two layers of another stride
                return
        else:
            net.set_submodule(name, made)
    else:
        return
    with net.graph.inserting_before(node):
        new = net.graph.call_module(name, (found["input"],))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    net.graph.erase_node(node)


def _made(kind: str, found: dict[str, Any], holder: nn.Module) -> nn.Module | None:
    """torch's layer with the holder's own tensors."""
    weight = holder.weight
    if not isinstance(weight, nn.Parameter):
        return None
    with torch.device("meta"):
        if kind == "linear":
            made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], found["bias"] is not None)
        elif kind == "batch_norm":
            if found["bias"] is None or found["running_mean"] is None:
                return None
            layer = NORMS[found["input"].meta["val"].ndim]
            made = layer(len(weight), found["eps"], found["momentum"])
        else:
            sizes = {k: _whole(found[k], weight.ndim - 2) for k in ("stride", "padding", "dilation")}
            made = CONVOLUTIONS[kind](weight.shape[1] * found["groups"], weight.shape[0], tuple(weight.shape[2:]),
                                      groups=found["groups"], bias=found["bias"] is not None, **sizes)  # fmt: skip
    for leaf, parameter in holder.named_parameters(recurse=False):
        setattr(made, leaf, parameter)
    for leaf, buffer in holder.named_buffers(recurse=False):
        setattr(made, leaf, buffer)
    if getattr(made, "num_batches_tracked", None) is not None and made.num_batches_tracked.is_meta:  # type: ignore[union-attr,operator]
        made.num_batches_tracked = torch.tensor(0)
    return made.eval()


def _whole(value: Any, dims: int) -> Any:
    """A size for each dimension, or the word "same" or "valid"."""
    return value if isinstance(value, str) else tuple(value) * (1 if len(value) == dims else dims)


def _only(holder: nn.Module, made: nn.Module) -> bool:
    """Whether the holder has nothing that the layer lacks."""
    own = {name for name, _ in [*holder.named_parameters(), *holder.named_buffers()]}
    return own <= set(dict(made.named_parameters())) | set(dict(made.named_buffers()))


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The operation's arguments by name, with its defaults."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    found = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    found |= {a.name: value for a, value in zip(schema.arguments, node.args)}
    return found | dict(node.kwargs)
