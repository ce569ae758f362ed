"""Coordinate networks: SIREN, and the perceptrons that it is compared with.

    Φ(x) = W_n (φ_{n−1} ∘ … ∘ φ_0)(x) + b_n,    φ_i(h) = sin(ω_i (W_i h + b_i))

Weights of the first layer are U(±1/d_in), all others, the linear last layer included, U(±√(6/n)/ω); biases keep the
framework's U(±1/√n).  With that the pre-activations are alike in every layer.  ω multiplies the bias too, and the first
layer's bounds are those of the released code (the formula printed in the paper is wrong; its author confirms the code).
Sitzmann, Martel, Bergman, Lindell, Wetzstein, NeurIPS 2020, §3 (arXiv 2006.09661).

Do not run these nets in half precision or TF32: sin(30 z) turns a rounding error of 2⁻⁸ in z into 0.1 rad.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.siren_jet import ACTIVATIONS, net_jet
from precis.nn.derivatives import Jet
from precis.nn.stacked import Init, StackedLinear

Number = float | int


class ScaledLinear(nn.Linear):
    """y = scale · (W x + b); the scale rides in the matrix product and costs nothing."""

    def __init__(self, d_in: int, d_out: int, scale: Number = 1.0) -> None:
        super().__init__(d_in, d_out, device="meta")  # so that nothing is drawn from the global generator
        self.scale = scale
        self.to_empty(device="cpu")

    def forward(self, x: Float[Tensor, "*n d_in"]) -> Float[Tensor, "*n d_out"]:
        out = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight.T, beta=self.scale, alpha=self.scale)
        return out.view(*x.shape[:-1], self.out_features) if x.ndim != 2 else out


class _Field(nn.Module):
    """`hidden_layers` counts hidden-to-hidden layers, as the paper does: 3 means five weight layers in all."""

    encoding: Any
    layers: Any

    def __init__(
        self, copies: int | None, in_dim: int, out_dim: int, width: int, hidden_layers: int, activation: str,
        encoding: nn.Module | None, omega: Number, first_omega: Number, outermost_linear: bool,
        generators: Sequence[torch.Generator | None] | None,
    ) -> None:  # fmt: skip
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if min(in_dim, out_dim, width) < 1 or hidden_layers < 0:
            raise ValueError("in_dim, out_dim and width must be at least 1, hidden_layers at least 0")
        self.copies, self.in_dim, self.out_dim, self.width = copies, in_dim, out_dim, width
        self.hidden_layers, self.activation, self.encoding = hidden_layers, activation, encoding
        omega, first_omega = float(omega), float(first_omega)
        self.omega, self.first_omega, self.outermost_linear = omega, first_omega, outermost_linear
        features: int = in_dim if encoding is None else self.encoding.out_dim
        sizes = [features, *[width] * (hidden_layers + 1), out_dim]
        sine = activation == "sine"
        scales = [first_omega, *[omega] * hidden_layers, 1.0 if outermost_linear else omega] if sine else []
        init = sine_init(omega) if sine else xavier_normal if activation == "tanh" else "kaiming"
        self.layers = nn.ModuleList()
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
            scale = scales[i] if sine else 1.0
            if copies is not None:
                options: dict[str, Any] = dict(scale=scale, init=init, generators=generators, layer=i)
                self.layers.append(StackedLinear(copies, a, b, bias_init="torch", **options))
            else:
                self.layers.append(_single(a, b, scale, init, i, generators[0] if generators else None))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*out o"]:
        f = ACTIVATIONS[self.activation]
        h = x if self.encoding is None else self.encoding(x)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i < last or not self.outermost_linear:
                h = f(h, 0)[0]
        return h

    def jet(
        self, x: Float[Tensor, "*batch d"], order: int, laplacian_only: bool = False, *,
        weights: Float[Tensor, "*w d"] | None = None, higher: bool = False,
    ) -> Jet:  # fmt: skip
        """Value and derivatives with respect to x, ready for a loss; works under `torch.no_grad()` too.

        weights: with `laplacian_only`, Σ_a weights_a ∂²_a in place of the Laplacian, weights [d] or [N,d].
        higher: the result itself is to be differentiated more than once (slower).
        """
        return net_jet(self, x, order, laplacian_only, weights=weights, higher=higher)

    def extra_repr(self) -> str:
        copies = "" if self.copies is None else f"{self.copies} × "
        omega = f", omega={self.omega:g}, first_omega={self.first_omega:g}" if self.activation == "sine" else ""
        return f"{copies}{self.activation}, width={self.width}, hidden_layers={self.hidden_layers}{omega}"


class CoordinateMLP(_Field):
    """A perceptron on coordinates x [..., in_dim], after an encoding if one is given, to [..., out_dim].

    activation: "relu" and "softplus" (Kaiming normal weights), "tanh" (Xavier normal), "sine" (SIREN's).  The paper's
    baselines: ReLU; tanh; ReLU with `FrequencyEncoding(d, bands, scale=math.pi)`; ReLU with `RadialBasis(d, 1024)`.
    """

    def __init__(
        self, in_dim: int, out_dim: int, width: int = 256, hidden_layers: int = 3, activation: str = "relu",
        encoding: nn.Module | None = None, *, omega: Number = 30.0, first_omega: Number = 30.0,
        outermost_linear: bool = True, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            None, in_dim, out_dim, width, hidden_layers, activation, encoding, omega, first_omega, outermost_linear,
            [generator],
        )  # fmt: skip


class Siren(CoordinateMLP):
    """SIREN: x [..., in_dim] in [-1, 1] to [..., out_dim].

    omega: ω of the hidden layers; first_omega: of the first, which sets the band of the signal (3000 for audio on
    [-1, 1]).  Changing ω changes the weights' bounds with it.
    """

    def __init__(
        self, in_dim: int, out_dim: int, width: int = 256, hidden_layers: int = 3, omega: Number = 30.0,
        first_omega: Number = 30.0, outermost_linear: bool = True, *, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_dim, out_dim, width, hidden_layers, "sine", omega=omega, first_omega=first_omega,
            outermost_linear=outermost_linear, generator=generator,
        )  # fmt: skip


class StackedCoordinateMLP(_Field):
    """`copies` nets in one pass: x [M,N,d], or [N,d] for all alike, to [M,N,o].

    Copy m has the weights of a single net made with `generators[m]` (default: seed m).  An encoding with parameters is
    made for as many copies (`RadialBasis(..., generators=…)`).
    """

    copies: int

    def __init__(
        self, copies: int, in_dim: int, out_dim: int, width: int = 256, hidden_layers: int = 3,
        activation: str = "relu", encoding: nn.Module | None = None, *, omega: Number = 30.0,
        first_omega: Number = 30.0, outermost_linear: bool = True,
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:  # fmt: skip
        if generators is None:
            generators = [torch.Generator().manual_seed(m) for m in range(copies)]
        super().__init__(
            copies, in_dim, out_dim, width, hidden_layers, activation, encoding, omega, first_omega, outermost_linear,
            generators,
        )  # fmt: skip

    def copy(self, m: int) -> CoordinateMLP:
        """Copy m as a net of its own (values copied)."""
        encoding = self.encoding.copy(m) if hasattr(self.encoding, "copy") else self.encoding
        options: dict[str, Any] = dict(omega=self.omega, first_omega=self.first_omega)
        options["outermost_linear"] = self.outermost_linear
        sizes = (self.in_dim, self.out_dim, self.width, self.hidden_layers)
        if isinstance(self, StackedSiren):
            net: CoordinateMLP = Siren(*sizes, **options)
        else:
            net = CoordinateMLP(*sizes, self.activation, encoding, **options)
        net.to(self.layers[0].weight)
        with torch.no_grad():
            for layer, stack in zip(net.layers, self.layers):
                layer.weight.copy_(stack.weight[m].T)
                layer.bias.copy_(stack.bias[m, 0])
        return net


class StackedSiren(StackedCoordinateMLP):
    """Several SIRENs (seeds, ω kept alike) in one pass; see `StackedCoordinateMLP`."""

    def __init__(
        self, copies: int, in_dim: int, out_dim: int, width: int = 256, hidden_layers: int = 3, omega: Number = 30.0,
        first_omega: Number = 30.0, outermost_linear: bool = True, *,
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            copies, in_dim, out_dim, width, hidden_layers, "sine", omega=omega, first_omega=first_omega,
            outermost_linear=outermost_linear, generators=generators,
        )  # fmt: skip


def sine_init(omega: Number = 30.0) -> Init:
    """SIREN's weights: U(±1/fan_in) in layer 0, U(±√(6/fan_in)/ω) in all others."""

    def fill(weight: Tensor, fan_in: int, layer: int, generator: torch.Generator | None) -> Tensor:
        bound = 1 / fan_in if layer == 0 else math.sqrt(6 / fan_in) / omega
        return weight.uniform_(-bound, bound, generator=generator)

    return fill


def xavier_normal(weight: Tensor, fan_in: int, layer: int, generator: torch.Generator | None) -> Tensor:
    """N(0, 2/(fan_in + fan_out))."""
    return weight.normal_(0, math.sqrt(2 / sum(weight.shape)), generator=generator)


@torch.no_grad()
def _single(
    a: int, b: int, scale: Number, init: Any, layer: int, generator: torch.Generator | None
) -> ScaledLinear:  # fmt: skip
    linear = ScaledLinear(a, b, scale)
    if init == "kaiming":
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=generator)
    else:
        init(linear.weight, a, layer, generator)
    linear.bias.uniform_(-1 / math.sqrt(a), 1 / math.sqrt(a), generator=generator)
    return linear
