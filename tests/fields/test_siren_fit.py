"""Recipes against a plain implementation of the same training, and what each of them is for."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from precis.errors import Stopped
from precis.fields.poisson import align_mean, gradient_rows, image_gradient, image_laplacian, solve_laplacian
from precis.fields.siren import CoordinateMLP, Siren, StackedSiren
from precis.fields.siren_fit import (
    adam,
    evaluate,
    evaluate_image,
    fit_derivatives,
    fit_image,
    fit_poisson,
    fit_values,
    pixel_jitter,
    to_values,
)
from precis.nn.coordinates import coordinate_grid
from precis.nn.image import psnr
from precis.train.schedule import cosine


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(h: int = 16, w: int = 20, c: int = 1) -> torch.Tensor:
    x = coordinate_grid((h, w))
    waves = [0.5 + 0.3 * torch.sin(3 * x[:, 0] + k) * torch.cos(4 * x[:, 1]) + 0.15 * x[:, 1] for k in range(c)]
    return torch.stack(waves).view(c, h, w)


class PlainSiren(nn.Module):
    """As one would write it from the paper."""

    def __init__(self, net: Siren, omega: float = 30.0) -> None:
        super().__init__()
        self.linears, self.omega = nn.ModuleList(nn.Linear(a.in_features, a.out_features) for a in net.layers), omega
        for mine, other in zip(self.linears, net.layers):
            mine.load_state_dict(other.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.linears[:-1]:
            x = torch.sin(self.omega * linear(x))
        return self.linears[-1](x)


def plain_training(net: Siren, loss, steps: int, lr: float) -> list[torch.Tensor]:
    plain = PlainSiren(net).to(net.layers[0].weight.dtype)
    optimizer = torch.optim.Adam(plain.parameters(), lr=lr, foreach=False)
    for k in range(steps):
        optimizer.zero_grad()
        loss(plain, k).backward()
        optimizer.step()
    return list(plain.parameters())


def relative(a, b) -> float:
    return max(float((p - q).detach().abs().max() / q.detach().abs().max()) for p, q in zip(a, b, strict=True))


def test_fifty_steps_equal_a_plain_implementation() -> None:
    coords, values = to_values(picture().double())
    net = Siren(2, 1, 32, 2, generator=gen()).double()
    expected = plain_training(net, lambda f, k: ((f(coords) - values) ** 2).mean(), 50, 1e-3)
    run = fit_values(net, coords, values, steps=50, lr=1e-3)
    assert relative(net.parameters(), expected) < 1e-9
    assert len(run.curves["loss"].values) == 50 and run.curves["loss"].values[-1] < run.curves["loss"].values[0]


def test_batches_and_schedule_equal_a_plain_implementation() -> None:
    coords, values = to_values(picture().double())
    net = Siren(2, 1, 16, 1, generator=gen()).double()
    order = torch.randperm(len(coords), generator=gen(5))
    rows = order.split(100)[:3]
    expected = plain_training(net, lambda f, k: ((f(coords[rows[k]]) - values[rows[k]]) ** 2).mean(), 3, 1e-3)
    fit_values(net, coords, values, steps=3, lr=1e-3, batch=100, generator=gen(5))
    assert relative(net.parameters(), expected) < 1e-10


@pytest.mark.parametrize("kind", ["gradient", "laplacian"])
def test_poisson_steps_equal_a_plain_implementation(kind: str) -> None:
    image = picture(12, 12).double()
    coords, _ = to_values(image)
    net = Siren(2, 1, 16, 2, generator=gen()).double()
    if kind == "gradient":
        target = gradient_rows(image_gradient(image))
    else:
        target = image_laplacian(image).flatten(1).T.contiguous()

    def loss(f, k):
        x = coords.clone().requires_grad_()
        grad = torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]
        if kind == "gradient":
            return ((grad - target[:, 0]) ** 2).sum(-1).mean() / (target**2).sum(-1).mean()
        lap = sum(torch.autograd.grad(grad[:, a].sum(), x, create_graph=True)[0][:, a] for a in range(2))
        return ((lap - target[:, 0]) ** 2).mean() / (target**2).mean()

    expected = plain_training(net, loss, 20, 1e-4)
    fit_poisson(net, coords, target, kind, steps=20, lr=1e-4)
    assert relative(net.parameters(), expected) < 1e-7


def test_copies_of_a_stack_train_as_if_alone() -> None:
    coords, values = to_values(picture().double())
    other = values.flip(0)
    seeds, rates = [3, 4], torch.tensor([1e-3, 3e-4], dtype=torch.float64)
    stack = StackedSiren(2, 2, 1, 16, 1, generators=[gen(s) for s in seeds]).double()
    run = fit_values(
        stack, coords, torch.stack([values, other]), steps=12, lr=rates, batch=64, generator=[gen(10), gen(11)],
        schedule=cosine(),
    )
    for m, target in enumerate((values, other)):
        single = Siren(2, 1, 16, 1, generator=gen(seeds[m])).double()
        alone = fit_values(
            single, coords, target, steps=12, lr=float(rates[m]), batch=64, generator=gen(10 + m), schedule=cosine()
        )
        assert relative(stack.copy(m).parameters(), single.parameters()) < 1e-8
        torch.testing.assert_close(run.curves[f"loss/{m}"].values, alone.curves["loss"].values, rtol=1e-8, atol=0)


def test_clipping_is_by_copy() -> None:
    coords, values = to_values(picture().double())
    stack = StackedSiren(2, 2, 1, 16, 1, generators=[gen(1), gen(2)]).double()
    fit_values(stack, coords, torch.stack([values, 100 * values]), steps=5, lr=1e-3, clip=0.1)
    single = Siren(2, 1, 16, 1, generator=gen(1)).double()
    fit_values(single, coords, values, steps=5, lr=1e-3, clip=0.1)
    assert relative(stack.copy(0).parameters(), single.parameters()) < 1e-8


def test_derivatives_of_stacks_equal_those_of_single_nets() -> None:
    image = picture(10, 10).double()
    coords, values = to_values(image)
    gradients = gradient_rows(image_gradient(image))
    laplacians = image_laplacian(image).flatten(1).T.contiguous()
    stack = StackedSiren(2, 2, 1, 16, 1, generators=[gen(1), gen(2)]).double()
    targets = dict(values=values, gradients=gradients, laplacians=laplacians, weights=(1.0, 0.1, 0.01))
    fit_derivatives(stack, coords, steps=5, lr=1e-3, **targets)
    single = Siren(2, 1, 16, 1, generator=gen(2)).double()
    fit_derivatives(single, coords, steps=5, lr=1e-3, **targets)
    assert relative(stack.copy(1).parameters(), single.parameters()) < 1e-8


def test_a_picture_is_fitted_and_redrawn_at_any_size() -> None:
    image = picture(24, 32, 3)
    measured = lambda net: {"psnr": float(psnr(evaluate_image(net, (24, 32))[None], image[None]))}
    fitted = fit_image(
        image, width=32, steps=150, lr=2e-3, batch=400, generator=gen(), schedule=cosine(), measure=measured
    )
    assert fitted.run.curves["psnr"].steps == [1, 26, 51, 76, 101, 126]
    assert measured(fitted.net)["psnr"] > 35
    large = evaluate_image(fitted.net, (48, 64))
    assert large.shape == (3, 48, 64)
    small = evaluate_image(fitted.net, (12, 16), average=2)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(evaluate_image(fitted.net, (24, 32)), 2))
    truth = picture(48, 64, 3)
    assert float(psnr(large[None], truth[None])) > 30  # height and width in their places, no shift


def test_a_one_row_picture_and_a_flat_one() -> None:
    for image in (picture(1, 40, 3), torch.full((1, 6, 6), 0.25)):
        fitted = fit_image(image, width=16, steps=30, lr=2e-3, batch=None, generator=gen())
        assert evaluate_image(fitted.net, image.shape[1:]).isfinite().all()
    flat = Siren(2, 1, 16, generator=gen())
    coords, _ = to_values(torch.full((1, 6, 6), 0.25))
    run = fit_poisson(flat, coords, torch.zeros(36, 1, 2), "gradient", steps=20, lr=1e-3)
    assert run.curves["loss"].values[-1] < run.curves["loss"].values[0]


def test_the_picture_comes_back_from_its_gradient() -> None:
    image = picture(24, 24)
    coords, _ = to_values(image)
    net = Siren(2, 1, 48, 2, omega=10, first_omega=10, generator=gen())  # no band above that of 24 samples
    fit_poisson(net, coords, gradient_rows(image_gradient(image)), steps=200, lr=1e-3, schedule=cosine())
    rebuilt = align_mean(evaluate(net, (24, 24)), image)
    assert float(psnr(rebuilt[None], image[None])) > 35
    exact = solve_laplacian(image_laplacian(image))
    assert float(psnr(align_mean(exact, image)[None], image[None])) > 60


def test_masked_rows_are_left_out() -> None:
    coords, values = to_values(picture().double())
    weight = (torch.arange(len(coords)) % 2).double()[:, None]
    spoilt = torch.where(weight > 0, values, 77.0)
    a, b = (Siren(2, 1, 8, 1, generator=gen()).double() for _ in range(2))
    fit_values(a, coords, values, weight=weight, steps=5)
    fit_values(b, coords, spoilt, weight=weight, steps=5)
    assert relative(a.parameters(), b.parameters()) < 1e-12


def test_jitter_moves_within_the_pixel() -> None:
    x = torch.zeros(20_000, 2)
    for kernel, variance in (("bilinear", 1 / 6), ("box", 1 / 3)):
        moved = pixel_jitter((10, 40), kernel)(x, gen())
        assert (moved.abs() <= torch.tensor([0.1, 0.025])).all()
        unit = moved / torch.tensor([0.1, 0.025])
        assert unit.mean().abs() < 0.02 and float(unit.var()) == pytest.approx(variance, rel=0.05)
    coords, values = to_values(picture())
    net = Siren(2, 1, 8, 1, generator=gen())
    run = fit_values(net, coords, values, steps=4, batch=50, generator=gen(), jitter=pixel_jitter((16, 20)))
    assert math.isfinite(run.curves["loss"].values[-1])


def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    coords, values = to_values(picture())
    options = dict(steps=30, lr=1e-3, batch=64, jitter=pixel_jitter((16, 20)), measure=lambda net: {"m": 1.0}, every=7)
    whole = Siren(2, 1, 16, 1, generator=gen())
    reference = fit_values(whole, coords, values, generator=gen(9), **options)

    def stop(step: int, total: int, **scalars: float) -> None:
        if step >= 1:
            raise Stopped

    net = Siren(2, 1, 16, 1, generator=gen())
    with pytest.raises(Stopped):
        fit_values(net, coords, values, generator=gen(9), log=stop, folder=tmp_path, **options)
    fresh = Siren(2, 1, 16, 1, generator=gen(77))
    run = fit_values(fresh, coords, values, generator=gen(8), folder=tmp_path, resume=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), whole.parameters()))
    assert run.curves["m"].steps == reference.curves["m"].steps == [1, 8, 15, 22, 29]


def test_what_cannot_be_fitted_is_refused() -> None:
    net, coords = Siren(2, 1, 8, generator=gen()), torch.zeros(10, 2)
    for bad in (
        lambda: fit_values(net, coords, torch.zeros(10, 1), steps=1, batch=5),
        lambda: fit_values(net, coords, torch.zeros(10, 1), steps=1, jitter=pixel_jitter((2, 5))),
        lambda: fit_derivatives(net, coords, steps=1),
        lambda: evaluate(net, (4, 4), align_corners=True, average=2),
    ):
        with pytest.raises(ValueError):
            bad()


def test_other_nets_fit_too() -> None:
    coords, values = to_values(picture())
    net = CoordinateMLP(2, 1, 32, 2, "tanh", generator=gen())
    run = fit_values(net, coords, values, steps=60, lr=3e-3)
    assert run.curves["loss"].values[-1] < 0.5 * run.curves["loss"].values[0]
    assert isinstance(adam(net, 1e-3), torch.optim.Adam)
