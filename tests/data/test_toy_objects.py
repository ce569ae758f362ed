import numpy as np
import pytest

from precis.data.toy_objects import AMBIENT, SHAPES, _hit, _light, _rays, toy_objects
from precis.data.toy_shapes import DISTANCES, REACH
from precis.errors import InputError


def test_the_same_seed_gives_the_same_and_factors_are_those_asked_for():
    a, b, c = (toy_objects(6, generator=s, size=16) for s in (0, 0, 1))
    assert np.array_equal(a.images, b.images) and not np.array_equal(a.images, c.images)
    assert a.images.shape == (6, 3, 16, 16) and a.boxes.shape == (6, 1, 4)
    made = toy_objects(5, shape=[0, 1, 2, 3, 4], azimuth=30.0, size=16)
    assert made.factors["shape"][:, 0].tolist() == [0, 1, 2, 3, 4] and set(made.factors["azimuth"]) == {30.0}
    few = toy_objects(50, shape=[2, 5], size=8)
    assert set(few.factors["shape"].ravel()) == {2, 5}


def test_giving_one_factor_changes_no_other():
    a, b = toy_objects(4, size=16), toy_objects(4, azimuth=10.0, size=16)
    for name in ("instance", "elevation", "light_dir", "background", "shape"):
        assert np.array_equal(a.factors[name], b.factors[name]), name


def test_a_sphere_is_where_and_as_bright_as_geometry_says():
    size, n = 48, 3
    f = toy_objects(n, shape=0, instance=np.array([1.0, 1, 1, 0.3]), size=size, generator=2).factors
    axes, o, d = _rays(f["azimuth"], f["elevation"], size, 1)
    scale = np.ones((n, 3), np.float32)
    t, normal, _ = _hit(np.zeros(n, int), scale, np.zeros((n, 3), np.float32), o, d, 1)
    along = (o[:, None, None] * d).sum(-1)
    inside = along**2 - ((o**2).sum(1) - 1)[:, None, None]
    clear = inside > 0.05  # edges excluded
    truth = -along - np.sqrt(np.maximum(inside, 0))
    assert np.abs(t - truth)[clear].max() < 1e-2 and not np.isfinite(t[inside < -0.05]).any()
    at = o[:, None, None] + truth[..., None] * d
    lit = np.maximum((at * _light(f, axes)[:, None, None]).sum(-1), 0)
    got = np.maximum((normal * _light(f, axes)[:, None, None]).sum(-1), 0)
    assert np.abs(got - lit)[clear].max() < 2e-2 and 0 < AMBIENT < 1


def test_a_whole_turn_changes_nothing_and_a_part_of_it_does():
    views = [toy_objects(4, azimuth=a, size=24, texture=0).images.astype(int) for a in (20.0, 380.0, 75.0)]
    assert np.abs(views[0] - views[1]).max() <= 2 < np.abs(views[0] - views[2]).max()


@pytest.mark.parametrize("name", SHAPES)
def test_distances_never_overshoot_and_all_lies_within_reach(name):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (400, 3)).astype(np.float32)
    distance = DISTANCES[name]
    assert (distance(x[np.linalg.norm(x, axis=1) > REACH]) > 0).all()
    inside = x[distance(x) < 0]
    assert len(inside) > 2
    apart = np.linalg.norm(x[:, None] - inside[None], axis=-1).min(1)
    assert (distance(x) <= apart + 1e-5).all()


def test_scenes_have_as_many_boxes_and_boxes_hold_the_object():
    made = toy_objects(8, scene=3, size=32, texture=0, generator=3)
    assert made.boxes.shape == (8, 3, 4) and np.isfinite(made.boxes).mean() > 0.9
    one = toy_objects(8, size=32, texture=0, generator=3)
    for image, (x0, y0, x1, y1) in zip(one.images, one.boxes[:, 0]):
        assert 0 <= x0 < x1 <= 32 and 0 <= y0 < y1 <= 32
        outside = np.ones((32, 32), bool)
        outside[int(y0) : int(y1), int(x0) : int(x1)] = False
        spread = image[:, outside].reshape(3, -1).astype(float).std(1)
        assert spread.max() == 0


def test_a_card_hides_the_share_that_was_asked_for():
    free, hidden = (toy_objects(6, occlusion=o, size=32, generator=4) for o in (0.0, 0.5))
    changed = (free.images != hidden.images).any(1)
    for i, (x0, y0, x1, y1) in enumerate(free.boxes[:, 0]):
        area = (x1 - x0) * (y1 - y0)
        assert 0.35 < changed[i].sum() / area < 0.65


def test_what_cannot_be_made_is_told():
    for options in ({"n": 0}, {"n": 2, "scene": 0}, {"n": 2, "size": 4}, {"n": 2, "shape": 8}):
        with pytest.raises(InputError):
            toy_objects(**options)
