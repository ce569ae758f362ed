import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_poses_acclaim import acclaim, motion
from tests.papers.runs import run_paper

from precis.contrastive.prvipe_keypoints import COCO17
from precis.data.poses import procedural_skeleton
from precis.data.poses_2d import read_2d
from precis.errors import InputError, Stopped
from precis.papers.prvipe.kept import place_of, seen_no_motion
from precis.papers.prvipe.samples import three_views

QUICK = {"steps": 2, "hidden": 16, "dim": 4}


@pytest.fixture(autouse=True)
def few_poses(monkeypatch):
    monkeypatch.setattr("precis.papers.prvipe.embedding.POSES", 120)
    monkeypatch.setattr("precis.papers.prvipe.embedding.BATCH", 32)


run = partial(run_paper, "prvipe")


@pytest.fixture
def sample(tmp_path) -> Path:
    return three_views(tmp_path / "three_views.csv")


def test_the_sample_is_searched_across_its_views(tmp_path):
    done = run(tmp_path / "out", **QUICK | {"steps": 80, "hidden": 32})
    m, folder = done.metrics, done.folder
    assert m["poses"] == 120 and m["hit1"] > 5 and m["hit10"] > 45 and m["mean_std"] > 0
    assert done.result["files"][0] == "gallery.png" and (folder / "ambiguity.png").stat().st_size > 5000
    rows = list(csv.DictReader((folder / "neighbours.csv").open()))
    assert len(rows) == 120 * 8 and all(r["id"].split()[1] != r["neighbour"].split()[1] for r in rows)
    assert float(rows[0]["distance"]) <= float(rows[7]["distance"]) and 0.05 <= float(rows[0]["probability"]) <= 0.95
    arrays = np.load(folder / "embeddings.npz")
    assert arrays["mean"].shape == arrays["std"].shape == (120, 4) and (arrays["std"] > 0).all()
    assert "never seen real motion" in " ".join(done.result["notes"]) and not (folder / ".training").exists()


def test_a_model_of_a_run_is_taken_by_another_and_two_files_are_searched_and_aligned(sample, tmp_path):
    first = run(tmp_path / "first", sample, **QUICK)
    lines = sample.read_text().splitlines()
    front = [line for line in lines if ",left," not in line and ",behind," not in line]
    (tmp_path / "front.csv").write_text("\n".join(front))
    (tmp_path / "left.csv").write_text("\n".join([lines[0], *(line for line in lines if ",left," in line)]))
    done = run(tmp_path / "second", tmp_path / "front.csv", model=first.folder, index=tmp_path / "left.csv", align=True,
               query="07 front")  # fmt: skip
    assert not (done.folder / "model.safetensors").exists()
    path = [(r["first"], r["second"]) for r in csv.DictReader((done.folder / "alignment.csv").open())]
    assert path[0] == ("01 front", "01 left") and path[-1] == ("40 front", "40 left") and len(path) >= 40
    assert (done.folder / "alignment.png").stat().st_size > 5000 and done.metrics["alignment_cost"] > 0
    a, b = (np.load(d.folder / "embeddings.npz") for d in (first, done))
    assert np.allclose(a["mean"][:40], b["mean"], atol=1e-5) and b["ids"][6] == "07 front"


def test_a_stopped_run_goes_on_to_the_same_end(sample, tmp_path):
    def stop(event):
        if event["event"] == "log" and event["step"] >= 2:
            raise Stopped("enough")

    options = QUICK | {"steps": 6, "occlusion": True}
    whole = run(tmp_path / "whole", sample, **options)
    shutil.rmtree(tmp_path / "home" / "prvipe")  # else the stopped run would take the embedder of the whole one
    with pytest.raises(Stopped):
        run(tmp_path / "part", sample, listen=stop, **options)
    resumed = run(tmp_path / "part", sample, resume=True, **options)
    a, b = (np.load(d.folder / "embeddings.npz")["mean"] for d in (whole, resumed))
    assert np.array_equal(a, b) and whole.metrics == resumed.metrics


