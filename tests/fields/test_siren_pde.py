"""Equations: operators against closed forms, and that the recipes move towards solutions."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import hankel2

from precis.errors import Stopped
from precis.fields.siren import Siren, StackedSiren
from precis.fields.siren_losses import (
    eikonal_loss,
    gaussian_source,
    helmholtz_loss,
    helmholtz_residual,
    wave_loss,
    wave_residual,
    wave_weights,
)
from precis.fields.siren_pde import fit_helmholtz, fit_sdf, fit_wave, map_lookup, to_unit_box
from precis.nn.coordinates import coordinate_grid
from precis.nn.derivatives import jet


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=gen(), dtype=torch.float64), dim=1)
    return 0.5 * normals, normals


def test_sdf_loss_vanishes_at_the_exact_sphere() -> None:
    points, normals = sphere()
    away = torch.rand(500, 3, generator=gen(1), dtype=torch.float64) * 2 - 1
    x = torch.cat([points, away])
    on = torch.arange(1000) < 500
    exact = jet(lambda z: z.norm(dim=-1, keepdim=True) - 0.5, x, 1)
    garbage = torch.cat([normals, torch.full_like(away, math.nan)])  # normals off the surface are not read
    terms = eikonal_loss(exact.value, exact.grad[:, 0], on, garbage)
    for name in ("sdf", "normal", "eikonal"):
        assert float(terms[name].detach()) < 1e-6
    inter = 100 * torch.exp(-100 * exact.value[500:].abs()).sum() / 1000
    torch.testing.assert_close(terms["inter"], inter)
    flipped = eikonal_loss(exact.value + 0.1, -exact.grad[:, 0], on, garbage)
    assert float(flipped["sdf"]) == pytest.approx(3000 * 0.1 / 2) and float(flipped["normal"]) == pytest.approx(100)
    doubled = eikonal_loss(exact.value, 2 * exact.grad[:, 0], on, garbage)
    assert float(doubled["eikonal"]) == pytest.approx(50)


def hankel(x: np.ndarray, k: float) -> np.ndarray:
    return 0.25j * hankel2(0, k * np.linalg.norm(x, axis=-1))


def differences(f, x: np.ndarray, h: float = 1e-3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, gradient and Hessian by differences of sixth order."""
    first = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    second = {0: -49 / 18, 1: 3 / 2, 2: -3 / 20, 3: 1 / 90}
    e = np.eye(2) * h
    grad = np.stack([sum(c * (f(x + j * e[a]) - f(x - j * e[a])) for j, c in first.items()) / h for a in (0, 1)], -1)
    across = lambda a: sum(second[j] * (f(x + j * e[a]) + f(x - j * e[a])) for j in (1, 2, 3))
    diagonal = [(second[0] * f(x) + across(a)) / h**2 for a in (0, 1)]
    hess = np.zeros((*f(x).shape, 2, 2), complex)
    hess[..., 0, 0], hess[..., 1, 1] = diagonal
    return f(x), grad, hess


def split(z: np.ndarray) -> torch.Tensor:
    """Complex [N,…] to outputs [N,2,…]."""
    return torch.from_numpy(np.stack([z.real, z.imag], 1))


def test_helmholtz_operator_on_the_free_field() -> None:
    k = 20.0
    x = np.random.default_rng(0).uniform(-0.45, 0.45, (200, 2))
    x = x[np.linalg.norm(x, axis=1) > 0.1]
    value, grad, hess = differences(lambda z: hankel(z, k), x, 2e-3)
    none = torch.zeros(len(x), 2).double()
    residual = helmholtz_residual(split(value), split(grad), split(hess), torch.from_numpy(x), none, k)
    assert float(residual.norm() / (k**2 * np.linalg.norm(value))) < 1e-6


