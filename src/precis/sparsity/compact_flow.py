"""Which channels of an exported graph are read by nothing or never change; the analysis under `compact`.

Every channel that a layer makes gets a number.  Going through the graph, each tensor has an axis of channel numbers
(`Flow`), and beside them which channels are constants, and which; operations carry both along, tie numbers together
(sums, depthwise convolutions), or are not understood: the numbers that go into those are frozen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

aten = torch.ops.aten
NAMES = (
    "relu", "relu_", "gelu", "tanh", "sigmoid", "silu", "silu_", "elu", "leaky_relu", "hardtanh", "hardtanh_", "relu6",
    "softplus", "hardswish", "hardsigmoid", "neg", "abs", "exp", "sqrt", "square", "mish", "dropout", "contiguous",
    "clone", "alias",
)  # fmt: skip
ELEMENTWISE = {getattr(aten, name).default for name in NAMES}
SUMS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.add_.Tensor, aten.mul_.Tensor}
CONVOLUTIONS = {getattr(getattr(aten, f"conv{d}d"), kind) for d in (1, 2, 3) for kind in ("default", "padding")}
POOLS = {aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default, aten.adaptive_avg_pool1d.default,
         aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default}  # fmt: skip
AVERAGES = {aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default}
HEADS = {aten.scaled_dot_product_attention.default, aten.transpose.int, aten.permute.default, aten.unflatten.int}
RESHAPES = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}
Count = Callable[[Tensor], int]  # how many of these numbers stay


@dataclass
class Flow:
    """The channels of a tensor along axis `dim`: their numbers, which are constants, and their values (else 0).

    Of attention heads along `dim`, each with `width` channels along the last axis, head by head.
    """

    dim: int
    ids: Int64[Tensor, "c"]
    constant: Bool[Tensor, "c"]
    value: Float[Tensor, "c"]
    width: int = 1

    def __post_init__(self) -> None:
        self.value = torch.where(self.constant, self.value.double(), 0.0)

    def at(self, index: Tensor) -> "Flow":
        return Flow(self.dim, self.ids[index], self.constant[index], self.value[index])


@dataclass
class Read:
    """A layer that reads a flow by the columns (axis 1) of `weight`; `free`: columns that it could do without."""

    node: Any
    weight: str
    bias: str | None
    flow: Flow
    free: Bool[Tensor, "c"]


class Analysis:
    """One pass over `graph` (of `torch.export`) with the tensors `state`, whose `places` in memory tell shared ones.

    added: biases that folding has made, by node.  flows: by node.  made: numbers of the units of each layer, whose
    weight is `weight_of` it.  rows: which axis of which tensor goes by which numbers.  reads: see `Read`.  resizes:
    node → (argument, its new value from a `Count`).
    """

    def __init__(self, graph: Any, state: dict[str, Tensor], places: dict[str, Any], added: dict[Any, str]) -> None:
        self.state, self.added = state, added
        self.flows: dict[Any, Flow] = {}
        self.made: dict[str, Tensor] = {}
        self.weight_of: dict[str, str] = {}
        self.rows: dict[tuple[str, int], Tensor] = {}
        self.reads: list[Read] = []
        self.resizes: dict[Any, tuple[int, Callable[[Count], Any]]] = {}
        self._frozen: set[int] = set()
        self._parent: list[int] = []
        self._users = _users(graph, places)
        for node in graph.graph.nodes:
            if node.op == "call_module" and node.target == "_guards_fn":
                continue
            flow = self._through(node) if node.op == "call_function" else None
            if flow is None:
                for source in node.all_input_nodes:
                    self._freeze(self.flows.get(source))
            else:
                self.flows[node] = flow

    # Numbers, and which go only together.

    def _number(self, n: int) -> Tensor:
        start = len(self._parent)
        self._parent += range(start, start + n)
        return torch.arange(start, start + n)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _tie(self, a: Tensor, b: Tensor) -> None:
        for i, j in zip(a.tolist(), b.tolist()):
            self._parent[self._root(i)] = self._root(j)

    def _freeze(self, flow: Flow | None) -> None:
        if flow is not None:
            self._frozen |= set(flow.ids.tolist())

    def companions(self, i: int) -> set[int]:
        """All numbers that go only together with i."""
        return {j for j in range(len(self._parent)) if self._root(j) == self._root(i)}

    def removable(self) -> set[int]:
        """Numbers that are read by nothing which would notice, nor is any of their companions."""
        stay = {self._root(i) for i in self._frozen}
        for read in self.reads:
            stay |= {self._root(i) for i in read.flow.ids[~read.free].tolist()}
        return {i for i in range(len(self._parent)) if self._root(i) not in stay}

    # The operations.

    def _through(self, node: Any) -> Flow | None:
        """The flow of what `node` computes; None: not understood."""
        op, args = node.target, node.args
        if op is aten.linear.default:
            return self._linear(node, *args)
        if op in CONVOLUTIONS:
            return self._convolution(node)
        if op is aten.cat.default:
            return self._cat(args)
        flows = [self.flows.get(a) for a in args if hasattr(a, "op") and a.op != "get_attr"]
        x = flows[0] if flows else None
        if x is None:
            return None
        if op in HEADS or x.width > 1:
            return self._heads(node, x, flows)
        if op is aten.batch_norm.default:
            return self._batch_norm(x, *args)
        if op in ELEMENTWISE or op in SUMS and len(node.all_input_nodes) == 1:
            return self._each(node, x)
        if op in SUMS:
            return self._sum(node, flows)
        if op in POOLS:
            return x
        if op in AVERAGES:
            padded = len(args) > 3 and any(args[3])
            return Flow(x.dim, x.ids, x.constant & (x.value == 0) if padded else x.constant, x.value)
        if op is aten.mean.dim:
            return _mean(x, *args[1:])
        if op in RESHAPES:
            return self._flatten(node, x)
        if op in (aten.pad.default, aten.constant_pad_nd.default):
            return self._pad(node, x)
        return None

    def _only(self, *nodes: Any) -> bool:
        """Whether these weights are used here alone (None: there is none)."""
        return all(n is None or n.op == "get_attr" and self._users[n.target] == 1 for n in nodes)

    def _units(self, node: Any, weight: str, bias: Any, dim: int, constant: Tensor, value: Tensor) -> Flow:
        ids = self._number(len(constant))
        layer = weight.rpartition(".")[0] or weight
        self.made[layer], self.weight_of[layer] = ids, weight
        self.rows[weight, 0] = ids
        name = self._bias(node, bias)
        if name is not None:
            self.rows[name, 0] = ids
            value = value + self.state[name].double().cpu()
        return Flow(dim, ids, constant, value)

    def _bias(self, node: Any, bias: Any) -> str | None:
        return bias.target if bias is not None else self.added.get(node)

    def _linear(self, node: Any, x: Any, weight: Any, bias: Any = None) -> Flow | None:
        if not self._only(weight, bias):
            return None
        w, flow = self.state[weight.target].double().cpu(), self.flows.get(x)
        last = node.meta["val"].ndim - 1
        if flow is not None and flow.dim != last:
            return None
        constant, value = self._read(node, weight.target, bias, w, flow, padded=False)
        return self._units(node, weight.target, bias, last, constant, value)

    def _read(
        self, node: Any, weight: str, bias: Any, w: Tensor, flow: Flow | None, padded: bool
    ) -> tuple[Tensor, Tensor]:
        """Note who reads what; which outputs are constants, and their values without the bias."""
        used = (w != 0).flatten(2).any(2) if w.ndim > 2 else w != 0
        if flow is None:
            return ~used.any(1), torch.zeros(len(w), dtype=torch.float64)
        foldable = flow.constant & (flow.value == 0) if padded else flow.constant
        self.reads.append(Read(node, weight, self._bias(node, bias), flow, foldable | ~used.any(0)))
        self.rows[weight, 1] = flow.ids
        total = w.flatten(2).sum(2) if w.ndim > 2 else w
        return ~(used & ~foldable).any(1), total @ torch.where(foldable, flow.value, 0.0)

    def _convolution(self, node: Any) -> Flow | None:
        x, weight, bias, _, padding, _, groups = _filled(node, (None, None, None, 1, 0, 1, 1))
        if not self._only(weight, bias):
            return None
        w, flow = self.state[weight.target].double().cpu(), self.flows.get(x)
        padded = padding != "valid" if isinstance(padding, str) else any(_many(padding))
        if groups == 1:
            constant, value = self._read(node, weight.target, bias, w, flow, padded)
            return self._units(node, weight.target, bias, 1, constant, value)
        if flow is None or not groups == len(w) == len(flow.ids):
            return None
        foldable = flow.constant & (flow.value == 0) if padded else flow.constant
        dead = ~(w != 0).flatten(1).any(1)
        value = w.flatten(1).sum(1) * torch.where(foldable, flow.value, 0.0)
        made = self._units(node, weight.target, bias, 1, foldable | dead, value)
        self._tie(made.ids, flow.ids)
        if len(node.args) > 6:
            self.resizes[node] = 6, lambda count: count(made.ids)
        return made

    def _batch_norm(self, x: Flow, _: Any, gain: Any, offset: Any, mean: Any, var: Any, training: bool, *rest: Any
                    ) -> Flow | None:  # fmt: skip
        if training or mean is None or not self._only(gain, offset, mean, var):
            return None
        parts = [None if n is None else self.state[n.target].double().cpu() for n in (gain, offset, mean, var)]
        for n in (gain, offset, mean, var):
            if n is not None:
                self.rows[n.target, 0] = x.ids
        assert parts[2] is not None and parts[3] is not None
        value = (x.value - parts[2]) / (parts[3] + rest[1]).sqrt()
        value = value if parts[0] is None else value * parts[0]
        return Flow(x.dim, x.ids, x.constant, value if parts[1] is None else value + parts[1])

    def _each(self, node: Any, x: Flow) -> Flow:
        args = [x.value if hasattr(a, "op") else a for a in node.args]
        kwargs = {k: v for k, v in node.kwargs.items() if k != "memory_format"}
        return Flow(x.dim, x.ids, x.constant, node.target(*args, **kwargs))

    def _sum(self, node: Any, flows: list[Flow | None]) -> Flow | None:
        """Two tensors entry by entry: a channel of one goes only with that of the other."""
        a, b = flows if len(flows) == 2 else (None, None)
        if a is None or b is None:
            return None
        ranks = {n.meta["val"].ndim for n in node.all_input_nodes}
        if a.dim != b.dim or len(a.ids) != len(b.ids) or len(ranks) != 1:
            return None
        self._tie(a.ids, b.ids)
        both = a.constant & b.constant
        return Flow(a.dim, a.ids, both, node.target(a.value, b.value, **node.kwargs))

    def _flatten(self, node: Any, x: Flow) -> Flow | None:
        """[B,C,…] → [B,C·…], or shapes of which only the axes before and at the channels matter."""
        source, target = node.args[0].meta["val"].shape, node.meta["val"].shape
        if x.dim == len(source) - 1 and len(target) > 2 and target[-2] * target[-1] == source[-1]:
            return self._split_heads(node, x, int(target[-1]))
        if x.dim == len(source) - 1 and len(target) and target[-1] == source[-1]:
            self._relabel(node, len(target) - 1, x.ids)
            return Flow(len(target) - 1, x.ids, x.constant, x.value)
        rest = math.prod(source[2:]) if x.dim == 1 else 0
        if x.dim != 1 or len(target) != 2 or target[1] != len(x.ids) * rest:
            return None
        flow = x.at(torch.arange(len(x.ids)).repeat_interleave(int(rest)))
        self._relabel(node, 1, flow.ids)
        return flow

    def _relabel(self, node: Any, dim: int, ids: Tensor) -> None:
        if node.target is not aten.flatten.using_ints:
            shape = list(node.args[1])
            self.resizes[node] = 1, lambda count: [*shape[:dim], count(ids), *shape[dim + 1 :]]

    def _split_heads(self, node: Any, x: Flow, width: int) -> Flow:
        """[…, H·w] → […, H, w]: the channels of a head go only together."""
        heads = x.ids.view(-1, width)
        for column in range(1, width):
            self._tie(heads[:, 0], heads[:, column])
        last = node.meta["val"].ndim - 1
        if node.target is aten.unflatten.int:
            self.resizes[node] = 2, lambda count: [count(x.ids) // width, width]
        else:
            shape = list(node.args[1])
            self.resizes[node] = 1, lambda count: [*shape[: last - 1], count(x.ids) // width, width]
        return Flow(last - 1, x.ids, x.constant, x.value, width)

    def _heads(self, node: Any, x: Flow, flows: list[Flow | None]) -> Flow | None:
        """Attention over heads, and the shapes before and after it."""
        op, last = node.target, node.meta["val"].ndim - 1
        if op is aten.unflatten.int and x.width == 1 and x.dim == last - 1 and len(node.args[2]) == 2:
            return self._split_heads(node, x, int(node.args[2][1]))
        if op in (aten.transpose.int, aten.permute.default):
            order = list(range(last + 1))
            if op is aten.transpose.int:
                a, b = (axis % (last + 1) for axis in node.args[1:3])
                order[a], order[b] = order[b], order[a]
            else:
                order = [axis % (last + 1) for axis in node.args[1]]
            if x.width > 1 and order[last] != last:
                return None
            return Flow(order.index(x.dim), x.ids, x.constant, x.value, x.width)
        if op is aten.scaled_dot_product_attention.default:
            q, k, v = (self.flows.get(a) for a in node.args[:3])
            if q is None or k is None or v is None or len({(f.dim, f.width, len(f.ids)) for f in (q, k, v)}) != 1:
                return None
            if v.width == 1 or v.dim >= last - 1 or len(node.args) > 4 and node.args[4]:
                return None
            self._tie(q.ids, v.ids)
            self._tie(k.ids, v.ids)
            return v  # the weights of a mean: a constant stays one
        if op in (aten.contiguous.default, aten.clone.default):
            return x
        target = node.meta["val"].shape
        if op in RESHAPES and x.dim == node.args[0].meta["val"].ndim - 2 and target[-1] == len(x.ids):
            self._relabel(node, last, x.ids)
            return Flow(last, x.ids, x.constant, x.value)
        return None

    def _cat(self, args: Any) -> Flow | None:
        flows = [self.flows.get(a) for a in args[0]]
        dim = args[1] if len(args) > 1 else 0
        known = [f for f in flows if f is not None]
        if len(known) < len(flows) or any(f.dim != dim for f in known):
            for flow in known:
                self._freeze(flow)
            return None
        ids, constant, value = (torch.cat([getattr(f, part) for f in known]) for part in ("ids", "constant", "value"))
        return Flow(dim, ids, constant, value)

    def _pad(self, node: Any, x: Flow) -> Flow | None:
        """Zeros (or copies) around positions, or further channels of a constant."""
        _, widths, *rest = node.args
        mode = rest[0] if node.target is aten.pad.default and rest else "constant"
        fill = (rest[-1] if rest and not isinstance(rest[-1], str) else 0.0) or 0.0
        back = node.meta["val"].ndim - 1 - x.dim
        pairs = [tuple(widths[i : i + 2]) for i in range(0, len(widths), 2)]
        before, after = pairs[back] if back < len(pairs) else (0, 0)
        around = any(any(pair) for i, pair in enumerate(pairs) if i != back)
        if mode != "constant":
            return None if before or after else x
        constant = x.constant & (x.value == fill) if around else x.constant
        if not before and not after:
            return Flow(x.dim, x.ids, constant, x.value)
        if min(before, after) < 0 or around and fill:
            return None
        left, right = self._number(before), self._number(after)
        made = [torch.ones(n, dtype=torch.bool) for n in (before, after)]
        filled = [torch.full((n,), float(fill), dtype=torch.float64) for n in (before, after)]
        at = 2 * back
        self.resizes[node] = 1, lambda count: [*widths[:at], count(left), count(right), *widths[at + 2 :]]
        return Flow(x.dim, torch.cat([left, x.ids, right]), torch.cat([made[0], constant, made[1]]),
                    torch.cat([filled[0], x.value, filled[1]]))  # fmt: skip


def _mean(x: Flow, dims: Any, keep: bool = False, **_: Any) -> Flow | None:
    """A mean over positions."""
    dims = [int(d) for d in dims]
    if any(d < 0 for d in dims):
        return None if len(dims) != 2 or sorted(dims) != [-2, -1] or x.dim != 1 else Flow(
            1, x.ids, x.constant, x.value)  # fmt: skip
    if x.dim in dims:
        return None
    return Flow(x.dim - (0 if keep else sum(d < x.dim for d in dims)), x.ids, x.constant, x.value)


def _users(graph: Any, places: dict[str, Any]) -> dict[str, int]:
    """How many operations use each tensor, under whatever name."""
    counts: dict[Any, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            counts[places[node.target]] = counts.get(places[node.target], 0) + len(node.users)
    return {name: counts[place] for name, place in places.items()}


def _filled(node: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*node.args, *defaults[len(node.args) :])


def _many(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
