"""The claims at smoke size, what their broken arms break, and the yardsticks they are measured with."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from precis.data.scenes3d import flatland
from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.papers.nerf import arms, claims
from precis.papers.nerf.arms import Views, build, nearest_views, psnr, samples_of, steps_to, watched
from precis.papers.nerf.claims_size import DenseGrid
from precis.papers.nerf.claims_time import _Clock

SOURCE = PaperSource("nerf", Path(claims.__file__).parent, "precis.papers.nerf")
SMALL = Views("flatland", 16, 2, 16, 4, 8)


def test_every_claim_runs_at_smoke_size(tmp_path):
    every = [(SOURCE, claim) for claim in claims_of(SOURCE).values()]
    entries = check(every, profile="smoke", device="cpu", workers=1, home=tmp_path)
    assert len(entries) == 7
    for entry in entries:
        assert entry["ran"] and not entry["failures"], entry["id"]
        values = [v for arm in entry["metrics"].values() for row in arm.values() for v in row.values()]
        assert values and all(math.isfinite(v) for v in values), entry["id"]


def test_equal_queries_and_equal_parameters():
    assert samples_of("nerf", SMALL) == (4, 8) and samples_of("uniform", SMALL) == (16, 0)
    count = {arm: sum(p.numel() for p in build(arm, SMALL, torch.Generator()).parameters())
             for arm in ("nerf", "raw_xyz", "foreign_bands", "foreign_direction")}  # fmt: skip
    assert count["raw_xyz"] == pytest.approx(count["nerf"], rel=0.02)
    assert count["foreign_bands"] == count["foreign_direction"] == count["nerf"]


def test_broken_arms_break_what_they_say_and_nothing_else():
    g = torch.Generator().manual_seed(0)
    x, d = torch.rand(4, 5, 3, generator=g), torch.nn.functional.normalize(torch.rand(4, 1, 3, generator=g), dim=-1)
    plain = build("nerf", SMALL, torch.Generator().manual_seed(0))
    bands = build("foreign_bands", SMALL, torch.Generator().manual_seed(0))
    way = build("foreign_direction", SMALL, torch.Generator().manual_seed(0))
    a, b = plain.position(x), bands.position(x)
    assert torch.equal(b[..., :3], x) and torch.equal(b[..., 3:], a[..., 3:].roll(2, 0))
    assert torch.equal(plain(x, d)[0], way(x, d)[0]) and not torch.equal(plain(x, d)[1], way(x, d)[1])
    assert torch.equal(way(x, d)[1], plain(x, d.roll(2, 0))[1])


def test_the_nearest_photograph_is_a_neighbour_on_the_circle():
    scene = flatland(0)
    near = nearest_views(scene.train, scene.test)
    angle = lambda c: np.arctan2(c.c2w[:, 1, 3], c.c2w[:, 0, 3])
    for k, row in enumerate(near):
        off = np.angle(np.exp(1j * (angle(scene.train)[row[:2]] - angle(scene.test)[k])))
        assert np.abs(off).max() < np.radians(5.1) and off[0] * off[1] < 0


def test_steps_to_a_goal_lie_between_measurements():
    curve = {"step": [10.0, 20.0, 30.0], "psnr": [10.0, 20.0, 25.0]}
    assert steps_to(curve, 15.0) == pytest.approx(15) and steps_to(curve, 20.0) == 20 and steps_to(curve, 99.0) == 31
    clock = _Clock("cpu")
    clock.steps, clock.seconds = [10.0, 20.0], [1.0, 3.0]
    assert clock.at(15.0) == 2 and clock.at(99.0) == 3


def test_curves_are_measured_on_the_first_views_or_on_all():
    test = flatland(0, size=16).test
    two = watched(test, replace(SMALL, watched=2))
    assert len(two.images) == len(two.c2w) == len(two.K) == 2 and two.size == test.size
    assert np.array_equal(two.rgb(), test.rgb()[:2]) and len(watched(test, SMALL).images) == len(test.images) == 12


def test_the_dense_grid_interpolates_and_is_empty_outside():
    grid = DenseGrid(torch.tensor([[-1.0, -1, -1], [1.0, 1, 1]]), 3, flat=True)
    assert grid.table.shape == (9, 4)
    with torch.no_grad():
        grid.table[4, 0] = 50.0  # the middle
    with torch.no_grad():
        sigma, rgb = grid(torch.tensor([[0.0, 0, 0.3], [0.5, 0, 0], [2.0, 0, 0]]), torch.zeros(3, 3))
    assert sigma[0] == pytest.approx(49, abs=1e-3) and sigma[1] == pytest.approx(24, abs=1e-3) and sigma[2] == 0
    assert rgb.shape == (3, 3)


def test_psnr_is_capped_and_pictures_of_nothing_are_scored():
    assert psnr(np.ones((2, 3)), np.ones((2, 3))) == 60
    assert psnr(np.zeros((2, 3)), np.full((2, 3), 0.1)) == pytest.approx(20)
    mean = arms.blind("mean_colour", *flatland(0))
    assert mean.shape == flatland(0).test.rgb().shape and np.ptp(mean, axis=(0, 1, 2)).max() == 0
