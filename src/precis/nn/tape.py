"""What a model did on the way to its output, read from the autograd graph and from the operations that ran.

Hooks on modules miss functional and reused activations, and scripted and exported programs, whose parts are no modules
that get called.  Every kind of model leaves the same graph of nodes behind (`score.grad_fn`), so the tape reads that:

    guided        R^l = 1[R^{l+1} > 0] 1[f^l > 0] R^{l+1}    at every ReLU  (Springenberg et al., arXiv 1412.6806, §3)
    spatial(i)    value and gradient of the i-th rectified map from the output (what Grad-CAM needs)

and a layer is the parameters with one dotted prefix: its activation is what the last operation that reads them returns.
A model is an `nn.Module` (eager, scripted, traced, exported), or anything that can be called and has one as `.module`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.utils._python_dispatch import TorchDispatchMode

Pool = Literal["mean", "max"] | Callable[[Tensor], Tensor] | None


class Tap(NamedTuple):
    """A value inside the model, and the score's gradient there."""

    value: Tensor
    grad: Tensor


class Layer(NamedTuple):
    """Parameters (and buffers) with one dotted prefix.  `kind`: the last operation that reads them ("Convolution");
    `order`: 0 is nearest to the output."""

    name: str
    params: tuple[str, ...]
    buffers: tuple[str, ...]
    kind: str
    order: int


class Tape:
    """The graph behind one forward pass; `score` is a number, such as the sum over samples of the chosen logits.

    watched: values of modules by name, from `watch`, for `named`.
    Nothing is changed by building one; `guided` is undone when it ends, also by an exception.
    """

    def __init__(self, score: Float[Tensor, ""], watched: Mapping[str, Tensor] | None = None) -> None:
        if score.grad_fn is None:
            raise ValueError("the score depends on nothing that has a gradient: the input must require one")
        self.score, self.watched = score, dict(watched or {})
        self.nodes: list[Node] = _nodes(score.grad_fn)

    @property
    def rectified(self) -> list[Node]:
        """The ReLU nodes, output first.  Nets of GELU, SiLU and the like have none."""
        return [node for node in self.nodes if node.name().startswith("ReluBackward")]

    @contextmanager
    def guided(self) -> Iterator[None]:
        """Inside, backward passes through this graph drop negative gradients at every ReLU.

        Raises ValueError if there is no ReLU, where the plain gradient would come out under a wrong name.
        """
        if not self.rectified:
            raise ValueError("guided gradients need ReLUs, and this network has none")
        clamp = lambda grads, _: tuple(None if g is None else g.clamp(min=0) for g in grads)
        with ExitStack() as hooks:
            for node in self.rectified:
                hooks.callback(node.register_hook(clamp).remove)
            yield

    def spatial(self, which: int = 0) -> Tap:
        """The `which`-th rectified map [B,C,H,W] from the output."""
        maps = []
        for node in self.rectified:
            value = getattr(node, "_saved_result", None)
            if isinstance(value, Tensor) and value.ndim == 4:
                maps.append((node, value))
        if not 0 <= which < len(maps):
            raise ValueError(f"map {which} from the output is wanted, and there are {len(maps)} rectified maps")
        node, value = maps[which]
        (grad,) = torch.autograd.grad(self.score, GradientEdge(node, 0), retain_graph=True)
        return Tap(value.detach(), grad)

    def named(self, layer: str) -> Tap:
        """The output of an eager module that `watch` has watched."""
        if layer not in self.watched:
            raise ValueError(f"{layer!r} was not watched; there are {', '.join(self.watched) or 'none'}")
        value = self.watched[layer]
        (grad,) = torch.autograd.grad(self.score, value, retain_graph=True)
        return Tap(value.detach(), grad)


@contextmanager
def watch(model: Any, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, outputs of an eager model's modules are collected by name; the hooks are gone afterwards.

    Raises ValueError for a name that is no module.  Scripted and exported programs call no modules.
    """
    modules, found = dict(_module(model).named_modules()), {}
    with ExitStack() as hooks:
        for name in names:
            if name not in modules:
                raise ValueError(f"no module is called {name!r}; there are {_some(n for n in modules if n)}")

            def keep(_: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                found[name] = output

            hooks.callback(modules[name].register_forward_hook(keep).remove)
        yield found


def layers(program: Any, example: Shaped[Tensor, "..."]) -> list[Layer]:
    """The layers that take part in a forward pass of `example`, the one nearest to the output first."""
    module = _module(program)
    names = {id(p): name for name, p in module.named_parameters()}
    buffers = [name for name, _ in module.named_buffers()]
    params: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    with _trainable(module), torch.enable_grad():
        score = _first(_run(program, example.detach())).sum()
        if score.grad_fn is None:
            return []
        reaches = _parameters_of(_nodes(score.grad_fn))
        for node, found in reaches.items():
            for variable in found:
                name = names.get(id(variable))
                if name is not None and name not in params.setdefault(_prefix(name), []):
                    params[_prefix(name)].append(name)
                    kinds.setdefault(_prefix(name), node.name().split("::")[-1].partition("Backward")[0])
    return [
        Layer(layer, tuple(sorted(own)), tuple(b for b in buffers if _prefix(b) == layer), kinds[layer], order)
        for order, (layer, own) in enumerate(params.items())
    ]


def activations(
    model: Any, x: Shaped[Tensor, "n ..."], layers: Sequence[str], *, pool: Pool = None, batch: int = 256
) -> dict[str, Float[Tensor, "n _"]]:
    """What each layer returns for x, a row [D] a sample; layers by the names of `layers` or of eager modules.

    pool: "mean" or "max" over all axes after the channel, or a function of the value; None keeps every number.
    Runs without gradients, in the model's present mode.  Raises ValueError for a name that is not there.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    with torch.no_grad():
        for part in x.split(batch):
            for name, value in _values(model, part, layers).items():
                rows[name].append(_pooled(value, pool)[: len(part)])
    return {name: torch.cat(parts) for name, parts in rows.items()}


def feature_map(model: Any, layer: str) -> Callable[[Tensor], Tensor]:
    """The function x → activation of `layer`, differentiable in x, for every kind of model.

    The gradient enters the graph where the layer's operation left it.  One forward and one backward pass a call.
    """
    return lambda x: _FeatureMap.apply(x, model, layer)  # type: ignore[no-any-return]


class _FeatureMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Any, layer: str) -> Tensor:
        module = _module(model)
        own = {id(p) for name, p in module.named_parameters() if _prefix(name) == layer}
        ctx.x = x.detach().requires_grad_()
        with torch.enable_grad(), _trainable(module):
            if not own:
                with watch(model, [layer]) as watched:
                    _run(model, ctx.x)
                ctx.end = _first(watched[layer])
                return ctx.end.detach().clone()
            with _Reading(module, [layer]) as read:
                output = _first(_run(model, ctx.x))
        assert output.grad_fn is not None
        reaches = _parameters_of(_nodes(output.grad_fn))
        ctx.end = GradientEdge(next(n for n, found in reaches.items() if any(id(v) in own for v in found)), 0)
        return read[layer]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (back,) = torch.autograd.grad(ctx.end, ctx.x, grad.contiguous())
        return back, None, None


