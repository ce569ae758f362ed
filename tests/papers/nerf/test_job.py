"""The job as a user runs it: on every kind of input at small size, its files, and what it refuses."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import scene_files as write

from precis.errors import InputError
from precis.fields.nerf_ndc import Frustum
from precis.papers.catalogue import find
from precis.papers.nerf.meshing import write_mesh
from precis.papers.opening import make_job
from precis.papers.running import run_job


def run(out: Path, given=None, **options):
    paper = find()["nerf"]
    options = {"steps": 8, "orbit": 0, "device": "cpu", **options}
    return run_job(paper, make_job(paper, None if given is None else str(given), **options), out=out)


@pytest.fixture(scope="module")
def scene():
    return write.made(8, 16)


def test_a_whole_run_and_the_look_into_it(tmp_path, scene):
    np.save(tmp_path / "path.npy", scene.c2w[:2])
    out = tmp_path / "out"
    run(out, write.blender(tmp_path / "b", scene), steps=30, orbit=2, render_poses=tmp_path / "path.npy")
    result = json.loads((out / "result.json").read_text())
    assert result["files"][0] == "overview.png" and result["metrics"]["psnr"] > 9
    assert result["metrics"]["test_views"] == 2 and result["metrics"]["renders"] == 2
    assert Image.open(out / "test/r_0.png").size == (48, 16)
    assert np.load(out / "depth/r_1.npy").shape == (16, 16)
    assert Image.open(out / "depth/r_1_depth.png").mode.startswith("I")
    assert len(list((out / "orbit").glob("*.png"))) == 2 and Image.open(out / "orbit.webp").n_frames == 2
    assert not (out / ".checkpoint").exists()
    job = make_job(find()["nerf"], None)
    view = job.view(out, "orbit", {"azimuth": 20.0, "elevation": 10.0, "distance": 3.0}, (24, 18))
    assert view.shape == (3, 18, 24) and 0 <= view.min() < view.max() <= 1
    far = job.view(out, "orbit", {"azimuth": 20.0, "elevation": 10.0, "distance": 12.0}, (24, 18))
    assert (far < 0.9).sum() < (view < 0.9).sum()  # smaller from afar


class Ball(torch.nn.Module):
    """A red ball of radius 0.5 around (0.2, 0, 0)."""

    def density(self, x):
        return 400.0 * (0.5 - (x - torch.tensor([0.2, 0, 0])).norm(dim=-1)).clamp(min=0)

    def forward(self, x, d):
        return self.density(x), torch.tensor([1.0, 0, 0]).expand_as(x)


def test_the_mesh_is_the_surface_in_the_units_of_the_file(tmp_path):
    place = SimpleNamespace(box=torch.tensor([[-1.0] * 3, [1.0] * 3]), back=lambda x: 10 * x + 1)
    notes = []
    work = SimpleNamespace(folder=tmp_path, device="cpu", note=notes.append)
    found = write_mesh(work, place, SimpleNamespace(field=Ball(), fast=None, proposed=None, view=None))
    vertices, _, colours, _ = read_mesh(tmp_path / "mesh.ply", int(found["vertices"]))
    radius = np.linalg.norm(vertices - [3, 1, 1], axis=1)
    level = np.log(2) / (2 / 128)  # 400 (0.5 − r) there
    assert np.abs(radius - 10 * (0.5 - level / 400)).max() < 0.05 and (colours == [255, 0, 0]).all() and not notes
    empty = SimpleNamespace(density=lambda x: 0 * x[:, 0] + 1.0)
    nothing = SimpleNamespace(field=empty, fast=None, proposed=None, view=None)
    assert write_mesh(work, place, nothing)["vertices"] is None and "train for longer" in notes[0]


class Dish(torch.nn.Module):
    """In the cube of `view`: ever denser away from its camera, as bright as the angle to the camera's axis is small."""

    def __init__(self, view):
        super().__init__()
        self.view = view

    def density(self, x):
        return np.log(2) * 64 * ((self.view.points(x) - self.view.pose[:, 3]).norm(dim=-1) - 5.0).exp()

    def forward(self, x, d):
        return self.density(x), (-d @ self.view.pose[:, 2])[..., None].expand_as(x)


def test_the_mesh_of_a_scene_in_the_cube_lies_in_the_world(tmp_path):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    pose = torch.cat([turn * torch.linalg.det(turn), torch.tensor([[1.0], [2.0], [3.0]])], 1)
    view = Frustum(pose, (20.0, 22.0), (16, 12), 1.5)
    place = SimpleNamespace(far=12.0, back=lambda x: 10 * x + 1)
    work = SimpleNamespace(folder=tmp_path, device="cpu", note=None)
    found = write_mesh(work, place, SimpleNamespace(field=Dish(view), fast=None, proposed=None, view=view))
    vertices, normals, colours, faces = read_mesh(tmp_path / "mesh.ply", int(found["vertices"]))
    assert len(faces) == found["faces"]
    away = (vertices - 1) / 10 - pose[:, 3].numpy()
    radius = np.linalg.norm(away, axis=1)
    assert np.abs(radius - 5).max() < 0.05
    towards = -away / radius[:, None]  # the dish is seen from inside
    assert (normals * towards).sum(1).min() > 0.99
    a, b, c = vertices[faces].transpose(1, 0, 2)
    wound = np.cross(b - a, c - a)
    assert (wound * towards[faces[:, 0]]).sum(1).min() > -1e-6
    assert ((wound * towards[faces[:, 0]]).sum(1) > 0).mean() > 0.99
    ahead = (away / radius[:, None]) @ -pose[:, 2].numpy()
    assert np.abs(colours[:, 0] / 255 - ahead).max() < 0.01


