"""Names for what is written of each photograph, and masks of photographs that share theirs."""

import json

import numpy as np
import pytest
from tests.data import scene_files as write

from precis.data.captures import read_scene, subset
from precis.data.captures_names import cut_out_each, file_names
from precis.errors import InputError


def test_names_are_stems_or_else_paths_below_what_all_share():
    assert file_names(["images/r_0", "images/r_1"]) == ["r_0", "r_1"]
    assert file_names(["a/cam0/0.png", "a/cam1/0.png"]) == ["cam0/0", "cam1/0"]
    assert file_names(["a/0.png", "a/0.jpg"]) == ["0_png", "0_jpg"]
    assert file_names(["A/x.png", "a/X.png"]) == ["A/0000_x", "a/0001_X"]  # where letters' case does not count
    for wild in (["../../x.png", "/etc/x.png"], ["..\\x.png", "x.png", "b/../x.png"]):
        made = file_names(wild)
        assert len(set(made)) == len(wild) and not any(".." in m.split("/") or m.startswith("/") for m in made)


@pytest.fixture
def rig(tmp_path):
    return two_cameras(write.nerfstudio(tmp_path / "rig", write.made(8, 16)))


def two_cameras(root):
    """The photographs of a scene dealt to two folders in which they have the same names."""
    meta = json.loads((root / "transforms.json").read_text())
    for k, frame in enumerate(meta["frames"]):
        new = root / f"images/cam{k % 2}/{k // 2:04d}.png"
        new.parent.mkdir(exist_ok=True)
        (root / frame["file_path"]).rename(new)
        frame["file_path"] = str(new.relative_to(root))
    (root / "transforms.json").write_text(json.dumps(meta))
    return root


def test_masks_of_photographs_that_share_a_name(tmp_path, rig):
    scene = read_scene(rig)
    for v, name in enumerate(scene.names):
        mask = np.zeros((16, 16, 3), np.uint8)
        mask[v:] = 255
        write.save(tmp_path / "m" / name.removeprefix("images/"), mask)
    made = cut_out_each(scene, tmp_path / "m")
    for v, image in enumerate(made.images):
        assert not image[:v, :, 3].any() and (image[v:, :, 3] == scene.images[v][v:, :, 3]).all()
    twice = cut_out_each(subset(scene, [0, 2, 4, 0]), tmp_path / "m/cam0")  # listed twice, as train and test
    assert np.array_equal(twice.images[3], twice.images[0]) and len(twice.images) == 4
    for v in range(4):
        write.save(tmp_path / "flat" / f"{v:04d}.png", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"sub-folders as they do, as in cam0/0000.png"):
        cut_out_each(scene, tmp_path / "flat")
