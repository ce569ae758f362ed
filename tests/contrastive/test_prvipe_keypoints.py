import math

import pytest
import torch

from precis.contrastive.prvipe_keypoints import (
    COCO17,
    GROUPS,
    H36M17,
    PROFILES,
    STD13_2D,
    STD16_3D,
    in_camera,
    missing_at_random,
    missing_groups,
    normalize_2d,
    normalize_3d,
    perspective,
    project,
)


def points(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angle(degrees, n=1):
    return torch.full((n,), math.radians(degrees), dtype=torch.float64)


def test_normalised_by_the_torso():
    k = points(5, 13, 2)
    out = normalize_2d(k)
    hips, torso = [7, 8], [1, 2, 7, 8]
    assert [STD13_2D.names[i] for i in torso] == ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]
    assert out[:, hips].mean(1).abs().max() < 1e-12
    assert torch.cdist(out[:, torso], out[:, torso]).amax((1, 2)).sub(0.5).abs().max() < 1e-12
    torch.testing.assert_close(normalize_2d(7 * k + torch.tensor([3.0, -5.0])), out)
    assert (normalize_2d(k * torch.tensor([1.0, 2.0])) - out).abs().max() > 0.01
    assert normalize_2d(torch.zeros(1, 13, 2)).isfinite().all()


def test_normalised_by_the_spine():
    k = normalize_3d(points(5, 16, 3))
    neck, spine, pelvis = (k[:, STD16_3D.names.index(n)] for n in ("neck", "spine", "pelvis"))
    torch.testing.assert_close((neck - spine).norm(dim=1) + (spine - pelvis).norm(dim=1), torch.ones(5).double())
    assert pelvis.abs().max() == 0


def test_missing_points_are_not_looked_at():
    k = points(40, 13, 2)
    everything = torch.ones(40, 13, dtype=torch.bool)
    torch.testing.assert_close(normalize_2d(k, everything), normalize_2d(k))
    mask = missing_at_random(40, 0.5, generator=torch.Generator().manual_seed(0))
    spoiled = k.where(mask[..., None], torch.tensor(torch.nan).double())
    out = normalize_2d(spoiled, mask)
    assert out.isfinite().all() and out[~mask].abs().max() == 0
    torch.testing.assert_close(out, normalize_2d(9 * k - 4, mask))
    no_hips = everything.clone()
    no_hips[:, 7:9] = False
    assert normalize_2d(k, no_hips)[:, 1:3].mean(1).abs().max() < 1e-12  # the shoulders' middle instead


def test_a_cross_seen_from_all_sides():
    # left, backward, up, and the middle; the person looks along −y, where the camera of azimuth 0 stands
    cross = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]]).double()
    left, back, up, middle = project(cross, angle(0), angle(0), angle(0))[0]
    assert left.tolist() == [0.5, 0] and up.tolist() == [0, -0.5] and middle.tolist() == [0, 0]
    assert back.tolist() == [0, 0]
    side = in_camera(cross, angle(90), angle(0), angle(0))[0]  # its left is nearer, its back to the right
    assert side[0, 1] < -0.99 and side[1, 0] > 0.99
    above = in_camera(cross, angle(0), angle(90), angle(0))[0]
    assert above[2, 1] < -0.99
    rolled = in_camera(cross, angle(0), angle(0), angle(90))[0]
    assert abs(rolled[2, 0]) > 0.99 and (rolled.norm(dim=1)[:3] - 1).abs().max() < 1e-12
    depth = torch.tensor([2.0, 6.0]).double()
    both = perspective(cross.expand(2, -1, -1), depth)
    assert both[:, 0, 0].tolist() == [1 / 2, 1 / 6]
    assert project(cross * 5, angle(90), angle(0), angle(0)).isfinite().all()


def test_layouts_have_their_thirteen_points():
    assert [len(p.names) for p in PROFILES.values()] == [13, 16, 17, 17, 25, 33]
    for profile in PROFILES.values():
        k = torch.arange(len(profile.names)).double()[:, None].expand(-1, 2)
        picked = profile.pick(k, STD13_2D)[:, 0].long().tolist()
        found = [profile.names[i] for i in picked]
        assert found[1:] == list(STD13_2D.names[1:]) and found[0] in ("nose", "head")
    assert COCO17.pick(torch.eye(17)[None], STD13_2D).argmax(-1).tolist()[0][:3] == [0, 5, 6]
    spine = H36M17.pick(torch.arange(17.0)[:, None], STD16_3D)
    assert spine[STD16_3D.names.index("neck"), 0] == H36M17.names.index("thorax")
    with pytest.raises(ValueError, match="no neck"):
        COCO17.pick(torch.zeros(17, 2), STD16_3D)


def test_a_mirrored_pose_has_left_and_right_exchanged():
    k = points(2, 16, 3)
    m = STD16_3D.mirrored(k)
    assert torch.equal(m[:, 2], k[:, 3] * torch.tensor([-1.0, 1, 1]).double())
    assert torch.equal(STD16_3D.mirrored(m), k) and len(STD16_3D.flip_pairs) == 6


def test_shares_of_missing_points():
    g = torch.Generator().manual_seed(0)
    assert abs(float(missing_at_random(4000, 0.3, generator=g).float().mean()) - 0.7) < 0.01
    assert missing_at_random(50, 0.9, 0.0, generator=g).all()
    limbs = missing_groups(4000, generator=g)
    arm = limbs[:, STD13_2D.index(GROUPS["left arm"])]
    assert torch.equal(arm[:, 0], arm[:, 1]) and abs(float(arm.float().mean()) - 0.75) < 0.02
    assert limbs[:, STD13_2D.index(("left_shoulder", "right_shoulder"))].all()
    only = missing_groups(9, {"head": 1.0}, generator=g)
    assert not only[:, 0].any() and only[:, 1:].all()
