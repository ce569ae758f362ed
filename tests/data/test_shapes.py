import numpy as np
import pytest
from scipy.spatial import cKDTree

from precis.data.shapes import band_limited, chirp, chord, csg_box, moving_shapes, sphere, torus

rng = np.random.default_rng(4)


def test_derivatives_equal_central_differences():
    image = band_limited(32, seed=0)
    x, h = rng.uniform(-1, 1, (200, 2)), 1e-4
    steps = h * np.eye(2)
    ahead = np.stack([image.value(x + s) for s in steps], -1)
    behind = np.stack([image.value(x - s) for s in steps], -1)
    scale = np.abs(image.gradient(x)).max()
    np.testing.assert_allclose(image.gradient(x), (ahead - behind) / (2 * h), atol=1e-5 * scale)
    second = (ahead + behind - 2 * image.value(x)[:, None]).sum(-1) / h**2
    np.testing.assert_allclose(image.laplacian(x), second, atol=1e-4 * np.abs(second).max())


@pytest.mark.parametrize("seed", range(4))
def test_band_and_range(seed):
    size = 32
    image = band_limited(size, seed)
    assert np.linalg.norm(image.frequencies, axis=1).max() < size / 2
    assert np.linalg.norm(image.frequencies, axis=1).max() > 0.89 * size / 2
    values = image.value(rng.uniform(-1, 1, (20_000, 2)))
    assert 0 <= values.min() < 0.35 and 0.65 < values.max() <= 1
    assert image.value(np.zeros((3, 5, 2))).shape == (3, 5) and image.gradient(np.zeros((3, 5, 2))).shape == (3, 5, 2)
    assert image.value(np.zeros((1, 2))) == band_limited(size, seed).value(np.zeros((1, 2)))
    assert image.value(np.zeros((1, 2))) != band_limited(size, seed + 9).value(np.zeros((1, 2)))


def test_band_limited_is_rebuilt_from_the_kept_grid_by_sinc_interpolation():
    """The point of the band limit: samples on the grid say what lies between them (away from the border)."""
    size = 32
    image = band_limited(size, 1, cutoff=0.5)
    line = np.arange(-4 * size, 4 * size) * 2 / size  # a wide grid of the same spacing
    grid = image.value(np.stack(np.meshgrid(line, line, indexing="ij"), -1))
    x = rng.uniform(-0.3, 0.3, (50, 2))
    away = [x[:, a, None] - line for a in (0, 1)]
    taper = [np.sinc(d * size / 2) * np.exp(-((d / 1.5) ** 2)) for d in away]
    rebuilt = np.einsum("ni,ij,nj->n", taper[0], grid, taper[1])
    np.testing.assert_allclose(rebuilt, image.value(x), atol=1e-4)


@pytest.mark.parametrize("make", [sphere, torus, csg_box])
def test_points_lie_on_the_surface_and_normals_are_the_gradient(make):
    points, normals, sdf = make(2000, seed=0)
    assert points.shape == normals.shape == (2000, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    assert np.abs(sdf(points)).max() < 1e-9
    h = 1e-5
    outward = (sdf(points + h * normals) - sdf(points - h * normals)) / (2 * h)
    assert (np.abs(outward - 1) < 1e-6).mean() > 0.999  # but within h of an edge
    again = make(2000, seed=0)
    np.testing.assert_array_equal(points, again.points)


@pytest.mark.parametrize("make", [sphere, torus, csg_box])
def test_distance_equals_that_to_a_dense_cloud(make):
    points, _, sdf = make(400_000, seed=1)
    x = rng.uniform(-1.2, 1.2, (3000, 3))
    brute, _ = cKDTree(points).query(x)
    assert np.abs(np.abs(sdf(x)) - brute).max() < 0.02  # the spacing of the cloud
    assert (brute - np.abs(sdf(x))).min() > -1e-9  # exact: never farther than a point of the surface


def test_signs():
    corner = np.array([[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5], [0.9, 0, 0]])
    assert (csg_box(10, 0).sdf(corner) > 0).tolist() == [True, False, True]
    assert (torus(10, 0).sdf(np.array([[0.6, 0, 0], [0.0, 0, 0]])) < 0).tolist() == [True, False]


def test_points_are_uniform_by_area():
    points, _, _ = torus(40_000, seed=2)
    outer = (np.hypot(points[:, 0], points[:, 1]) > 0.6).mean()
    assert outer == pytest.approx(0.5 + 0.25 / (np.pi * 0.6), abs=0.01)  # area of the outer half of the tube
    points, _, _ = csg_box(40_000, seed=2)
    on_hollow = (np.abs(np.linalg.norm(points - 0.6, axis=1) - 0.7) < 1e-9).mean()
    area = np.pi * 0.49 / 2
    assert on_hollow == pytest.approx(area / (area + 6 * 1.44 - 3 * np.pi * 0.49 / 4), abs=0.01)


def test_sounds():
    for sound in (chirp(0.5), chord(0.5, rate=16_000)):
        assert sound.samples.dtype == np.float32 and sound.samples.shape == (1, sound.rate // 2)
        assert 0.5 < np.abs(sound.samples).max() <= 1 and sound.samples[0, 0] == 0
    samples = chirp(1.0, 8000, 100.0, 1600.0).samples[0]
    crossings = np.flatnonzero(np.diff(np.signbit(samples)))
    assert (crossings < 800).sum() == pytest.approx(2 * 11.5, abs=2)  # ∫ 100·16^t dt up to 0.1 s is 11.5 periods
    assert len(crossings) == pytest.approx(2 * 1500 / np.log(16), rel=0.02)


def test_clip():
    clip = moving_shapes()
    assert clip.shape == (16, 3, 32, 32) and clip.dtype == np.uint8
    moved = np.abs(np.diff(clip.astype(int), axis=0)).reshape(15, -1).max(1)
    assert (moved > 50).all()
    assert np.abs(clip[0].astype(int) - clip[8]).max() > 50
