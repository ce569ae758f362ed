import json

import numpy as np
import pytest
import torch
from tests.papers.deep_image_prior.job_runs import run, saved, smooth
from torch import nn

from precis.data.images import read_image
from precis.errors import InputError, Stopped
from precis.papers.catalogue import find
from precis.papers.deep_image_prior.options import TASKS, settle
from precis.papers.deep_image_prior.pictures import kind_of_hole
from precis.papers.opening import make_job
from precis.train.checkpoint import load_model


def test_denoise_any_size_with_a_reference(tmp_path):
    clean = smooth(19, 23)
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    given, reference = saved(tmp_path, noisy), saved(tmp_path, clean, "clean.png")
    done = run(tmp_path / "out", given, reference=reference, steps=12)
    assert {p.name for p in done.folder.iterdir()} >= {
        "restored.png", "average.png", "last.png", "tv.png", "nlm.png", "overview.png", "curve.png", "result.json",
        "report.md", "model.safetensors", "config.json",
    }  # fmt: skip
    assert read_image(done.folder / "restored.png").pixels.shape == (3, 19, 23)
    metrics = done.metrics
    assert {"psnr", "ssim", "psnr_tv", "psnr_nlm", "psnr_given", "psnr_last", "stopped_at", "loss"} <= set(metrics)
    assert metrics["sigma"] == pytest.approx(25.5, rel=0.25) and metrics["stopped_at"] == 12
    assert done.result["files"][0] == "overview.png" and done.result["repeatable"]
    assert any("estimated" in note for note in done.result["notes"])
    assert not (done.folder / ".checkpoint").exists()
    net = load_model(done.folder)
    assert net(torch.rand(1, 32, 32, 32)).shape == (1, 3, 32, 32)


def test_a_longer_fit_comes_closer(tmp_path):
    clean = smooth(32, 32)
    given = saved(tmp_path, clean)
    short, long = (run(tmp_path / str(n), given, steps=n, reference=given, stop="steps") for n in (5, 40))
    assert long.metrics["psnr_last"] > short.metrics["psnr_last"] + 2
    again = run(tmp_path / "again", given, steps=5, reference=given, stop="steps")
    assert again.metrics == short.metrics
    other = run(tmp_path / "other", given, steps=5, reference=given, stop="steps", seed=1)
    assert other.metrics["psnr"] != short.metrics["psnr"]


def test_grey_pictures_stay_grey(tmp_path):
    given = saved(tmp_path, smooth(channels=1))
    for task in ("denoise", "jpeg"):
        done = run(tmp_path / task, given, task=task)
        assert read_image(done.folder / "restored.png").pixels.shape[0] == 1


def test_superresolution(tmp_path):
    given, reference = saved(tmp_path, smooth(18, 16)), saved(tmp_path, smooth(36, 32), "large.png")
    done = run(tmp_path / "out", given, factor=2, reference=reference)
    assert read_image(done.folder / "restored.png").pixels.shape == (3, 36, 32)
    assert read_image(done.folder / "bicubic.png").pixels.shape == (3, 36, 32)
    assert done.result["task"] == "superres" and done.metrics["psnr_luma_bicubic"] > 30


def test_known_pixels_are_kept_and_white_means_known(tmp_path):
    picture = smooth()
    known = np.random.default_rng(0).random((1, 20, 28)) > 0.4
    given, mask = saved(tmp_path, picture), saved(tmp_path, known.astype(np.float32), "mask.png")
    turned = saved(tmp_path, 1 - known.astype(np.float32), "turned.png")
    clear = saved(tmp_path, picture, "clear.png", alpha=known.astype(np.float32))
    runs = [
        run(tmp_path / "a", given, mask=mask), run(tmp_path / "b", given, mask=turned, invert_mask=True),
        run(tmp_path / "c", clear, task="inpaint"),
    ]  # fmt: skip
    for done in runs:
        for name in ("restored", "average", "last"):  # all that are scored
            made = read_image(done.folder / f"{name}.png").pixels
            assert (made[:, known[0]] == np.rint(255 * picture[:, known[0]])).all()
        assert done.metrics["known"] == pytest.approx(known.mean())
        assert {"tv.png", "biharmonic.png"} <= {p.name for p in done.folder.iterdir()}
    assert runs[0].metrics["loss"] == runs[1].metrics["loss"]


def test_kinds_of_holes():
    known = torch.ones(1, 1, 40, 40)
    known[..., ::2, ::2] = 0
    assert kind_of_hole(known) == "pixels"
    known[..., 10:16, :] = 0
    assert kind_of_hole(known) == "text"
    known[..., 5:30, 5:30] = 0
    assert kind_of_hole(known) == "large"


def test_large_holes_and_masks_that_are_nearly_grey(tmp_path):
    mask = np.ones((1, 32, 32), np.float32)
    mask[:, 4:28, 4:28] = 0
    mask[:, :3] = 0.6
    done = run(tmp_path / "out", saved(tmp_path, smooth(32, 32)), mask=saved(tmp_path, mask, "mask.png"))
    notes = " ".join(done.result["notes"])
    assert "looks like large regions" in notes and "neither black nor white" in notes
    few = np.zeros((1, 32, 32), np.float32)
    few[:, 3, 3] = 1
    done = run(tmp_path / "few", saved(tmp_path, smooth(32, 32)), mask=saved(tmp_path, few, "few.png"))
    assert "only 0.1% of the pixels are known" in " ".join(done.result["notes"])


