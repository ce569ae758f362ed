import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.siren.job_runs import run, saved, smooth

import precis
from precis.data.images import read_image
from precis.errors import InputError
from precis.fields.siren import Siren
from precis.fields.siren_fit import evaluate_image
from precis.nn.coordinates import coordinate_grid
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.siren.tasks_image import net_derivatives
from precis.train.checkpoint import load_model

WHOLE = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}
SOURCE = Path(precis.__file__).parents[1]


def test_a_picture_is_fitted_and_what_is_written_is_the_function(tmp_path):
    picture = smooth()
    done = run(tmp_path / "out", saved(tmp_path, picture), steps=120, lr=2e-3)
    assert done.metrics["psnr"] > 38 and list(done.metrics)[0] == "psnr"
    assert done.result["task"] == "fit" and done.result["files"][0] == "overview.png"
    assert {"reconstruction.png", "error.png", "gradient.png", "laplacian.png", "psnr.png"} <= set(done.result["files"])
    assert not (done.folder / ".checkpoint").exists()
    made = read_image(done.folder / "reconstruction.png").pixels
    error = ((made.astype(float) - picture) / 255) ** 2
    assert done.metrics["psnr"] == pytest.approx(-10 * np.log10(error.mean()), abs=1e-4)
    net = load_model(done.folder)
    assert torch.allclose(evaluate_image(net, (24, 32)).clamp(0, 1), torch.from_numpy(made) / 255.0, atol=0.51 / 255)
    assert done.metrics["model_bytes"] == (done.folder / "model.safetensors").stat().st_size
    assert done.metrics["bytes_per_pixel"] == done.metrics["model_bytes"] / (24 * 32)
    assert done.metrics["source_bytes"] == (tmp_path / "picture.png").stat().st_size


def test_drawn_derivatives_are_those_of_the_drawn_picture():
    """Row first, in units of the coordinates, of the luma of a picture in 0 … 1: against central differences."""
    net = Siren(2, 3, 16, omega=3.0, first_omega=3.0, generator=torch.Generator().manual_seed(0)).double()
    gradient, laplacian = net_derivatives(net, (6, 9), False)
    grid, h = coordinate_grid((6, 9), dtype=torch.float64), 1e-3

    def grey(row, column):
        made = (net(grid + torch.tensor([row, column], dtype=torch.float64)) + 1) / 2
        return (made @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).detach().reshape(6, 9).numpy()

    along = [(grey(h, 0) - grey(-h, 0)) / (2 * h), (grey(0, h) - grey(0, -h)) / (2 * h)]
    assert np.allclose(gradient, along, atol=1e-5)
    around = grey(h, 0) + grey(-h, 0) + grey(0, h) + grey(0, -h) - 4 * grey(0, 0)
    assert np.allclose(laplacian, around / h**2, atol=1e-3)


def test_zoom_gives_the_picture_and_parts_of_it(tmp_path):
    done = run(tmp_path / "out", saved(tmp_path, smooth()), steps=30)
    job = make_job(find()["siren"])
    whole = job.view(done.folder, "zoom", WHOLE, (32, 24))
    made = read_image(done.folder / "reconstruction.png").pixels / 255
    assert whole.shape == (3, 24, 32) and np.abs(whole - made).max() < 0.51 / 255
    corner = job.view(done.folder, "zoom", {"x0": 0.5, "y0": 0.0, "x1": 1.0, "y1": 0.5}, (16, 12))
    assert np.abs(corner - made[:, :12, 16:]).max() < 0.51 / 255
    with pytest.raises(InputError, match="sdf"):
        job.view(done.folder, "orbit", {}, (8, 8))
    with pytest.raises(InputError, match="no finished run"):
        job.view(tmp_path, "zoom", {}, (8, 8))


def test_zoom_of_a_fit_with_aligned_corners(tmp_path):
    done = run(tmp_path / "out", saved(tmp_path, smooth()), steps=30, align_corners=True)
    whole = make_job(find()["siren"]).view(done.folder, "zoom", WHOLE, (32, 24))
    assert np.abs(whole - read_image(done.folder / "reconstruction.png").pixels / 255).max() < 0.51 / 255


def test_a_constant_picture_has_infinite_psnr_and_null_in_json(tmp_path):
    done = run(tmp_path / "out", saved(tmp_path, np.full((1, 12, 12), 77, np.uint8)), steps=200, width=32)
    assert done.metrics["psnr"] == float("inf") and done.result["metrics"]["psnr"] is None
    assert any("psnr is inf" in note for note in done.result["notes"])
    assert done.metrics["psnr_gradient"] is None


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)])
def test_pictures_one_pixel_wide(tmp_path, shape):
    done = run(tmp_path / "out", saved(tmp_path, smooth(*shape, channels=1)), steps=60)
    assert done.metrics["psnr"] > 20 and done.metrics["ssim"] is None


