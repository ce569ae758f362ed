"""The pieces of the claims; that every claim runs at smoke is seen by the suite as a whole."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from precis.data.embedded import photo
from precis.data.images import write_image
from precis.errors import InputError
from precis.lab.claim import Table
from precis.lab.trial import streams
from precis.nn.image import psnr
from precis.papers.deep_image_prior.arms import Permuted, make_net, psnr_in
from precis.papers.deep_image_prior.claims_full import depth_share, rate_share, setting
from precis.papers.deep_image_prior.claims_holes import Holes, SemanticHoles, hole
from precis.papers.deep_image_prior.claims_restore import Denoise, Inpaint, SuperResolution
from precis.papers.deep_image_prior.classical import best_of, bicubic, biharmonic, total_variation, tv_inpaint
from precis.papers.deep_image_prior.crops import MORE, PILOT, load_pictures
from precis.papers.deep_image_prior.inversion import tv_inversion
from precis.papers.deep_image_prior.targets import KINDS, MEAN, SPREAD, targets


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recorder(seed: int = 0):
    nothing = lambda *args, **kwargs: None
    return SimpleNamespace(
        device="cpu", streams=streams(seed), tuned={}, log=nothing, image=nothing, curve=nothing, note=nothing,
        table=nothing, examples=nothing, shared=nothing,
    )  # fmt: skip


def picture(n: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, n), torch.linspace(0, 3, n), indexing="ij")
    return torch.stack([0.5 + 0.3 * torch.sin(x + c + y) for c in range(3)])[None]


@pytest.mark.parametrize("kind", [*KINDS, "permuted"])
def test_targets_have_one_mean_and_variance(kind):
    clean, target = targets(kind, picture(), gen())
    torch.testing.assert_close(target.mean((2, 3)), torch.full((1, 3), MEAN))
    torch.testing.assert_close(target.std((2, 3), correction=0), torch.full((1, 3), SPREAD))
    assert torch.equal(clean, target) == (kind != "noisy")
    if kind == "shuffled":
        natural = targets("natural", picture(), gen())[1]
        by_red = lambda x: x[0].flatten(1)[:, x[0, 0].flatten().argsort()]  # channels of a pixel stay together
        torch.testing.assert_close(by_red(target), by_red(natural))
        assert not torch.equal(target, natural)
    if kind == "noisy":
        noise = (target - clean).std((2, 3), correction=0) / clean.std((2, 3), correction=0)
        torch.testing.assert_close(noise, torch.full((1, 3), 0.5), rtol=0.1, atol=0)


def test_the_permuted_network_is_the_network_in_another_order():
    settings = SimpleNamespace(width=4, scales=2)
    net, broken = (make_net(arm, settings, (16, 16), recorder()) for arm in ("dip", "permuted"))
    assert isinstance(broken, Permuted)
    z = torch.rand(1, 32, 16, 16, generator=gen())
    made, mixed = net(z).detach(), broken(z).detach()
    assert not torch.equal(made, mixed)
    back = torch.empty_like(mixed.flatten(2))
    back[..., broken.order] = mixed.flatten(2)
    assert torch.equal(back.view_as(made), made)
    linear = make_net("linear", settings, (16, 16), recorder())
    assert not linear.sigmoid and torch.equal(linear.last.weight, net.last.weight)


@pytest.mark.parametrize("place", ["scattered", "fur", "eye"])
def test_holes_have_one_area_and_lie_in_the_window(place):
    settings = Holes(64, 100, 1, 4, 2)
    photo = SemanticHoles().load(settings, None)
    seen = []
    for seed in range(4):
        window, missing = hole(place, seed, photo, 64, gen(seed))
        assert window.shape == (1, 3, 64, 64) and int(missing.sum()) == 22**2
        seen.append(missing)
    assert not torch.equal(seen[0], seen[1]) or place == "eye"
    again = hole(place, 0, photo, 64, gen(0))
    assert torch.equal(again[0], hole(place, 0, photo, 64, gen(0))[0])


def test_scattered_pixels_are_missing_in_the_window_of_the_eye():
    photo = SemanticHoles().load(Holes(64, 100, 1, 4, 2), None)
    assert torch.equal(hole("scattered", 1, photo, 64, gen(1))[0], hole("eye", 1, photo, 64, gen(1))[0])


def test_total_variation_completes_what_is_flat_and_keeps_what_is_known():
    known = (torch.rand(1, 1, 24, 24, generator=gen()) > 0.5).float()
    flat = torch.full((1, 3, 24, 24), 0.3)
    torch.testing.assert_close(tv_inpaint(flat * known, known), flat, rtol=0, atol=1e-3)
    step = torch.zeros(1, 1, 24, 24)
    step[..., 12:] = 1
    step_known = torch.ones(1, 1, 24, 24)
    step_known[..., 3:9, 3:9] = 0  # inside the dark half: the edge does not bend
    made = tv_inpaint(step * step_known, step_known)
    torch.testing.assert_close(made, step, rtol=0, atol=1e-3)
    x = picture(24)
    assert torch.equal(tv_inpaint(x * known, known)[known.expand_as(x) > 0], x[known.expand_as(x) > 0])


def test_total_variation_finds_the_least():
    """Between two known columns the least total variation is any monotone path: the energy is the step's height."""
    x = torch.zeros(1, 1, 8, 12)
    x[..., -1] = 1
    known = torch.zeros(1, 1, 8, 12)
    known[..., 0] = known[..., -1] = 1
    made = tv_inpaint(x, known, steps=3000)[0, 0]
    energy = float(((made[:, 1:] - made[:, :-1])[:-1].square() + (made[1:] - made[:-1])[:, :-1].square()).sqrt().sum())
    assert energy == pytest.approx(7, rel=0.02)


