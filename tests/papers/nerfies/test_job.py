"""The job: what it leaves, on a made capture; bad input is one line and leaves nothing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from precis import web
from precis.data.captures_nerfies import write_nerfies
from precis.data.scenes3d import capture
from precis.errors import InputError, Stopped
from precis.papers.catalogue import find
from precis.papers.nerfies import training
from precis.papers.nerfies.covering import tell_of_the_box
from precis.papers.nerfies.opening import open_capture, poses_of
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


def test_a_capture_far_from_0_in_other_units_is_learned_alike(copy: Path, tmp_path: Path) -> None:
    """Its own middle and size are taken out while learning, and put back into what is written."""
    opened = []
    asked = np.array([np.eye(4)[:3]])
    for units, offset in ((1.0, 0.0), (4.0, 500.0)):
        for file in (copy / "camera").glob("*.json"):
            camera = json.loads(file.read_text())
            camera["position"] = (units * np.array(camera["position"]) + offset).tolist()
            file.write_text(json.dumps(camera))
        scene = json.loads((copy / "scene.json").read_text())
        (copy / "scene.json").write_text(json.dumps(scene | {"scale": 1 / units, "center": [offset] * 3}))
        if (copy / "points.npy").exists():
            np.save(copy / "points.npy", units * np.load(copy / "points.npy") + offset)
        asked[:, :, 3] = offset
        np.save(tmp_path / "asked.npy", asked)
        job = make_job(find()["nerfies"], copy, steps=1, device="cpu")
        found = open_capture(job, Quiet())
        opened.append((found, poses_of(tmp_path / "asked.npy", found)))
    (near, near_asked), (far, far_asked) = opened
    at = far.cameras.c2w[:, :, 3]
    assert at.abs().max() < 2 and far.box.abs().max() < 4

    def own(x: torch.Tensor, of: Any) -> torch.Tensor:
        return x / of.scale - of.shift

    for ours, theirs in ((at, near.cameras.c2w[:, :, 3]), (far_asked.c2w[:, :, 3], near_asked.c2w[:, :, 3]),
                         (far.box, near.box)):  # fmt: skip
        torch.testing.assert_close((own(ours, far) - 500) / 4, own(theirs, near), atol=2e-3, rtol=0)
    assert far.near / far.scale == pytest.approx(4 * near.near / near.scale, rel=1e-3)
    assert far.far / far.scale == pytest.approx(4 * near.far / near.scale, rel=1e-3)


@pytest.mark.parametrize("clear", [False, True])
def test_points_that_leave_most_of_the_pictures_out_are_told(copy: Path, clear: bool) -> None:
    """Not where what they leave out is transparent."""
    points = np.load(copy / "points.npy")
    middle = (points.min(0) + points.max(0)) / 2
    notes = []
    for size in (1.0, 0.02):
        np.save(copy / "points.npy", (middle + size * (points - middle)).astype(np.float32))
        if clear and size < 1:
            for file in copy.glob("rgb/*/*.png"):
                picture = np.asarray(Image.open(file).convert("RGBA")).copy()
                picture[1:, :, 3] = 0
                Image.fromarray(picture).save(file)
        heard = Quiet()
        tell_of_the_box(open_capture(make_job(find()["nerfies"], copy, steps=1, device="cpu"), heard), heard)
        notes.append([text for text in heard.notes if "miss the box" in text])
    assert not notes[0] and len(notes[1]) == (0 if clear else 1)
    assert clear or re.match(r"[5-9]\d% of the pixels", notes[1][0]), notes


class Quiet:
    device = "cpu"

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


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
    with Image.open(out / "depth" / "a_0000_depth.png") as picture:
        assert picture.mode.startswith("I") and np.asarray(picture).max() == 65535
    assert finished.metrics["codes"] == 10 and finished.metrics["validation_photographs"] == 10
    assert finished.metrics["steps"] == 3
    assert not (out / ".checkpoint").exists()
    notes = " ".join(result["notes"])
    assert "a_0003" in notes and "preview" in notes and "LPIPS" in notes


def test_the_live_view_is_the_saved_model(done: tuple[Path, Finished]) -> None:
    out, _ = done
    job = make_job(find()["nerfies"])
    begin = browser_start()
    look = lambda **at: job.view(out, "orbit", {**begin, **at}, (12, 12))
    still = look()
    assert still.shape == (3, 12, 12) and 0 <= still.min() and still.max() <= 1
    assert not np.allclose(still, look(azimuth=begin["azimuth"] + 40))
    with Image.open(out / "frames" / "a_0003.png") as drawn:  # the frozen instant, as the run drew it
        photograph = np.asarray(drawn).transpose(2, 0, 1) / 255
    assert np.abs(still - photograph).max() < 0.01 and photograph.max() > 0.1
    assert np.abs(look(azimuth=begin["azimuth"] + 0.01) - still).mean() < 0.02  # no jump as one begins to turn
    assert look(distance=3 * begin["distance"]).max() > 0.1  # from afar it is still there
    with pytest.raises(InputError, match="no finished run"):
        job.view(out.parent, "orbit", {}, (12, 12))


def browser_start() -> dict[str, float]:
    """Where the site's viewer begins to look from."""
    script = (Path(web.__file__).parent / "static" / "view.js").read_text()
    found = re.search(r"azimuth: (-?[\d.]+), elevation: (-?[\d.]+), distance: ([\d.]+)", script)
    assert found
    return dict(zip(("azimuth", "elevation", "distance"), map(float, found.groups()), strict=True))