def test_a_hole_larger_than_the_usual_tile(tmp_path):
    """600×400 pixels, 150 to 450 unknown in every row: squares of 256 would see nothing in the middle."""
    mask = np.ones((1, 40, 600), np.float32)
    mask[..., 150:450] = 0
    given, mask = saved(tmp_path, smooth(40, 600)), saved(tmp_path, mask, "mask.png")
    done = run(tmp_path / "out", given, mask=mask, steps=1)
    assert read_image(done.folder / "restored.png").pixels.shape == (3, 40, 600)
    assert "2 tiles of 320 pixels" in " ".join(done.result["notes"])


def test_a_hole_larger_than_the_tiles_that_were_asked_for(tmp_path):
    mask = np.ones((1, 32, 260), np.float32)
    mask[..., 60:200] = 0
    given, mask = saved(tmp_path, smooth(32, 260)), saved(tmp_path, mask, "mask.png")
    with pytest.raises(InputError, match=r"squares of 64 .* --tile 96 .* --tile 0 fits it whole"):
        run(tmp_path / "out", given, mask=mask, tile=64)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", given, mask=mask, tile=96, steps=1).result["task"] == "inpaint"


def test_flash(tmp_path):
    dark, flash = saved(tmp_path, 0.4 * smooth()), saved(tmp_path, smooth(channels=1), "flash.png")
    done = run(tmp_path / "out", dark, flash=flash)
    assert done.result["task"] == "flash" and (done.folder / "flash.png").exists()


def test_tiles_and_runs(tmp_path):
    given = saved(tmp_path, smooth(66, 90))
    done = run(tmp_path / "out", given, tile=64, runs=2, steps=1)
    assert read_image(done.folder / "restored.png").pixels.shape == (3, 66, 90)
    assert any("4 tiles of 64" in note for note in done.result["notes"])
    lines = [json.loads(line) for line in (done.folder / "events.jsonl").read_text().splitlines()]
    progress = [line for line in lines if "total" in line]
    assert progress[-1]["step"] == progress[-1]["total"] == 8


def test_a_stopped_run_goes_on(tmp_path):
    given = saved(tmp_path, smooth(66, 66))
    whole = run(tmp_path / "whole", given, tile=64, steps=2)
    calls = iter(range(1000))
    with pytest.raises(Stopped):
        run(tmp_path / "out", given, tile=64, steps=2, stopping=lambda: next(calls) > 3)
    done = run(tmp_path / "out", given, tile=64, steps=2, resume=True)
    assert done.metrics == whole.metrics
    assert (done.folder / "restored.png").read_bytes() == (whole.folder / "restored.png").read_bytes()


SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3, 2), nn.ReLU())
"""


def test_inversion_of_the_users_networks(tmp_path):
    given = saved(tmp_path, smooth(24, 24))
    (tmp_path / "net.py").write_text(SOURCE)
    eager = run(tmp_path / "a", given, model=f"{tmp_path}/net.py:build", layer="0")
    assert eager.metrics["features"] == 4 * 11 * 11 and "code of your own" in " ".join(eager.result["notes"])
    namespace: dict = {}
    exec(SOURCE, namespace)
    net: nn.Module = namespace["build"]().eval()
    torch.jit.save(torch.jit.script(net), str(tmp_path / "net.pt"))
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 24, 24),)), str(tmp_path / "net.pt2"))
    for name in ("net.pt", "net.pt2"):
        done = run(tmp_path / name.replace(".", "_"), given, model=str(tmp_path / name), layer="0")
        assert done.metrics["features"] == eager.metrics["features"]
        assert done.metrics["feature_error"] == pytest.approx(eager.metrics["feature_error"], rel=1e-3)
    block = run(tmp_path / "b", given, model=f"{tmp_path}/net.py:build", layer="3")
    assert block.metrics["features"] == 5 * 5 * 5


def test_inversion_of_the_demonstration(tmp_path):
    given = saved(tmp_path, smooth(32, 32))
    short, long = (run(tmp_path / str(n), given, task="invert", steps=n, lr=0.01) for n in (1, 12))
    assert (long.folder / "inverted.png").exists() and long.metrics["feature_error"] < short.metrics["feature_error"]
    assert any("random weights" in note for note in long.result["notes"])


def test_curves(tmp_path, monkeypatch):
    monkeypatch.setattr("precis.papers.deep_image_prior.task_curves.LARGEST", 36)
    done = run(tmp_path / "out", saved(tmp_path, smooth(50, 32)), task="curves", steps=20)
    assert done.metrics["shuffled_over_natural"] > 1.2
    assert done.metrics["log_error_natural"] < done.metrics["log_error_shuffled"]
    assert {"curves.png", "overview.png"} <= {p.name for p in done.folder.iterdir()}
    assert any("middle 32×36" in note for note in done.result["notes"])


def test_every_task_has_a_sample(tmp_path):
    paper = find()["deep_image_prior"]
    for task in TASKS:
        (tmp_path / task).mkdir()
        job = make_job(paper, None, task=task)
        job.input = job.sample(tmp_path / task)
        assert settle(job if task != "flash" else make_job(paper, None, task=task)) == task
        assert min(read_image(job.input).pixels.shape[1:]) >= 32
    assert run(tmp_path / "out", task="flash", steps=1).metrics["psnr"] > 5
