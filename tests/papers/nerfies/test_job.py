"""The job: what it leaves, on a made capture; bad input is one line and leaves nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precis.data.captures_nerfies import write_nerfies
from precis.data.scenes3d import capture
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job


def run(out: Path, given: Any = None, **options: Any) -> Finished:
    options = {"steps": 3, "rays": 32, "orbit": 2, "mesh_resolution": 8, "device": "cpu", **options}
    paper = find()["nerfies"]
    return run_job(paper, make_job(paper, given, **options), out=out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nerfies(tmp_path_factory.mktemp("capture") / "bust", capture("moving", 10, 12, 0))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, run(out, folder, interpolate="a_0001:a_0004:3", freeze_time="a_0003")


def test_what_a_run_leaves(done: tuple[Path, Finished]) -> None:
    out, finished = done
    result = json.loads((out / "result.json").read_text())
    assert result["files"][0] == "overview.png"
    for name in ("orbit.webp", "playback.webp", "interpolation.webp", "orbit_depth.webp", "singular_values.png",
                 "model.safetensors", "config.json", "report.md"):  # fmt: skip
        assert (out / name).stat().st_size > 0, name
    assert len(list((out / "frames").glob("a_*.png"))) == 10 and len(list((out / "validation").glob("b_*.png"))) == 10
    depth = np.load(out / "depth" / "a_0000.npy")
    assert depth.shape == (12, 12) and np.isfinite(depth).all()
    assert finished.metrics["codes"] == 10 and finished.metrics["validation_photographs"] == 10
    assert not (out / ".checkpoint").exists()
    notes = " ".join(result["notes"])
    assert "a_0003" in notes and "preview" in notes and "LPIPS" in notes


def test_the_live_view_is_the_saved_model(done: tuple[Path, Finished]) -> None:
    out, _ = done
    job = make_job(find()["nerfies"])
    look = lambda **at: job.view(out, "orbit", {"azimuth": 0.0, "elevation": 0.0, "distance": 1.0, **at}, (12, 12))
    still = look()
    assert still.shape == (3, 12, 12) and 0 <= still.min() and still.max() <= 1
    assert not np.allclose(still, look(azimuth=40.0))
    with pytest.raises(InputError, match="no finished run"):
        job.view(out.parent, "orbit", {}, (12, 12))


def test_other_scenes_with_a_code_a_frame(folder: Path, tmp_path: Path) -> None:
    """A nerfstudio file of the same pictures, with a `time` each."""
    ids = json.loads((folder / "dataset.json").read_text())["ids"]
    frames = []
    for n, i in enumerate(ids):
        camera = json.loads((folder / "camera" / f"{i}.json").read_text())
        right, down, ahead = (np.array(row) for row in camera["orientation"])
        pose = np.eye(4)
        pose[:3] = np.stack([right, -down, -ahead, np.array(camera["position"])], 1)
        frames.append({
            "file_path": f"rgb/1x/{i}.png", "transform_matrix": pose.tolist(), "time": n % 10 / 9,
            "fl_x": camera["focal_length"], "fl_y": camera["focal_length"], "cx": 6.0, "cy": 6.0, "w": 12, "h": 12,
        })  # fmt: skip
    scene = tmp_path / "scene"
    shutil.copytree(folder / "rgb", scene / "rgb")
    (scene / "transforms.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(InputError, match="--per-frame"):
        run(tmp_path / "out", scene)
    with pytest.raises(InputError, match="--near and --far"):
        run(tmp_path / "out", scene, per_frame=True)
    assert not (tmp_path / "out").exists()
    finished = run(tmp_path / "out", scene, per_frame=True, near=0.4, far=1.4, warp="none", steps=1)
    assert finished.metrics["codes"] == 10 and finished.metrics["validation_photographs"] == 3


def edit(file: Path, change: Any) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_bad_captures(copy: Path, tmp_path: Path) -> None:
    def refused(words: str, **options: Any) -> None:
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", copy, **options)
        assert not (tmp_path / "out").exists()

    refused("--near must be below --far", near=2.0, far=1.0)
    refused("--interpolate must be A:B:N", interpolate="a_0001:a_0002")
    refused("no photograph is called", freeze_time="z_0001")
    refused("no photograph is called", interpolate="a_0001:z:4")
    (copy / "rgb" / "1x").rename(copy / "rgb" / "8x")
    refused("1/8", downscale=4)
    (copy / "rgb" / "8x").rename(copy / "rgb" / "1x")
    camera = copy / "camera" / "a_0003.json"
    kept = camera.read_text()
    camera.unlink()
    refused("a_0003")
    camera.write_text("{")
    refused("a_0003")
    camera.write_text(kept)
    (copy / "rgb" / "1x" / "a_0002.png").unlink()
    refused("a_0002")


def test_too_few_frames(copy: Path, tmp_path: Path) -> None:
    edit(copy / "dataset.json", lambda d: d.update(train_ids=d["train_ids"][:9], ids=d["train_ids"][:9] + d["val_ids"]))
    with pytest.raises(InputError, match="9 training photographs"):
        run(tmp_path / "out", copy)


def test_codes_outside_of_the_training_range(copy: Path, tmp_path: Path) -> None:
    edit(copy / "metadata.json", lambda m: m["b_0009"].update(warp_id=14))
    (copy / "points.npy").unlink()
    finished = run(tmp_path / "out", copy, warp="translation", steps=1, orbit=2)
    notes = " ".join(json.loads((tmp_path / "out" / "result.json").read_text())["notes"])
    assert "nearest training photograph" in notes and "no static points" in notes
    assert finished.metrics["codes"] == 10