def test_absorbing_layers_are_a_complex_stretch() -> None:
    """u(x̃), x̃_a = ∫ e_a, solves the stretched equation wherever u solves the plain one, layers included."""
    k, a0, pml = 6.0, 5.0, 0.5

    def stretch(x: np.ndarray) -> np.ndarray:
        depth = np.clip(np.abs(x) - (1 - pml), 0, None)
        return x - 1j * np.sign(x) * a0 * depth**3 / (3 * pml**2)

    theta = 0.7
    wave = lambda x: np.exp(-1j * k * (stretch(x) @ np.array([math.cos(theta), math.sin(theta)])))
    x = np.random.default_rng(1).uniform(-0.98, 0.98, (300, 2))
    x = x[(np.abs(np.abs(x) - (1 - pml)) > 0.02).all(1)]
    value, grad, hess = differences(wave, x, 2e-3)
    none = torch.zeros(len(x), 2).double()
    residual = helmholtz_residual(
        split(value), split(grad), split(hess), torch.from_numpy(x), none, k, pml=pml, a0=a0
    )
    scale = k**2 * np.abs(value) * np.abs(np.prod(1 - 1j * a0 * (np.clip(np.abs(x) - 0.5, 0, None) / pml) ** 2, 1))
    assert float((residual.norm(dim=1) / torch.from_numpy(scale)).max()) < 1e-5
    beyond = [np.abs(wave(np.array([[r, 0.0]])))[0] for r in (0.5, 1.0)]
    assert beyond[0] == pytest.approx(1) and beyond[1] < 0.05  # outgoing waves are damped


