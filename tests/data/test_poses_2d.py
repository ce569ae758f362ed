import json

import numpy as np
import pytest

from precis.data import kinds_of
from precis.data.poses_2d import read_2d
from precis.errors import InputError

FLAT = [float(v) for i in range(17) for v in (10 * i, 20 + i, 2 if i else 0)]


def test_coco_results_and_annotations(tmp_path):
    rows = [{"image_id": 7, "id": i, "keypoints": FLAT} for i in range(2)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    found = read_2d(tmp_path / "r.json")
    assert found.points.shape == (2, 17, 2) and found.layout == "coco17" and found.ids == ("7/0", "7/1")
    assert found.points[0, 3].tolist() == [30, 23] and found.score[0, :2].tolist() == [0, 1]
    whole = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [*rows, {"bbox": []}]}
    (tmp_path / "a.json").write_text(json.dumps(whole))
    assert read_2d(tmp_path / "a.json").ids == ("a.jpg/0", "a.jpg/1")
    assert "poses" in kinds_of(tmp_path / "r.json") and "poses" in kinds_of(tmp_path / "a.json")


def test_a_folder_of_openpose_files_with_several_people(tmp_path):
    person = {"pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}
    (tmp_path / "f1.json").write_text(json.dumps({"people": [person, person]}))
    (tmp_path / "f2.json").write_text(json.dumps({"people": []}))
    (tmp_path / "f3.json").write_text(json.dumps({"people": [person]}))
    found = read_2d(tmp_path)
    assert found.ids == ("f1/1", "f1/2", "f3") and found.layout == "body25" and found.score[0, 0] == 0.5
    assert read_2d(tmp_path / "f1.json").points.shape == (2, 25, 2)
    assert "poses" in kinds_of(tmp_path)


def test_columns_by_name_and_by_number(tmp_path):
    names = ["nose", "left_hip", "right_hip", "left_shoulder", "right_shoulder"]
    head = ",".join(["id", "view", "pose", *(f"{n}_{a}" for n in names for a in ("x", "y", "score"))])
    rows = ["a,front,p1," + ",".join(["1,2,0.9"] * 5), "a,back,p1," + ",".join(["3,,0.05"] * 5)]
    (tmp_path / "k.csv").write_text("\n".join([head, *rows]))
    found = read_2d(tmp_path / "k.csv")
    assert found.names == tuple(names) and found.ids == ("a", "a#2")
    assert found.views.tolist() == ["front", "back"] and found.poses.tolist() == ["p1", "p1"]
    assert np.isnan(found.points[1, 0, 1]) and found.score[1, 0] == 0.05
    number = ",".join(f"{a}{i}" for i in range(33) for a in "xyzv")
    (tmp_path / "m.csv").write_text(number + "\n" + ",".join(f"{i}.5,1,0,0.8" for i in range(33)))
    found = read_2d(tmp_path / "m.csv")
    assert found.points[0, :, 0].tolist() == [i + 0.5 for i in range(33)] and found.names is None
    assert "poses" in kinds_of(tmp_path / "k.csv") and "poses" in kinds_of(tmp_path / "m.csv")


def test_arrays(tmp_path):
    k = np.random.default_rng(0).uniform(0, 100, (4, 13, 2))
    np.save(tmp_path / "k.npy", k)
    np.savez(tmp_path / "k.npz", keypoints=k, ids=np.array(list("wxyz")), score=np.full((4, 13), 0.3))
    assert np.allclose(read_2d(tmp_path / "k.npy").points, k) and read_2d(tmp_path / "k.npy").ids[0] == "1"
    found = read_2d(tmp_path / "k.npz")
    assert found.ids == tuple("wxyz") and (found.score == 0.3).all()


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.json", "{", "this is no JSON"),
    ("a.json", '{"annotations": [{"bbox": 1}]}', "no annotation has 'keypoints'"),
    ("a.json", '[{"keypoints": [1, 2, 3, 4]}]', "three for each of"),
    ("a.json", '[{"keypoints": ["x"]}]', "are to be numbers"),
    ("a.json", '{"people": []}', "no person with"),
    ("a.json", '{"a": 1}', "no list of annotations"),
    ("a.csv", "a,b\n1,2", "columns like left_hip_x"),
    ("a.csv", ",".join(f"x{i},y{i}" for i in range(6)) + "\n" + ",".join(["u"] * 12), "is not a number"),
])  # fmt: skip
def test_what_is_wrong_is_told(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_2d(tmp_path / name)


def test_3d_poses_are_no_keypoints(tmp_path):
    np.save(tmp_path / "k.npy", np.random.default_rng(0).normal(0, 3, (4, 17, 3)))
    with pytest.raises(InputError, match="--train"):
        read_2d(tmp_path / "k.npy")
    np.savez(tmp_path / "k.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="no array 'keypoints'"):
        read_2d(tmp_path / "k.npz")
