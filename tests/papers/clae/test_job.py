import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import halves, run_paper, saved, stopped_and_resumed

from precis.contrastive.clae import CLAE, with_dual_bn
from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.papers.clae.pairs import EDGES, MOMENTS, Watched, shown_of
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.contrastive_training import head_on
from precis.train.checkpoint import load_model
from precis.train.probe import embed

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16, "eps": "0.05"}


run = partial(run_paper, "clae")


@pytest.fixture
def pictures(tmp_path) -> Path:
    return saved(tmp_path / "halves.npz", *halves())


def test_an_embedding_is_learned_on_harder_pairs_and_one_set_of_norms_is_kept(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK)
    assert set(done.metrics) <= set(NUMBERS) and "| what it is |" in (done.folder / "report.md").read_text()
    m, folder = done.metrics, done.folder
    assert m["knn_accuracy"] > 0.9 and m["steps"] == 2 * (72 // 16) and 0 <= m["attacked_accuracy"] <= 1
    assert -1 <= m["negatives_cosine"] <= 1 and -1 <= m["negatives_cosine_adversarial"] <= 1
    assert done.result["files"][0] == "gallery.png" and (folder / "hardness.png").stat().st_size > 5000
    config = json.loads((folder / "config.json").read_text())
    assert config["component"] == "precis.nn.backbones:backbone"
    encoder = load_model(folder)  # refuses weights that it does not know
    assert np.allclose(embed(encoder, torch.from_numpy(halves()[0])).numpy(), np.load(folder / "embeddings.npz")["h"],
                       atol=1e-5)  # fmt: skip
    assert "does not aim at robustness" in " ".join(done.result["notes"])


def test_pairs_are_looked_at_over_training_and_looking_moves_nothing():
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    encoder = backbone("conv:4x2", (1, 8, 8), generator=torch.Generator().manual_seed(0))
    clae = CLAE(with_dual_bn(encoder), head_on(encoder, torch.Generator().manual_seed(1)), 0.05)
    watched = Watched(clae, (images, images.flip(3)))
    before = {name: value.clone() for name, value in clae.state_dict().items()}
    for _ in range(100):
        watched.before_step()
    last = watched.look()
    assert all(torch.equal(value, before[name]) for name, value in clae.state_dict().items())
    steps = sorted(watched.moments)
    assert steps[0] == 0 and steps[-1] == 100 and len(steps) <= MOMENTS + 1
    assert len({b - a for a, b in zip(steps[:-2], steps[1:-1])}) == 1
    assert shown_of(watched.moments) == [0, 32, 48, 80, 100]  # of every 16th the nearest to the quarters
    counts = watched.moments[100]
    assert [int(c.sum()) for c in counts] == [20, 380, 20, 380]  # every pair of twenty is counted
    assert np.array_equal(counts[1].numpy(), np.histogram(last["clean"][1].numpy(), EDGES)[0])
    again = Watched(clae, (images, images))
    again.load_state_dict(watched.state_dict())
    assert again.step == 100 and again.every == watched.every and set(again.moments) == set(watched.moments)
    assert all(torch.equal(again.moments[at], kept) for at, kept in watched.moments.items())


def test_a_stopped_run_goes_on_to_the_same_end(pictures, tmp_path):
    stopped_and_resumed(run, tmp_path, pictures, **QUICK)


def test_without_a_weight_it_is_the_base_method(pictures, tmp_path):
    images, _ = halves(40)
    np.save(tmp_path / "bare.npy", images)
    found = [run(tmp_path / f"{i}", tmp_path / "bare.npy", **QUICK | {"eps": eps, "weight": 0.0})
             for i, eps in enumerate(("0", "0.1"))]  # fmt: skip
    a, b = (np.load(d.folder / "embeddings.npz")["h"] for d in found)
    assert np.array_equal(a, b) and "attacked_accuracy" not in found[0].metrics
    other = run(tmp_path / "uel", tmp_path / "bare.npy", **QUICK, base="uel", source="other")
    assert not np.array_equal(np.load(other.folder / "embeddings.npz")["h"], a)


@pytest.mark.parametrize(("options", "words"), [
    ({"eps": "much"}, "a radius is written 8/255"),
    ({"eps": "0"}, "--eps 0 is no adversary"),
    ({"weight": -1.0}, "--weight must be at least"),
    ({"batch": 80}, "--batch 80 is more than the 72 pictures"),
    ({"task": "embed", "model": "auto"}, "needs --model DIR"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()
