import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from skimage.transform import SimilarityTransform

from precis.contrastive.prvipe_alignment import dtw_align, match_matrix, pa_mpjpe, pa_mpjpe_pairs, procrustes_2d


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(seed):
    return torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def all_pairs(a, b):
    return pa_mpjpe(a[:, None].expand(-1, len(b), -1, -1), b[None].expand(len(a), -1, -1, -1))


def test_aligned_as_scikit_image_aligns():
    target, source = random(6, 16, 3), random(6, 16, 3, seed=1)
    for x, y, found in zip(target.numpy(), source.numpy(), pa_mpjpe(target, source)):
        moved = SimilarityTransform.from_estimate(y, x)(y)
        assert abs(np.linalg.norm(moved - x, axis=1).mean() - float(found)) < 1e-12


def test_what_alignment_undoes_and_what_not():
    target, source = random(4, 16, 3), random(4, 16, 3, seed=1)
    base = pa_mpjpe(target, source)
    torch.testing.assert_close(pa_mpjpe(target, 3.1 * source @ turn(2) + 5), base, atol=1e-12, rtol=0)
    torch.testing.assert_close(pa_mpjpe(target @ turn(3) - 2, source), base, atol=1e-12, rtol=0)
    torch.testing.assert_close(pa_mpjpe(2.5 * target, source), 2.5 * base, atol=1e-12, rtol=0)
    assert pa_mpjpe(target, 0.2 * target @ turn(4)).max() < 1e-12
    mirrored = target * torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    assert pa_mpjpe(target, mirrored).min() > 0.1


def test_points_that_do_not_count_change_nothing():
    target, source = random(3, 16, 3), random(3, 16, 3, seed=1)
    mask = torch.arange(16).expand(3, -1) < 11
    spoiled = target.clone()
    spoiled[:, 11:] = 1e3
    torch.testing.assert_close(pa_mpjpe(spoiled, source, mask), pa_mpjpe(target[:, :11], source[:, :11]))
    torch.testing.assert_close(pa_mpjpe(target, source, torch.ones_like(mask)), pa_mpjpe(target, source))


@pytest.mark.parametrize("joints", [4, 13, 16])
def test_the_closed_form_is_the_decomposition(joints):
    a, b = random(20, joints, 3), random(17, joints, 3, seed=1) * torch.tensor([1.0, 0.3, 0.05])
    torch.testing.assert_close(pa_mpjpe_pairs(a, b), all_pairs(a, b), atol=1e-9, rtol=0)


def test_flat_and_straight_poses_too():
    flat, line = random(5, 16, 3), random(5, 16, 3, seed=1)
    flat[..., 2] = 0
    line[..., 1:] = 0
    for a, b in ((flat, flat), (flat, random(5, 16, 3, seed=2)), (line, flat), (line, line)):
        torch.testing.assert_close(pa_mpjpe_pairs(a, b), all_pairs(a, b), atol=1e-7, rtol=0)


@pytest.mark.parametrize("kappa", [0.05, 0.1, 0.3, 2.0])
def test_matches_are_those_of_the_threshold(kappa):
    base, other = random(10, 16, 3), random(9, 16, 3, seed=1)
    poses = torch.cat([base, base + 0.1 * random(10, 16, 3, seed=3), base @ turn(1) + 0.02 * random(10, 16, 3, seed=4),
                       other, 2 * other])  # fmt: skip
    assert torch.equal(match_matrix(poses, kappa), all_pairs(poses, poses) <= kappa)
    assert match_matrix(poses.float(), kappa).diagonal().all()


def test_sequences_align_as_one_cloud_of_points():
    clips = random(6, 7, 16, 3).flatten(1, 2)
    clips = torch.cat([clips, clips @ turn(5)])
    assert torch.equal(match_matrix(clips), all_pairs(clips, clips) <= 0.1)


def test_2d_alignment_against_a_search_over_angles():
    a, b = random(3, 13, 2), random(4, 13, 2, seed=1)
    found = procrustes_2d(a, b)
    for i in range(3):
        for j in range(4):
            moved = SimilarityTransform.from_estimate(b[j].numpy(), a[i].numpy())(b[j].numpy())
            assert abs(np.linalg.norm(moved - a[i].numpy(), axis=1).mean() - float(found[i, j])) < 1e-12


def test_warping_against_a_double_loop():
    a, b = random(9, 4).float(), random(12, 4, seed=1).float()
    d = torch.cdist(a.double(), b.double()).numpy()
    total = np.full((10, 13), np.inf)
    total[0, 0] = 0
    for i in range(1, 10):
        for j in range(1, 13):
            total[i, j] = d[i - 1, j - 1] + min(total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
    warp = dtw_align(a, b)
    assert abs(warp.cost - total[-1, -1]) < 1e-9
    path = warp.path.numpy()
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [8, 11]
    assert set(map(tuple, np.diff(path, axis=0))) <= {(0, 1), (1, 0), (1, 1)}
    assert abs(d[path[:, 0], path[:, 1]].sum() - warp.cost) < 1e-9
    slow = b.repeat_interleave(2, 0)
    assert dtw_align(b, slow).cost < 1e-9
    assert dtw_align(b[:1], b[:1]).path.tolist() == [[0, 0]]
