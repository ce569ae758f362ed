"""Several copies of one multi-layer perceptron, evaluated and trained in one pass.

    h_{l+1}[m] = f(s_l (h_l[m] W_l[m] + b_l[m])),   m = 1 … M, one `baddbmm` a layer

Small nets are bound by the overhead of each operation, not by arithmetic: on one thread, five copies of width 64 cost
less than twice one at 128 rows, three to four times one at 512, and nearly five times beyond 2,000.  Copies share
nothing: with a loss that is a sum over copies, the gradient of each is that of a net trained alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.derivatives import ELEMENTWISE, Jet, begin, finish, propagate_activation, propagate_linear

# (weight [out,in] of one copy as in nn.Linear, or bias [out]; fan_in; layer from 0; generator) -> filled in place
Init = Callable[[Tensor, int, int, torch.Generator], object]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "tanh": torch.tanh, "sine": torch.sin, "sigmoid": torch.sigmoid, "softplus": F.softplus,
    "silu": F.silu, "gelu": F.gelu, "elu": F.elu, "leaky_relu": F.leaky_relu, "identity": lambda x: x,
}  # fmt: skip
MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Softplus: "softplus", nn.SiLU: "silu", nn.GELU: "gelu",
    nn.ELU: "elu", nn.LeakyReLU: "leaky_relu",
}  # fmt: skip


CACHED = 2**18  # values of a layer, all copies: with more, one copy after another keeps to a CPU core's cache


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a seed, on the CPU."""
    return [torch.Generator().manual_seed(s) for s in seeds]


class StackedLinear(nn.Module):
    """M linear layers: weight [M,in,out], bias [M,1,out]; y = scale · (x W + b).

    `init` fills the weights of each copy: "torch" as `nn.Linear` does, "orthogonal", "kaiming" (normal, for ReLU), or a
    callable (see `Init`); it gets the copy's weight as a contiguous [out,in], so that the numbers drawn are those of a
    single `nn.Linear`.  `bias_init`: "torch" (uniform in ±1/√in), "zeros", a callable, or None: zeros beside
    "orthogonal" and "kaiming", else "torch".  Copy m draws from `generators[m]` (default: seed m), weight first.
    """

    def __init__(
        self, copies: int, d_in: int, d_out: int, *, bias: bool = True, scale: float | int = 1,
        init: str | Init = "torch", bias_init: str | Init | None = None,
        generators: Sequence[torch.Generator] | None = None, layer: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.copies, self.d_in, self.d_out, self.scale = copies, d_in, d_out, scale
        self.weight = nn.Parameter(torch.empty(copies, d_in, d_out))
        self.bias = nn.Parameter(torch.empty(copies, 1, d_out)) if bias else None
        self.reset(init, bias_init, _per_copy(generators, copies), layer)

    @torch.no_grad()
    def reset(
        self, init: str | Init, bias_init: str | Init | None, generators: Sequence[torch.Generator], layer: int = 0
    ) -> None:
        """Draw all weights anew, on the CPU, as the constructor does."""
        if bias_init is None:
            bias_init = "zeros" if init in ("orthogonal", "kaiming") else "torch"
        fill, fill_bias = _weight_init(init), _bias_init(bias_init)
        weight, bias = torch.empty(self.d_out, self.d_in), torch.empty(self.d_out)
        for m, generator in enumerate(generators):
            fill(weight, self.d_in, layer, generator)
            self.weight[m] = weight.T
            if self.bias is not None:
                fill_bias(bias, self.d_in, layer, generator)
                self.bias[m, 0] = bias

    def forward(self, x: Float[Tensor, "*copies n d_in"]) -> Float[Tensor, "m n d_out"]:
        """x [M,N,in], or [N,in] for all copies alike."""
        if x.ndim == 2:
            x = x.expand(self.copies, *x.shape)
        if self.bias is None:
            return torch.bmm(x, self.weight) if self.scale == 1 else torch.bmm(x, self.weight) * self.scale
        return torch.baddbmm(self.bias, x, self.weight, beta=self.scale, alpha=self.scale)

    @torch.no_grad()
    def put(self, m: int, single: nn.Linear) -> None:
        """Copy a single layer's values into copy m."""
        self.weight[m] = single.weight.T
        if self.bias is not None:
            self.bias[m, 0] = single.bias

    @torch.no_grad()
    def take(self, m: int) -> nn.Linear:
        """Copy m as a single layer, the scale multiplied in."""
        like = {"dtype": self.weight.dtype, "device": self.weight.device}
        single: nn.Linear = nn.utils.skip_init(nn.Linear, self.d_in, self.d_out, bias=self.bias is not None, **like)
        single.weight.copy_(self.weight[m].T * self.scale)
        if self.bias is not None:
            single.bias.copy_(self.bias[m, 0] * self.scale)
        return single

    def extra_repr(self) -> str:
        return f"{self.copies} × ({self.d_in} → {self.d_out}), scale={self.scale:g}"


class StackedLayerNorm(nn.Module):
    """Layer norm over the last axis with each copy's own gain and offset [M,1,width]."""

    def __init__(self, copies: int, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(copies, 1, width))
        self.bias = nn.Parameter(torch.zeros(copies, 1, width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "m n w"]) -> Float[Tensor, "m n w"]:
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:], eps=self.eps), self.weight)

    @torch.no_grad()
    def put(self, m: int, single: nn.LayerNorm) -> None:
        """Copy a single layer norm's values into copy m."""
        self.weight[m, 0], self.bias[m, 0], self.eps = single.weight, single.bias, single.eps

    @torch.no_grad()
    def take(self, m: int) -> nn.LayerNorm:
        """Copy m as a single layer norm."""
        single = nn.LayerNorm(self.weight.shape[-1], eps=self.eps).to(self.weight)
        single.weight.copy_(self.weight[m, 0])
        single.bias.copy_(self.bias[m, 0])
        return single


