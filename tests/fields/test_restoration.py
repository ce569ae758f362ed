import copy
import math

import pytest
import torch
from torch import nn

from precis.errors import RunFailed, Stopped
from precis.fields.restoration import BlindStop, Downsampler, OutputAverage, fit_untrained


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net(seed: int = 0, inputs: int = 4, outputs: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(inputs, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, outputs, 1),
            nn.Sigmoid(),
        )  # fmt: skip


def problem(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.1 * torch.rand(1, 4, size, size, generator=gen(1)), torch.rand(1, 2, size, size, generator=gen(2))


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def plain(net, z, target, steps, sigma=0.0, mask=1.0, generator=None):
    """The notebook's loop; returns its outputs."""
    net.train()
    optimizer, outputs = torch.optim.Adam(net.parameters(), lr=0.01), []
    mask = torch.as_tensor(mask).expand_as(target)
    for _ in range(steps):
        optimizer.zero_grad()
        out = net(z + sigma * torch.randn(z.shape, generator=generator, dtype=z.dtype) if sigma else z)
        (((out - target) ** 2 * mask).sum() / mask.sum()).backward()
        optimizer.step()
        outputs.append(out.detach())
    return outputs


def test_steps_averages_and_noise_are_those_of_a_plain_loop():
    # in float64: the biases before a normalisation have no gradient but rounding, which Adam would make large
    (z, target), net = (x.double() for x in problem()), small_net().double()
    other = copy.deepcopy(net)
    outputs = plain(other, z, target, 25, 0.05, generator=gen(7))
    fit = fit_untrained(net, z, target, steps=25, input_noise=0.05, stop="steps", ema=0.9, generator=gen(7))
    torch.testing.assert_close(weights(net), weights(other), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fit.last, outputs[-1], rtol=1e-9, atol=1e-9)
    share = 0.9 ** torch.arange(24, -1, -1, dtype=torch.float64)
    expected = torch.einsum("t,tbchw->bchw", share / share.sum(), torch.stack(outputs))
    torch.testing.assert_close(fit.ema, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(fit.best, fit.ema) and fit.at == 25 and fit.run.steps == len(fit.curve["loss"].steps) == 25


def test_a_mask_leaves_unknown_pixels_out():
    (z, target), net = (x.double() for x in problem()), small_net().double()
    mask = (torch.rand(1, 1, 16, 16, generator=gen(3)) > 0.5).double()
    other, spoilt = copy.deepcopy(net), torch.where(mask > 0, target, 9.0)
    plain(other, z, target, 10, mask=mask)
    fit_untrained(net, z, spoilt, mask=mask, steps=10, stop="steps")
    torch.testing.assert_close(weights(net), weights(other), rtol=1e-5, atol=1e-6)


def test_unknown_pixels_have_no_gradient():
    picture = nn.ParameterList([torch.rand(1, 2, 8, 8, generator=gen())])
    net = nn.Module()
    net.picture, net.forward = picture, lambda z: picture[0] * 1
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3] = 1
    before = picture[0].detach().clone()
    fit_untrained(net, torch.zeros(1, 1, 8, 8), torch.rand(1, 2, 8, 8, generator=gen(1)), mask=mask, steps=5)
    moved = (picture[0].detach() != before).any(1)[0]
    assert moved[:, :3].all() and not moved[:, 3:].any()


def test_the_identity_operator_is_no_operator_and_the_crop_is_in_the_middle():
    (z, target), net = problem(), small_net()
    other = copy.deepcopy(net)
    a = fit_untrained(net, z, target, steps=5, operator=lambda x: x)
    b = fit_untrained(other, z, target, steps=5)
    assert torch.equal(a.last, b.last)
    cropped = fit_untrained(small_net(), z, target[..., 3:13, 2:14].contiguous(), steps=1, crop=(10, 12))
    net = small_net().train()
    torch.testing.assert_close(cropped.last, net(z)[..., 3:13, 2:14].detach())


def test_a_large_picture_is_fitted_to_a_small_one():
    (z, target), down = problem(), Downsampler(2)
    fit = fit_untrained(small_net(), z, down(target), operator=down, steps=60, stop="steps")
    assert fit.best.shape == target.shape
    assert fit.curve["loss"].values[-1] < 0.5 * fit.curve["loss"].values[0]
    with pytest.raises(ValueError, match="the net makes"):
        fit_untrained(small_net(), z, target, operator=down, steps=1)


def test_the_variance_of_outputs_and_its_minimum():
    blind, kept, values = BlindStop(window=4), [], []
    for t in range(30):
        x = torch.rand(1, 1, 6, 6, generator=gen(t)) * (0.05 + abs(t - 15))
        kept.append(x)
        least = blind.update(x)
        if t >= 3:
            expected = float(torch.stack(kept[-4:]).var(0, correction=0).mean())
            assert blind.variance == pytest.approx(expected, rel=1e-5)
            values.append(expected)
            assert least == (expected == min(values))
    assert blind.waited == 29 - 3 - values.index(min(values))
    assert BlindStop(side=8).update(torch.rand(1, 1, 40, 20)) is False


def test_stopping_blind_returns_the_average_of_that_moment():
    (z, target), averages = problem(), {}

    def look(step, out, average):
        averages[step] = average.clone()
        return {"psnr": 1.0}

    fit = fit_untrained(
        small_net(), z, target, steps=400, patience=5, callback=look, every=1, input_noise=0.1, generator=gen()
    )
    variance = fit.curve["variance"]
    assert variance.steps[0] == 32
    assert fit.at == variance.steps[variance.values.index(min(variance.values))]
    assert fit.run.steps == fit.at + 5 < 400
    assert torch.equal(fit.best, averages[fit.at]) and not torch.equal(fit.best, fit.ema)
    assert fit.curve["psnr"].steps == list(range(1, fit.run.steps + 1))


def test_the_least_loss_and_its_weights():
    z, target = problem()
    net = small_net()
    calls = iter(range(1000))
    worse = lambda x: x + (next(calls) > 25)
    fit = fit_untrained(net, z, target, steps=40, stop="loss", operator=worse)
    losses = fit.curve["loss"].values
    least, at = math.inf, 0
    for i, loss in enumerate(losses, 1):
        if loss * 1.005 < least:
            least, at = loss, i
    assert fit.at == at <= 26
    torch.testing.assert_close(net(z), fit.best, rtol=1e-5, atol=1e-5)


def test_a_fall_of_five_decibel_restores_the_weights():
    z, target = problem()
    net = small_net()
    calls = {"n": 0}

    def operator(x):
        calls["n"] += 1
        if calls["n"] == 18:
            for p in net.parameters():
                p.data.add_(100 * torch.randn(p.shape, generator=gen(9)))
        return x

    flat = torch.full_like(target, 0.7)
    fit = fit_untrained(net, z, flat, steps=40, operator=operator, stop="steps")
    assert fit.backtracks == 1
    assert fit.curve["loss"].values[-1] < fit.curve["loss"].values[0]


def test_what_is_not_finite_is_told():
    z, target = problem()
    for value in (float("nan"), float("inf")):
        with pytest.raises(RunFailed):
            fit_untrained(small_net(), z, target, steps=5, operator=lambda x, v=value: x * v)


@pytest.mark.parametrize("stop", ["variance", "loss"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, stop):
    z, target = problem()
    options = dict(steps=60, input_noise=0.05, stop=stop, callback=lambda *_: {"m": 1.0})
    whole = fit_untrained(small_net(), z, target, generator=gen(5), **options)

    def stopping(step: int, total: int, **scalars: float) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit_untrained(small_net(), z, target, generator=gen(5), folder=tmp_path, log=stopping, **options)
    again = fit_untrained(small_net(4), z, target, generator=gen(6), folder=tmp_path, resume=True, **options)
    for name in ("best", "ema", "last"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert again.curve["loss"].values == whole.curve["loss"].values and again.at == whole.at


def test_what_cannot_be_fitted_is_refused():
    (z, target), net = problem(), small_net()
    with pytest.raises(ValueError, match="knows no pixel"):
        fit_untrained(net, z, target, steps=1, mask=torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="decay"):
        fit_untrained(net, z, target, steps=1, ema=1.0)
    with pytest.raises(Exception, match="stop"):
        fit_untrained(net, z, target, steps=1, stop="never")


def test_noise_may_fall_and_one_step_is_enough():
    (z, target), seen = problem(), []

    def sigma(step):
        seen.append(step)
        return 0.1 if step < 2 else 0.0

    fit = fit_untrained(small_net(), z, target, steps=4, input_noise=sigma, generator=gen())
    assert seen == [0, 1, 2, 3]
    assert torch.equal(fit.best, fit.ema)
    average = OutputAverage(0.99)
    average.update(target)
    torch.testing.assert_close(average.value(), target)


def test_the_fit_ends_where_the_misfit_is_the_noise():
    (z, _), sigma = problem(), 0.1
    clean = torch.full((1, 2, 16, 16), 0.6)
    noisy = clean + sigma * torch.randn(clean.shape, generator=gen(4))
    averages = {}
    look = lambda step, out, average: averages.update({step: average.clone()})
    fit = fit_untrained(small_net(), z, noisy, steps=300, stop="noise", sigma=sigma, ema=0.8, callback=look, every=1)
    misfit = 0.0
    for step, loss in enumerate(fit.curve["loss"].values, 1):
        misfit += (loss - misfit) * max(0.1, 1 / step)
        assert (misfit <= sigma**2) == (step == fit.at)
    assert fit.run.steps == fit.at < 300 and torch.equal(fit.best, averages[fit.at])
    longer = fit_untrained(small_net(), z, noisy, steps=300, stop="noise", sigma=sigma, ema=0.8, patience=7)
    assert longer.at == fit.at and longer.run.steps == fit.at + 7 and torch.equal(longer.best, fit.best)
    never = fit_untrained(small_net(), z, noisy, steps=20, stop="noise", sigma=0.01)
    assert never.at == 20 and torch.equal(never.best, never.ema)
    for wrong in ({"stop": "noise"}, {"stop": "steps", "sigma": 0.1}):
        with pytest.raises(ValueError, match="needs sigma"):
            fit_untrained(small_net(), z, noisy, steps=1, **wrong)