def test_alpha_is_one_more_output_unless_a_background_is_named(tmp_path):
    alpha = np.rint(255 * np.linspace(0, 1, 32) ** 0.5)[None, None].repeat(24, 1).astype(np.uint8)
    given = saved(tmp_path, smooth(), alpha=alpha)
    done = run(tmp_path / "four", given)
    assert load_model(done.folder).out_dim == 4 and any("alpha" in note for note in done.result["notes"])
    made = read_image(done.folder / "reconstruction.png")
    assert np.abs(made.alpha.astype(int) - alpha).mean() < 12
    flat = run(tmp_path / "three", given, background="black")
    assert load_model(flat.folder).out_dim == 3 and any("black" in note for note in flat.result["notes"])
    with pytest.raises(InputError, match="no colour"):
        run(tmp_path / "none", given, background="blackish")
    assert not (tmp_path / "none").exists()


def test_float_pictures_keep_their_range(tmp_path):
    values = smooth(channels=1).astype(np.float32) * 10 - 300
    done = run(tmp_path / "out", saved(tmp_path, values, "deep.tif"), steps=250)
    made = read_image(done.folder / "reconstruction.tif").pixels
    assert np.abs(made - values).mean() < 0.03 * np.ptp(values)
    assert any("brought to 0" in note for note in done.result["notes"])


def test_a_pixel_that_is_no_number_is_named(tmp_path):
    values = np.zeros((1, 5, 7), np.float32)
    values[0, 3, 2] = np.nan
    with pytest.raises(InputError, match="row 3, column 2"):
        run(tmp_path / "out", saved(tmp_path, values, "hole.tif"))
    assert not (tmp_path / "out").exists()


def test_large_pictures_are_reduced_with_a_note_and_linear_light_is_undone(tmp_path):
    done = run(tmp_path / "out", saved(tmp_path, smooth(60, 80)), size="32", linear=True, steps=200)
    assert any("80×60 pixels were reduced to 32×24" in note for note in done.result["notes"])
    made = read_image(done.folder / "reconstruction.png").pixels
    assert made.shape == (3, 24, 32) and done.metrics["psnr"] > 25


def test_resampling_up_gives_that_many_pixels_of_the_same_function(tmp_path):
    given = saved(tmp_path, smooth(16, 20))
    done = run(tmp_path / "up", given, scale=2.5, steps=250, lr=2e-3, omega=10.0)
    assert done.result["task"] == "resample"
    made = read_image(done.folder / "resampled.png").pixels
    assert made.shape == (3, 40, 50) and done.metrics["psnr_to_bicubic"] > 25
    other = run(tmp_path / "size", given, size="30x9", steps=20)
    assert read_image(other.folder / "resampled.png").pixels.shape == (3, 9, 30)
    assert read_image(other.folder / "bicubic.png").pixels.shape == (3, 9, 30)


def test_resampling_down_averages(tmp_path):
    """Stripes above the coarse grid's Nyquist frequency become grey, not stripes of another width."""
    stripes = np.zeros((1, 32, 32), np.uint8)
    stripes[:, :, ::2] = 255
    done = run(tmp_path / "out", saved(tmp_path, stripes), scale=0.25, steps=150)
    made = read_image(done.folder / "resampled.png").pixels
    assert made.shape == (1, 8, 8) and made.std() < 50


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    saved(tmp_path, smooth(), "p.png")
    options = ["--steps", "250", "--width", "64", "--batch", "512", "--json", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "PRECIS_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "precis.cli", "run", "siren", "p.png", *options, "--out"]

    def start(out, *more):
        return subprocess.Popen([*command, out, *more], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.DEVNULL)  # fmt: skip

    broken = start("broken")
    events = tmp_path / "broken" / "events.jsonl"
    while broken.poll() is None and (not events.exists() or events.read_text().count('"log"') < 3):
        time.sleep(0.01)
    broken.send_signal(signal.SIGINT)
    broken.communicate()
    assert broken.returncode == 130 and (tmp_path / "broken" / ".checkpoint").is_dir()
    assert not (tmp_path / "broken" / "result.json").exists()
    wrong = start("broken", "--resume", "--lr", "0.01")
    wrong.communicate()
    assert wrong.returncode == 2
    again = start("broken", "--resume")
    again.communicate()
    assert again.returncode == 0
    run(tmp_path / "whole", tmp_path / "p.png", steps=250)
    one, two = (load_model(tmp_path / name).state_dict() for name in ("broken", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert not (tmp_path / "broken" / ".checkpoint").exists()
