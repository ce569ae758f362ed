"""What a run writes: under which names, before which background, seen from where, and how large it is."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import scene_files as write
from tests.data.test_captures_names import two_cameras
from tests.papers.nerf.test_job import run
from tests.papers.runs import Heard

from precis import web
from precis.data.captures import SceneFiles
from precis.fields.nerf import tiny_nerf
from precis.fields.nerf_cameras import Cameras, look_at
from precis.fields.nerf_fit import photographs
from precis.fields.nerf_render import Rendered, render_rays
from precis.papers.catalogue import find
from precis.papers.nerf import learning
from precis.papers.nerf.backdrop import Against, backed
from precis.papers.nerf.loading import Place, silhouettes
from precis.papers.nerf.outputs import begin, subject
from precis.papers.nerf.sizes import sizes_of, told
from precis.papers.opening import make_job


@pytest.fixture(scope="module")
def scene():
    return write.made(8, 16)


def test_a_backdrop_of_any_colour_is_learned_before():
    """Errors against the backdrop are those of the recipe before that colour; opaque pixels, clear ones and between."""
    g = torch.Generator().manual_seed(0)
    made = write.made(4, 8)
    cameras = Cameras(torch.from_numpy(made.c2w), torch.from_numpy(made.K), made.size)
    images = torch.from_numpy(made.images).clone()
    images[:, :2, :, 3] = 100
    photos, colour = photographs(cameras, images), torch.tensor([0.1, 0.7, 0.4])
    rows, rays = photos.draw(64, g)
    net = tiny_nerf(generator=g)
    ours = backed(photos, colour)
    assert ours.some(rows).backdrop is not None and len(ours.some(rows).rgb) == 64
    plain = render_rays(net, rays, 2.0, 6.0, 8, 8, background=colour)
    other = render_rays(Against(net, colour), rays, 2.0, 6.0, 8, 8, background=0.0)
    for a, b in zip(plain, other, strict=True):
        assert torch.allclose(a.rgb - photos.colours(rows, colour), b.rgb - ours.colours(rows, 0.0), atol=1e-6)
    assert torch.allclose(ours.colours(rows, 0.0) + colour, photos.colours(rows, colour), atol=1e-6)


def test_the_small_network_learns_before_black(tmp_path, scene):
    run(tmp_path / "out", write.blender(tmp_path / "b", scene), model="tiny", steps=40, background="black")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]["psnr"] > 9


def test_photographs_that_share_a_name_leave_files_of_their_own(tmp_path, scene):
    root = two_cameras(write.nerfstudio(tmp_path / "rig", scene))
    meta = json.loads((root / "transforms.json").read_text())
    meta["test_filenames"] = [f["file_path"] for f in meta["frames"][:4]]
    (root / "transforms.json").write_text(json.dumps(meta))
    run(tmp_path / "out", root, steps=2)
    names = {p.relative_to(tmp_path / "out/test").as_posix() for p in (tmp_path / "out/test").rglob("*.png")}
    assert names == {"cam0/0000.png", "cam0/0001.png", "cam1/0000.png", "cam1/0001.png"}
    assert len(list((tmp_path / "out/depth").rglob("*.npy"))) == 4


def made_up(kind, **parts):
    """An object of a class with nothing but these parts."""
    made = object.__new__(kind)
    made.__dict__.update(parts)
    return made


def forward_scene(scene, size=0.3):
    """3×3 cameras side by side, 4 before the bust, opaque."""
    place = torch.tensor([[4.0, size * x, size * y] for x in (-1, 0, 1) for y in (-1, 0, 1)])
    c2w = look_at(place, torch.zeros(3), torch.tensor([0.0, 0, 1]))
    nine = [0, 1, 2, 3, 4, 5, 6, 7, 0]
    return replace(scene, images=scene.images[nine][..., :3], c2w=c2w.numpy(), K=scene.K[nine], depth=None)


def test_what_cameras_that_look_one_way_look_at(scene):
    c2w = torch.from_numpy(forward_scene(scene).c2w)
    cameras = Cameras(c2w, torch.ones(9, 4), (16, 16))
    place = made_up(Place, cameras=cameras, near=0.05, far=200.0, scale=0.25, files=SimpleNamespace(
        forward=True, near=1.8, far=6.0))  # fmt: skip
    assert subject(place, 1.0) == 1.0  # what was rendered, in working units: 4 of the file
    assert subject(place, 40.0) == pytest.approx(1.5) and subject(place, 0.01) == pytest.approx(0.45)
    assert subject(place, None) == pytest.approx(0.25 * 2 / (1 / 1.8 + 1 / 6))
    place.files.forward = False
    assert subject(place, None) == pytest.approx(float(c2w[:, :, 3].norm(dim=1).mean()), rel=1e-4)


def test_a_run_of_cameras_that_look_one_way(tmp_path, scene, monkeypatch):
    """The spiral looks at the scene, not at infinity, and the viewer begins on the cameras' side."""
    from precis.papers.nerf import outputs

    depths = []
    real = outputs.spiral
    monkeypatch.setattr(outputs, "spiral", lambda c, n, depth: depths.append(depth) or real(c, n, depth))
    out = tmp_path / "out"
    run(out, write.llff(tmp_path / "llff", forward_scene(scene)), steps=3, orbit=2)
    kept = json.loads((out / "scene.json").read_text())
    assert kept["open"] and 1.8 <= depths[0] / kept["scale"] <= 6.0
    middle = np.array(kept["centre"]) / kept["scale"] - np.array(kept["shift"])
    assert middle[0] < 2.3 and np.abs(middle[1:]).max() < 0.1  # before the cameras, which stand at x = 4
    assert kept["ahead"][0] > 0.9 and abs(kept["rise"]) < 5


