import numpy as np
import pytest

from precis.data.toy_clips import APART, CHANGES, MOVED, _moved, _warps, changes, clips, draw, render
from precis.data.toy_objects import toy_objects
from precis.data.toy_shapes import DISTANCES, SHAPES
from precis.errors import InputError


def test_pictures_are_those_of_toy_objects():
    ours = render(draw(8, 1, 5), 24, texture=0)
    theirs = toy_objects(8, generator=5, size=24, texture=0)
    assert np.array_equal(ours.images, theirs.images) and np.array_equal(ours.boxes, theirs.boxes)


def test_equal_numbers_equal_pictures_whatever_else_is_drawn():
    f = draw(6, 2, 1)
    whole, part = render(f, 16), render({k: v[2:4] for k, v in f.items()}, 16)
    assert np.array_equal(whole.images[2:4], part.images) and whole.boxes.shape == (6, 2, 4)
    assert np.array_equal(render(f, 16).images, whole.images)


def test_a_bend_moves_points_by_a_quarter_of_the_size_and_little_bends_little():
    rng = np.random.default_rng(0)
    warp = _warps(20, 1, rng)[:, 0]
    ball = rng.normal(size=(200, 3))
    ball *= 0.8 / np.linalg.norm(ball, axis=1, keepdims=True)
    moves = [np.linalg.norm(_moved(ball, np.repeat(w[None], 200, 0).T), axis=1).mean() for w in warp]
    assert np.mean(moves) == pytest.approx(MOVED, rel=0.15)
    f = draw(4, 1, 2, shape=[0, 1, 2, 5])
    plain = render(f, 24).images.astype(int)
    for amount, most in ((1e-4, 3.0), (0.6, 255.0)):
        bent = render(f | {"deform": np.full(4, amount, np.float32)}, 24).images.astype(int)
        change = np.abs(bent - plain).mean()
        assert change <= most and (amount < 0.1 or change > 3)


def test_rays_to_a_bent_object_end_on_its_surface():
    f = draw(3, 1, 4, shape=[0, 1, 6]) | {"deform": np.full(3, 0.5, np.float32)}
    from precis.data.toy_clips import _hit
    from precis.data.toy_objects import _rays

    _, o, d = _rays(f["azimuth"], f["elevation"], 24, 1)
    t, normal, _ = _hit(f, 0, o, d)
    for i, kind in enumerate((0, 1, 6)):
        seen = np.isfinite(t[i])
        x = (o[i] + t[i][seen][:, None] * d[i][seen]) / f["instance"][i, 0, :3]
        warped = x + 0.5 * _moved(x.astype(np.float32), np.repeat(f["warp"][i], len(x), 0).T)
        assert seen.sum() > 20 and np.abs(DISTANCES[SHAPES[kind]](warped.astype(np.float32))).max() < 2e-2
        assert (normal[i][seen] * d[i][seen]).sum(1).mean() < -0.3  # towards the camera


def test_a_clip_moves_smoothly_and_a_still_one_not_at_all():
    made = clips(3, 12, 0, size=16, deform=0.4)
    assert made.frames.shape == (3, 12, 3, 16, 16) and made.boxes.shape == (3, 12, 1, 4)
    x = made.frames.astype(float)
    near, far = np.abs(x[:, 1:] - x[:, :-1]).mean(), np.abs(x[:, 6:] - x[:, :-6]).mean()
    assert 0 < near < far
    turn = np.diff(made.factors["azimuth"].reshape(3, 12), axis=1)
    assert (np.abs(turn) > 2.9).all() and (np.abs(turn) < 8.1).all()
    still = clips(2, 4, 0, size=16, deform=0.4, moving=False)
    assert (still.frames == still.frames[:, :1]).all()
    assert np.array_equal(clips(3, 12, 0, size=16, deform=0.4).frames, made.frames)


@pytest.mark.parametrize("factor", CHANGES)
def test_only_the_one_factor_changes(factor):
    made = changes(factor, 2, 4, 3, size=16)
    assert made.images.shape == (64, 3, 16, 16)
    assert made.targets.tolist() == np.repeat(np.arange(8), 8).tolist() and len(set(made.bases.tolist())) == 16
    x = made.images.reshape(16, 4, 3, 16, 16).astype(int)
    assert np.abs(x - x[:, :1]).max((1, 2, 3, 4)).min() > 0  # each base is changed
    corners = x[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    share = (corners == corners[:, :1]).mean()
    assert share > (0.85 if factor in ("occlusion", "viewpoint", "instance", "deformation") else 0.95)


def test_compared_views_are_of_objects_that_look_otherwise_from_the_side():
    f = draw(200, 1, 0)
    from precis.data.toy_clips import _unequal

    _unequal(f["instance"], np.random.default_rng(0))
    horizontal = f["instance"][:, 0, :2]
    assert (horizontal.max(1) >= APART * horizontal.min(1)).all()


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match="a change is one of"):
        changes("colour")
    with pytest.raises(InputError, match="a picture or more"):
        draw(0)
    with pytest.raises(InputError, match="8 pixels"):
        render(draw(1), 4)
