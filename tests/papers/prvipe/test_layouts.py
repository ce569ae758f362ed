"""Which of two layouts of seventeen points a file has: made people in either order, by cameras all around."""

import math

import numpy as np
import pytest
import torch
from tests.papers.runs import run_paper

from precis.contrastive.prvipe_keypoints import PROFILES, STD16_3D, normalize_3d, project
from precis.data.poses import procedural_skeleton
from precis.data.poses_2d import Keypoints
from precis.errors import InputError
from precis.papers.prvipe.layouts import layout_of, limbs, pelvis_off


def people(layout: str, n: int = 60, noise: float = 0.0, seed: int = 3) -> np.ndarray:
    """Pixels [n,17,2]; the points that made people lack are put where they belong on a head."""
    generator = torch.Generator().manual_seed(seed)
    k = normalize_3d(torch.from_numpy(procedural_skeleton(n, seed=seed).poses[:, 0]))
    at = {name: k[:, i] for i, name in enumerate(STD16_3D.names)}
    unit = lambda v: v / v.norm(dim=-1, keepdim=True)
    side, up = unit(at["left_shoulder"] - at["right_shoulder"]), unit(at["head"] - at["neck"])
    ahead = torch.linalg.cross(up, side)
    at |= {"nose": at["head"] + 0.12 * ahead, "thorax": at["neck"]}
    for name, sign in (("left", 1), ("right", -1)):
        at[f"{name}_eye"] = at["nose"] + 0.05 * sign * side + 0.05 * up - 0.03 * ahead
        at[f"{name}_ear"] = at["head"] + 0.12 * sign * side
    azimuth, elevation = (torch.rand(n, generator=generator) * w for w in (2 * math.pi, 0.5))
    flat = project(torch.stack([at[name] for name in PROFILES[layout].names], 1), azimuth, elevation, torch.zeros(n), 5)
    return (1000 * flat + 300 + noise * torch.randn(flat.shape, generator=generator)).numpy()


def read(points: np.ndarray, score: np.ndarray | None = None, **more) -> Keypoints:
    ids = tuple(str(i) for i in range(len(points)))
    return Keypoints(points, np.ones(points.shape[:2]) if score is None else score, ids, "x.csv", **more)


@pytest.mark.parametrize("layout", ["coco17", "h36m17"])
@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize("n", [2, 60])
def test_poses_tell_their_own_order(layout, noise, n):
    found = layout_of(read(people(layout, n, noise)), "auto")
    assert found.profile.names == PROFILES[layout].names and layout in found.words


def test_a_format_s_order_gives_way_to_what_poses_say_and_missing_points_do_not_mislead():
    human = people("h36m17")
    assert layout_of(read(human, layout="coco17"), "auto").profile is PROFILES["h36m17"]
    score = np.ones((60, 17))
    score[:, [2, 3, 16]] = 0
    human[:, [2, 3, 16]] = 0  # as detectors write them
    assert layout_of(read(human, score), "auto").profile is PROFILES["h36m17"]
    coco = people("coco17")
    coco[:, 1:5] = np.nan  # no eyes, no ears
    assert layout_of(read(coco), "auto").profile is PROFILES["coco17"] and pelvis_off(coco) == math.inf


def test_where_poses_say_nothing_coco_s_order_is_taken_and_the_other_named():
    noise = np.random.default_rng(0).normal(size=(40, 17, 2))
    found = layout_of(read(noise), "auto")
    assert found.profile is PROFILES["coco17"] and "--layout h36m17" in found.words and "no names given" in found.words
    noise[:, 5:] = np.nan
    assert np.isnan(limbs(noise, "coco17")).all() and "--layout h36m17" in layout_of(read(noise), "auto").words


def test_what_the_user_says_counts_and_is_checked():
    human = read(people("h36m17"))
    assert layout_of(human, "coco17").profile is PROFILES["coco17"]
    with pytest.raises(InputError, match="--layout body25 has 25 points, and here are 17"):
        layout_of(human, "body25")
    with pytest.raises(InputError, match="the file names them"):
        layout_of(read(people("h36m17"), names=PROFILES["h36m17"].names), "h36m17")


def test_a_run_of_numbered_points_reads_them_as_it_reads_named_ones(tmp_path):
    points = people("h36m17", 20).reshape(20, 34)
    names = [f"{name}_{axis}" for name in PROFILES["h36m17"].names for axis in "xy"]
    numbered = [f"{axis}{i}" for i in range(17) for axis in "xy"]
    for file, head in (("named", names), ("numbered", numbered)):
        np.savetxt(tmp_path / f"{file}.csv", points, delimiter=",", header=",".join(head), comments="", fmt="%.4f")
    options = {"steps": 2, "hidden": 16, "dim": 4}
    done = [run_paper("prvipe", tmp_path / f, tmp_path / f"{f}.csv", **options) for f in ("named", "numbered")]
    a, b = (np.load(d.folder / "embeddings.npz")["mean"] for d in done)
    assert np.array_equal(a, b)
    said = [" ".join(d.result["notes"]) for d in done]
    assert "points read by their names" in said[0] and "numbered.csv: points read as h36m17" in said[1]
