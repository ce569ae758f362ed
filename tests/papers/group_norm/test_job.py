import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.papers.runs import halves, run_paper, saved

from precis.data.images import write_image
from precis.errors import InputError, Stopped
from precis.lab.figures import Chart
from precis.nn.backbones import backbone
from precis.papers.group_norm import convert, measured
from precis.papers.group_norm import pictures as drawing
from precis.papers.group_norm.sweep import NAMES, Cell, _cell, recommend
from precis.vision.group_norm import convert_norms

run = partial(run_paper, "group_norm")


QUICK = {"batch_sizes": "4,8", "norms": "bn,gn", "repeats": 2, "epochs": 1, "width": 8}


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Ninety pictures of two kinds: bright at the top, bright at the bottom."""
    return saved(tmp_path / "halves.npz", *halves())


def test_every_norm_at_every_size_is_compared(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 3})
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    assert [(r["norm"], r["batch"]) for r in rows] == [("bn", "4"), ("gn", "4"), ("bn", "8"), ("gn", "8")]
    assert all(0 <= float(r["low"]) <= float(r["error"]) <= float(r["high"]) <= 100 for r in rows)
    assert [int(r["steps"]) for r in rows] == [51, 51, 25, 25]  # 68 pictures, three times
    assert [int(r["values_at_last_map"]) for r in rows] == [4, 4, 8, 8]
    assert done.metrics["best_error"] == min(float(r["error"]) for r in rows) < 15
    assert done.metrics["group_norm_inference_slowdown"] > 0
    assert done.result["files"][0] == "errors.png" and (done.folder / "errors.png").stat().st_size > 5000
    notes = " ".join(done.result["notes"])
    assert "Recommended at batch size" in notes and "folds into the convolutions" in notes
    words = (done.folder / "recommendation.txt").read_text()
    assert "The learning rate was not tuned: 0.15 at 32 pictures" in words
    assert "m = 4 at batch size 4, m = 8 at batch size 8" in words and words.splitlines()[1] in notes
    assert "Recommended" in (done.folder / "report.md").read_text()
    assert not (done.folder / ".cells.json").exists()


def test_the_same_seed_gives_the_same_and_another_another(pictures, tmp_path):
    metrics = [run(tmp_path / str(i), pictures, **QUICK, seed=seed).metrics for i, seed in enumerate((1, 1, 2))]
    keep = lambda m: {k: v for k, v in m.items() if k.startswith("error")}
    assert keep(metrics[0]) == keep(metrics[1]) != keep(metrics[2])


def test_a_stopped_comparison_goes_on(pictures, tmp_path):
    whole = run(tmp_path / "whole", pictures, **QUICK)

    def stop(event):
        if event.get("kind") == "log" or "step" in event:
            stop.seen += 1
            if (tmp_path / "part" / ".cells.json").exists() and len(
                json.loads((tmp_path / "part" / ".cells.json").read_text())
            ) >= 2:
                raise Stopped("enough")

    stop.seen = 0
    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, listen=stop, **QUICK)
    kept = json.loads((tmp_path / "part" / ".cells.json").read_text())
    assert stop.seen and 2 <= len(kept) < 4
    resumed = run(tmp_path / "part", pictures, resume=True, **QUICK)
    keep = lambda m: {k: v for k, v in m.items() if k.startswith("error")}
    assert keep(resumed.metrics) == keep(whole.metrics)


def test_a_folder_of_pictures_with_a_broken_one(tmp_path):
    rng = np.random.default_rng(1)
    for kind, low in (("dark", 0), ("light", 150)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(20):
            pixels = (rng.integers(0, 100, (3, 20, 24)) + low).astype(np.uint8)
            write_image(tmp_path / "set" / kind / f"{i}.png", pixels)
    (tmp_path / "set" / "dark" / "broken.png").write_bytes(b"no picture")
    done = run(tmp_path / "out", tmp_path / "set", **QUICK | {"batch_sizes": "4"}, size=16)
    assert (done.folder / "skipped.csv").read_text().count("dark/broken.png,") == 1
    assert "1 picture could not be read" in " ".join(done.result["notes"])
    (tmp_path / "set" / "none").mkdir()
    with pytest.raises(InputError, match="the class folder is empty"):
        run(tmp_path / "other", tmp_path / "set", **QUICK, size=16)
    (tmp_path / "set" / "none").rmdir()
    for i in range(3):
        (tmp_path / "set" / "light" / f"bad{i}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="more than 5 %"):
        run(tmp_path / "other", tmp_path / "set", **QUICK, size=16)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"norms": "bn,xn"}, "--norms: bn, gn, ln, in are known"),
    ({"norms": ","}, "--norms"),
    ({"batch_sizes": "2,x"}, "--batch-sizes: whole numbers"),
    ({"batch_sizes": "0"}, "--batch-sizes"),
    ({"batch_sizes": "2,64"}, "90 labelled pictures are too few: batches of 64 need 128 or more"),
    ({"batch_sizes": "1,2"}, "a variance over one value does not exist"),
    ({"norms": "in", "batch_sizes": "2"}, "instance norm of a last map of one position is a constant"),
    ({"groups": 3}, "--groups 3: 3 groups do not divide 8 channels; 2 or 4 would"),
    ({"val": 0.8, "batch_sizes": "32"}, "--val 0.8 leaves 18 pictures"),
    ({"weights": Path("w.safetensors")}, "--weights belongs to --convert"),
    ({"calibrate": Path("set")}, "--calibrate belongs to --convert"),
])  # fmt: skip
def test_what_cannot_be_compared_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_one_class_or_no_labels(tmp_path):
    np.savez(tmp_path / "one.npz", images=np.zeros((80, 1, 8, 8), np.uint8), labels=np.zeros(80, int))
    np.save(tmp_path / "none.npy", np.zeros((80, 1, 8, 8), np.uint8))
    for name in ("one.npz", "none.npy"):
        with pytest.raises(InputError, match="at least two classes"):
            run(tmp_path / "out", tmp_path / name, **QUICK)


def test_batch_norm_of_one_picture_is_possible_where_maps_are_larger(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (40, 1, 16, 16)).astype(np.uint8),
             labels=rng.integers(2, size=40))  # fmt: skip
    done = run(tmp_path / "out", tmp_path / "set.npz", **QUICK | {"batch_sizes": "1", "norms": "bn,in"})
    assert {"error_bn_1", "error_in_1"} <= set(done.metrics)


def test_the_recommendation_says_what_can_be_told_apart():
    cell = lambda norm, batch, error, half: Cell(
        norm, batch, batch, float(error), float(error - half), float(error + half), 1, 1.0, [float(error)], 100
    )
    words = recommend([cell("bn", 2, 50, 3), cell("gn", 2, 15, 3), cell("bn", 32, 5, 2), cell("gn", 32, 6, 2)], 90.0)
    assert words == ("Recommended at batch size 2 (15.0 % error): group norm; at batch size 32 (5.0 % error): "
                     "batch norm (group norm at 6.0 % cannot be told from it).")  # fmt: skip
    assert "better than guessing (90.0 % error)" in recommend([cell("bn", 2, 89, 5)], 90.0)


def test_trainings_that_agree_by_chance_on_few_pictures_recommend_nothing():
    """Two and three of fifteen pictures wrong in every one of three trainings: no spread, and yet nothing is known."""
    bn, gn = (_cell(norm, 2, 2, [error] * 3, 15, 1, 1.0) for norm, error in (("bn", 40 / 3), ("gn", 20.0)))
    assert bn.low < 6 and bn.high > 26  # the exact interval of 6 in 45, not one of no width
    assert "group norm at 20.0 % behind in each of 3 trainings, too few to be sure" in recommend([bn, gn], 80.0)
    many = [_cell(norm, 2, 2, [error] * 3, 1500, 1, 1.0) for norm, error in (("bn", 40 / 3), ("gn", 20.0))]
    assert recommend(many, 80.0) == "Recommended at batch size 2 (13.3 % error): batch norm."


def test_trainings_that_differ_are_told_apart_from_a_tie():
    """Always behind, by amounts so different that three trainings establish nothing, is not 'cannot be told'."""
    bn, gn, ln = (
        _cell(norm, 32, 32, errors, 449, 1, 1.0)
        for norm, errors in (("bn", [4.0, 4.9, 2.9]), ("gn", [41.4, 13.4, 17.1]), ("ln", [3.0, 5.2, 4.0]))
    )
    words = recommend([bn, gn, ln], 90.0)
    assert "layer norm at 4.1 % cannot be told from it; group norm at 24.0 % behind in each of 3 trainings" in words


def test_the_picture_says_what_m_was_and_that_the_rate_was_not_tuned(monkeypatch):
    figures: list = []
    monkeypatch.setattr(drawing, "Chart", lambda figure, alt: figures.append(figure) or Chart(figure, alt))
    cells = [Cell("gn", size, 4 * size, 9.0, 8.0, 10.0, 1, 1.0, [9.0], 100) for size in (2, 8)]
    drawing.draw_errors(cells, NAMES, 0.3)
    (axes,) = figures[-1].axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2\nm = 8", "8\nm = 32"]
    assert "0.3" in axes.get_title() and "not tuned" in axes.get_title()


NET = """
from precis.nn.backbones import backbone


