"""How a run samples rays: a proposal network where the world has no border, a grid if asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.data import scene_files as write
from tests.papers.nerf.test_job import run

from precis.errors import InputError
from precis.papers.catalogue import find
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