class StackedMLP(nn.Module):
    """M perceptrons of layer sizes `sizes`: x [M,N,d], or shared [N,d], to [M,N,o]; linear last layer.

    `activation` is a name of `ACTIVATIONS` or a function; `layer_norm` normalises before each activation.  `scale`
    multiplies each layer's pre-activation (a number for all but the last layer, or one a layer): sin(ω(Wx + b)) is
    `activation="sine", scale=omega`, at no cost.  `init`, `bias_init`, `generators`: see `StackedLinear`; with the
    default `init`, copy m has the weights that a chain of `nn.Linear` gets after `torch.manual_seed(m)`.
    """

    def __init__(
        self, copies: int, sizes: Sequence[int], activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm: bool = False, init: str | Init = "torch", *, bias_init: str | Init | None = None,
        scale: float | int | Sequence[float | int] = 1, generators: Sequence[torch.Generator] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes must name at least the input and the output, got {list(sizes)}")
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)} or a function, got {activation!r}")
        depth = len(sizes) - 1
        scales = [scale] * (depth - 1) + [1] if isinstance(scale, int | float) else list(scale)
        if len(scales) != depth:
            raise ValueError(f"scale must be a number or one for each of the {depth} layers, got {len(scales)}")
        draw = _per_copy(generators, copies)
        self.copies, self.sizes, self.activation = copies, tuple(sizes), activation
        self.layers: Sequence[StackedLinear] = nn.ModuleList(  # type: ignore[assignment]
            StackedLinear(copies, a, b, scale=s, init=init, bias_init=bias_init, generators=draw, layer=i)
            for i, (a, b, s) in enumerate(zip(sizes[:-1], sizes[1:], scales))
        )
        self.norms: Sequence[StackedLayerNorm] = nn.ModuleList(  # type: ignore[assignment]
            StackedLayerNorm(copies, width) for width in sizes[1:-1] if layer_norm
        )

    def forward(self, x: Float[Tensor, "*copies n d"]) -> Float[Tensor, "m n o"]:
        f = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        if x.device.type == "cpu" and self.copies * x.shape[-2] * max(self.sizes) > CACHED:
            return self._in_turn(x, f)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = f(self.norms[i](x) if self.norms else x)
        return x

    def _in_turn(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        weights = [layer.weight.unbind() for layer in self.layers]
        biases = [layer.bias.unbind() for layer in self.layers if layer.bias is not None]
        affine = [(norm.weight.unbind(), norm.bias.unbind()) for norm in self.norms]
        outputs = []
        for m in range(self.copies):
            h = x if x.ndim == 2 else x[m]
            for i, layer in enumerate(self.layers):
                h = torch.addmm(biases[i][m], h, weights[i][m], beta=layer.scale, alpha=layer.scale)
                if i < len(self.layers) - 1:
                    if affine:
                        gain, offset = affine[i]
                        h = F.layer_norm(h, h.shape[-1:], gain[m][0], offset[m][0], self.norms[i].eps)
                    h = f(h)
            outputs.append(h)
        return torch.stack(outputs)

    def jet(self, x: Float[Tensor, "*copies n d"], order: int, laplacian_only: bool = False) -> Jet:
        """Value and derivatives of all copies (see `precis.nn.derivatives.jet`), M as the leading axis.

        Raises ValueError with layer norm, or for an activation whose derivatives are not in `ELEMENTWISE`.
        """
        f = ELEMENTWISE.get(self.activation) if isinstance(self.activation, str) else None
        if f is None or self.norms:
            raise ValueError(f"a jet needs no layer norm and an activation among {', '.join(ELEMENTWISE)}")
        streams = begin(x, order, laplacian_only)
        for i, layer in enumerate(self.layers):
            streams = propagate_linear(layer.weight, layer.bias, streams, layer.scale)
            if i < len(self.layers) - 1:
                streams = propagate_activation(f, streams)
        return finish(streams)

    @classmethod
    def from_modules(cls, modules: Sequence[nn.Module]) -> "StackedMLP":
        """Stack perceptrons of one shape: chains of Linear (with bias), activation modules, and LayerNorm before each
        activation or not at all.  Values are copied.  Raises ValueError where a module is no such chain.
        """
        chains = [_chain(module) for module in modules]
        linear, norms, activation = chains[0]
        sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
        for i, (other, _, _) in enumerate(chains):
            if [(a.in_features, a.out_features) for a in other] != list(zip(sizes[:-1], sizes[1:])):
                raise ValueError(f"module {i} has other layer sizes than the first ({sizes})")
        stack = cls(len(modules), sizes, activation, bool(norms)).to(linear[0].weight)
        for m, chain in enumerate(chains):
            for layer, single in zip(stack.layers, chain[0]):
                layer.put(m, single)
            for norm, single_norm in zip(stack.norms, chain[1]):
                norm.put(m, single_norm)
        return stack

    def to_modules(self) -> list[nn.Sequential]:
        """The copies as M chains of torch's own layers, values copied; a scale is multiplied into the weights."""
        singles = []
        for m in range(self.copies):
            chain: list[nn.Module] = [self.layers[0].take(m)]
            for i, layer in enumerate(self.layers[1:]):
                chain += [self.norms[i].take(m)] if self.norms else []
                chain += [_module(self.activation), layer.take(m)]
            singles.append(nn.Sequential(*chain))
        return singles


class Elementwise(nn.Module):
    """An activation that torch has no module for."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def _module(activation: str | Callable[[Tensor], Tensor]) -> nn.Module:
    for kind, name in MODULES.items():
        if name == activation:
            return kind()
    return Elementwise(ACTIVATIONS[activation] if isinstance(activation, str) else activation)


def _chain(module: nn.Module) -> tuple[list[nn.Linear], list[nn.LayerNorm], "str | Callable[[Tensor], Tensor]"]:
    """Linear layers, layer norms and the one activation of a perceptron, from its childless modules in order."""
    leaves = [leaf for leaf in module.modules() if not list(leaf.children()) and not isinstance(leaf, nn.Identity)]
    linear = [leaf for leaf in leaves if isinstance(leaf, nn.Linear)]
    norms = [leaf for leaf in leaves if isinstance(leaf, nn.LayerNorm)]
    between = [leaf for leaf in leaves if not isinstance(leaf, nn.Linear | nn.LayerNorm)]
    hidden = len(linear) - 1
    pattern = [nn.Linear, nn.LayerNorm, None] if norms else [nn.Linear, None]
    expected = pattern * hidden + [nn.Linear]
    same = len(leaves) == len(expected) and all(
        isinstance(leaf, kind) if kind else leaf in between for leaf, kind in zip(leaves, expected)
    )
    if not linear or not same or len({repr(leaf) for leaf in between}) > 1 or any(a.bias is None for a in linear):
        raise ValueError(f"not a chain of Linear [LayerNorm] activation … Linear with biases: {module}")
    if any(list(leaf.parameters()) for leaf in between):
        raise ValueError(f"an activation with parameters of its own cannot be stacked: {between[0]}")
    if not between:
        return linear, norms, "identity"
    name = MODULES.get(type(between[0]))
    if name is None or repr(between[0]) != repr(type(between[0])()):  # not as torch makes it by default
        return linear, norms, between[0]
    return linear, norms, name


def _per_copy(given: Sequence[torch.Generator] | None, copies: int) -> Sequence[torch.Generator]:
    given = generators(range(copies)) if given is None else given
    if len(given) != copies:
        raise ValueError(f"{copies} copies need as many generators, got {len(given)}")
    return given


def _weight_init(init: str | Init) -> Init:
    if not isinstance(init, str):
        return init
    if init == "torch":
        return lambda w, fan_in, layer, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g)
    if init == "kaiming":
        return lambda w, fan_in, layer, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g)
    if init == "orthogonal":
        return lambda w, fan_in, layer, g: nn.init.orthogonal_(w, generator=g)
    raise ValueError(f'init must be "torch", "orthogonal", "kaiming" or a function, got {init!r}')


def _bias_init(init: str | Init) -> Init:
    if not isinstance(init, str):
        return init
    if init == "zeros":
        return lambda b, fan_in, layer, g: b.zero_()
    if init == "torch":
        return lambda b, fan_in, layer, g: b.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=g)
    raise ValueError(f'bias_init must be "torch", "zeros" or a function, got {init!r}')