def test_a_viewer_begins_where_the_cameras_are(tmp_path, monkeypatch):
    from precis.papers.nerf import views

    script = (Path(web.__file__).parent / "static" / "view.js").read_text()
    found = re.search(r"azimuth: (-?[\d.]+), elevation: (-?[\d.]+), distance: ([\d.]+)", script)
    start = dict(zip(("azimuth", "elevation", "distance"), map(float, found.groups()), strict=True))
    seen = []
    monkeypatch.setattr(views, "opened", lambda *a: (None, "cpu"))
    none = Rendered(torch.zeros(8, 8, 3), torch.zeros(8, 8), torch.zeros(8, 8), torch.zeros(0))
    monkeypatch.setattr(views, "render_view", lambda render, cameras, v: seen.append(cameras.c2w[0, :, 3]) or none)
    (tmp_path / "model.safetensors").touch()
    offset = torch.tensor([[0.0, -4, 0.2], [0.3, -4, -0.2], [-0.3, -4, 0.0]])
    kept = {"up": [0.0, 0, 1], "centre": [1.0, 2, 3], "radius": 4.0, "focal": 1.0, "background": [1, 1, 1]}
    for extra in ({}, begin(offset, torch.tensor([0.0, 0, 1]))):
        (tmp_path / "scene.json").write_text(json.dumps(kept | extra))
        views.look(tmp_path, start, (8, 8))
    away = seen[1] - torch.tensor([1.0, 2, 3])
    assert torch.allclose(away, torch.tensor([0.0, -4, 0]), atol=0.1), away
    assert float(seen[0][2] - 3) == pytest.approx(4 * math.sin(math.radians(20)), abs=1e-4)
    round_about = begin(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0.1]]), torch.tensor([0.0, 0, 1]))
    assert round_about == {"ahead": None, "rise": None}


def test_silhouettes_of_several_sizes_are_not_carved_and_that_is_said():
    images = [np.full((4, n, 4), 255, np.uint8) for n in (4, 4, 5)]
    files, work = made_up(SceneFiles, images=images), Heard()
    assert silhouettes(files, [0, 1, 2], work) is None and "differ in size" in work.notes[0]
    assert silhouettes(files, [0, 1], work).shape == (2, 4, 4) and len(work.notes) == 1
    opaque = made_up(SceneFiles, images=[x[..., :3] for x in images])
    assert silhouettes(opaque, [0, 2], work) is None and len(work.notes) == 1


def test_bytes_of_the_scene_at_hand(tmp_path):
    """At the paper's scale: 100 photographs of 800×800, a box of 3 seen from 4 at a focal length of 1,111."""
    (tmp_path / "model.safetensors").write_bytes(b"0" * 2_383_376)
    (tmp_path / "fine.safetensors").write_bytes(b"0" * 2_383_376)
    cameras = SimpleNamespace(K=torch.tensor([[1111.0, 1111, 400, 400]]).repeat(100, 1),
                              size=torch.tensor([[800, 800]]).repeat(100, 1))  # fmt: skip
    place = SimpleNamespace(cameras=cameras, train=list(range(100)), box=torch.tensor([[-1.5] * 3, [1.5] * 3]))
    sizes = sizes_of(tmp_path, place, 4.0)
    n = math.ceil(3 / (4 / 1111))
    assert sizes.cells == (n, n, n) and sizes.grid == 16 * n**3 and sizes.planes == 100 * 32 * 800 * 800 * 4
    assert sizes.model == 2 * 2_383_376
    words = told(sizes, 100)
    assert "4.77 MB" in words and "834×834×834" in words and "9.28 GB" in words and "8.19 GB" in words


def test_what_a_report_shows(tmp_path, scene, monkeypatch):
    real = learning.fit_fast
    monkeypatch.setattr(learning, "fit_fast", lambda *a, **options: real(*a, **{**options, "every": 2}))
    out = tmp_path / "out"
    run(out, write.blender(tmp_path / "b", scene), steps=4, orbit=2)
    report = (out / "report.md").read_text()
    shown = re.findall(r"!\[(.*?)\]", report)
    assert shown[0] == "overview.png" and {"orbit.webp", "test/r_0.png", "psnr.png"} <= set(shown)
    assert not any(name.startswith("depth/") for name in shown)
    result = json.loads((out / "result.json").read_text())
    assert any("stored planes" in note for note in result["notes"])
    metrics = result["metrics"]
    assert metrics["planes_bytes"] == 8 * 32 * 16 * 16 * 4 and metrics["grid_bytes"] > 0
    assert Image.open(out / "test/r_0.png").size == (48, 16)
    assert find()["nerf"] and make_job(find()["nerf"], None).view(out, "orbit", {}, (8, 8)).shape == (3, 8, 8)