def test_helmholtz_source_and_weights() -> None:
    x = coordinate_grid((801, 801), align_corners=True, span=(-0.1, 0.1), dtype=torch.float64)
    source = gaussian_source(x)
    mass = source.sum(0) * (0.2 / 800) ** 2
    torch.testing.assert_close(mass, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)
    assert not gaussian_source(torch.tensor([[0.5, 0.5]])).any()
    residual = torch.ones(4, 2)
    on = torch.tensor([[3.0, 3.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert float(helmholtz_loss(residual, on)) == pytest.approx(6 + 2 * 4 / 1000)
    zero = torch.zeros(4, 2, 2)
    torch.testing.assert_close(helmholtz_residual(0 * on, zero, torch.zeros(4, 2, 2, 2), 0 * on, on, 20.0), -on)


def test_wave_operator() -> None:
    net = Siren(3, 1, 12, 1, generator=gen()).double()
    x = torch.rand(8, 3, generator=gen(), dtype=torch.float64)
    speed = 0.5 + torch.rand(8, generator=gen(1), dtype=torch.float64)
    full = wave_residual(hess=net.jet(x, 2).hess, speed=speed)
    cheap = wave_residual(lap=net.jet(x, 2, True, weights=wave_weights(speed)).lap)
    torch.testing.assert_close(cheap, full, rtol=1e-9, atol=1e-9)
    travelling = lambda z: torch.sin(3 * (z[:, 1:2] - 0.7 * z[:, :1]))
    out = jet(travelling, x, 2)
    assert float(wave_residual(hess=out.hess, speed=0.7).abs().max()) < 1e-10
    with pytest.raises(ValueError):
        wave_residual()


def test_wave_loss_weights() -> None:
    start = torch.tensor([True, False])
    value, velocity, initial = torch.tensor([[2.0], [5.0]]), torch.tensor([[3.0], [9.0]]), torch.tensor([[1.0], [0.0]])
    assert float(wave_loss(None, value, velocity, initial, start)) == pytest.approx(1 * 2 / 10 + 3 * 2 / 100)
    residual = torch.tensor([[0.5], [-0.25]])
    assert float(wave_loss(residual, value, velocity, initial, start)) == pytest.approx(0.26 + 0.75)


def test_sdf_of_a_sphere_is_found() -> None:
    points, normals = (t.float() for t in sphere(400))
    net = Siren(3, 1, 48, 1, generator=gen(2))
    run = fit_sdf(net, points, normals, generator=gen(3), batch=200, steps=250, lr=1e-3)
    assert set(run.curves) >= {"loss", "sdf", "inter", "normal", "eikonal"}
    with torch.no_grad():
        assert float(net(points).abs().mean()) < 0.05
        assert float(net(0.9 * points).mean()) < -0.02 and float(net(1.1 * points).mean()) > 0.02
    grad = net.jet(points, 1).grad[:, 0]
    assert float(torch.nn.functional.cosine_similarity(grad, normals, dim=1).mean()) > 0.9


def test_an_interrupted_fit_goes_on_to_the_bit(tmp_path: Path) -> None:
    points, normals = (t.float() for t in sphere(50))

    def fitted(**options: Any) -> Siren:
        net = Siren(3, 1, 12, 1, generator=gen(2))
        fit_sdf(net, points, normals, generator=gen(3), batch=20, steps=12, lr=1e-3, **options)
        return net

    def stop(step: int, total: int, **scalars: float) -> None:
        if step >= 5:
            raise Stopped("here")

    whole = fitted()
    with pytest.raises(Stopped):
        fitted(folder=tmp_path, log=stop)
    again = fitted(folder=tmp_path, resume=True)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sdf_copies_of_a_stack_equal_single_fits() -> None:
    points, normals = sphere(50)
    stack = StackedSiren(2, 3, 1, 12, 1, generators=[gen(1), gen(2)]).double()
    fit_sdf(stack, points, normals, generator=gen(3), batch=20, steps=4, lr=1e-4)
    single = Siren(3, 1, 12, 1, generator=gen(2)).double()
    fit_sdf(single, points, normals, generator=gen(3), batch=20, steps=4, lr=1e-4)
    for a, b in zip(stack.copy(1).parameters(), single.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_helmholtz_and_wave_losses_fall() -> None:
    net = Siren(2, 2, 32, 1, generator=gen())
    slow = map_lookup(torch.ones(4, 4))
    run = fit_helmholtz(
        net, generator=gen(1), wavenumber=10, squared_slowness=slow, batch=256, source_rows=20, steps=60, lr=2e-4
    )
    losses = run.curves["loss"].values
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    wave = Siren(3, 1, 32, 1, generator=gen())
    bump = lambda x: torch.exp(-((x**2).sum(-1, keepdim=True)) / 0.05)
    run = fit_wave(wave, bump, generator=gen(2), batch=256, steps=120, lr=5e-4, warm_up=0.5, until=0.2)
    losses = run.curves["loss"].values
    assert np.mean(losses[50:60]) < 0.5 * np.mean(losses[:5])  # the initial condition alone
    assert all(math.isfinite(v) for v in losses) and losses[60] != losses[59]
    varying = fit_wave(
        Siren(3, 1, 8, 1, generator=gen()), bump, speed=map_lookup(torch.rand(5, 5, generator=gen()) + 0.5),
        generator=gen(), batch=16, steps=3,
    )
    assert varying.steps == 3


def test_points_go_to_the_unit_box_and_back() -> None:
    points = torch.rand(30, 3, generator=gen(), dtype=torch.float64) * torch.tensor([2.0, 5.0, 1.0]) + 7
    box = to_unit_box(points, margin=0.1)
    assert float(box.points.abs().max()) == pytest.approx(0.9)
    torch.testing.assert_close(box.points.mean(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(box.back(box.points), points)
    with pytest.raises(ValueError, match="one place"):
        to_unit_box(torch.ones(5, 3))


def test_map_lookup_has_rows_first() -> None:
    array = torch.arange(12.0).view(3, 4)
    torch.testing.assert_close(map_lookup(array)(coordinate_grid((3, 4))), array.flatten())
    torch.testing.assert_close(map_lookup(array)(torch.tensor([[-1.0, 1.0]])), torch.tensor([3.0]))


def test_normals_must_fit_the_points() -> None:
    with pytest.raises(ValueError, match="one shape"):
        fit_sdf(Siren(3, 1, 8, generator=gen()), torch.zeros(4, 3), torch.zeros(5, 3), generator=gen(), steps=1)
