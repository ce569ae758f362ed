from pathlib import Path

import numpy as np
import pytest
from tests.papers.siren.job_runs import run, saved, smooth

from precis.cli.run import parse
from precis.data.audio import write_wav
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import command_of
from precis.papers.siren.options import settle
from precis.papers.siren.samples import make_sample


@pytest.mark.parametrize(("options", "words"), [
    ({"scale": 2.0, "task": "fit"}, "--scale belongs to --task resample, not to fit"),
    ({"task": "poisson", "rate": 8000}, "--rate belongs to --task audio"),
    ({"from_": "gradient", "task": "fit"}, "--from belongs to --task poisson"),
    ({"samples": 3}, "--sample belongs to --task prior"),
    ({"task": "sdf"}, "works on points"),
    ({"task": "prior"}, "works on images"),
    ({"size": "big"}, "--size must be"),
    ({"size": "0"}, "--size must be"),
    ({"size": "20x30", "task": "poisson"}, "--task resample"),
    ({"size": "20x30", "scale": 2.0}, "give one of them"),
    ({"task": "resample"}, "--scale 2.5 or --size"),
    ({"task": "blend"}, "--blend FILE"),
    ({"task": "wave", "speeds": "0,1"}, "--speeds must be above 0"),
    ({"task": "wave", "speeds": "1"}, "two numbers with a comma"),
    ({"task": "wave", "source": "2,0"}, "--source must lie within"),
    ({"task": "helmholtz", "speeds": "1,nan"}, "two numbers"),
    ({"task": "helmholtz", "velocity": Path("other.png")}, "both name the map"),
])  # fmt: skip
def test_options_that_make_no_sense(tmp_path, options, words):
    picture = saved(tmp_path, smooth(12, 12))
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", picture, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("steps", 0), ("width", 0), ("alpha", 1.5), ("mesh_resolution", 2)])
def test_numbers_out_of_range(option, value):
    with pytest.raises(InputError, match="--" + option.replace("_", "-")):
        make_job(find()["siren"], **{option: value})


def test_clouds_that_are_no_surface(tmp_path):
    rng = np.random.default_rng(0)
    cases = {
        "few": (rng.normal(size=(99, 6)), "99 points"),
        "line": (np.outer(np.arange(200), np.ones(6)) + [0, 0, 0, 1, 0, 0], "on one line"),
        "place": (np.tile([1.0, 2, 3, 0, 0, 1], (150, 1)), "in one place"),
        "bare": (rng.normal(size=(150, 3)), "--estimate-normals"),
    }
    for name, (array, words) in cases.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", tmp_path / f"{name}.npy")
    assert not (tmp_path / "out").exists()


def test_pictures_that_do_not_fit_each_other(tmp_path):
    one, two = saved(tmp_path, smooth(12, 12), "a.png"), saved(tmp_path, smooth(12, 14), "b.png")
    with pytest.raises(InputError, match="14×12 pixels, and INPUT 12×12; --resize"):
        run(tmp_path / "out", one, blend=two)
    with pytest.raises(InputError, match="the mask is 14×12"):
        run(tmp_path / "out", one, blend=one, mask=two)
    with pytest.raises(InputError, match="14×12 pixels, and the map of speeds 12×12"):
        run(tmp_path / "out", one, task="wave", initial=two)
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "out", one, blend=tmp_path / "none.png")


def test_sets_that_are_too_small_or_of_no_use(tmp_path):
    images = np.zeros((199, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "few.npz", images=images)
    with pytest.raises(InputError, match="199 pictures; a prior needs at least 200"):
        run(tmp_path / "out", tmp_path / "few.npz", task="prior", size="8")
    with pytest.raises(InputError, match="--task prior"):
        run(tmp_path / "out", tmp_path / "few.npz")
    np.savez(tmp_path / "set.npz", images=np.zeros((200, 1, 8, 8), np.uint8))
    mask = saved(tmp_path, np.zeros((1, 8, 8), np.uint8), "black.png")
    wrong = [({"context": "65"}, "1 to 64"), ({"context": "no.png"}, "neither"), ({"interpolate": "a.png"}, "A,B"),
             ({"context": str(mask)}, "shows no pixel")]  # fmt: skip
    for options, words in wrong:
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", tmp_path / "set.npz", task="prior", size="8", **options)
    assert not (tmp_path / "out").exists()


def test_the_task_follows_from_the_input(tmp_path):
    picture = saved(tmp_path, smooth())
    (tmp_path / "frames").mkdir()
    for i in range(3):
        saved(tmp_path / "frames", smooth(), f"{i}.png")
    np.save(tmp_path / "p.npy", np.random.default_rng(0).normal(size=(200, 6)))
    sound = write_wav(tmp_path / "s.wav", np.zeros(100), 100)
    paper = find()["siren"]
    found = [settle(make_job(paper, p)) for p in (picture, tmp_path / "frames", tmp_path / "p.npy", sound)]
    assert found == ["fit", "video", "sdf", "audio"]
    assert settle(make_job(paper, picture, scale=2.0)) == settle(make_job(paper, picture, size="10X20")) == "resample"
    assert settle(make_job(paper, picture, blend=picture)) == "blend"
    assert settle(make_job(paper, picture, from_="laplacian")) == "poisson"


def test_options_with_another_name_than_their_field():
    paper = find()["siren"]
    _, job = parse(paper, ["p.png", "--from", "laplacian", "--sample", "3"])
    assert (job.from_, job.samples) == ("laplacian", 3)
    assert command_of(paper, job, "p.png") == "precis run siren p.png --from laplacian --sample 3"


def test_every_task_has_a_sample(tmp_path):
    paper = find()["siren"]
    for task in ("fit", "resample", "poisson", "blend", "sdf", "audio", "video", "helmholtz", "wave", "prior"):
        assert settle(make_job(paper, make_sample(task, tmp_path), task=task)) == task


def test_the_sample_of_blend_is_a_pair(tmp_path):
    done = run(tmp_path / "out", task="blend", size="24", steps=2)
    assert done.result["input"] == "camera.png" and (done.folder / "blend.png").exists()
