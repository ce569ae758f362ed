import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precis.train.augment import PRESETS, Affine, Augment, preset, random_shift
from precis.train.randaugment import OPERATIONS, draw


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bytes_of(n: int = 8, channels: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=seeded(5))


def test_without_settings_nothing_changes():
    x = bytes_of()
    assert torch.equal(Augment()(x, seeded()), x.float() / 255)
    y = x.float() / 255
    assert torch.equal(Augment()(y, seeded()), y)


@pytest.mark.parametrize(
    "still",
    [Augment(crop=(1, 1), ratio=(1, 1)), Augment(affine=Affine()), Augment(jitter=(0, 0, 0, 0)), Augment(size=16),
     Augment(jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0), Augment(crop=(1, 1), ratio=(1, 1), blur_p=0.0, flip=0.0),
     Augment(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0, hue="hsv")],
)  # fmt: skip
def test_identity_settings_return_the_input(still):
    x = bytes_of().float() / 255
    assert (still(x, seeded()) - x).abs().max() < 1e-6 * 10 if still.affine or still.crop else 1e-6


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_keep_range_size_and_seed_and_leave_the_input(name, channels):
    x = bytes_of(6, channels, 20)
    before, state = x.clone(), torch.get_rng_state()
    augment = preset(name, 12)
    out = augment(x, seeded(1))
    assert out.shape == (6, channels, 12, 12) and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(out, augment(x, seeded(1)))
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())
    if name not in ("none", "S0"):
        assert not torch.equal(out, augment(x, seeded(2)))


@pytest.mark.parametrize("name", ["simclr", "S4", "glyph", "cifar"])
def test_a_sample_does_not_depend_on_its_mates(name):
    x = bytes_of(6)
    other = x.clone()
    other[3:] = bytes_of(12)[6:9]
    augment = preset(name, 16)
    assert (augment(x, seeded(3))[:3] - augment(other, seeded(3))[:3]).abs().max() < 1e-6


def test_a_flip_is_a_mirror_image():
    x = bytes_of()
    assert torch.equal(Augment(flip=1)(x, seeded()), x.flip(3).float() / 255)
    resampled = Augment(crop=(1, 1), ratio=(1, 1), flip=1)(x, seeded())
    assert (resampled - x.flip(3).float() / 255).abs().max() < 1e-5
    half = Augment(flip=0.5)(bytes_of(400), seeded())
    turned = (half == bytes_of(400).flip(3).float() / 255).flatten(1).all(1).float().mean()
    assert 0.4 < turned < 0.6


def test_a_crop_reads_the_right_part_of_a_ramp():
    """On a picture that is its own coordinates, a crop's pixels are equally spaced and within it."""
    side = 32
    at = (torch.arange(side) + 0.5) / side
    x = torch.stack([at.expand(side, side), at[:, None].expand(side, side)])[None].repeat(200, 1, 1, 1)
    out = Augment(size=8, crop=(0.25, 0.25), ratio=(1, 1))(x, seeded())
    step = out[:, 0, 4, 4] - out[:, 0, 4, 3]
    assert (step - 0.5 / 8).abs().max() < 1e-4  # half a side, over eight pixels
    left = out[:, 0, 0, 0] - step / 2
    assert left.min() >= -1e-4 and left.max() <= 0.5 + 1e-4
    assert abs(left.mean() - 0.25) < 0.05  # uniform in 0 … 0.5
    assert (out[:, 0] - out[:, 0, :1]).abs().max() < 1e-4  # nothing is sheared


def test_areas_and_ratios_of_crops_are_those_that_were_asked_for():
    side = 64
    at = (torch.arange(side) + 0.5) / side
    x = torch.stack([at.expand(side, side), at[:, None].expand(side, side)])[None].repeat(2000, 1, 1, 1)
    out = Augment(size=16, crop=(0.1, 0.5), ratio=(0.5, 2))(x, seeded())
    wide = 16 * (out[:, 0, 8, 8] - out[:, 0, 8, 7])
    high = 16 * (out[:, 1, 8, 8] - out[:, 1, 7, 8])
    area, ratio = wide * high, wide / high
    assert 0.099 < area.min() and area.max() < 0.501
    assert 0.49 < ratio.min() and ratio.max() < 2.02
    assert abs(ratio.log().mean()) < 0.05


def test_a_rotation_by_a_quarter_turn_is_exact_on_squares_and_right_on_others():
    from math import pi

    from precis.train.augment import _affine, _Draws, _sample

    for h, w in ((8, 8), (6, 10)):
        x = torch.rand(1, 1, h, w)
        theta = _affine(_Draws(x, None), angle=pi / 2, aspect=h / w)[:, :2]
        theta[:, 0] *= h / w  # into a picture of w × h
        theta[:, 1] *= w / h
        turned = _sample(x, theta @ torch.diag(torch.tensor([w / h, h / w, 1.0])) if h != w else theta, (h, w), "zeros")
        if h == w:
            assert (turned - x.rot90(1, (2, 3))).abs().max() < 1e-5