def test_rows_that_lack_points_need_occlusion_and_hopeless_ones_are_skipped(sample, tmp_path):
    rows = list(csv.reader(sample.open()))
    at = rows[0].index
    rows[3][at("left_wrist_x")] = ""
    for name in ("left_hip", "right_hip", "left_shoulder", "right_shoulder"):
        rows[5][at(f"{name}_x")] = ""
    rows[6][3:] = [""] * len(rows[6][3:])
    with (tmp_path / "gaps.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(InputError, match="1 rows lack points.*--occlusion"):
        run(tmp_path / "no", tmp_path / "gaps.csv", **QUICK)
    assert not (tmp_path / "no").exists()
    done = run(tmp_path / "out", tmp_path / "gaps.csv", **QUICK, occlusion=True)
    skipped = list(csv.DictReader((done.folder / "skipped.csv").open()))
    assert [r["row"] for r in skipped] == ["5", "6"] and "shoulders and hips" in skipped[0]["reason"]
    assert done.metrics["poses"] == 118 and (~np.load(done.folder / "embeddings.npz")["mask"]).sum() == 1


def test_motion_capture_of_one_s_own_is_trained_on(sample, tmp_path):
    np.save(tmp_path / "mocap.npy", procedural_skeleton(80, seed=1).poses[:, 0])
    done = run(tmp_path / "out", sample, **QUICK, train=tmp_path / "mocap.npy")
    assert "trained on 80 poses of mocap.npy" in done.result["notes"]


def test_motion_capture_of_amass_is_trained_on_and_a_template_is_told(sample, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"poses": rng.normal(0, 0.3, (200, 156)), "trans": np.zeros((200, 3)), "betas": np.zeros(16)}
    np.savez(tmp_path / "walk.npz", **arrays)
    notes = " ".join(run(tmp_path / "a", sample, **QUICK, train=tmp_path / "walk.npz").result["notes"])
    assert "trained on 120 poses of walk.npz" in notes and "template skeleton" in notes and "--smpl FILE" in notes
    np.savez(tmp_path / "body.npz", J=rng.normal(size=(24, 3)))
    exact = run(tmp_path / "b", sample, **QUICK, train=tmp_path / "walk.npz", smpl=tmp_path / "body.npz")
    assert "template" not in " ".join(exact.result["notes"])
    np.savez(tmp_path / "short.npz", **{name: a[:49] for name, a in arrays.items()})
    with pytest.raises(InputError, match=r"short\.npz: 49 poses; 50 poses or more"):
        run(tmp_path / "c", sample, **QUICK, train=tmp_path / "short.npz")
    with pytest.raises(InputError, match=r"three_views\.csv: an SMPL body is for AMASS's"):
        run(tmp_path / "c", sample, **QUICK, train=sample, smpl=tmp_path / "body.npz")
    assert not (tmp_path / "c").exists()


def test_motion_capture_of_cmu_is_trained_on(sample, tmp_path):
    turns, origin, rng = motion(60)
    path = acclaim(tmp_path, turns, origin, rng)
    done = run(tmp_path / "out", sample, **QUICK, train=tmp_path / "07.asf")
    assert "trained on 60 poses of 07.asf" in done.result["notes"]
    path.write_text(path.read_text().replace("lfemur", "wing", 1))
    with pytest.raises(InputError, match=r"07_01\.amc:\d+: the skeleton has no bone 'wing'"):
        run(tmp_path / "no", sample, **QUICK, train=path)


def test_json_of_coco_and_shares_of_the_picture(sample, tmp_path):
    rows = list(csv.DictReader(sample.open()))
    points = [[float(v or 0) for k, v in r.items() if k.endswith(("_x", "_y"))] for r in rows[:12]]
    people = [{"image_id": i, "keypoints": [v for x, y in zip(p[::2], p[1::2]) for v in (x, y, float(x > 0))]}
              for i, p in enumerate(points)]  # fmt: skip
    (tmp_path / "people.json").write_text(json.dumps(people))
    whole = run(tmp_path / "a", tmp_path / "people.json", **QUICK)
    k = np.array([p["keypoints"] for p in people]).reshape(12, 17, 3)
    k[..., :2] /= [1280, 640]
    np.save(tmp_path / "shares.npy", k)
    again = run(tmp_path / "b", tmp_path / "shares.npy", **QUICK, image_size=(1280, 640))
    means = [np.load(d.folder / "embeddings.npz")["mean"] for d in (whole, again)]
    assert np.allclose(*means, atol=1e-4)
    warned = run(tmp_path / "c", tmp_path / "shares.npy", **QUICK)
    assert "--image-size W H" in " ".join(warned.result["notes"])


@pytest.mark.parametrize(("options", "words"), [
    ({"query": "nobody"}, "no row is called 'nobody'"),
    ({"align": True}, "--align needs a second sequence"),
    ({"model": Path("nowhere")}, "the folder of a run of prvipe"),
    ({"index": Path("none.csv")}, "none.csv"),
    ({"train": Path("none.bvh")}, "none.bvh"),
    ({"train": Path("none.amc")}, "none.amc"),
    ({"smpl": Path("none.npz")}, "--smpl is for a recording of AMASS"),
    ({"layout": "coco17"}, "the file names them"),
    ({"model": Path("a"), "train": Path("b")}, "--model and --train"),
    ({"neighbours": 0}, "--neighbours must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(sample, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", sample, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_unknown_layouts(tmp_path):
    k = np.random.default_rng(0).uniform(0, 500, (6, 21, 2))
    np.save(tmp_path / "hand.npy", k)
    with pytest.raises(InputError, match="21 points without names: no known layout .std13, h36m17, coco17"):
        run(tmp_path / "out", tmp_path / "hand.npy", **QUICK)
    np.save(tmp_path / "body.npy", k[:, :17])
    with pytest.raises(InputError, match="--layout mediapipe33 has 33 points, and here are 17"):
        run(tmp_path / "out", tmp_path / "body.npy", **QUICK, layout="mediapipe33")
    a, b = (run(tmp_path / name, tmp_path / "body.npy", **QUICK, layout=name) for name in ("coco17", "h36m17"))
    assert not np.allclose(*(np.load(d.folder / "embeddings.npz")["mean"] for d in (a, b)))


def test_an_embedder_for_made_poses_is_kept_and_a_damaged_one_trained_anew(sample, tmp_path):
    first = run(tmp_path / "first", sample, **QUICK)
    kept = list((tmp_path / "home" / "prvipe").iterdir())
    assert len(kept) == 1 and {f.name for f in kept[0].iterdir()} == {
        "model.safetensors", "config.json", "sigmoid.safetensors", "sigmoid.json", "trained_on.json"}  # fmt: skip
    heard: list[str] = []
    again = run(tmp_path / "again", sample, listen=lambda event: heard.append(event["event"]), **QUICK)
    assert "log" not in heard and again.metrics == first.metrics
    said = " ".join(again.result["notes"])
    assert "that of an earlier run" in said and "never seen real motion" in said
    assert (again.folder / "model.safetensors").read_bytes() == (first.folder / "model.safetensors").read_bytes()
    other = run(tmp_path / "other", sample, **QUICK | {"steps": 3})
    assert "earlier run" not in " ".join(other.result["notes"]) and len(list(kept[0].parent.iterdir())) == 2
    (kept[0] / "model.safetensors").write_bytes(b"broken")
    mended = run(tmp_path / "mended", sample, **QUICK)
    assert "damaged: it was trained anew" in " ".join(mended.result["notes"]) and mended.metrics == first.metrics
    assert (kept[0] / "model.safetensors").stat().st_size > 1000
    assert not [f for f in kept[0].parent.iterdir() if ".part" in f.name]


def test_the_kept_embedder_is_that_of_its_code(monkeypatch):
    monkeypatch.setattr("precis.papers.prvipe.kept.SOURCES", ("data/poses.py",))
    before = place_of({"seed": 0})
    assert before == place_of({"seed": 0}) != place_of({"seed": 1})
    monkeypatch.setattr("precis.papers.prvipe.kept.SOURCES", ("train/loop.py",))
    assert place_of({"seed": 0}) != before


def test_what_a_model_was_trained_on_is_said_by_later_runs(sample, tmp_path):
    np.save(tmp_path / "mocap.npy", procedural_skeleton(80, seed=1).poses[:, 0])
    made = run(tmp_path / "made", sample, **QUICK)
    real = run(tmp_path / "real", sample, **QUICK, train=tmp_path / "mocap.npy")
    words = "never seen real motion"
    says = lambda folder, out: words in " ".join(run(tmp_path / out, sample, model=folder).result["notes"])
    assert says(made.folder, "a") and not says(real.folder, "b")
    for folder, wanted in ((made.folder, True), (real.folder, False)):
        (folder / "trained_on.json").unlink()
        assert seen_no_motion(folder) is wanted  # by the options in result.json
        (folder / "result.json").unlink()
        assert seen_no_motion(folder) is None


def test_views_of_coco_are_fields_or_folders_of_cameras(sample, tmp_path):
    rows = list(csv.DictReader(sample.open()))
    rows = [r for r in rows if int(r["pose"]) <= 12]
    triples = [[v for n in COCO17.names for v in (*(float(r[f"{n}_{a}"] or 0) for a in "xy"), float(r[f"{n}_x"] != ""))]
               for r in rows]  # fmt: skip

    def written(name: str, images: list[dict], **fields) -> Path:
        people = [{"id": i, "image_id": i, "keypoints": k, **{n: v[i] for n, v in fields.items()}}
                  for i, k in enumerate(triples)]  # fmt: skip
        (tmp_path / name).write_text(json.dumps({"images": images, "annotations": people}))
        return tmp_path / name

    views = [r["view"] for r in rows]
    number = {"front": 1, "left": 2, "behind": 3}
    in_folders = [{"id": i, "file_name": f"s1/cam_{number[v]}/{i}.jpg"} for i, v in enumerate(views)]
    people = [{"id": i, "file_name": f"person{number[v]}/{i}.jpg"} for i, v in enumerate(views)]
    cameras = [{"id": i, "camera": number[v]} for i, v in enumerate(views)]
    for name, images, fields in (("a", in_folders, {}), ("b", cameras, {}), ("c", people, {"view": views})):
        found = read_2d(written(f"{name}.json", images, **fields))
        assert len(set(zip(views, found.views))) == 3  # one to one
    assert read_2d(written("d.json", people)).views is None
    assert read_2d(written("e.json", people, view=views[:-1] + [None])).views is None
    across = run(tmp_path / "across", tmp_path / "b.json", **QUICK)
    assert "no views are known" not in " ".join(across.result["notes"])
    of = {f"{i}/{i}": v for i, v in enumerate(views)}
    for r in csv.DictReader((across.folder / "neighbours.csv").open()):
        assert of[r["id"]] != of[r["neighbour"]]
    alone = run(tmp_path / "alone", tmp_path / "d.json", **QUICK)
    assert "field 'camera'" in " ".join(alone.result["notes"]) and "--index" in " ".join(alone.result["notes"])
    k = np.array(triples).reshape(-1, 17, 3)
    np.savez(tmp_path / "people.npz", keypoints=k, views=views, pose=[r["pose"] for r in rows])
    arrays = run(tmp_path / "arrays", tmp_path / "people.npz", **QUICK)
    assert "hit1" in arrays.metrics and "no views" not in " ".join(arrays.result["notes"])
    np.savez(tmp_path / "few.npz", keypoints=k, views=views[:3])
    with pytest.raises(InputError, match="one value a row"):
        read_2d(tmp_path / "few.npz")
