"""Maps of the deformation on a scale that is said, and the surface of every instant."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.papers.nerfies.test_job import nerfstudio, run
from tests.papers.runs import Heard

from precis.data.captures_nerfies import write_nerfies
from precis.data.scenes3d import capture
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.nerfies.deformation import Maps, moved
from precis.papers.nerfies.meshes import write_meshes
from precis.papers.nerfies.opening import Opened, open_capture
from precis.papers.nerfies.training import Portrait
from precis.papers.opening import make_job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nerfies(tmp_path_factory.mktemp("capture") / "bust", capture("moving", 10, 12, 0))


@pytest.fixture
def opened(folder: Path, tmp_path: Path) -> Opened:
    return open_capture(make_job(find()["nerfies"], str(folder)), Heard(tmp_path))


@pytest.fixture
def model(opened: Opened) -> Portrait:
    """A field of shifts that carries the instant f by f/100 along x; whatever the point."""
    made = Portrait(opened.frames, opened.box.tolist(), opened.near, opened.far, "fast", "translation", 2, None)
    made.eval().requires_grad_(False)

    def canonical(x: torch.Tensor, codes: Any, alpha: float, jacobian: bool = False) -> Any:
        return x + torch.tensor([1.0, 0, 0]) * codes.deformation[..., :1], None

    assert made.warp is not None
    made.warp.codes.copy_((torch.arange(opened.frames) / 100.0)[:, None].expand(-1, 8))
    made.canonical = canonical  # type: ignore[method-assign]
    return made


def test_a_map_tells_how_far_the_field_carries_in_the_units_of_input(opened: Opened, model: Portrait) -> None:
    depth = torch.full((12, 12), 0.5 * (opened.near + opened.far))
    depth[0] = model.far
    found = moved(opened, model, 7, depth, 2.0)
    assert np.isnan(found[0]).all() and found[1:] == pytest.approx(0.07 / opened.scale, rel=1e-4)


def test_all_maps_have_one_scale_and_it_is_said(tmp_path: Path) -> None:
    work = Heard(tmp_path)
    maps = Maps(work)
    for name, most in (("a", 0.0312), ("cam1/b", 0.0156)):
        found = np.full((4, 4), most, np.float32)
        found[0] = np.nan
        found[1] = 0
        maps.add(name, found)
    maps.finish()
    assert maps.top == pytest.approx(0.032) and "bright (0.032 or more)" in work.notes[0]
    a, b = (np.asarray(Image.open(tmp_path / f"deformation/{n}.png")).astype(int) for n in ("a", "cam1/b"))
    assert (a[0] == 255).all() and (a[1] == b[1]).all() and a[1].max() < 10
    assert a[2].sum() > b[2].sum() > a[1].sum()  # half as far is half as bright, and no more
    assert np.load(tmp_path / "deformation/cam1/b.npy")[3, 3] == np.float32(0.0156)


def test_the_surface_of_every_instant(
    folder: Path, tmp_path: Path, opened: Opened, model: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ball that stands still in the canonical scene moves the other way in the observations."""
    middle, radius = opened.box.mean(0), 0.2 * float((opened.box[1] - opened.box[0]).min())

    def ball(x: torch.Tensor) -> torch.Tensor:
        return 1e4 * (radius - (x - middle).norm(dim=-1)).clamp(min=0)

    monkeypatch.setattr(model.template, "density", ball)
    monkeypatch.setattr(model, "density", lambda x, codes, alpha: ball(model.canonical(x, codes, alpha)[0]))
    done: list[int] = []
    job = make_job(find()["nerfies"], str(folder), meshes="all", mesh_resolution=24)
    write_meshes(job, opened, model, 2.0, Heard(tmp_path), opened.train[3], lambda: done.append(1))
    centres = {file.stem: vertices(file).mean(0) * opened.scale for file in tmp_path.rglob("*.ply")}
    assert len(centres) == 12 and len(done) == 10
    assert centres["mesh_canonical"] == pytest.approx(middle.numpy(), abs=0.01)
    for f in range(10):
        wanted = middle.numpy() - np.array([f / 100, 0, 0])
        assert centres[f"a_{f:04d}"] == pytest.approx(wanted, abs=0.01), f
    assert centres["mesh_frozen"] == pytest.approx(centres["a_0003"])


def vertices(file: Path) -> np.ndarray:
    data = file.read_bytes()
    found = re.search(rb"element vertex (\d+)", data)
    assert found
    kind = np.dtype([("p", "<f4", 3), ("n", "<f4", 3), ("c", "u1", 3)])
    body = data[data.index(b"end_header\n") + 11 :]
    return np.frombuffer(body[: int(found[1]) * kind.itemsize], kind)["p"]


def test_photographs_that_share_a_name(folder: Path, tmp_path: Path) -> None:
    root = nerfstudio(folder, tmp_path / "rig")
    meta = json.loads((root / "transforms.json").read_text())
    for k, frame in enumerate(meta["frames"]):
        new = root / f"rgb/cam{k // 10}/{k % 10:04d}.png"
        new.parent.mkdir(exist_ok=True)
        (root / frame["file_path"]).rename(new)
        frame["file_path"] = str(new.relative_to(root))
    (root / "transforms.json").write_text(json.dumps(meta))
    (root / "m").mkdir()
    for k in range(10):
        Image.new("L", (12, 12), 255).save(root / f"m/{k:04d}.png")
    options = {"per_frame": True, "near": 0.4, "far": 1.4, "steps": 1}
    with pytest.raises(InputError, match="share names"):
        run(tmp_path / "out", root, masks=root / "m", **options)
    run(tmp_path / "out", root, **options)
    frames = [p.relative_to(tmp_path / "out/frames") for p in (tmp_path / "out/frames").rglob("*.png")]
    assert len(frames) == 17 and {p.parent.name for p in frames} == {"cam0", "cam1"}
    assert len(list((tmp_path / "out/depth").rglob("*.npy"))) == 17
    assert len(list((tmp_path / "out/deformation").rglob("*.png"))) == 17
    notes = json.loads((tmp_path / "out/result.json").read_text())["notes"]
    assert any("maps of the deformation" in note for note in notes)