class _Reading(TorchDispatchMode):
    """Collects, of every operation that reads a named parameter or buffer, what it returns; a later one replaces it."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        spans = []
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if _prefix(name) in names and tensor.numel():
                spans.append((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, _prefix(name)))
        self.spans = sorted(spans)
        self.starts = [start for start, *_ in self.spans]

    def __enter__(self) -> dict[str, Tensor]:  # type: ignore[override]
        super().__enter__()
        return self.values

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        value = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(value, Tensor) and self._owner(value) is None:
            for argument in args:
                owner = self._owner(argument)
                if owner is not None:
                    self.values[owner] = value.detach().clone()  # what follows may work in place
        return out

    def _owner(self, value: Any) -> str | None:
        if not isinstance(value, Tensor) or not value.numel():
            return None
        at = value.data_ptr()
        i = bisect_right(self.starts, at) - 1
        return self.spans[i][2] if i >= 0 and at < self.spans[i][1] else None


def _values(model: Any, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    module = _module(model)
    known = {_prefix(name) for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    by_name = [name for name in names if name not in known]
    with ExitStack() as stack:
        watched = stack.enter_context(watch(model, by_name)) if by_name else {}
        read = stack.enter_context(_Reading(module, names))
        _run(model, x)
    found = {**read, **watched}
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"{_some(absent)} took no part; there are {_some(sorted(known))}")
    return {name: _first(found[name]) for name in names}


def _nodes(root: Node) -> list[Node]:
    """All nodes behind `root`, the latest first; leaves, which accumulate gradients, come last."""
    seen, stack = {root}, [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    leaf = lambda node: hasattr(node, "variable")
    return sorted(seen, key=lambda node: (leaf(node), 0 if leaf(node) else -node._sequence_nr()))


def _parameters_of(nodes: list[Node]) -> dict[Node, list[Tensor]]:
    """The leaves that a node reads directly or through nodes that read nothing else, such as a transposed weight."""
    alone: dict[Node, list[Tensor]] = {}
    reads: dict[Node, list[Tensor]] = {}
    for node in reversed(nodes):
        if hasattr(node, "variable"):
            alone[node] = [node.variable]
            continue
        before = [n for n, _ in node.next_functions if n is not None]
        found = [v for n in before for v in alone.get(n, [])]
        if before and all(n in alone for n in before) and len(before) == 1:
            alone[node] = found
        elif found:
            reads[node] = found
    return dict(reversed(reads.items()))


@contextmanager
def _trainable(module: nn.Module) -> Iterator[None]:
    """Inside, all parameters require gradients, so that they show in the graph."""
    frozen = [p for p in module.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _run(model: Any, x: Tensor) -> Any:
    """A scripted module runs unoptimised: its optimised graph hides its parts inside one node."""
    scripted = isinstance(_module(model), torch.jit.ScriptModule)
    with torch.jit.optimized_execution(False) if scripted else nullcontext():
        return model(x)


def _module(model: Any) -> nn.Module:
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise TypeError(f"a model is a torch.nn.Module or has one as .module, got {type(model).__name__}")
    return module


def _first(output: Any) -> Tensor:
    """The tensor of an output that may be a tuple, a dict, or an object with logits."""
    if isinstance(output, Mapping):
        output = output.get("logits", next(iter(output.values())))
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple | list) else output  # type: ignore[no-any-return]


def _pooled(value: Tensor, pool: Pool) -> Tensor:
    if callable(pool):
        value = pool(value)
    elif pool is not None and value.ndim > 2:
        value = value.flatten(2).mean(2) if pool == "mean" else value.flatten(2).amax(2)
    return value.flatten(1) if value.ndim > 1 else value[:, None]


def _prefix(name: str) -> str:
    return name.rpartition(".")[0] or name


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
