"""Made scenes: what the pictures show is where the truth says it is."""

import numpy as np
import pytest

from precis.data.captures import read_scene
from precis.data.captures_nerfies import instants, write_nerfies
from precis.data.kinds import kinds_of
from precis.data.scenes3d import capture, capture_occupied, flatland, flatland_occupied, flatland_world
from precis.data.scenes3d_trace import normals, trace
from precis.data.scenes3d_views import camera_rays, look_at, pinhole


def place(views, v: int, depth: np.ndarray) -> np.ndarray:
    """Points [n,3] that a view's pixels with a depth show."""
    o, d = camera_rays(views.c2w[v : v + 1], views.K[v : v + 1], views.size)
    known = np.isfinite(depth)
    return o[0][known] + depth[known][:, None] * d[0][known]


def test_static_flatland() -> None:
    scene = flatland(3, 8, size=32, test=4)
    assert scene.train.images.shape == (8, 1, 32, 4) and scene.test.images.shape == (4, 1, 32, 4)
    assert scene.train.size == (32, 1) and scene.train.masks is None
    again = flatland(3, 8, size=32, test=4)
    assert np.array_equal(scene.train.images, again.train.images)
    assert not np.array_equal(scene.train.images, flatland(4, 8, size=32, test=4).train.images)
    world = flatland_world(3)
    for v in range(8):  # mean depths lie just behind the surface: there is matter a little further on
        o, d = camera_rays(scene.train.c2w[v : v + 1], scene.train.K[v : v + 1], scene.train.size)
        x = place(scene.train, v, scene.train.depth[v])
        assert flatland_occupied(world, x)[0].mean() > 0.9
        clear = scene.train.images[v, 0, :, 3] == 0
        along = o[0, 0, clear, None] + np.linspace(2, 6, 400)[:, None] * d[0, 0, clear, None]
        assert not flatland_occupied(world, along.reshape(-1, 3)).any()
    grid = np.linspace(-1.3, 1.3, 80)
    square = np.stack([*np.meshgrid(grid, grid), np.zeros((80, 80))], -1).reshape(-1, 3)
    assert flatland_occupied(world, square)[0].mean() < 0.3  # more than 70 % of it is empty


def test_highlight_moves_with_the_eye_and_only_it() -> None:
    shiny, dull = (flatland(3, 16, size=48, test=1, specular=s).train for s in (True, False))
    changed = (shiny.images != dull.images).any(-1)
    assert 0 < changed.mean() < 0.25
    assert (shiny.images[changed][:, :3].astype(int) >= dull.images[changed][:, :3].astype(int) - 1).all()


def test_quadrature_has_converged() -> None:
    world = flatland_world(5, 4, True)
    scene = flatland(5, 4, True, 16)
    o, d = camera_rays(scene.train.c2w[:1], scene.train.K[:1], scene.train.size)
    rough, fine = (world.look(o[0, 0, :, :2], d[0, 0, :, :2], 0.35, 1.05, 0, n)[0] for n in (1024, 4096))
    assert np.abs(rough - fine).max() < 0.05 and np.abs(rough - fine).mean() < 0.005


def test_moving_flatland() -> None:
    scene = flatland(1, 12, True, 48)
    train, test = scene
    assert len(train.images) == len(test.images) == 12 and train.images.shape[-1] == 3
    assert np.array_equal(train.frame, test.frame) and train.time[0] == 0 and train.time[-1] == 1
    facing = np.degrees(np.arctan2(train.c2w[:, 1, 3], train.c2w[:, 0, 3])) + 90
    assert np.abs(facing).max() <= 35 + 1e-3 and np.ptp(facing) > 45
    beside = np.degrees(np.arctan2(test.c2w[:, 1, 3], test.c2w[:, 0, 3])) + 90 - facing
    np.testing.assert_allclose(beside, 12, atol=1e-3)
    world = flatland_world(1, 12, True)
    centre = world.head.centre + world.head.shift
    pixels = train.K[0, 0] * np.ptp(centre[:, 0]) / 0.7
    assert pixels > 4  # the head wanders by more than four pixels
    for v in range(12):  # what the mask marks is the head, and depths lead there
        depth = np.where(train.masks[v], train.depth[v], np.nan)
        x = place(train, v, depth)
        assert world.head.inside(world.head.rest(x[:, :2], v)).mean() > 0.85
    grid = np.stack([*np.meshgrid(np.linspace(-0.36, 0.36, 60), np.linspace(-0.3, 0.32, 60)), np.zeros((60, 60))], -1)
    occupied = flatland_occupied(world, grid.reshape(-1, 3), 12)
    assert occupied.shape == (12, 3600) and occupied.any(0).mean() > occupied.mean()
    assert np.abs(world.shapes.owner(train.static_points[:, :2].astype(float) * 1.0) >= 0).mean() > 0.2
    cameras_and_points = np.concatenate([train.c2w[:, :, 3], train.static_points])
    assert 0.7 < np.linalg.norm(np.ptp(cameras_and_points, axis=0)) < 1.6