def test_parameters_are_chosen_on_the_clean_picture():
    clean = picture()
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=gen())
    score = lambda x: psnr_in(x, clean)
    made, weight = best_of(lambda w: total_variation(noisy, w), (0.001, 0.1, 5.0), score)
    assert weight == 0.1 and score(made) > score(noisy) + 3
    assert biharmonic(clean, torch.ones(1, 1, 32, 32)).shape == bicubic(clean[..., ::4, ::4], 4).shape == clean.shape


def test_psnr_inside_a_hole():
    truth, made = torch.rand(1, 3, 8, 8, generator=gen()), torch.rand(1, 3, 8, 8, generator=gen(1))
    where = torch.zeros(1, 1, 8, 8)
    where[..., 2:4, 2:5] = 1
    expected = float(psnr(made[..., 2:4, 2:5], truth[..., 2:4, 2:5]))
    assert psnr_in(made, truth, where) == pytest.approx(expected, abs=1e-4)
    assert psnr_in(truth + 2, torch.ones_like(truth)) == math.inf  # clipped first


@pytest.mark.parametrize("claim", [Denoise, SuperResolution, Inpaint])
def test_arms_of_a_seed_see_the_same_picture(claim):
    settings = claim.profiles["smoke"].settings
    data = claim().load(settings, None)
    found, pictures = {}, {}
    for arm in claim.arms:
        record = recorder(1)
        record.image = lambda name, pixels, arm=arm: pictures.setdefault(name, []).append(np.asarray(pixels))
        found[arm] = claim().trial(arm, 1, settings, data, record)
        assert math.isfinite(found[arm]["psnr"]) and found[arm]["psnr_oracle"] >= found[arm]["psnr"] - 1e-6
    for name in ("clean", "noisy", "small", "known"):
        assert all(np.array_equal(p, pictures[name][0]) for p in pictures.get(name, []))
    assert len(pictures["clean"]) == len(claim.arms)


def test_pictures_of_the_users_own(tmp_path):
    pixels = (255 * picture(40)[0].numpy()).astype(np.uint8)
    (tmp_path / "set").mkdir()
    write_image(tmp_path / "set" / "a.png", pixels)
    write_image(tmp_path / "set" / "b.png", pixels[:1, ::-1])
    for source, count in ((tmp_path / "set" / "a.png", 1), (tmp_path / "set", 2)):
        loaded = load_pictures(source, 16, 32)
        assert len(loaded.scored) == count and all(p.shape == (3, 32, 32) for p in loaded.scored)
        assert loaded.crop(1, 16, gen()).shape == (1, 3, 16, 16)
    with pytest.raises(InputError, match="40×40 pixels are too few: squares of 64"):
        load_pictures(tmp_path / "set", 64, 128)
    built_in = load_pictures(None, 16, 32)
    assert np.array_equal(built_in.of(10_000), built_in.pilot) and PILOT not in ("astronaut", "coffee", "chelsea")


def test_pixels_are_found_from_their_features():
    truth = picture(16)
    model = lambda x: x * 2 - 1
    made = tv_inversion(model(truth), model, (3, 16, 16), 0.0, 200, gen())
    assert float(psnr(made, truth)) > 40
    flat = tv_inversion(model(truth), model, (3, 16, 16), 100.0, 200, gen())
    assert float(flat.diff(dim=-1).abs().mean()) < 0.5 * float(truth.diff(dim=-1).abs().mean())


def test_shares_of_the_variance():
    rows = {seed: {"psnr": 10.0 * setting(seed)[1]} for seed in range(30)}
    table = Table({"dip": rows}, tuple(range(30)))
    assert depth_share(table) == pytest.approx(1) and rate_share(table) == pytest.approx(0)
    assert len({setting(s) for s in range(6)}) == 6


def test_the_learned_denoiser_sees_no_scored_picture_and_learns(tmp_path, monkeypatch):
    from precis.papers.deep_image_prior import learned as module

    seen = []
    monkeypatch.setattr(module, "photo", lambda name: seen.append(name) or photo(name))
    monkeypatch.setattr(module, "WIDTH", 12)
    monkeypatch.setattr(module, "CUT", 24)
    record = recorder(3)
    record.shared = lambda name, make, settings: make(tmp_path) or tmp_path
    clean = picture(48)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=gen())
    made = module.learned(noisy, 0.1, 80, False, record)
    assert seen and not {*seen} & {*MORE, "motorcycle_right"}
    assert psnr_in(made, clean) > psnr_in(noisy, clean) + 0.7
