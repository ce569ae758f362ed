"""Codes by metadata.json, space carved by silhouettes, the elastic weight's course, and a field that stands still."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.papers.nerfies.test_job import edit, nerfstudio, run
from tests.papers.runs import Heard

from precis.data.captures_nerfies import write_nerfies
from precis.data.scenes3d import capture
from precis.errors import InputError
from precis.fields.nerf_cameras import Rays
from precis.papers.catalogue import find
from precis.papers.nerfies import training
from precis.papers.nerfies.carving import hull_of, meeting
from precis.papers.nerfies.counted import counted
from precis.papers.nerfies.deformation import hardly, stretching
from precis.papers.nerfies.looks import Looks, looks_of
from precis.papers.nerfies.opening import Opened, open_capture
from precis.papers.nerfies.training import Portrait, elastic_of
from precis.papers.opening import make_job


@pytest.fixture(scope="module")
def made() -> Any:
    return capture("moving", 10, 12, 0)


@pytest.fixture(scope="module")
def folder(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nerfies(tmp_path_factory.mktemp("capture") / "bust", made)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def opened_as(path: Path, heard: Any, **options: Any) -> tuple[Any, Opened]:
    job = make_job(find()["nerfies"], str(path), device="cpu", **options)
    return job, open_capture(job, heard)


def test_a_capture_has_a_code_for_each_appearance(copy: Path, tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    looks = looks_of(*opened_as(copy, heard), heard)
    assert looks == Looks([*range(10), *range(10)], 10, 8, False)  # of the sample, an appearance an instant
    edit(copy / "metadata.json", lambda m: [m[f"a_{i:04d}"].update(appearance_id=5 * (i // 5)) for i in range(10)])
    edit(copy / "metadata.json", lambda m: m["b_0003"].update(appearance_id=5))
    looks = looks_of(*opened_as(copy, heard), heard)
    assert looks.of[:10] == [0] * 5 + [1] * 5 and looks.count == 2 and looks.dim == 8
    assert looks.of[13] == 1  # its own, which is known; the others borrow from their instants
    assert looks.of[11:13] == [0, 0] and looks.of[17] == 1
    assert any("2 appearances for 10 instants" in note for note in heard.notes)


def test_a_rig_has_a_code_of_two_numbers_for_each_camera(copy: Path, tmp_path: Path) -> None:
    edit(copy / "metadata.json", lambda m: [m[f"a_{i:04d}"].update(camera_id=i % 2) for i in range(10)])
    edit(copy / "metadata.json", lambda m: m["b_0002"].update(camera_id=7))
    heard = Heard(tmp_path)
    job, opened = opened_as(copy, heard)
    looks = looks_of(job, opened, heard)
    assert looks == Looks([*[0, 1] * 5, 1, 1, 0, *[1] * 7], 2, 2, True)  # camera 7 was never learned from
    assert any("2 cameras" in note for note in heard.notes)
    model = Portrait(opened.frames, opened.box.tolist(), opened.near, opened.far, "fast", "se3", 2, None,
                     instants=opened.frame.tolist(), looks=looks.of, look_dim=looks.dim)  # fmt: skip
    assert model.appearance is not None and model.appearance.shape == (2, 2)
    codes = model.codes(torch.tensor([3, 13, 12]))
    assert torch.equal(codes.deformation[0], codes.deformation[1])  # one instant
    assert torch.equal(codes.appearance, model.appearance[[1, 1, 0]])
    edit(copy / "metadata.json", lambda m: m["a_0001"].update(camera_id="left"))
    with pytest.raises(InputError, match="camera_id of a_0001"):
        looks_of(job, opened, heard)


def test_without_metadata_every_instant_has_its_own(copy: Path, tmp_path: Path) -> None:
    (copy / "metadata.json").unlink()
    job, opened = opened_as(copy, Heard(tmp_path))
    found = looks_of(job, opened, Heard(tmp_path))
    assert found.of == opened.frame.tolist() and not found.rig and found.count == opened.frames


def test_the_elastic_weight_of_a_capture_and_of_a_rig() -> None:
    capture_, rig = Looks([0], 1, 8, False), Looks([0, 1], 2, 2, True)
    job = lambda **o: SimpleNamespace(**{"elastic": None, "elastic_schedule": "auto", **o})
    weight, fall = elastic_of(job(), capture_)
    assert weight == 0.01 and fall(0.1) == 1 and weight * fall(0.7) == pytest.approx(1e-8)
    weight, fall = elastic_of(job(), rig)
    assert weight == 0.001 and fall(0.9) == 1
    weight, fall = elastic_of(job(elastic=0.2, elastic_schedule="constant"), capture_)
    assert weight == 0.2 and fall(0.9) == 1
    weight, fall = elastic_of(job(elastic_schedule="cosine"), rig)
    assert weight * fall(1.0) == pytest.approx(1e-8)


def masks_of(made: Any, root: Path) -> Path:
    """Silhouettes of the bust: where it is nearer than anything static."""
    root.mkdir()
    for views, letter in zip(made, "ab"):
        for v, mask in enumerate(views.masks):
            picture = np.where(mask, 255, 0).astype(np.uint8)
            Image.fromarray(picture).save(root / f"{letter}_{v:04d}.png")
    return root


def test_space_is_what_some_instant_s_silhouettes_leave(made: Any, folder: Path, tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    job, opened = opened_as(folder, heard, masks=masks_of(made, tmp_path / "m"))
    n = 24
    hull = hull_of(job, opened, heard, n)
    assert hull is not None and 0.01 < float(hull.float().mean()) < 0.99
    grid = (torch.stack(torch.meshgrid(*[torch.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) / n
    x = opened.box[0] + grid * (opened.box[1] - opened.box[0])
    seen_by_any = torch.zeros(n**3, dtype=torch.bool)
    for v in opened.train:  # one photograph an instant: a cell whose middle falls into its silhouette lives
        mask = torch.from_numpy(made.train.masks[v])
        pix, depth = opened.cameras.project(torch.full((n**3,), v), x)
        column, row = (pix + 0.5).floor().long().unbind(-1)
        inside = (depth > 0) & (column >= 0) & (column < 12) & (row >= 0) & (row < 12)
        seen_by_any |= ~inside | mask[row.clamp(0, 11), column.clamp(0, 11)]
    assert bool((hull | ~seen_by_any).all())
    pixels = meeting(opened, hull, n)
    assert 0 < len(pixels.view) <= len(opened.pixels.view)
    model = Portrait(opened.frames, opened.box.tolist(), opened.near, opened.far, "fast", "se3", 2, [1.0] * 3, cells=n)
    model.hull.copy_(hull)
    codes = model.of(0)
    sigma = model.density(x, codes, 2.0)
    assert (sigma[~hull] == 0).all() and (sigma[hull] > 0).any()
    rgb = model(x, torch.tensor([[0.0, 0, 1]]), codes, 2.0)
    assert torch.equal(rgb[0], sigma) or torch.allclose(rgb[0], sigma)
    assert float(model.filled(opened.box[1:] + 1)) == 1  # beyond the box nobody knows
    off = make_job(find()["nerfies"], str(folder), masks=tmp_path / "m", carve="off")
    assert hull_of(off, opened, heard, n) is None


def test_a_ray_without_live_cells_is_background_and_the_run_says_what_is_left(
    made: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(out, folder, masks=masks_of(made, tmp_path / "m"), background="lime")
    notes = " ".join(json.loads((out / "result.json").read_text())["notes"])
    assert "of the box, all instants together" in notes
    from precis.train.checkpoint import load_model

    model: Any = load_model(out)
    assert model.cells == 64 and not bool(model.hull.all())
    model.hull.fill_(False)
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]))
    low, high = model.bounds
    rays = Rays(((low + high) / 2)[None], rays.d)
    made_ = model.passes(model, rays, model.of(0)._replace(), 1.0, 1e-3, 1e-2, background=model.background).best
    torch.testing.assert_close(made_.rgb[0], torch.tensor([0.0, 1, 0]))


def test_the_units_of_a_scene_change_nothing_of_its_hull(folder: Path, tmp_path: Path) -> None:
    hulls = []
    (tmp_path / "m").mkdir()
    picture = np.zeros((12, 12), np.uint8)
    picture[5:7, 5:7] = 255
    for letter in "ab":
        for v in range(10):
            Image.fromarray(picture).save(tmp_path / f"m/{letter}_{v:04d}.png")
    for size in (1.0, 20.0):
        scene = nerfstudio(folder, tmp_path / f"scene{size:g}", size)
        box = ",".join(str(size * x) for x in (-0.4, -0.4, -0.4, 0.4, 0.4, 0.4))
        options = {"per_frame": True, "near": 0.4 * size, "far": 1.4 * size, "masks": tmp_path / "m", "aabb": box}
        job, opened = opened_as(scene, Heard(tmp_path), **options)
        hulls.append(hull_of(job, opened, Heard(tmp_path), 24))
    assert 0.05 < float(hulls[0].float().mean()) < 0.95
    assert float((hulls[0] == hulls[1]).float().mean()) > 0.995


def test_masks_that_leave_nothing(folder: Path, tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    (tmp_path / "m").mkdir()
    for letter in "ab":
        for v in range(10):
            Image.new("L", (12, 12), 255).save(tmp_path / f"m/{letter}_{v:04d}.png")
    job, opened = opened_as(folder, heard, masks=tmp_path / "m")
    for file in (tmp_path / "m").iterdir():
        Image.new("L", (12, 12), 0).save(file)
    middle = opened.box.mean(0)
    inside = replace(opened, box=torch.stack([middle - 0.05, middle + 0.05]))  # where every camera looks
    assert hull_of(job, inside, heard, 8) is None
    assert any("disagree" in note for note in heard.notes)


def test_a_field_that_hardly_moves_is_told(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    assert hardly(np.full(1000, 0.02), heard) == pytest.approx(0.02) and "hardly moves" in heard.notes[0]
    assert hardly(np.linspace(0, 3, 1000), heard) == pytest.approx(2.97, abs=0.01) and len(heard.notes) == 1
    assert hardly(np.zeros(0), heard) is None and len(heard.notes) == 1


def test_an_untrained_field_is_said_to_stand_still(folder: Path, tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    _, opened = opened_as(folder, heard)
    model = Portrait(opened.frames, opened.box.tolist(), opened.near, opened.far, "fast", "se3", 2, None)
    model.eval().requires_grad_(False)
    names = {v: f"p{v}" for v in opened.train}
    (tmp_path / "depth").mkdir()
    half = 0.5 * (opened.near + opened.far) / opened.scale
    for name in names.values():
        np.save(tmp_path / f"depth/{name}.npy", np.full((12, 12), half, np.float32))
    found = stretching(opened, model, 2.0, heard, names)
    assert found["most_moved_pixels"] < 0.1 and any("hardly moves anything" in note for note in heard.notes)
    heard.notes.clear()
    assert model.warp is not None
    model.warp.head.bias.copy_(torch.tensor([0.0, 0, 0, 0.3, 0, 0]))  # a shift by 0.3
    found = stretching(opened, model, 2.0, heard, names)
    focal = float(opened.cameras.K[0, :2].mean())
    assert found["most_moved_pixels"] == pytest.approx(0.3 * focal / (half * opened.scale), rel=0.02)
    assert not heard.notes


def test_pixels_that_a_scene_masks_out_do_not_count(folder: Path, tmp_path: Path) -> None:
    scene = nerfstudio(folder, tmp_path / "scene")
    (scene / "m.png").parent.mkdir(exist_ok=True)
    mask = np.full((12, 12), 255, np.uint8)
    mask[:3] = 0
    Image.fromarray(mask).save(scene / "m.png")
    job, opened = opened_as(scene, Heard(tmp_path), per_frame=True, near=0.4, far=1.4)
    assert counted(job, opened) is None
    edit(scene / "transforms.json", lambda m: [f.update(mask_path="m.png") for f in m["frames"]])
    job, opened = opened_as(scene, Heard(tmp_path), per_frame=True, near=0.4, far=1.4)
    found = counted(job, opened)
    assert found is not None and len(found) == len(opened.names) and all(np.array_equal(v, mask > 0) for v in found)


def test_a_training_uses_both_codes(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copy / "metadata.json", lambda m: [m[f"a_{i:04d}"].update(camera_id=i % 2) for i in range(10)])
    seen: list[dict[str, Any]] = []
    real = training.fit_deformable
    monkeypatch.setattr(training, "fit_deformable", lambda *a, **o: seen.append({"model": a[0], **o}) or real(*a, **o))
    run(tmp_path / "out", copy)
    assert seen[0]["elastic"] == 0.001 and seen[0]["elastic_schedule"](1.0) == 1
    assert seen[0]["model"].appearance.shape == (2, 2) and seen[0]["model"].warp.codes.shape == (10, 8)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["arguments"]
    assert config["look_dim"] == 2 and config["looks"][:4] == [0, 1, 0, 1]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["metrics"]["depth_units_per_step"] > 0
