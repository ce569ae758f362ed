"""Claims about equations: a boundary value problem, and the derivatives of sine layers in closed form."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from precis.fields.encoding import FrequencyEncoding, nyquist_bands
from precis.fields.siren import Siren, StackedCoordinateMLP
from precis.fields.siren_fit import losses, train
from precis.lab.claim import Claim, Metrics, Profile, Recorder, Tuning
from precis.lab.hypotheses import AtMost, Exact, Less
from precis.train.schedule import cosine

from .arms import RATES, matched_width
from .crops import TUNING


@dataclass(frozen=True)
class Oscillation:
    """u'' + k² u = 0 on [−1, 1] at so many points; tuning solves it for `pilot_wavenumber`.  decay: of the rate."""

    steps: int
    points: int = 256
    wavenumber: float = 15.0
    pilot_wavenumber: float = 13.0
    width: int = 64
    boundary: float = 100.0
    decay: bool = False


class BoundaryValue(Claim):
    """u'' + k² u = 0, u(±1) = cos k, k = 15, whose one solution is cos kx (k is no multiple of π/2).

        mean (u''/k² + u)² + 100 Σ_± (u(±1) − cos k)²

    The metric is the logarithm of ‖u − cos kx‖/‖cos kx‖ on four times as many points; the zero function scores 0.
    Margin ln 2: half the error.  "Solves" is an error of at most one half.  The rate is tuned on k = 13; at `full` it
    falls as a cosine in every arm, since at a constant one losses with second derivatives may run away.  The broken arm
    has the residual switched off: boundary values alone.  A plain ReLU network has u'' = 0 wherever it is defined, so
    all it can do is to be zero inside.
    """

    name = "boundary_value"
    statement = "Constraints on derivatives alone solve a boundary value problem, and a sine network solves it best."
    arms = ("siren", "relu", "relu_pe")
    sabotaged = {"boundary_only": "siren"}
    by_arm = True
    tuning = Tuning({"lr": RATES}, "log_error", maximise=False)
    profiles = {
        "smoke": Profile(Oscillation(10, points=64), seeds=2, scale="k = 15, 64 points, width 64, 10 steps"),
        "quick": Profile(Oscillation(400), scale="k = 15, 256 points, width 64, 400 steps"),
        "full": Profile(Oscillation(6000, decay=True), scale="k = 15, 256 points, width 64, 6,000 steps"),
    }  # fmt: skip
    hypotheses = (
        Less("log_error", "siren", "relu", by=math.log(2)),
        Less("log_error", "siren", "relu_pe", by=math.log(2)),
        AtMost("log_error", "siren", math.log(0.5)),
    )
    untried = (
        "The paper's own problems were not tried: the Eikonal equation, the Helmholtz equation in two dimensions with "
        "a source and absorbing layers, and the wave equation."
    )

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            of_arm = [records[arm, seed] for seed in seeds]
            k = settings.pilot_wavenumber if seeds[0] >= TUNING else settings.wavenumber
            found = solve(arm, k, settings, of_arm)
            yield from ((arm, seed, metrics) for seed, metrics in zip(seeds, found, strict=True))


def solve(arm: str, k: float, settings: Any, records: list[Recorder]) -> list[Metrics]:
    """One stack of networks, a copy a record; log_error and log_residual of each."""
    device = records[0].device
    net = _stack(arm, settings, records).to(device)
    x = torch.linspace(-1, 1, settings.points, device=device)[:, None]
    fine = torch.linspace(-1, 1, 4 * settings.points, device=device)[:, None]
    truth, edge = (k * fine).cos(), math.cos(k)

    def step(_: Any) -> dict[str, Any]:
        if arm == "boundary_only":
            return losses(settings.boundary * (net(x[[0, -1]]) - edge).square().sum((-2, -1)))
        jet: Any = net.jet(x, 2, laplacian_only=True)
        residual = (jet.lap / k**2 + jet.value).square().mean((-2, -1))
        return losses(residual + settings.boundary * (jet.value[:, [0, -1]] - edge).square().sum((-2, -1)))

    def error() -> Float[Tensor, " copies"]:
        return ((net(fine) - truth).norm(dim=-2) / truth.norm())[:, 0]

    run = train(
        net, step, [None], steps=settings.steps, lr=records[0].tuned["lr"], every=50,
        schedule=cosine() if settings.decay else None,
        measure=lambda _: {f"error/{m}": float(e) for m, e in enumerate(error())}, log=records[0].log,
    )  # fmt: skip
    with torch.no_grad():
        final, solution = error(), net(fine)
    for m, record in enumerate(records):
        record.curve("relative error", *run.curves[f"error/{m}"])
        record.curve("solution", fine[:, 0], solution[m, :, 0])
        record.curve("truth", fine[:, 0], truth[:, 0])
    return [{"log_error": math.log(float(e))} for e in final[: len(records)]]


def _stack(arm: str, settings: Any, records: list[Recorder]) -> StackedCoordinateMLP:
    generators = [record.streams["init"] for record in records]
    if len(generators) == 1:  # one matrix alone goes another way than a batch and rounds otherwise: a mate for it
        generators.append(torch.Generator().manual_seed(0))
    encoding, width, activation = None, settings.width, "relu" if arm.startswith("relu") else "sine"
    if arm == "relu_pe":
        encoding = FrequencyEncoding(1, nyquist_bands(settings.points), scale=math.pi)
        width = matched_width(arm, settings.points, settings.width, 1)
    return StackedCoordinateMLP(len(generators), 1, 1, width, 3, activation, encoding, generators=generators)


@dataclass(frozen=True)
class Layers:
    """Width of the sine layers, the number of points, and ω."""

    width: int = 32
    points: int = 200
    omega: float = 30.0


class DerivativeFamily(Claim):
    """No training: exact identities in float64, each error relative to the greatest value, up to 1e-10.

        dᵏ/dxᵏ sin(ω(wx + b)) = (ωw)ᵏ sin(ω(wx + b) + kπ/2),   k = 1, 2, 3
        dΦ/dx = W₃ diag(sin(u₂ + π/2)) ω W₂ diag(sin(u₁ + π/2)) ω W₁ diag(sin(u₀ + π/2)) ω W₀

    The left sides are automatic derivatives.  ReLU's second derivative is 0; and no shifted and scaled copy of tanh
    comes nearer to its derivative on [−3, 3] than 0.1, while one of the sine is its derivative.  No broken arm, since
    nothing is trained; ReLU and tanh show that the identities can fail.
    """

    name = "derivative_family"
    statement = "The derivatives of a sine network are sine networks with shifted phases."
    arms = ("siren", "relu", "tanh")
    profiles = {
        name: Profile(Layers(), seeds=1, scale="one layer, orders 1 to 3; three layers, width 32; float64")
        for name in ("smoke", "quick", "full")
    }
    hypotheses = (
        Exact("layer_error", "siren", 0, tolerance=1e-10),
        Exact("net_error", "siren", 0, tolerance=1e-10),
        Exact("shifted_copy_error", "siren", 0, tolerance=1e-6),
        Exact("second_derivative", "relu", 0),
        Exact("shifted_copy_error", "tanh", 0.1, relation=">"),
    )
    untried = "Orders above three were not tried: they follow by induction."

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        generator = record.streams["init"]
        if arm == "relu":
            u = torch.linspace(-3, 3, settings.points, dtype=torch.float64)  # an even number of points: none is 0
            return {"second_derivative": float(_derivatives(torch.relu, u, 2)[-1].abs().max())}
        if arm == "tanh":
            return {"shifted_copy_error": shifted_copy_error(np.tanh, lambda u: 1 - np.tanh(u) ** 2, 3.0)}
        x = torch.rand(settings.points, generator=generator, dtype=torch.float64) * 2 - 1
        return {
            "layer_error": layer_error(x, settings.omega, generator),
            "net_error": net_error(x, settings, generator),
            "shifted_copy_error": shifted_copy_error(np.sin, np.cos, 3.0),
        }


def layer_error(x: Float[Tensor, " n"], omega: float, generator: torch.Generator) -> float:
    """The greatest relative error of orders 1, 2, 3 of one sine of one layer."""
    w, b = (2 * torch.rand(2, generator=generator, dtype=torch.float64) - 1).tolist()
    errors = []
    for k, found in enumerate(_derivatives(lambda x: torch.sin(omega * (w * x + b)), x, 3), 1):
        closed = (omega * w) ** k * torch.sin(omega * (w * x + b) + k * math.pi / 2)
        errors.append(float((found - closed).abs().max() / closed.abs().max()))
    return max(errors)


def net_error(x: Float[Tensor, " n"], settings: Layers, generator: torch.Generator) -> float:
    """The relative error of the gradient of three sine layers and a linear one against the product of its layers."""
    net = Siren(1, 1, settings.width, 2, settings.omega, settings.omega, generator=generator).double()
    (found,) = _derivatives(lambda x: net(x[:, None])[:, 0], x, 1)
    h, product = x[:, None].T, torch.ones(1, len(x), dtype=torch.float64)  # [width, n], dh/dx
    with torch.no_grad():
        for layer in list(net.layers)[:-1]:
            u = settings.omega * (layer.weight @ h + layer.bias[:, None])
            product = torch.sin(u + math.pi / 2) * settings.omega * (layer.weight @ product)
            h = torch.sin(u)
        closed = (net.layers[-1].weight @ product)[0]
    return float((found - closed).abs().max() / closed.abs().max())


def shifted_copy_error(f: Any, derivative: Any, reach: float) -> float:
    """min over c and s of max_u |f'(u) − c f(u + s)|, u in [−reach, reach]: s on a grid, then refined."""
    from scipy.optimize import minimize, minimize_scalar

    u = np.linspace(-reach, reach, 601)
    target = derivative(u)

    def best(s: float) -> float:
        copy = f(u + float(s))
        return float(minimize_scalar(lambda c: np.abs(target - c * copy).max(), (-2, 2), tol=1e-12).fun)

    start = min(np.linspace(-2 * reach, 2 * reach, 241), key=best)
    found = minimize(lambda s: best(s[0]), [start], method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-12})
    return float(found.fun)


def _derivatives(f: Any, x: Float[Tensor, " n"], order: int) -> list[Float[Tensor, " n"]]:
    """f', f'', … of an elementwise f by automatic differentiation."""
    x = x.clone().requires_grad_(True)
    y, found = f(x), []
    for _ in range(order):
        if not y.requires_grad:
            y = torch.zeros_like(x)
        else:
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=True, materialize_grads=True)
        found.append(y.detach())
    return found