def read_mesh(path, n):
    data = path.read_bytes()
    body = data[data.index(b"end_header\n") + 11 :]
    kind = np.dtype([("p", "<f4", 3), ("n", "<f4", 3), ("c", "u1", 3)])
    rows = np.frombuffer(body[: n * kind.itemsize], kind)
    faces = np.frombuffer(body[n * kind.itemsize :], np.dtype([("k", "u1"), ("i", "<i4", 3)]))
    return rows["p"], rows["n"], rows["c"], faces["i"]


@pytest.mark.parametrize("form", ["nerfstudio", "colmap", "tiny", "nerfies"])
def test_other_formats(tmp_path, scene, form):
    source = getattr(write, form)(tmp_path / form, scene)
    out = tmp_path / "out"
    for folder in source.rglob("images") if form in ("nerfstudio", "colmap") else ():
        write.save(folder / "blurred.png", np.zeros((4, 4, 3), np.uint8))
    run(out, source, steps=3)
    result = json.loads((out / "result.json").read_text())
    left = [note for note in result["notes"] if "no camera" in note]
    wanted = ["images/blurred.png"] if form in ("nerfstudio", "colmap") else []
    assert [note.rpartition(": ")[2] for note in left] == wanted
    assert np.isfinite(result["metrics"]["psnr"]) and (out / "overview.png").exists()
    if form == "nerfstudio":
        assert any("kept back" in note for note in result["notes"])


def test_the_small_network_and_the_units_of_the_file(tmp_path, scene):
    moved = write.made(8, 16)
    moved.c2w[:, :, 3] = 10 * moved.c2w[:, :, 3] + 100
    out = tmp_path / "out"
    run(out, write.nerfstudio(tmp_path / "n", moved), model="tiny", steps=2)
    kept = json.loads((out / "scene.json").read_text())
    assert kept["scale"] == pytest.approx(3 / 40, rel=0.1)  # the cameras stand about 40 from the bust
    depth = np.load(next((out / "depth").glob("*.npy")))
    assert 10 < depth.max() < 200  # in the units of the file, not of the run
    job = make_job(find()["nerf"], None)
    assert job.view(out, "orbit", {"azimuth": 0.0, "elevation": 0.0, "distance": 3.0}, (8, 8)).shape == (3, 8, 8)


def test_masks_that_disagree_with_the_cameras(tmp_path, scene):
    root = write.nerfstudio(tmp_path / "n", scene)
    for v in range(8):
        write.save(root / f"m/f{v:02d}.png", np.zeros((16, 16, 3), np.uint8))
    out = tmp_path / "out"
    run(out, root, masks=root / "m", steps=2)
    notes = json.loads((out / "result.json").read_text())["notes"]
    assert any("nothing is left of the visual hull" in note for note in notes)


@pytest.mark.parametrize(("options", "words"), [
    ({"model": "vanilla"}, "minute a step on a CPU"),
    ({"encoding": "frequency"}, "--encoding frequency is not for --model fast"),
    ({"parity": True}, "--parity belongs to --model vanilla"),
    ({"near": 5.0, "far": 4.0}, r"--near \(5\) must be below --far \(4\)"),
    ({"near": 7.0}, r"near \(7\) must be below far \(6\)"),
    ({"aabb": "0,0,0,1,1"}, "--aabb must be"), ({"aabb": "0,0,0,1,-1,1"}, "--aabb must be"),
    ({"background": "sky"}, "no colour"), ({"masks": Path("nowhere")}, "no such folder of masks"),
    ({"render_poses": Path("nowhere.npy"), "steps": 1}, "no such file"),
])  # fmt: skip
def test_options_that_make_no_sense(tmp_path, scene, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", write.blender(tmp_path / "b", scene), **options)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_no_scene(tmp_path, scene):
    root = write.blender(tmp_path / "b", scene)
    (root / "images/r_3.png").unlink()
    with pytest.raises(InputError, match="1 of 10 picture files are missing"):
        run(tmp_path / "out", root)
    with pytest.raises(InputError):
        run(tmp_path / "out", tmp_path / "nowhere")
    np.save(tmp_path / "bad.npy", np.zeros((2, 5)))
    with pytest.raises(InputError, match=r"cameras \[n,3 or 4,4\] are wanted"):
        run(tmp_path / "out", write.blender(tmp_path / "c", scene), render_poses=tmp_path / "bad.npy")
    assert not (tmp_path / "out").exists()
