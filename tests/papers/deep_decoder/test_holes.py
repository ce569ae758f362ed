"""Inpainting: as many layers as the hole asks for; and weights, curves and light of the restoring tasks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.deep_decoder.job_runs import run, saved, smooth

from precis.data.images import read_image
from precis.fields.deep_decoder import layers_for
from precis.papers.deep_decoder.fitting import Problem, _layers, hidden
from precis.papers.tiles import Window
from precis.train.checkpoint import load_model


def known(h: int, w: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.ones(1, 1, h, w)
    mask[..., top : top + side, left : left + side] = 0
    return mask


def layers(mask: torch.Tensor) -> int:
    problem = Problem(torch.zeros(1, 3, *mask.shape[-2:]), 256, (1, 1), mask=mask)
    return _layers(problem, Window(0, 0, *mask.shape[-2:]))


def test_quarters_of_coarse_pixels_that_nothing_known_tells_of() -> None:
    mask = known(64, 64, 16, 16, 16)
    assert [hidden(mask, n) for n in (2, 4, 6, 7)] == [256, 16, 1, 0]  # quarters of 1, 4, 16 and 32 pixels a side
    moved = known(60, 62, 14, 15, 16)  # the same square in the middle of an output of 64×64
    assert hidden(moved, 6) == 1 and hidden(known(60, 62, 16, 16, 14), 6) == 0
    assert hidden(torch.ones(1, 1, 33, 40), 6) == 0  # margins of the output are nobody's hole


def test_a_large_hole_gets_more_layers_and_scattered_pixels_the_usual() -> None:
    scattered = (torch.rand(1, 1, 46, 53, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    assert layers(scattered) == layers_for((46, 53)) == 4
    assert layers(known(46, 53, 14, 18, 17)) == 6
    assert layers(known(46, 53, 2, 2, 40)) == 6  # no more: B_1 has two pixels a side


def test_what_fills_a_hole_follows_from_what_surrounds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, mask = smooth(46, 53), known(46, 53, 14, 18, 17)
    given, place = saved(tmp_path, clean), saved(tmp_path, mask[0].numpy(), "mask.png")
    done = run(tmp_path / "more", given, mask=place, steps=150)
    assert done.metrics["layers"] == 6 and "6 layers in place of 4" in " ".join(done.result["notes"])
    monkeypatch.setattr("precis.papers.deep_decoder.fitting.COARSEST", 99)
    usual = run(tmp_path / "usual", given, mask=place, steps=150)
    assert usual.metrics["layers"] == 4
    assert "it may draw anything" in " ".join(usual.result["notes"])
    hole = mask[0, 0].numpy() == 0
    error = [np.abs(read_image(d.folder / "restored.png").pixels[:, hole] / 255 - clean[:, hole] / 255).mean()
             for d in (done, usual)]  # fmt: skip
    assert error[0] < 0.5 * error[1]


def test_weights_of_tiles_and_curves(tmp_path: Path) -> None:
    given = saved(tmp_path, smooth(40, 100))
    done = run(tmp_path / "out", given, factor=2, tile=96, steps=4)
    names = {p.stem for p in (done.folder / "models").glob("*.safetensors")}
    assert len(names) == done.metrics["tiles"] > 1 and "tile_1" in names
    load_model(done.folder / "models", name="tile_2")
    assert done.result["curve"]["loss"]["steps"] == [1, 2, 3, 4]
    assert len(done.result["curve"]["loss"]["values"]) == 4


def test_linear_light(tmp_path: Path) -> None:
    clean = smooth(24, 32)
    given, place = saved(tmp_path, clean), saved(tmp_path, known(24, 32, 8, 8, 4)[0].numpy(), "mask.png")
    done = run(tmp_path / "linear", given, mask=place, linear=True, reference=given, steps=20)
    stored = run(tmp_path / "stored", given, mask=place, reference=given, steps=20)
    made = read_image(done.folder / "restored.png").pixels
    outside = known(24, 32, 8, 8, 4)[0, 0].numpy() > 0
    assert np.array_equal(made[:, outside], clean[:, outside])
    assert done.metrics["training_loss"] != stored.metrics["training_loss"]
    assert done.metrics["psnr_biharmonic"] == pytest.approx(stored.metrics["psnr_biharmonic"], abs=6)
    assert "linear light" in " ".join(done.result["notes"])
