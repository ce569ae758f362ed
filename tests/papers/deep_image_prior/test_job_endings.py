"""How a run ends: stopped and resumed, out of steps, in bounded memory, with its weights and its curve."""

import numpy as np
import pytest
import torch
from tests.papers.deep_image_prior.job_runs import run, saved, smooth
from tests.papers.runs import Heard

from precis.data.images import read_image
from precis.errors import Stopped
from precis.papers.catalogue import find
from precis.papers.deep_image_prior.endings import misfit, tell_of_stops, write_curve
from precis.papers.light import from_srgb, to_srgb
from precis.papers.opening import make_job
from precis.papers.restoring import place_of
from precis.train.checkpoint import load_model


def noisy(folder, h=20, w=28):
    noise = 0.1 * np.random.default_rng(0).standard_normal((3, h, w)).astype(np.float32)
    return saved(folder, smooth(h, w) + noise)


@pytest.mark.parametrize(("task", "steps", "metric"), [
    ("invert", 4, "feature_error"), ("curves", 3, "shuffled_over_natural"),
])  # fmt: skip
def test_a_stopped_inversion_or_comparison_goes_on_to_the_bit(tmp_path, monkeypatch, task, steps, metric):
    monkeypatch.setattr("precis.train.loop.LOG_SECONDS", 0.0)  # every step is told, so that one can stop at any
    given = saved(tmp_path, smooth())
    whole = run(tmp_path / "whole", given, task=task, steps=steps)
    calls = iter(range(1000))
    with pytest.raises(Stopped, match="--resume goes on"):
        run(tmp_path / "out", given, task=task, steps=steps, stopping=lambda: next(calls) >= 3)
    logs = []
    from precis.papers.running import run_job

    job = make_job(find()["deep_image_prior"], given, task=task, steps=steps, device="cpu")
    done = run_job(find()["deep_image_prior"], job, out=tmp_path / "out", resume=True, listen=logs.append)
    first = next(event["step"] for event in logs if event["event"] == "log")
    assert first > 1
    assert done.metrics == whole.metrics and done.result["curve"] == whole.result["curve"]
    file = "inverted.png" if task == "invert" else "overview.png"
    assert (done.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_pictures_that_are_too_large_to_be_inverted_whole_are_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr("precis.papers.deep_image_prior.task_invert.MOST", {"cpu": 32 * 40, "cuda": 0})
    done = run(tmp_path / "out", saved(tmp_path, smooth(60, 100)), task="invert", steps=1)
    assert read_image(done.folder / "inverted.png").pixels.shape == (3, 27, 46)
    assert "100×60 pixels were reduced to 46×27" in " ".join(done.result["notes"])
    assert load_model(done.folder)(torch.rand(1, 32, 32, 48)).shape == (1, 3, 32, 48)


def test_steps_that_ran_out_are_told(tmp_path):
    given = noisy(tmp_path)
    short = run(tmp_path / "short", given, sigma="25", steps=3)
    assert "the steps ran out before the noise level was reached: the misfit came down to" in " ".join(
        short.result["notes"]
    )
    enough = run(tmp_path / "enough", given, sigma="200", steps=30)
    assert enough.metrics["stopped_at"] < 30 and "ran out" not in " ".join(enough.result["notes"])
    variance = run(tmp_path / "variance", given, stop="variance", steps=3)
    assert "the steps ran out before the outputs had settled" in " ".join(variance.result["notes"])


class Told(Heard):
    """Keeps the curves too."""

    def __init__(self, folder):
        super().__init__(folder)
        self.curves = {}

    def curve(self, name, steps, values):
        self.curves[name] = (steps, values)


def test_which_fits_are_said_to_have_run_out(tmp_path):
    job = make_job(find()["deep_image_prior"], None, task="denoise", stop="variance", steps=300)
    fit = lambda last, at: {"at": at, "curve": {"loss": (list(range(1, last + 1)), [1.0] * last)}}
    work = Told(tmp_path)
    tell_of_stops(job, work, None, [fit(240, 40), fit(300, 110)], 300)
    assert "in 1 of 2 fits" in work.notes[0] and "that of step 110" in work.notes[0]
    tell_of_stops(job, work, None, [fit(240, 40)], 300)
    assert len(work.notes) == 1
    tell_of_stops(job, work, None, [fit(11_000, 10_000)], 11_000)  # waits for a tenth of the steps
    assert "once 1100 steps have brought no lower one" in work.notes[1]
    assert misfit([4.0, 2.0, 3.0]) == pytest.approx(3.0)  # the mean, until a tenth is more than its share
    assert misfit([1.0] * 20 + [2.0]) == pytest.approx(1.1)


def test_the_curve_shows_the_noise_and_the_step_and_is_in_the_result(tmp_path, monkeypatch):
    drawn = {}
    from precis.papers.deep_image_prior import endings

    real = endings.curves
    monkeypatch.setattr(endings, "curves", lambda series, **more: drawn.update(series, **more) or real(series, **more))
    work = Told(tmp_path)
    write_curve(work, {"loss": ([1, 2, 3], [0.3, 0.2, 0.1])}, 2, 0.5, 1)
    assert drawn["σ² of the noise"] == ([1, 3], [0.25, 0.25]) and drawn["taken at step 2"] == ([2, 2], [0.1, 0.3])
    assert drawn["y_label"] == "mean square" and (tmp_path / "curve.png").exists()
    assert work.curves["loss"] == ([1, 2, 3], [0.3, 0.2, 0.1])
    done = run(tmp_path / "out", noisy(tmp_path), sigma="25", steps=5)
    curve = done.result["curve"]["loss"]
    assert curve["steps"] == [1, 2, 3, 4, 5] and curve["values"][-1] == pytest.approx(done.metrics["loss"])


def test_weights_of_several_runs_and_tiles(tmp_path):
    runs = run(tmp_path / "runs", saved(tmp_path, smooth()), task="jpeg", runs=2, steps=1)
    first, second = (load_model(runs.folder, name=f"model_{i}") for i in (1, 2))
    z = torch.rand(1, 3, 32, 32)
    assert not torch.equal(first(z), second(z)) and not (runs.folder / "model.safetensors").exists()
    tiles = run(tmp_path / "tiles", saved(tmp_path, smooth(20, 90)), task="jpeg", tile=64, runs=2, steps=1)
    names = {p.stem for p in (tiles.folder / "models").glob("*.safetensors")}
    assert names == {"tile_1_run_1", "tile_1_run_2", "tile_2_run_1", "tile_2_run_2"}
    assert "4 networks stand behind the result" in " ".join(tiles.result["notes"])


def test_weights_that_are_large_together_are_not_written(tmp_path):
    work = Told(tmp_path)
    assert place_of(work, torch.nn.Linear(2000, 2000), (0, 9)) is None
    assert work.notes == ["no weights were written: the 9 networks of this result take 137 MB"]


def test_linear_light(tmp_path):
    """The fit sees light; files and scores are sRGB: a flat grey comes back as it is stored."""
    stored = torch.tensor([0.0, 0.04045, 0.5, 1.0])  # IEC 61966-2-1: 0.5 is 0.2140 of the light
    torch.testing.assert_close(from_srgb(stored), torch.tensor([0.0, 0.04045 / 12.92, 0.21404114, 1.0]))
    x = torch.linspace(-0.2, 1.2, 50)
    torch.testing.assert_close(to_srgb(from_srgb(x)), x, atol=1e-5, rtol=0)
    picture = smooth()
    known = np.ones((1, 20, 28), np.float32)
    known[:, 5:9, 5:9] = 0
    given = saved(tmp_path, picture)
    done = run(tmp_path / "out", given, mask=saved(tmp_path, known, "mask.png"), linear=True, reference=given)
    made = read_image(done.folder / "restored.png").pixels
    assert (made[:, known[0] > 0] == np.rint(255 * picture[:, known[0] > 0])).all()
    assert "--linear: the fit is in linear light" in " ".join(done.result["notes"])
    stored = run(tmp_path / "stored", given, mask=tmp_path / "mask.png", reference=given)
    assert stored.metrics["loss"] != done.metrics["loss"]
