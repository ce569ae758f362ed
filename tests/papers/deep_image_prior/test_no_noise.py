"""Pictures in which no noise is found: nothing is fitted by silence, in this job and the Deep Decoder's."""

import numpy as np
import pytest
from tests.papers.deep_decoder import job_runs as decoder
from tests.papers.deep_image_prior import job_runs as prior

from precis.data.images import read_image


def logo() -> np.ndarray:
    x = np.ones((3, 48, 56), np.float32)
    x[:, 8:24, 8:24] = np.array([0.8, 0.1, 0.2])[:, None, None]
    x[:, 30:40, 20:50] = np.array([0.1, 0.2, 0.8])[:, None, None]
    return x


def ramp() -> np.ndarray:
    """Smooth but for its rounding to 8 bits, which is no noise."""
    y, x = np.mgrid[:48, :56] / 56
    return (0.2 + 0.3 * x + 0.3 * y * x)[None].repeat(3, 0).astype(np.float32)


PICTURES = {"logo": logo(), "grey": np.full((3, 32, 32), 0.5, np.float32), "ramp": ramp()}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("job", [prior, decoder])
def test_a_clean_picture_is_given_back_and_said_to_be_clean(tmp_path, job, name):
    given = job.saved(tmp_path, PICTURES[name])
    done = job.run(tmp_path / "out", given, task="denoise", steps=None, reference=given)
    assert np.array_equal(read_image(done.folder / "restored.png").pixels, read_image(given).pixels)
    notes = " ".join(done.result["notes"])
    assert "no noise was found" in notes and "--sigma N" in notes and "nothing was fitted" in notes
    assert done.result["files"][0] == "overview.png"
    assert '"log"' not in (done.folder / "events.jsonl").read_text()  # not one step was taken


@pytest.mark.parametrize("name", ["logo", "grey"])
@pytest.mark.parametrize("job", [prior, decoder])
def test_who_asks_for_steps_gets_them_without_what_needs_a_level(tmp_path, job, name):
    done = job.run(tmp_path / "out", job.saved(tmp_path, PICTURES[name]), task="denoise", steps=4)
    assert "loss" in done.metrics or "training_loss" in done.metrics
    assert "were left out" in " ".join(done.result["notes"])
    assert not {"tv.png", "nlm.png", "total_variation.png", "non_local_means.png"} & set(done.result["files"])


@pytest.mark.parametrize("sigma", ["25", "0.001"])
@pytest.mark.parametrize("job", [prior, decoder])
def test_a_level_that_is_named_is_believed(tmp_path, job, sigma):
    done = job.run(tmp_path / "out", job.saved(tmp_path, PICTURES["grey"]), sigma=sigma, steps=2)
    assert {"tv.png", "total_variation.png"} & set(done.result["files"])
    assert not any("no noise" in note for note in done.result["notes"])
