import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from safetensors.torch import load_file, save_file
from tests.papers.runs import run_paper

from precis.errors import InputError, Stopped
from precis.nn.backbones import backbone
from precis.papers.catalogue import find
from precis.papers.opening import job_of, make_job
from precis.papers.rewinding.prune import _schedule
from precis.sparsity.compress import decompress
from precis.train.checkpoint import load_model

FAST = {"model": "mlp:16-8", "epochs": 2, "batch": 16, "lr": 0.1}


run = partial(run_paper, "rewinding")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """240 pictures of three kinds: a bright third each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=240)
    images = rng.integers(0, 120, (240, 1, 9, 9))
    for image, label in zip(images, labels):
        image[:, 3 * label : 3 * label + 3] += 100
    np.savez(tmp_path / "thirds.npz", images=images.astype(np.uint8), labels=labels)
    return tmp_path / "thirds.npz"


NET = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(294, 3))


def scaled():
    return build(), lambda x: 2 * x - 1


def flat():
    return nn.Flatten()


def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(81, 5))


def maps():
    return nn.Conv2d(1, 3, 3)


def argument(width):
    return five()
"""


@pytest.fixture
def net(tmp_path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:build"


def test_rounds_of_learning_rate_rewinding_and_every_file(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, density=0.5, **FAST)
    rows = list(csv.DictReader((done.folder / "curve.csv").open()))
    assert [r["method"] for r in rows] == ["dense", *["lr_rewind"] * 4]
    assert [float(r["density"]) for r in rows] == pytest.approx([1, 0.8, 0.64, 0.512, 0.5])
    assert [int(r["retraining_epochs"]) for r in rows] == [0, 2, 4, 6, 8]
    assert [r["search_epochs"] for r in rows] == [r["retraining_epochs"] for r in rows]
    assert done.metrics["search_epochs"] == done.metrics["search_epochs_lr_rewind"] == 8
    assert done.metrics["accuracy"] == pytest.approx(float(rows[-1]["test"]) / 100, abs=1e-5)
    model = load_model(done.folder)
    masks = load_file(done.folder / "masks.safetensors")
    state = model.state_dict()
    total = sum(m.numel() for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == round(0.5 * total)
    assert all(bool((state[name][~mask] == 0).all()) for name, mask in masks.items())
    packed = decompress(load_file(done.folder / "compressed.safetensors"))
    assert all(torch.equal(packed[name], tensor) for name, tensor in state.items())
    assert done.metrics["compression"] == pytest.approx(total / round(0.5 * total))
    layers = list(csv.DictReader((done.folder / "layers.csv").open()))
    assert sum(int(r["surviving"]) for r in layers) == round(0.5 * total)
    table = done.result["tables"]["layers"]
    assert [(r["layer"], str(r["weights"]), str(r["surviving"])) for r in table] == [
        (r["layer"], r["weights"], r["surviving"]) for r in layers
    ]
    assert table[0]["shape"] == [16, 81] and json.loads((done.folder / "result.json").read_text()) == done.result
    report = (done.folder / "report.md").read_text()
    assert f"| layers.0.weight | 16×81 | 1,296 | {table[0]['surviving']} |" in report
    notes = " ".join(done.result["notes"])
    assert "Exported is what was asked for, density 0.5" in notes and "batch of 64" in notes
    assert "8 epochs of training more than the dense one" in notes
    assert done.result["files"][0] == "curve.png" and not list(done.folder.glob(".*.safetensors"))
    assert all(done.metrics[f"ms_{name}_{n}"] > 0 for name in ("dense", "pruned", "csr") for n in (1, 64))
    assert done.metrics["change_low"] <= done.metrics["change_points"] <= done.metrics["change_high"]


def test_a_comparison_of_all_three_and_the_recommended_one(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, densities="0.3,0.02", compare=True, one_shot=True, tolerance=100.0,
               model="mlp:16-8", epochs=3, batch=16, val=0.3)  # fmt: skip
    assert {"accuracy_lr_rewind", "accuracy_weight_rewind", "accuracy_fine_tune"} <= set(done.metrics)
    rows = list(csv.DictReader((done.folder / "curve.csv").open()))
    assert len(rows) == 7 and {r["retraining_epochs"] for r in rows[1:]} == {"3"}
    assert done.metrics["density"] == pytest.approx(0.02, abs=0.001)  # within 100 points it is the sparsest
    program = torch.export.load(str(done.folder / "compact.pt2")).module()
    images = torch.from_numpy(np.load(pictures)["images"][:20]).float() / 255
    assert torch.allclose(program(images), load_model(done.folder)(images), atol=1e-5)
    assert done.metrics["macs_compact"] < done.metrics["macs_dense"]
    names = ("lr_rewind", "weight_rewind", "fine_tune")
    assert [r["search_epochs"] for r in rows] == ["0", *["3", "6"] * 3]  # one shot: every density costs its own
    assert all(done.metrics[f"search_epochs_{name}"] == 6 for name in names) and done.metrics["search_epochs"] == 18
    assert done.metrics["retraining_epochs"] == 3  # of the one network
    report, result = ((done.folder / name).read_text() for name in ("report.md", "result.json"))
    assert "learning-rate rewinding 6, weight rewinding 6, fine-tuning 6 (2 prunings of the dense network" in report
    assert json.loads(result)["metrics"]["search_epochs_fine_tune"] == 6
    assert (done.folder / "search.png").exists()


def test_the_dense_network_is_the_first_point_of_a_curve(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, densities="1.0,0.02", one_shot=True, tolerance=0.0, **FAST)
    rows = list(csv.DictReader((done.folder / "curve.csv").open()))
    assert [(r["method"], r["density"]) for r in rows] == [("dense", "1"), ("lr_rewind", "0.02")]
    assert done.metrics["search_epochs"] == 2 and "1 prunings" in " ".join(done.result["notes"])
    alone = run(tmp_path / "alone", pictures, density=1.0, iterative=True, **FAST)
    assert alone.metrics["density"] == 1 and alone.metrics["accuracy"] == alone.metrics["accuracy_dense"]
    assert alone.metrics["retraining_epochs"] == alone.metrics["search_epochs"] == 0
    notes = " ".join(alone.result["notes"])
    assert "A density of 1 removes nothing" in notes and "epochs of training more" not in notes
    state, masks = (load_file(alone.folder / f"{name}.safetensors") for name in ("model", "masks"))
    assert all(bool(mask.all()) for mask in masks.values()) and not bool((state["head.weight"] == 0).any())


@pytest.mark.parametrize(("name", "rates"), [
    ("steps", [0.2, 0.2, 0.02, 0.002]), ("linear", [0.2, 0.15, 0.1, 0.05]), ("constant", [0.2] * 4),
    ("cosine", [0.2, 0.170711, 0.1, 0.029289]),
])  # fmt: skip
def test_schedules_of_the_rate(name, rates):
    job = make_job(find()["rewinding"], lr=0.2, lr_schedule=name)
    schedule = _schedule(job, 4)
    assert [schedule(float(epoch)) for epoch in range(4)] == pytest.approx(rates, abs=1e-6)


def test_the_schedule_of_the_rate_has_two_names():
    job = job_of(find()["rewinding"])
    for option in ("--lr-schedule", "--schedule"):
        assert tyro.cli(job, args=[option, "linear"]).lr_schedule == "linear"


def test_what_each_method_spent_in_rounds(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, density=0.64, compare=True, retrain_epochs=1, **FAST)
    rows = list(csv.DictReader((done.folder / "curve.csv").open()))
    assert [r["search_epochs"] for r in rows] == ["0", *["1", "2"] * 3]
    assert done.metrics["search_epochs"] == 6 and done.metrics["search_epochs_weight_rewind"] == 2
    notes = " ".join(done.result["notes"])
    assert "fine-tuning 2 (2 rounds, one after another, 1 each); the first training took 2." in notes


def test_a_stopped_run_goes_on_to_the_same_end(pictures, tmp_path):
    whole = run(tmp_path / "whole", pictures, density=0.5, **FAST)

    def stop(event):
        if event["event"] == "log" and (tmp_path / "part" / ".lr_rewind-1.safetensors").exists():
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, density=0.5, listen=stop, **FAST)
    resumed = run(tmp_path / "part", pictures, density=0.5, resume=True, **FAST)
    a, b = (load_file(r.folder / "model.safetensors") for r in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_model_of_ones_own_with_its_weights(pictures, net, tmp_path):
    from precis.data.program import load_program

    torch.manual_seed(0)
    trained, early = (load_program(net).module for _ in range(2))
    for name, model in (("late", trained), ("early", early)):
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / f"{name}.safetensors")
    options = {"model": net, "weights": tmp_path / "late.safetensors", "epochs": 2, "lr": 0.05, "batch": 16}
    done = run(tmp_path / "out", pictures, densities="0.4", compare=True, one_shot=True, retrain_epochs=1,
               rewind_weights=tmp_path / "early.safetensors", **options)  # fmt: skip
    assert "accuracy_weight_rewind" in done.metrics and not (done.folder / "config.json").exists()
    rebuilt = load_program(net, done.folder / "model.safetensors").module
    assert int((rebuilt[0].weight == 0).sum()) > 0
    notes = " ".join(done.result["notes"])
    assert "it is code of your own" in notes and "its own accuracy flatters it" in notes
    two = run(tmp_path / "two", pictures, densities="0.4", compare=True, one_shot=True, **options)
    assert "accuracy_weight_rewind" not in two.metrics and "accuracy_lr_rewind" in two.metrics
    ready = run(tmp_path / "ready", pictures, density=0.4, one_shot=True, model=net.replace(":build", ":scaled"),
                epochs=1, batch=16)  # fmt: skip
    assert ready.metrics["density"] == pytest.approx(0.4, abs=0.001)


def test_rows_of_a_table_and_the_two_of_four_pattern(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    rows = ["a,b,c,d,town,kind"]
    rows += [f"{v[0] + 3 * k:.3f},{v[1]:.3f},{v[2]:.3f},7,x{k},{'no yes'.split()[k]}" for v, k in
             zip(rng.normal(size=(200, 3)), y)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    done = run(tmp_path / "out", tmp_path / "t.csv", label_column="kind", density=0.4, one_shot=True, pattern="2:4",
               exclude="head", **FAST)  # fmt: skip
    assert done.metrics["accuracy"] > 0.8 and "columns of words are left out: town" in " ".join(done.result["notes"])
    masks = load_file(done.folder / "masks.safetensors")
    assert set(masks) == {"layers.0.weight", "layers.1.weight"}
    assert all(int(m.reshape(-1, 4).sum(1).max()) <= 2 for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == round(0.4 * sum(m.numel() for m in masks.values()))


BAD = [
    ({"density": 1.1}, "--density must be at most 1, got 1.1"),
    ({"densities": "0.5,x"}, "--densities: numbers above 0 and up to 1"),
    ({"densities": "0.5,1.5"}, "--densities: numbers above 0 and up to 1"),
    ({"densities": "0,1"}, "--densities: numbers above 0 and up to 1"),
    ({"one_shot": True, "iterative": True}, "--one-shot and --iterative exclude each other"),
    ({"density": 1.0, "pattern": "2:4"}, "half of the weights at the most"),
    ({"seed": 99999999999999999999}, "--seed must be at most 4294967295, got 99999999999999999999"),
    ({"density": 0.6, "pattern": "2:4", "one_shot": True}, "half of the weights at the most"),
    ({"density": 0.001}, "a density of 0.001 keeps none of 336 weights"),
    ({"milestones": "5,1", "epochs": 6}, "--milestones: epochs between 0 and 6, rising"),
    ({"milestones": "1", "lr_schedule": "cosine"}, "--milestones are for --lr-schedule steps"),
    ({"milestones": "1", "lr_schedule": "constant"}, "--milestones are for --lr-schedule steps"),
    ({"retrain_epochs": 9, "epochs": 3}, "--retrain-epochs 9 is more than the 3"),
    ({"rewind_weights": Path("w")}, "--rewind-weights goes with --weights"),
    ({"model": "nothing"}, "names no function"),
    ({"model": "resnet21"}, "no network is called 'resnet21'"),
    ({"exclude": "*"}, "that --include and --exclude leave"),
    ({"label_column": "kind"}, "--label-column is for tables"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_options_are_told_and_leave_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **{"model": "mlp:4", "epochs": 2} | options)
    assert not (tmp_path / "out").exists()


def test_models_and_weights_that_do_not_fit(pictures, net, tmp_path):
    at = lambda name: net.replace(":build", f":{name}")
    torch.save(backbone("mlp:4", (1, 9, 9), 3), tmp_path / "whole.pt")
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    from precis.data.program import load_program

    state = {k: v.contiguous() for k, v in load_program(net).module.state_dict().items()}
    state["0.weight"] = state["0.weight"] * float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    given = {"epochs": 2, "lr": 0.1}
    cases = [
        ({"model": at("flat")}, r"has 81 outputs, and the data 3 classes"),
        ({"model": at("five")}, "has 5 outputs, and the data 3 classes"),
        ({"model": at("maps")}, r"returns \[2, 3, 7, 7\] for 2 inputs"),
        ({"model": at("argument")}, "missing 1 required positional argument"),
        ({"model": "lenet5"}, "lenet5 takes square pictures of at least 16"),
        ({"model": net, "weights": tmp_path / "whole.pt", **given}, "weights_only=False\\).state_dict"),
        ({"model": str(tmp_path / "whole.pt")}, "def build\\(\\): from precis.nn.backbones import MLP"),
        ({"model": net, "weights": tmp_path / "other.safetensors", **given}, "does not fit the model: lacks"),
        ({"model": net, "weights": tmp_path / "nan.safetensors", **given}, "0.weight holds values that are not finite"),
        ({"model": net, "weights": tmp_path / "nan.safetensors"}, "--epochs and --lr of the training"),
        ({"model": net, "weights": tmp_path / "nan.safetensors", "method": "weight_rewind", **given},
         "needs the weights of an earlier epoch"),
    ]  # fmt: skip
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", pictures, **options)
        assert not (tmp_path / "out").exists()


def test_the_sample_and_result(tmp_path, monkeypatch):
    done = run(tmp_path / "out", density=0.3, one_shot=True, rows=200, **FAST)
    result = json.loads((done.folder / "result.json").read_text())
    assert result["paper"] == "rewinding" and result["metrics"]["bytes_dense"] > result["metrics"]["bytes_compressed"]
    assert "200 of 1294 training examples are used" in " ".join(result["notes"])