def build():
    return backbone("small_resnet:width=12", (3, 16, 16), 5)


def plain():
    return backbone("small_resnet:width=12,norm=none", (3, 16, 16), 5)
"""


def test_a_net_is_converted_and_its_weights_load_again(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    torch.manual_seed(3)
    trained = backbone("small_resnet:width=12", (3, 16, 16), 5)
    for _ in range(3):
        trained.train()(torch.rand(16, 3, 16, 16))
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, tmp_path / "old.safetensors")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "set.npy", rng.integers(0, 256, (30, 3, 16, 16)).astype(np.uint8))
    done = run(tmp_path / "out", f"{tmp_path / 'net.py'}:build", convert="new.safetensors", size=16,
               weights=tmp_path / "old.safetensors", calibrate=tmp_path / "set.npy")  # fmt: skip
    layers = json.loads((done.folder / "conversion.json").read_text())["layers"]
    assert done.metrics["layers"] == len(layers) == 9 and layers[0] == {"name": "stem.1", "channels": 12, "groups": 1}
    assert done.metrics["same_answer_held_out"] > 0.3 and 0 < done.metrics["relative_change_held_out"] < 3
    assert done.metrics["foldable"] == 9
    fresh, _ = convert_norms(backbone("small_resnet:width=12", (3, 16, 16), 5), channels_per_group=8)
    fresh.load_state_dict(load_file(done.folder / "new.safetensors"))
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(fresh.train()(x), fresh.eval()(x))
    assert torch.equal(fresh.stem[0].weight, trained.stem[0].weight)
    bare = run(tmp_path / "bare", f"{tmp_path / 'net.py'}:build", convert="new.safetensors")
    assert "fine-tune before use" in " ".join(bare.result["notes"])


PLAIN = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16, affine=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2)), lambda x: 2 * x - 1
"""


