import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.papers.runs import halves, run_paper, saved

from precis.data.images import write_image
from precis.errors import InputError, Stopped
from precis.nn.backbones import backbone
from precis.papers.labelled import Part
from precis.papers.variational_dropout import sparsify
from precis.papers.variational_dropout.pictures import compression_marks
from precis.sparsity.compress import decompress
from precis.sparsity.variational_dropout import variational_layers, variationalize
from precis.train.checkpoint import load_model

run = partial(run_paper, "variational_dropout")


QUICK = {"epochs": 3, "model": "mlp:16", "lr": 0.02, "threshold_sweep": False}


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Pictures of two kinds, bright at the top or at the bottom; the outer columns are always black."""
    images, labels = halves(400)
    images[..., [0, 7]] = 0
    return saved(tmp_path / "halves.npz", images, labels)


def test_a_net_is_trained_thinned_and_written(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 60, "threshold_sweep": True})
    assert done.metrics["accuracy"] > 0.95 and done.metrics["accuracy_dense"] > 0.95
    assert done.metrics["compression"] > 3 and done.metrics["kl_weight"] == 1
    assert done.result["files"][0] == "log_alpha.png"
    for picture in ("log_alpha.png", "pixels.png", "thresholds.png", "layers.png"):
        assert (done.folder / picture).stat().st_size > 5000
    assert not list(done.folder.glob(".*"))
    masks = load_file(done.folder / "masks.safetensors")
    state = load_file(done.folder / "model.safetensors")
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and torch.equal(state[name] != 0, mask)
    assert decompress(load_file(done.folder / "compressed.safetensors")).keys() == state.keys()
    assert torch.equal(load_model(done.folder).head.weight, state["head.weight"])
    layers = list(csv.DictReader((done.folder / "layers.csv").open()))
    assert sum(int(row["surviving"]) for row in layers) == sum(int(m.sum()) for m in masks.values())
    table = done.result["tables"]["layers"]
    assert [(r["layer"], str(r["surviving"])) for r in table] == [(r["layer"], r["surviving"]) for r in layers]
    assert "| layers.0.weight | 16×64 | 1,024 |" in (done.folder / "report.md").read_text()
    sweep = list(csv.DictReader((done.folder / "thresholds.csv").open()))
    used = next(row for row in sweep if row["threshold"] == "3")
    assert float(used["compression"]) == pytest.approx(done.metrics["compression"], rel=1e-3)
    kept = [int(row["surviving"]) for row in sweep]
    assert kept == sorted(kept)
    assert "pixels are not looked at" in " ".join(done.result["notes"])


def test_a_net_of_the_users_with_weights_stays_as_good(pictures, tmp_path):
    (tmp_path / "net.py").write_text(
        "from precis.nn.backbones import backbone\n\n\ndef build():\n    return backbone('conv:8x2', (1, 8, 8), 2)\n"
    )
    weights = tmp_path / "weights.safetensors"
    untrained = backbone("conv:8x2", (1, 8, 8), 2, generator=torch.Generator().manual_seed(0))
    save_file(untrained.state_dict(), weights)
    done = run(tmp_path / "out", pictures, model=f"{tmp_path / 'net.py'}:build", weights=weights, epochs=2,
               exclude="head", finetune_epochs=1, threshold_sweep=False)  # fmt: skip
    state, old = load_file(done.folder / "model.safetensors"), load_file(weights)
    assert "it is code of your own" in " ".join(done.result["notes"])
    assert set(load_file(done.folder / "masks.safetensors")) == {"blocks.0.0.weight", "blocks.1.0.weight"}
    assert state.keys() == old.keys() and not torch.equal(state["blocks.0.0.weight"], old["blocks.0.0.weight"])
    fresh = backbone("conv:8x2", (1, 8, 8), 2)
    fresh.load_state_dict(state)
    assert not (done.folder / "pixels.png").exists()
    assert "as it came trained" in " ".join(done.result["notes"]) and done.metrics["accuracy_dense"] < 0.9


def test_only_a_trained_net_begins_with_its_weights_spared(pictures, tmp_path, monkeypatch):
    """log σ² is −10 throughout in a net that is not trained; in a trained one log α is −3 at the most."""
    began = []

    def seen(*args, **options):
        net = variationalize(*args, **options)
        began.append(
            [(layer.spread.detach().clone(), layer.log_alpha.detach()) for _, layer in variational_layers(net)]
        )
        return net

    monkeypatch.setattr(sparsify, "variationalize", seen)
    save_file(backbone("mlp:16", (1, 8, 8), 2).state_dict(), tmp_path / "weights.safetensors")
    run(tmp_path / "untrained", pictures, **QUICK)
    run(tmp_path / "trained", pictures, weights=tmp_path / "weights.safetensors", **QUICK)
    untrained, trained = began
    assert all((log_sigma2 == -10).all() for log_sigma2, _ in untrained)
    assert any(log_alpha.max() > 3 for _, log_alpha in untrained)  # as weights near 0 are noise from the start
    assert all(log_alpha.max() <= -3 + 1e-4 for _, log_alpha in trained)


def test_a_table_and_the_original_algorithm(tmp_path):
    rng = np.random.default_rng(0)
    with (tmp_path / "table.csv").open("w") as file:
        file.write("a,b,c,kind\n")
        for _ in range(300):
            a, b, c = rng.normal(size=3)
            file.write(f"{a:.4f},{b:.4f},{c:.4f},{'yes' if a + b > 0 else 'no'}\n")
    done = run(tmp_path / "out", tmp_path / "table.csv", label_column="kind", original=True, **QUICK | {"epochs": 10})
    assert done.metrics["density"] == 1 and done.metrics["accuracy"] > 0.7
    assert "No weight was removed" in " ".join(done.result["notes"])


def test_a_stopped_run_goes_on_to_the_same_end(pictures, tmp_path):
    whole = run(tmp_path / "whole", pictures, **QUICK)

    def stop(event):
        if "kl" in event.get("scalars", {}):
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, listen=stop, **QUICK)
    assert (tmp_path / "part" / ".dense").exists() and not (tmp_path / "part" / "result.json").exists()
    resumed = run(tmp_path / "part", pictures, resume=True, **QUICK)
    for name in ("accuracy", "accuracy_dense", "density", "kl_nats"):
        assert resumed.metrics[name] == whole.metrics[name]


def test_a_folder_of_pictures_and_a_net_of_which_nothing_is_left(tmp_path):
    rng = np.random.default_rng(1)
    for kind, low in (("dark", 0), ("light", 150)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 100, (3, 20, 24)) + low
            write_image(tmp_path / "set" / kind / f"{i}.png", pixels.astype(np.uint8))
    done = run(tmp_path / "out", tmp_path / "set", size=16, threshold=-8.0, **QUICK)
    assert (done.folder / "pixels.png").exists() and done.metrics["accuracy_dense"] > 0.4
    assert done.metrics["density"] == 0 and "a constant is predicted" in " ".join(done.result["notes"])


def test_a_net_that_collapsed_is_told_of_and_gets_no_threshold_that_removes_more(pictures, tmp_path):
    """With a KL term that is a hundred times too strong nearly all goes; the dense net has learned by then."""
    strong = {"epochs": 12, "model": "mlp:16", "lr": 0.02, "kl_weight": 1000.0}
    done = run(tmp_path / "out", pictures, **strong)
    assert done.metrics["accuracy_dense"] > 0.9 and done.metrics["accuracy"] < 0.65
    notes = " ".join(done.result["notes"])
    assert "The network collapsed" in notes and "--epochs (36, not 12)" in notes and "--ramp (0.2 0.75)" in notes
    assert "more than these 288 examples" in notes and "--kl-weight 1 instead of 1000" in notes
    assert "would remove more" not in notes


def test_what_is_a_guess():
    part = Part(torch.zeros(400, 1), torch.arange(400) % 4)  # 25 %, and two deviations are 4.3
    assert sparsify._guesses(0.09, part) and sparsify._guesses(0.29, part) and not sparsify._guesses(0.30, part)


def test_marks_of_the_compression():
    assert compression_marks([1.0, 41.0]) == [1, 2, 5, 10, 20, 50]
    assert compression_marks([4.0, 6.0]) == [2, 5, 10] and compression_marks([1.0]) == [1]


@pytest.mark.parametrize(("options", "words"), [
    ({"ramp": (0.5, 0.2)}, "--ramp 0.5 0.2"),
    ({"kl_weight": -1.0}, "--kl-weight must be at least 0"),
    ({"threshold": 9.0}, "--threshold must be at most 8"),
    ({"include": "nothing.*"}, "nothing to prune"),
    ({"model": "mlp:0"}, "mlp:0"),
    ({"model": "squeezenet"}, "squeezenet"),
    ({"weights": Path("absent.safetensors")}, "absent.safetensors"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_numbers_or_do_not_fit(pictures, tmp_path):
    net = backbone("mlp:16", (1, 8, 8), 2)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["head.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    save_file(backbone("mlp:9", (1, 8, 8), 2).state_dict(), tmp_path / "other.safetensors")
    torch.save(net, tmp_path / "whole.pt")
    for name, words in (("nan", "head.weight holds values that are not finite"), ("other", "does not fit")):
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", pictures, weights=tmp_path / f"{name}.safetensors", **QUICK)
    with pytest.raises(InputError, match="pickles a whole module .*def build"):
        run(tmp_path / "out", pictures, weights=tmp_path / "whole.pt", **QUICK)
    assert not (tmp_path / "out").exists()
