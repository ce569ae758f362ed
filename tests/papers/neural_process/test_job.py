"""The job on real files: what it writes, and what it says to bad input."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from precis.data.images import write_image
from precis.errors import InputError, Stopped
from precis.lab.figures import Chart
from precis.papers.catalogue import find
from precis.papers.neural_process import reading
from precis.papers.neural_process.options import settle
from precis.papers.neural_process.samples import daily_curves
from precis.papers.neural_process.strokes import characters
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job
from precis.train.checkpoint import load_model


@pytest.fixture
def drawn() -> None:
    """For a test that wants its charts drawn."""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Charts are laid out but not drawn, which would take most of the time."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Chart, "png", lambda self, dpi=160: b"")


def run(out: Path, given: Any = None, **options: Any) -> Finished:
    """`precis run neural_process`, by default with 16 units and 40 steps of 8."""
    paper = find()["neural_process"]
    options = {"width": 16, "steps": 40, "batch": 8, "device": "cpu", **options}
    return run_job(paper, make_job(paper, given, **options), out=out)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(n: int = 25, points: int = 9, *, scale: float = 1.0, shift: float = 0.0) -> list[tuple[str, float, float]]:
    """Straight lines y = a + b x at random places of [0, 1]."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        a, b = rng.normal(size=2)
        found += [(f"f{i}", shift + scale * x, a + b * x) for x in rng.uniform(0, 1, points)]
    return found