def loaded_by_its_recipe(done, source: str, file: str):
    """The net that the expression in the notes makes, with the written weights."""
    scope = {"torch": torch, "convert_norms": convert_norms}
    exec(source, scope)
    note = next(n for n in done.result["notes"] if n.startswith("Load it into "))
    net = eval(note.removeprefix("Load it into ").removesuffix(" of precis.vision.group_norm."), scope)
    net.load_state_dict(load_file(done.folder / file))
    return net.eval()


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"channels_per_group": 4}, {"calibrate": None}])
def test_the_recipe_makes_a_net_that_the_weights_fit(pictures, tmp_path, options):
    (tmp_path / "net.py").write_text(PLAIN)
    options = {"calibrate": pictures, "size": 8} | options
    done = run(tmp_path / "out", f"{tmp_path / 'net.py'}:build", convert="new.safetensors", **options)
    net = loaded_by_its_recipe(done, PLAIN, "new.safetensors")
    wanted = {"groups": 2, "channels_per_group": 4}.get(next(iter(options.keys() - {"calibrate", "size"}), ""), 2)
    groups = [layer["groups"] for layer in json.loads((done.folder / "conversion.json").read_text())["layers"]]
    assert groups == [wanted, wanted] == [m.num_groups for m in net.modules() if isinstance(m, torch.nn.GroupNorm)]
    small = "have groups of fewer than 8 values" in " ".join(done.result["notes"])
    assert small == ("channels_per_group" in options)  # the second has one position