def nerfstudio(folder: Path, root: Path, size: float = 1.0) -> Path:
    """The same capture as a nerfstudio file, `size` times as large, with a `time` each."""
    ids = json.loads((folder / "dataset.json").read_text())["ids"]
    frames = []
    for n, i in enumerate(ids):
        camera = json.loads((folder / "camera" / f"{i}.json").read_text())
        right, down, ahead = (np.array(row) for row in camera["orientation"])
        pose = np.eye(4)
        pose[:3] = np.stack([right, -down, -ahead, size * np.array(camera["position"])], 1)
        frames.append({
            "file_path": f"rgb/1x/{i}.png", "transform_matrix": pose.tolist(), "time": n % 10 / 9,
            "fl_x": camera["focal_length"], "fl_y": camera["focal_length"], "cx": 6.0, "cy": 6.0, "w": 12, "h": 12,
        })  # fmt: skip
    shutil.copytree(folder / "rgb", root / "rgb")
    (root / "transforms.json").write_text(json.dumps({"frames": frames}))
    return root


def test_other_scenes_with_a_code_a_frame(folder: Path, tmp_path: Path) -> None:
    scene = nerfstudio(folder, tmp_path / "scene")
    with pytest.raises(InputError, match="--per-frame"):
        run(tmp_path / "out", scene)
    with pytest.raises(InputError, match="--near and --far"):
        run(tmp_path / "out", scene, per_frame=True)
    assert not (tmp_path / "out").exists()
    finished = run(tmp_path / "out", scene, per_frame=True, near=0.4, far=1.4, warp="none", steps=1)
    assert finished.metrics["codes"] == 10 and finished.metrics["validation_photographs"] == 3


def test_a_scene_of_another_size_is_learned_as_one_of_unit_size(folder: Path, tmp_path: Path) -> None:
    """Cut out by masks before a colour, and asked for from a camera of a file: all in the units of INPUT."""
    for size in (1.0, 20.0):
        scene = nerfstudio(folder, tmp_path / f"scene{size:g}", size)
        for path in (scene / "rgb" / "1x").iterdir():
            (scene / "m").mkdir(exist_ok=True)
            mask = np.full((12, 12), 255, np.uint8)
            mask[:2] = 0
            Image.fromarray(mask).save(scene / "m" / path.name)
        meta = json.loads((scene / "transforms.json").read_text())
        (scene / "path.json").write_text(json.dumps({"frames": meta["frames"][:1]}))
        run(tmp_path / f"out{size:g}", scene, per_frame=True, near=0.4 * size, far=1.4 * size, steps=4,
            masks=scene / "m", carve="off", background="lime", render_poses=scene / "path.json",
            aabb=",".join(str(size * x) for x in (-0.4, -0.4, -0.4, 0.4, 0.4, 0.4)))  # fmt: skip
    results = [json.loads((tmp_path / f"out{size}" / "result.json").read_text()) for size in (1, 20)]
    told = [[n for n in r["notes"] if "span about 1" in n] for r in results]
    assert not told[0] and len(told[1]) == 1
    small, large = (r["metrics"]["mean_deformation"] for r in results)
    scale = float(told[1][0].split()[4])  # four steps of Adam move points by its rate, in the units of learning
    assert large * scale == pytest.approx(small, rel=0.1)
    near, far = (np.load(tmp_path / f"out{size}" / "renders" / "000.npy") for size in (1, 20))
    assert 0.4 < near.min() and near.max() < 2 and 8 < far.min() and far.max() < 40
    assert (tmp_path / "out20" / "renders" / "000.png").exists()


def test_a_run_that_was_stopped_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from precis.train import loop

    monkeypatch.setattr(loop, "LOG_SECONDS", -1.0)
    whole = run(tmp_path / "whole", folder, steps=6)
    real = training.fit_deformable

    def stopped(*args: Any, log: Any, **options: Any) -> Any:
        def until(step: int, total: int, **scalars: float) -> None:
            log(step, total, **scalars)
            if step == 3:
                raise Stopped

        return real(*args, log=until, **options)

    monkeypatch.setattr(training, "fit_deformable", stopped)
    with pytest.raises(Stopped):
        run(tmp_path / "out", folder, steps=6)
    assert not (tmp_path / "out" / "result.json").exists() and (tmp_path / "out" / ".checkpoint").exists()
    monkeypatch.setattr(training, "fit_deformable", real)
    paper = find()["nerfies"]
    job = make_job(paper, str(folder), steps=6, rays=32, orbit=2, mesh_resolution=8, device="cpu")
    again = run_job(paper, job, out=tmp_path / "out", resume=True)
    assert again.metrics == whole.metrics


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
    refused("--aabb must be", aabb="0,0,0,1")
    refused("is no colour", background="sky")
    refused("no such folder of masks", masks=copy / "none")
    refused("no such file", render_poses=copy / "none.json")
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
