"""SIREN's boundary value problems in the plane: the truths that they are scored by, and the claim at smoke size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.nn.coordinates import coordinate_grid
from precis.papers.siren import claims_plane

SOURCE = PaperSource("siren", Path(claims_plane.__file__).parent, "precis.papers.siren")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_points_of_the_outline_have_distance_nought_and_its_gradient_for_normal() -> None:
    points, normals = (t.double() for t in claims_plane.outline(0.3, 0.25, 500, seeded()))
    points.requires_grad_()
    found = claims_plane.distance(points, 0.3, 0.25)
    assert float(found.detach().abs().max()) < 1e-6
    out = claims_plane.distance(points.detach() + 0.01 * normals, 0.3, 0.25)
    torch.testing.assert_close(out, torch.full_like(out, 0.01), atol=1e-6, rtol=0)
    inside = claims_plane.distance(points.detach() - 0.01 * normals, 0.3, 0.25)
    assert float(inside.max()) < 0


def test_distance_is_that_to_the_nearest_point_of_the_outline() -> None:
    points, _ = claims_plane.outline(0.3, 0.25, 40_000, seeded())
    x = coordinate_grid((9, 9))
    brute = torch.cdist(x, points).amin(1)
    assert float((claims_plane.distance(x, 0.3, 0.25).abs() - brute).abs().max()) < 2e-3


def test_a_standing_wave_comes_back_after_its_period() -> None:
    n = 32
    x = -1 + 2 * torch.arange(n, dtype=torch.float64) / n
    mode = ((math.pi * x)[:, None].cos() * (2 * math.pi * x).cos()).flatten()
    period = 2 * math.pi / (math.pi * math.sqrt(5))
    torch.testing.assert_close(claims_plane.travelled(mode, period), mode, atol=1e-12, rtol=0)
    torch.testing.assert_close(claims_plane.travelled(mode, period / 2), -mode, atol=1e-12, rtol=0)


def test_arms_have_as_many_weights() -> None:
    for dims in ((2, 1), (2, 2), (3, 1)):
        counts = [sum(p.numel() for p in claims_plane.plane_net(arm, *dims, 64, seeded()).parameters())
                  for arm in claims_plane.BoundaryValuePlane.arms]  # fmt: skip
        assert max(counts) <= 1.02 * min(counts)


def test_helmholtz_of_a_wide_source_is_damped_as_its_spectrum() -> None:
    """The field of a Gaussian of deviation s, by summing point sources, is that of a point times exp(−k²s²/2)."""
    from scipy.special import hankel2

    k, s = 12.0, 0.06
    at = np.array([0.4, 0.1])
    grid = np.linspace(-5 * s, 5 * s, 201)
    u, v = np.meshgrid(grid, grid)
    weight = np.exp(-(u**2 + v**2) / (2 * s**2)) / (2 * np.pi * s**2) * (grid[1] - grid[0]) ** 2
    summed = (weight * hankel2(0, k * np.hypot(at[0] - u, at[1] - v))).sum()
    assert summed == pytest.approx(math.exp(-((k * s) ** 2) / 2) * hankel2(0, k * np.hypot(*at)), rel=1e-3)


def test_the_claim_runs_at_smoke_size(tmp_path: Path) -> None:
    (entry,) = check([(SOURCE, claims_of(SOURCE)["boundary_value_plane"])], profile="smoke", device="cpu", workers=1,
                     home=tmp_path)  # fmt: skip
    assert entry["ran"] and not entry["failures"]
    assert set(entry["metrics"]) == {"siren", "relu", "relu_pe", "other_equation"}
    assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]