def long(path: Path, rows: list[tuple[str, float, float]], *more: str) -> Path:
    return table(path, "id,x,y\n" + "\n".join([*(f"{i},{float(x)!r},{float(y)!r}" for i, x, y in rows), *more]) + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_long_table_with_rows_to_predict(tmp_path, drawn):
    given = long(tmp_path / "t.csv", lines(), "f0,0.5,", "f0,0.25,", "f1,,3.0", "f3,nan,1.0")
    done = run(tmp_path / "out", given, steps=250, batch=16)
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [(r["id"], float(r["x"])) for r in rows] == [("f0", 0.5), ("f0", 0.25)]
    for r in rows:
        r = {k: float(v) for k, v in r.items() if k != "id"}
        assert r["y_low90"] < r["y_low50"] < r["y_mean"] < r["y_high50"] < r["y_high90"]
        assert abs(r["y_high90"] - r["y_mean"] - 1.6449 * r["y_std"]) < 1e-4
    with Image.open(tmp_path / "out" / "predictions.png") as picture:
        assert picture.width > 1000
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["task"] == "functions" and result["files"][0] == "predictions.png"
    assert any("2 rows without an x were dropped (first: row 228)" in note for note in result["notes"])
    assert done.result["metrics"]["rmse"] < 0.6  # lines have deviation above 1
    assert {"nll", "coverage_90", "rmse_gp_shared", "rmse_gp_own"} <= set(result["metrics"])
    net = load_model(tmp_path / "out")
    assert net(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.zeros(1, 3, 1)).mean.shape == (1, 3, 1)


def test_wide_table_on_a_grid_and_its_blanks(tmp_path):
    x = np.sort(np.random.default_rng(0).uniform(0, 10, 12))
    body = ["when," + ",".join(f"curve {i}" for i in range(22))]
    for j, place in enumerate(x):
        cells = ["" if (i, j) in ((3, 4), (5, 0)) else f"{i + place:.4f}" for i in range(22)]
        body.append(f"{place:.4f}," + ",".join(cells))
    given = table(tmp_path / "wide.csv", "\n".join(body))
    run(tmp_path / "blank", given)
    assert [r["id"] for r in read_csv(tmp_path / "blank" / "predictions.csv")] == ["curve 3", "curve 5"]
    run(tmp_path / "grid", given, grid=7)
    rows = read_csv(tmp_path / "grid" / "predictions.csv")
    assert len(rows) == 22 * 7 and list(rows[0])[:2] == ["id", "when"]


def test_two_inputs_two_outputs_and_a_latent_variable(tmp_path):
    rng = np.random.default_rng(1)
    rows = [f"{i},{a},{b},{i + a},{b}" for i in range(21) for a, b in rng.uniform(size=(5, 2))]
    done = run(tmp_path / "out", table(tmp_path / "t.csv", "ID,x1,x2,y1,y2\n" + "\n".join(rows)), latent=True)
    assert "predictions.png" not in done.result["files"]
    found = read_csv(tmp_path / "out" / "predictions.csv")
    assert len(found) == 105 and {"x1", "x2", "y1_mean", "y2_high90"} <= set(found[0])


def test_bands_are_compared_with_what_they_hold_and_recalibrated(tmp_path):
    given = long(tmp_path / "t.csv", lines(30))
    plain = run(tmp_path / "plain", given, grid=4)
    mended = run(tmp_path / "mended", given, grid=4, recalibrate=True)
    for done in (plain, mended):
        assert "calibration.png" in done.result["files"] and 0 <= done.metrics["calibration_error"] < 0.95
    assert plain.metrics["held_out_functions"] == 6 and mended.metrics["held_out_functions"] == 3
    assert "sigma_scale" not in plain.metrics
    factor = mended.metrics["sigma_scale"]
    assert any(f"σ is multiplied by {factor:.3g}" in note for note in mended.result["notes"])
    for a, b in zip(*(read_csv(tmp_path / name / "predictions.csv") for name in ("plain", "mended"))):
        assert a["y_mean"] == b["y_mean"] and float(b["y_std"]) == pytest.approx(factor * float(a["y_std"]), rel=1e-4)
    with pytest.raises(InputError, match="1 of the 4 can be held out"):
        run(tmp_path / "few", long(tmp_path / "few.csv", lines(4)), recalibrate=True)
    assert not (tmp_path / "few").exists()


def test_bands_that_hold_everything_are_told(tmp_path):
    """Of noiseless lines with σ at least 0.8 of the spread."""
    done = run(tmp_path / "out", long(tmp_path / "t.csv", lines()), min_sigma=0.9, steps=5)
    assert any("The 90 % band is too wide" in note for note in done.result["notes"])


def test_time_stamps_lose_nothing(tmp_path):
    results = []
    for shift in (0.0, 1.6e9):
        given = long(tmp_path / f"{shift}.csv", lines(scale=3600.0, shift=shift))
        results.append(run(tmp_path / f"out{shift}", given).result["metrics"])
    assert abs(results[0]["rmse"] - results[1]["rmse"]) < 1e-3


def test_what_was_repaired_is_told(tmp_path):
    text = "id,x,y\na,2,1\na,1,0\na,1,0.1\nb,0,1\nc,1,\nd,0,2\nd,1,2\n"
    found = reading.read_functions(table(tmp_path / "t.csv", text))
    notes = " | ".join(found.notes)
    for words in ("1 observations at an x", "one function with one point", "without a single observation: c",
                  "one function sorted by x"):  # fmt: skip
        assert words in notes
    a = found.items[0]
    assert a.x[:, 0].tolist() == [1, 1, 2] and a.y[:, 0].tolist() == [0, 0.1, 1]


def test_only_curves_are_said_to_be_sorted(tmp_path):
    told = []
    for name, text in (
        ("two", "id,x,y\na,2,1\na,1,0\nb,3,1\nb,0,1\nc,0,1\nc,1,1\n"), ("none", "id,x,y\na,1,1\na,1,0\na,2,0\n"),
        ("plane", "id,x1,x2,y\na,2,1,1\na,1,0,1\n"), ("wide", "x,a,b,c\n2,1,1,1\n1,0,0,\n"),
    ):  # fmt: skip
        notes = reading.read_functions(table(tmp_path / f"{name}.csv", text)).notes
        told.append([note for note in notes if "sorted" in note])
    assert told == [["2 functions sorted by x"], [], [], ["2 functions sorted by x"]]


def test_constant_functions_and_few_of_them(tmp_path):
    rows = [(f"f{i}", float(j), 5.0) for i in range(4) for j in range(4)]
    done = run(tmp_path / "out", long(tmp_path / "t.csv", rows))
    notes = " | ".join(done.result["notes"])
    assert "4 functions are few" in notes and "the same everywhere" in notes


@pytest.mark.parametrize(("text", "words"), [
    ("id,x,y\n" + "\n".join(f"a,{x},{x % 3}" for x in range(12)), "one function is a GP's job: .* RMSE"),
    ("x,y\n" + "\n".join(f"{x},{x % 3}" for x in range(12)), "one function is a GP's job: .* length scale"),
    ("id,x,y\na,1,2\nb,2,3\n", "every function has one point"),
    ("id,x,y\na,1,\nb,2,\n", "no function has an observed y"),
    ("id,place,y\na,1,2\n", "there are id, place, y"),
    ("id,x,y\na,1,2\na,2,tall\n", "column 'y': 'tall' is not a number"),
    ("id,x,y1,y2\na,1,2,\n", "some of y1, y2 are empty"),
    ("id,x,y\na,1,inf\na,2,1\n", "not finite"),
    ("x\n1\n2\n", "one column"),
    ("id,x,y\n,1,2\na,1,2\n", "'id' is empty"),
])  # fmt: skip
def test_tables_that_cannot_be_used(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        run(tmp_path / "out", table(tmp_path / "t.csv", text))
    assert "t.csv" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    for i in range(200):
        a, b = rng.normal(size=2)
        write_image(folder / f"{i}.png", (127 + 60 * np.tanh(a * (x - 4) / 4 + b * (y - 4) / 4)).astype(np.uint8)[None])
    return folder


def test_a_folder_of_pictures_is_completed(tmp_path, pictures):
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, :, 2] = 255
    write_image(tmp_path / "mask.png", mask)
    done = run(tmp_path / "out", pictures, size=8, image=pictures / "3.png", context=str(tmp_path / "mask.png"),
               steps=300, batch=16)  # fmt: skip
    metrics = done.result["metrics"]
    assert metrics["pixels_shown"] == 8
    assert metrics["mse_10"] < metrics["mse_mean_picture"]
    asked = [(int(r["row"]), int(r["column"])) for r in read_csv(tmp_path / "out" / "next_pixels.csv")]
    assert len(set(asked)) == len(asked) == 20 and all(column != 2 for _, column in asked)
    assert {"completions.png", "sigma.png", "completed.png", "context.png", "calibration.png"} <= set(
        done.result["files"])  # fmt: skip
    assert 0 < metrics["coverage_50"] <= metrics["coverage_90"] <= 1 and metrics["calibration_error"] < 0.5
    with Image.open(tmp_path / "out" / "completed.png") as picture:
        assert picture.size == (8, 8)


def test_pictures_with_a_recalibrated_sigma(tmp_path, pictures):
    plain, mended = (run(tmp_path / f"{on}", pictures, size=8, recalibrate=on, steps=60) for on in (False, True))
    assert mended.metrics["train_images"] == plain.metrics["train_images"] - 20 and "sigma_scale" not in plain.metrics
    assert mended.metrics["sigma_scale"] > 0 and mended.metrics["sigma_scale"] != 1
    assert mended.metrics["calibration_error"] < 0.2
    assert any("20 pictures that neither the training nor the scores" in note for note in mended.result["notes"])


@pytest.mark.parametrize(("options", "words"), [
    ({"context": "65", "size": 8}, "1 to 64"), ({"context": "none.png"}, "is none"),
    ({"ways": 5, "context": "ordered"}, "--context belongs to --task complete, not to few_shot"),
    ({"recalibrate": True, "ways": 5}, "--recalibrate belongs to --task functions or complete"),
    ({"grid": 5}, "--grid belongs to --task functions"), ({"task": "functions"}, "looks like frames or images"),
    ({"ways": 5, "size": 8}, "no classes"), ({"image": Path("none.png"), "size": 8}, "none.png"),
])  # fmt: skip
def test_options_that_do_not_fit_a_folder(tmp_path, pictures, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **options)
    assert not (tmp_path / "out").exists()


def test_too_few_pictures_and_a_single_one(tmp_path, pictures):
    np.savez(tmp_path / "few.npz", images=np.zeros((199, 1, 8, 8), np.uint8))
    with pytest.raises(InputError, match="199 pictures; at least 200"):
        run(tmp_path / "out", tmp_path / "few.npz", size=8)
    with pytest.raises(InputError, match="INPUT must be a table or images"):
        run(tmp_path / "single", pictures / "3.png")


def test_nested_folders_of_classes(tmp_path):
    images, labels = characters(24, 4, 14, seed=3)
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        folder = tmp_path / "set" / f"alphabet{label % 2}" / f"character{label}"
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{i}.png", (255 * (1 - image.numpy())).astype(np.uint8))
    done = run(tmp_path / "out", tmp_path / "set", ways=3, size=14, width=4, steps=5)
    metrics = done.result["metrics"]
    assert metrics["train_classes"] == 17 and metrics["test_classes"] == 7
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert done.result["files"][0] == "episode.png"
    with pytest.raises(InputError, match="24 classes hold 2 pictures or more; 9 ways need about 30"):
        run(tmp_path / "more", tmp_path / "set", ways=9, size=14)
    with pytest.raises(InputError, match="0 classes hold 5 pictures"):
        run(tmp_path / "more", tmp_path / "set", shots=4, size=14)


def test_the_task_follows_from_the_input(tmp_path, pictures):
    paper = find()["neural_process"]
    curves = daily_curves(tmp_path / "t.csv", days=3)
    assert settle(make_job(paper, curves)) == "functions"
    assert settle(make_job(paper, pictures)) == settle(make_job(paper, pictures, context="half")) == "complete"
    assert settle(make_job(paper, pictures, shots=2)) == "few_shot"


def test_a_run_that_was_stopped_is_taken_up(tmp_path):
    given, paper = long(tmp_path / "t.csv", lines()), find()["neural_process"]
    options = {"width": 16, "steps": 250, "batch": 8, "device": "cpu"}
    whole = run(tmp_path / "whole", given, **options)
    seen = []

    def stopping() -> bool:
        return len(seen) > 1

    with pytest.raises(Stopped):
        run_job(paper, make_job(paper, given, **options), out=tmp_path / "cut", listen=seen.append, stopping=stopping)
    again = run_job(paper, make_job(paper, given, **options), out=tmp_path / "cut", resume=True)
    assert whole.result["metrics"]["nll"] == again.result["metrics"]["nll"]
