"""How a run samples rays, and the paper's own ways with photographs of the real world: NDC, density noise, masks."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import scene_files as write
from tests.papers.nerf.test_job import run
from tests.papers.nerf.test_outputs import forward_scene, made_up

from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.nerf.learning import finest_of
from precis.papers.nerf.loading import Place
from precis.papers.nerf.noise import Noisy
from precis.papers.opening import make_job


@pytest.fixture(scope="module")
def opaque():
    scene = write.made(8, 16)
    return replace(scene, images=np.ascontiguousarray(scene.images[..., :3]))


def test_photographs_without_border_are_learned_with_a_proposal(tmp_path, opaque):
    out = tmp_path / "out"
    run(out, write.colmap(tmp_path / "c", opaque), steps=4, orbit=2, mesh=True)
    kept = json.loads((out / "scene.json").read_text())
    assert kept["open"] and kept["sampling"] == "proposal"
    assert (out / "proposal.safetensors").exists() and not (out / "grid.safetensors").exists()
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert np.isfinite(metrics["psnr"]) and metrics["steps"] == 4
    job = make_job(find()["nerf"], None)
    view = job.view(out, "orbit", {"azimuth": 20.0, "elevation": 10.0, "distance": 3.0}, (12, 9))
    assert view.shape == (3, 9, 12) and 0 <= view.min() <= view.max() <= 1


def test_the_grid_is_there_if_asked_for(tmp_path, opaque):
    out = tmp_path / "out"
    run(out, write.colmap(tmp_path / "c", opaque), steps=2, sampling="grid")
    assert json.loads((out / "scene.json").read_text())["sampling"] == "grid"
    assert (out / "grid.safetensors").exists() and not (out / "proposal.safetensors").exists()


def test_where_there_is_nothing_to_propose(tmp_path, opaque):
    bounded = write.made(8, 16)
    for source, options, words in (
        (write.nerfstudio(tmp_path / "n", bounded), {"sampling": "proposal"}, "a world without border"),
        (write.colmap(tmp_path / "c", opaque), {"sampling": "proposal", "aabb": "-1,-1,-1,1,1,1"}, "--aabb"),
        (write.colmap(tmp_path / "d", opaque), {"sampling": "grid", "model": "tiny"}, "not for --model tiny"),
    ):
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", source, **options)
    assert not (tmp_path / "out").exists()


def test_cameras_that_look_one_way_in_the_cube(tmp_path, monkeypatch):
    from precis.papers.nerf import learning_dense

    asked = []
    real = learning_dense.fit_dense
    monkeypatch.setattr(learning_dense, "fit_dense", lambda *a, **o: asked.append(a) or real(*a, **o))
    out = tmp_path / "out"
    source = write.llff(tmp_path / "llff", forward_scene(write.made(8, 16)))
    run(out, source, model="tiny", ndc=True, density_noise=1.0, steps=4, orbit=2, mesh=True)
    net, photos, near, far = asked[0]
    assert (near, far) == (0.0, 1.0) and net.field.std == 1.0
    kept = json.loads((out / "scene.json").read_text())
    assert kept["ndc"]["near"] / kept["scale"] == pytest.approx(0.75 * 2.0)  # of the file's nearest depth
    _, rays = photos.draw(20, torch.Generator().manual_seed(0))
    assert (rays.o[:, 2] + 1).abs().max() < 1e-4 and (rays.o + rays.d)[:, 2].sub(1).abs().max() < 1e-4
    depth = np.load(next((out / "depth").glob("*.npy")))
    assert 1.4 < depth.min() and depth.max() <= 6.0 * 1.01
    job = make_job(find()["nerf"], None)
    view = job.view(out, "orbit", {}, (12, 9))
    assert view.shape == (3, 9, 12) and np.isfinite(view).all()
    behind = job.view(out, "orbit", {"azimuth": 210.0}, (12, 9))
    assert (behind == 1).all()  # white: there is nothing behind the cameras


def test_a_cube_of_photographs_in_another_layout_is_seen_from_before_it(tmp_path, monkeypatch):
    from precis.papers.nerf import outputs

    paths = []
    real = outputs.spiral
    monkeypatch.setattr(outputs, "spiral", lambda *a: paths.append(a) or real(*a))
    out = tmp_path / "out"
    run(out, write.nerfstudio(tmp_path / "n", forward_scene(write.made(8, 16))), model="tiny", ndc=True, steps=2,
        orbit=2, near=2.0, far=6.0)  # fmt: skip
    assert len(paths) == 1
    notes = " ".join(json.loads((out / "result.json").read_text())["notes"])
    assert "look at the box" not in notes and "no box is known" not in notes


def test_noise_is_in_training_alone_and_repeats():
    field = lambda x, d, noise=None: (noise, x)
    x, d = torch.zeros(4000, 3), torch.zeros(1, 3)
    draws = [Noisy(field, 2.0, torch.Generator().manual_seed(3))(x, d)[0] for _ in range(2)]
    assert torch.equal(*draws)
    assert float(draws[0].std()) == pytest.approx(2, rel=0.05) and abs(float(draws[0].mean())) < 0.1


def test_the_finest_table_follows_the_photographs():
    def place(*widths):
        cameras = SimpleNamespace(size=torch.tensor([[w, 10] for w in widths]))
        return made_up(Place, cameras=cameras, train=[0, 1])

    assert finest_of(place(10, 20, 900)) == 256
    assert finest_of(place(100, 200, 900)) == 800
    assert finest_of(place(100, 4000)) == 2048


def test_a_hash_field_is_saved_with_its_finest_table(tmp_path, opaque):
    wide = write.made(4, 80)
    out = tmp_path / "out"
    run(out, write.nerfstudio(tmp_path / "n", wide), encoding="hash", steps=1)
    assert json.loads((out / "config.json").read_text())["arguments"]["finest"] == 320


def test_pixels_that_a_capture_masks_out_do_not_count(tmp_path):
    scene = write.made(8, 24)
    root = write.nerfstudio(tmp_path / "n", scene)
    meta = json.loads((root / "transforms.json").read_text())
    mask = np.full((24, 24), 255, np.uint8)
    mask[12:] = 0
    for frame in meta["frames"]:
        name = frame["file_path"].replace("images", "m")
        write.save(root / name, np.repeat(mask[..., None], 3, -1))
        frame["mask_path"] = name
    (root / "transforms.json").write_text(json.dumps(meta))
    out = tmp_path / "out"
    run(out, root, steps=2)
    result = json.loads((out / "result.json").read_text())
    rows = list(csv.DictReader((out / "test_views.csv").open()))
    with Image.open(next((out / "test").glob("*.png"))) as picture:
        shown = np.asarray(picture).astype(np.float64) / 255
    made, truth, error = shown[:, :24], shown[:, 24:48], shown[:, 48:]
    upper = -10 * np.log10(((made - truth)[:12] ** 2).mean())
    assert float(rows[0]["psnr"]) == pytest.approx(upper, abs=0.05)
    assert not error[12:].any() and error[:12].any()
    assert result["metrics"]["depth_units_per_step"] > 0
    notes = " ".join(result["notes"])
    assert "masked out" in notes and "a step is worth" in notes


@pytest.mark.parametrize(("options", "words"), [
    ({"ndc": True}, "--ndc is for --model vanilla or tiny"),
    ({"density_noise": 1.0}, "--density-noise is for --model vanilla or tiny"),
    ({"ndc": True, "model": "tiny"}, "do not all look one way"),
])  # fmt: skip
def test_options_that_do_not_go_together(tmp_path, opaque, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", write.colmap(tmp_path / "c", opaque), **options)
    assert not (tmp_path / "out").exists()