def test_the_measured_pictures_are_not_those_that_set_gamma_and_beta(pictures, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(PLAIN)
    given, seen = [], []
    kept = lambda net, **options: given.append(options["calibrate"]) or convert_norms(net, **options)
    monkeypatch.setattr(convert, "convert_norms", kept)
    monkeypatch.setattr(convert, "answers", lambda net, x: seen.append(x) or measured.answers(net, x))
    run(tmp_path / "out", f"{tmp_path / 'net.py'}:build", convert="new.safetensors", calibrate=pictures, size=8)
    rows = lambda x: {tuple(row) for row in x.flatten(1).tolist()}
    assert len(given[0]) == 67 and len(seen[-1]) == 23 and not rows(given[0]) & rows(seen[-1])


def test_a_converted_net_is_measured_and_tuned_on_ones_pictures(pictures, tmp_path):
    (tmp_path / "net.py").write_text(PLAIN)
    build = f"{tmp_path / 'net.py'}:build"
    options = {"convert": "new.safetensors", "calibrate": pictures, "size": 8}
    torch.manual_seed(0)
    plain = run(tmp_path / "plain", build, **options)
    assert {"accuracy_before", "accuracy_converted"} <= set(plain.metrics) and "converted.png" in plain.result["files"]
    assert not any("tuned" in name for name in plain.metrics)
    done = run(tmp_path / "out", build, **options, batch_sizes="4,16", epochs=6, lr=8.0)
    for size in (4, 16):
        assert {f"accuracy_batch_norm_tuned_at_{size}", f"accuracy_group_norm_tuned_at_{size}"} <= set(done.metrics)
    notes = " ".join(done.result["notes"])
    assert done.metrics["accuracy_group_norm_tuned_at_4"] > 0.8, notes
    assert done.result["files"][0] == "converted.png" and (done.folder / "converted.png").stat().st_size > 5000
    assert "Of 23 held-out pictures" in notes and "Fine-tuned at 16 pictures a batch" in notes
    assert "not tuned for either" in notes
    net, found = loaded_by_its_recipe(done, PLAIN, "new-batch4.safetensors"), np.load(pictures)
    x = 2 * torch.from_numpy(found["images"]).float() / 255 - 1
    assert (net(x).argmax(1).numpy() == found["labels"]).mean() > 0.8
    for more, words in (
        ({"epochs": 1, "calibrate": None}, "--epochs with --convert fine-tunes on the pictures of --calibrate"),
        ({"epochs": 1, "batch_sizes": "1,2"}, "2 is the least"), ({"groups": 2, "channels_per_group": 4}, "not both"),
        ({"epochs": 1, "batch_sizes": "68"}, "67 pictures to tune on are fewer than a batch of 68"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(tmp_path / "no", build, **options | more)
        assert not (tmp_path / "no").exists()


def test_classes_are_matched_with_outputs():
    notes: list[str] = []
    y = torch.tensor([0, 1, -1])
    assert measured._as_outputs(y, ("3", "7"), 10, notes.append).tolist() == [3, 7, -1] and not notes
    assert measured._as_outputs(y, ("cat", "dog"), 2, notes.append).tolist() == [0, 1, -1]
    assert "in this order: cat, dog" in notes[0]
    assert measured._as_outputs(y, ("cat", "dog"), 10, notes.append) is None
    assert "No accuracy was measured: the pictures are of 2 classes, the net has 10 outputs" in notes[1]


def test_what_cannot_be_converted_is_told(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    build = f"{tmp_path / 'net.py'}:build"
    module = backbone("conv:4x2", (1, 8, 8), 3).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 8, 8),)), tmp_path / "net.pt2")
    torch.jit.save(torch.jit.trace(torch.nn.BatchNorm2d(2).eval(), torch.zeros(1, 2, 3, 3)), tmp_path / "net.pt")
    cases = [
        (str(tmp_path / "net.pt2"), {}, "no Python modules left whose layers could be replaced: name the function"),
        (str(tmp_path / "net.pt"), {}, "name the function that builds it"),
        (f"{tmp_path / 'net.py'}:plain", {}, "has no batch norm to convert"),
        (f"{tmp_path / 'net.py'}:nobody", {}, "has no 'nobody'"),
        (build, {"groups": 5}, "--groups 5: 5 groups do not divide 12 channels; 4 or 6 would"),
        (build, {"convert": "sub/new.safetensors"}, "the name of a file of the run"),
        (build, {"convert": "new.bin"}, "such as net.safetensors"),
        (build, {"weights": tmp_path / "net.py"}, "net.py"),
    ]
    for given, options, words in cases:
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", given, **{"convert": "new.safetensors"} | options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="--convert net.safetensors converts it"):
        run(tmp_path / "out", build)
    np.save(tmp_path / "grey.npy", np.zeros((30, 1, 16, 16), np.uint8))
    with pytest.raises(InputError, match=r"takes no pictures \[1, 16, 16\]"):
        run(tmp_path / "out", build, convert="new.safetensors", calibrate=tmp_path / "grey.npy", size=16)
