from pathlib import Path

import numpy as np
import pytest
from tests.papers.deep_image_prior.job_runs import run, saved, smooth

from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.deep_image_prior.options import TASKS, lr_of, network, settle, steps_of
from precis.papers.opening import make_job


@pytest.mark.parametrize(("options", "words"), [
    ({"task": "denoise", "factor": 4}, "--factor belongs to --task superres, not to denoise"),
    ({"task": "jpeg", "sigma": "20"}, "--sigma belongs to --task denoise"),
    ({"factor": 3}, "--factor must be 2, 4 or 8"), ({"sigma": "much"}, "--sigma must be auto or a number"),
    ({"sigma": "0"}, "--sigma must be auto"), ({"sigma": "nan"}, "--sigma must be auto"),
    ({"task": "inpaint"}, "needs --mask FILE"), ({"task": "flash"}, "--flash FILE"),
    ({"task": "invert", "weights": Path("w.pt")}, "--weights go with --model"),
    ({"task": "invert", "layer": "nine"}, "no layer 'nine'; from the input: 0, 2, 4, 6"),
    ({"model": "nothing"}, "names no function"), ({"tile": 10}, "--tile must be at least 64"),
    ({"task": "jpeg", "stop": "noise"}, "it is for --task denoise"),
    ({"task": "curves", "runs": 2}, "--runs belongs to"), ({"invert_mask": True}, "--invert-mask belongs to"),
])  # fmt: skip
def test_options_that_make_no_sense(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", saved(tmp_path, smooth()), **options)
    assert not (tmp_path / "out").exists()


def test_pictures_that_do_not_fit(tmp_path):
    given, other = saved(tmp_path, smooth()), saved(tmp_path, smooth(20, 30), "other.png")
    cases = [
        ({"mask": other}, "the mask is 30×20 pixels, the picture 28×20"),
        ({"flash": other}, "the flash picture is 30×20 pixels, INPUT 28×20"),
        ({"reference": other}, "the reference is 30×20 pixels, the result 28×20"),
        ({"factor": 2, "reference": given}, "the reference is 28×20 pixels, the result 56×40"),
        ({"mask": tmp_path / "none.png"}, "no such file"),
    ]  # fmt: skip
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", given, **options)
    assert not (tmp_path / "out").exists()


def test_masks_that_say_nothing(tmp_path):
    given = saved(tmp_path, smooth())
    for value, words in ((1.0, "nothing is unknown"), (0.0, "nothing is known; white means known, --invert-mask")):
        mask = saved(tmp_path, np.full((1, 20, 28), value, np.float32), "mask.png")
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", given, mask=mask)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(saved(tmp_path, smooth()).read_bytes()[:200])
    tiny = saved(tmp_path, smooth(8, 40), "tiny.png")
    for path, words in ((tmp_path / "text.png", "picture|image"), (tmp_path / "cut.png", "damaged"),
                        (tiny, "40×8 pixels are too few"), (tmp_path / "none.png", "no such file")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_a_network_that_does_not_take_the_picture(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef build():\n    return nn.Conv2d(1, 4, 3)\n"
                                     "def none():\n    return nn.Flatten()\n")  # fmt: skip
    given = saved(tmp_path, smooth())
    with pytest.raises(InputError, match="does not take this picture, 1×3×20×28"):
        run(tmp_path / "out", given, model=f"{tmp_path}/net.py:build")
    with pytest.raises(InputError, match="no layer with weights"):
        run(tmp_path / "out", given, model=f"{tmp_path}/net.py:none")


def test_the_task_follows_from_the_options(tmp_path):
    paper, picture = find()["deep_image_prior"], saved(tmp_path, smooth())
    task = lambda **options: settle(make_job(paper, picture, **options))
    assert [task(), task(mask=picture), task(factor=8), task(flash=picture), task(layer="0")] == [
        "denoise", "inpaint", "superres", "flash", "invert",
    ]  # fmt: skip


def test_networks_of_the_tasks_and_sizes():
    paper = find()["deep_image_prior"]
    job = lambda **options: make_job(paper, None, **options)
    whole = network(job(size="paper"), "denoise", "cpu")
    assert whole == {"down": (128,) * 5, "up": (128,) * 5, "skip": (4,) * 5}
    assert network(job(), "denoise", "cpu")["down"] == (32,) * 4
    assert network(job(), "denoise", "cuda") == whole
    jpeg = network(job(size="paper"), "jpeg", "cpu")
    assert jpeg["down"] == (8, 16, 32, 64, 128) and jpeg["skip"] == (0, 0, 0, 4, 4)
    assert network(job(size="paper"), "inpaint", "cpu", "large")["skip"] == (0,) * 5
    assert network(job(size="paper"), "inpaint", "cpu", "text")["skip"] == (128,) * 5
    assert network(job(size="paper"), "invert", "cpu")["down_filter"] == (7, 7, 5, 5, 3, 3)


def test_the_papers_steps_and_rates_go_with_its_network():
    paper = find()["deep_image_prior"]
    small, large = (make_job(paper, None, size=size) for size in ("small", "paper"))
    papers = {
        ("inpaint", "pixels"): (11_000, 0.001), ("inpaint", "text"): (6001, 0.01), ("inpaint", "large"): (5001, 0.01),
        ("superres", ""): (2000, 0.01), ("superres", "x8"): (4000, 0.01), ("jpeg", ""): (2400, 0.01),
        ("denoise", ""): (1800, 0.01), ("denoise", "weak"): (3000, 0.01), ("flash", ""): (601, 0.1),
        ("invert", ""): (3100, 0.001),
    }  # fmt: skip
    for (task, case), (steps, lr) in papers.items():
        assert (steps_of(large, task, "cpu", case), lr_of(large, task, "cpu", case)) == (steps, lr)
        assert steps_of(small, task, "cpu", case) == TASKS[task].steps <= steps
        assert lr_of(small, task, "cpu", case) == TASKS[task].lr
    mine = make_job(paper, None, size="paper", steps=7, lr=0.02)
    assert (steps_of(mine, "inpaint", "cpu", "pixels"), lr_of(mine, "inpaint", "cpu", "pixels")) == (7, 0.02)


@pytest.mark.parametrize(("options", "expected"), [
    ({"task": "jpeg"}, (2400, 3, 0.01)), ({"factor": 8}, (4000, 32, 0.01)), ({"factor": 2}, (2000, 32, 0.01)),
    ({"sigma": "25"}, (1800, 32, 0.01)), ({"sigma": "5"}, (3000, 32, 0.01)),
    ({"hole": "pixels"}, (11_000, 32, 0.001)), ({"hole": "text"}, (6001, 32, 0.01)),
    ({"hole": "large"}, (5001, 2, 0.01)),
])  # fmt: skip
def test_the_fit_is_given_the_settings_of_its_task(tmp_path, monkeypatch, options, expected):
    class Seen(Exception):
        pass

    def look(net, z, target, **given):
        raise Seen(given["steps"], z.shape[1], given["lr"])

    monkeypatch.setattr("precis.papers.deep_image_prior.fitting.fit_untrained", look)
    if "hole" in options:
        options = options | {"mask": saved(tmp_path, (smooth() > 0.4)[:1].astype(np.float32), "mask.png")}
    with pytest.raises(Seen) as found:
        run(tmp_path / "out", saved(tmp_path, smooth()), steps=None, size="paper", **options)
    assert found.value.args == expected


def test_fewer_steps_than_the_papers_are_said_to_be_fewer(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "jpeg", TASKS["jpeg"]._replace(steps=2))
    done = run(tmp_path / "out", saved(tmp_path, smooth()), task="jpeg", steps=None)
    assert any("2 steps at the most; the paper's (--size paper) takes 2,400" in note for note in done.result["notes"])


@pytest.mark.parametrize(("option", "value"), [("steps", 0), ("runs", 0), ("lr", 2.0), ("minutes", -1.0)])
def test_numbers_out_of_range(option, value):
    with pytest.raises(InputError, match="--" + option):
        make_job(find()["deep_image_prior"], **{option: value})