def test_the_bend_keeps_areas() -> None:
    head = flatland_world(2, 6, True).head
    x, h = np.array([[0.05, -0.1]]), 1e-6
    columns = [(head.rest(x + e, 3) - head.rest(x - e, 3)) / (2 * h) for e in h * np.eye(2)]
    assert np.linalg.det(np.concatenate(columns).T) == pytest.approx(1, abs=1e-6)


def test_tracing_meets_a_sphere_where_algebra_does() -> None:
    rng = np.random.default_rng(0)
    o = np.tile([0.0, -3.0, 0.0], (200, 1))
    d = rng.normal(size=(200, 3)) * 0.25 + [0, 1, 0]
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    sphere = lambda x: np.linalg.norm(x, axis=1) - 1
    t = trace(sphere, o, d, 0.1, 10, close=1e-9, steps=2000)
    b = (o * d).sum(1)
    disc = b**2 - ((o**2).sum(1) - 1)
    hit = disc > 1e-3
    np.testing.assert_allclose(t[hit], -b[hit] - np.sqrt(disc[hit]), atol=1e-6)
    assert np.isinf(t[disc < -1e-3]).all() and hit.any() and (disc < 0).any()
    x = o[hit] + t[hit, None] * d[hit]
    np.testing.assert_allclose(normals(sphere, x), x, atol=1e-3)


@pytest.fixture(scope="module")
def busts():
    return {kind: capture(kind, 10, 16, 0) for kind in ("static", "moving")}


def test_bust_at_rest(busts) -> None:
    train, test = busts["static"]
    assert train.images.shape == (10, 16, 16, 4) and len(test.images) == 2
    for v in range(10):
        x = place(train, v, np.where(train.images[v, ..., 3] == 255, train.depth[v], np.nan))
        near = capture_occupied("static", 10, 0, x + 0.06 * train.c2w[v, :, 2] * -1)[0]
        assert near.mean() > 0.8
    assert np.isnan(train.depth).mean() > 0.5  # mostly nothing around it


def test_bust_that_moves(busts) -> None:
    train, test = busts["moving"]
    assert train.images.shape == (10, 16, 16, 3) and len(test.images) == 10
    assert 0.05 < train.masks.mean() < 0.6 and np.isfinite(train.static_points).all()
    occupied = capture_occupied("moving", 10, 0, train.static_points[:200] * 1.001)
    assert occupied.shape == (10, 200)
    assert (np.abs(train.images[0].astype(int) - train.images[5]) > 20).any(-1).mean() > 0.2


def test_layout_of_nerfies_goes_round(tmp_path, busts) -> None:
    scene = busts["moving"]
    folder = write_nerfies(tmp_path / "bust", scene)
    assert "scene" in kinds_of(folder)
    read = read_scene(folder)
    train = [v for v, s in enumerate(read.split) if s == "train"]
    assert len(train) == 10 and len(read.names) == 20
    np.testing.assert_allclose(read.c2w[train], scene.train.c2w, atol=1e-6)
    np.testing.assert_allclose(read.K[train], scene.train.K, rtol=1e-6)
    assert all(np.array_equal(read.images[v], image) for v, image in zip(train, scene.train.images))
    frame, borrowed = instants(read.time, np.isin(np.arange(20), train))
    assert frame[train].tolist() == list(range(10)) and not borrowed.any()
    np.testing.assert_allclose(read.points, scene.train.static_points, atol=1e-6)


def test_instants_outside_of_the_training_range_take_the_nearest() -> None:
    frame, borrowed = instants(np.array([0.0, 0.5, 1.0, 0.8]), np.array([True, True, True, False]))
    assert frame.tolist() == [0, 1, 2, 2] and borrowed.tolist() == [False, False, False, True]
    assert instants(None, np.array([True, False, True]))[0].tolist() == [0, 0, 1]


def test_arguments_that_make_no_scene() -> None:
    with pytest.raises(ValueError, match="at least 2 views"):
        capture("static", 1, 16)
    with pytest.raises(ValueError, match="between 1 and frames"):
        flatland(0, 8, test=9)


def test_cameras_look_where_they_should() -> None:
    pose = look_at(np.array([[0.0, -2.0, 1.0]]), np.zeros(3), np.array([0.0, 0.0, 1.0]))[0]
    np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-6)
    assert pose[2, 1] > 0 and np.linalg.det(pose[:, :3]) == pytest.approx(1)
    o, d = camera_rays(pose[None], pinhole(1, 5, 5, 40.0), (5, 5))
    np.testing.assert_allclose(o[0, 2, 2] + np.sqrt(5) * d[0, 2, 2], 0, atol=1e-6)
    assert d[0, 0, 2, 2] > d[0, 4, 2, 2]  # the first row is the upper one