def test_large_crops_are_averaged_first_so_that_a_chequerboard_becomes_grey():
    side = 64
    board = ((torch.arange(side)[:, None] + torch.arange(side)) % 2).float().expand(4, 1, side, side)
    out = Augment(size=8, crop=(0.9, 1), ratio=(1, 1))(board, seeded())
    assert (out - 0.5).abs().max() < 0.05
    odd = torch.linspace(0, 1, 37).expand(2, 1, 37, 37)
    small = Augment(size=5)(odd, seeded())
    wanted = (torch.arange(5) + 0.5) / 5  # pixel centres of a ramp from 0 to 1 over 37 pixels
    assert (small[0, 0, 0] - ((wanted * 37 - 0.5) / 36)).abs().max() < 0.02


def test_a_noise_and_a_cutout_are_of_the_size_asked_for():
    x = torch.full((300, 1, 16, 16), 0.5)
    noisy = Augment(noise=0.1)(x, seeded())
    assert abs(noisy.std() - 0.1) < 0.002 and abs(noisy.mean() - 0.5) < 0.002
    cut = Augment(cutout=6)(x, seeded()) == 0
    sizes = cut.flatten(1).sum(1)
    assert sizes.max() == 36 and sizes.min() >= 9


def test_grey_leaves_one_channel_thrice():
    out = Augment(grey_p=1)(bytes_of(), seeded())
    assert (out[:, 0] - out[:, 2]).abs().max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.sampled_from(["replicate", "zeros"]))
def test_a_shift_is_padding_and_a_cut(pad, seed, mode):
    x = bytes_of(5, 2, 7)
    out = random_shift(x, pad, seeded(seed), mode)
    same = seeded(seed)
    dy = torch.randint(2 * pad + 1, (5,), generator=same)
    dx = torch.randint(2 * pad + 1, (5,), generator=same)
    wide = torch.nn.functional.pad(x.float(), (pad,) * 4, mode="replicate" if mode == "replicate" else "constant")
    cut = [p[:, a : a + 7, b : b + 7] for p, a, b in zip(wide, dy.tolist(), dx.tolist())]
    assert out.dtype == torch.uint8 and torch.equal(out.float(), torch.stack(cut))


def test_shifts_are_uniform_and_views_have_their_own():
    x = torch.arange(81).view(1, 1, 1, 9, 9).expand(3, 500, 2, 9, 9)
    out = random_shift(x, 2, seeded())
    assert out.shape == x.shape
    centre = out[:, :, 0, 4, 4]
    counts = torch.stack([(centre == 9 * (4 + a) + 4 + b).sum() for a in range(-2, 3) for b in range(-2, 3)])
    assert counts.sum() == 1500
    assert ((counts - 60).square() / 60).sum() < 52  # χ² of 24 degrees of freedom, 99.9 %
    assert torch.equal(out[:, :, 0], out[:, :, 1]) and not torch.equal(out[0], out[1])
    assert random_shift(x, 0) is x


def test_the_small_image_preset_moves_bytes_exactly():
    x = bytes_of(50)
    out = preset("cifar")(x, seeded())
    padded = torch.nn.functional.pad(x, (4,) * 4)
    windows = padded.unfold(2, 16, 1).unfold(3, 16, 1).flatten(2, 3)
    for picture, choices in zip((out * 255).round().to(torch.uint8), windows):
        choices = torch.cat([choices, choices.flip(3)], 1)
        assert (choices == picture[:, None]).flatten(2).all(2).all(0).any()


def test_randaugment_draws_every_operation_equally_often():
    from precis.train.augment import _Draws

    drawn = draw(_Draws(torch.zeros(7000, 1), seeded()), 2, 9)
    counts = torch.bincount(drawn.which.flatten(), minlength=len(OPERATIONS))
    assert len(counts) == 14 and ((counts - 1000).square() / 1000).sum() < 34.5  # χ² of 13, 99.9 %
    assert drawn.strength == 0.9


def test_randaugment_of_magnitude_nought_moves_nothing():
    x = bytes_of(64)
    out = Augment(randaugment=(1, 0))(x, seeded())
    changed = (out - x.float() / 255).abs().flatten(1).amax(1) > 1e-4
    drawn = seeded()
    which = torch.randint(14, (64,), generator=drawn)
    assert torch.equal(changed, torch.isin(which, torch.tensor([1, 2])) & changed)  # autocontrast, equalize only


def test_simclr_is_weaker_on_small_pictures():
    assert preset("simclr", 32).jitter == (0.4, 0.4, 0.4, 0.1) and preset("simclr", 32).blur_p == 0
    assert preset("simclr", 96).jitter == (0.8, 0.8, 0.8, 0.2) and preset("simclr", 96).blur_p == 0.5
    assert preset("simclr", 96, s=0.25).jitter == (0.2, 0.2, 0.2, 0.05)
    assert preset("S4", 32, flip=False).flip == 0 and preset("S4", 32).cutout == 8


@pytest.mark.parametrize(
    "make, words",
    [(lambda: Augment(crop=(0, 1)), "crop is a range"), (lambda: Augment(flip=2), "flip is a probability"),
     (lambda: Augment(jitter=(2, 0, 0, 0)), "three strengths"), (lambda: preset("S5"), "no augmentation is called"),
     (lambda: preset("cifar", s=1), "strength of simclr"), (lambda: random_shift(torch.zeros(1, 1, 2, 2), -1), "pad"),
     (lambda: Augment(randaugment=(2, 11))(bytes_of(), seeded()), "magnitude in 0")],
)  # fmt: skip
def test_impossible_settings_are_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()
