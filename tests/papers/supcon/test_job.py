import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import run_paper, saved, stopped_and_resumed

from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.supcon import SupConModel
from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.papers.catalogue import find
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.contrastive_pictures import Pictures
from precis.papers.opening import make_job
from precis.papers.supcon.beside import Beside
from precis.papers.supcon.classifying import _batches, _classify_others
from precis.papers.supcon.confusions import confused_pairs
from precis.train.checkpoint import load_model

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16}


run = partial(run_paper, "supcon")


def stripes(n=90, classes=4, seed=0):
    """Pictures of as many kinds as there are classes: a bright pair of rows."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 100, (n, 1, 8, 8))
    for image, label in zip(images, labels):
        image[:, 2 * (label % 4) : 2 * (label % 4) + 2, :: 1 + label // 4] += 150
    return images.astype(np.uint8), labels


@pytest.fixture
def pictures(tmp_path) -> Path:
    return saved(tmp_path / "stripes.npz", *stripes())


def test_classes_are_learned_and_compared_with_cross_entropy(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 8.0}, compare="ce", lr=1e-2)
    assert set(done.metrics) <= set(NUMBERS) and "| what it is |" in (done.folder / "report.md").read_text()
    m, folder = done.metrics, done.folder
    assert list(m)[:2] == ["linear_accuracy", "linear_low"] and m["linear_accuracy"] > 0.8
    assert 0 <= m["ce_low"] <= m["ce_accuracy"] <= m["ce_high"] <= 1
    assert "held-out pictures" in " ".join(done.result["notes"])
    rows = list(csv.DictReader((folder / "classes.csv").open()))
    assert [r["class"] for r in rows] == list("0123") and sum(int(r["tested_on"]) for r in rows) == 18
    right = sum(float(r["recall"]) * int(r["tested_on"]) for r in rows)
    assert right / 18 == pytest.approx(m["linear_accuracy"], abs=1e-3)
    arrays = np.load(folder / "embeddings.npz")
    head = load_model(folder, name="classifier")
    held = arrays["split"] == "val"
    said = head(torch.from_numpy(arrays["h"][held])).argmax(1).numpy()
    assert (said == stripes()[1][held]).mean() == pytest.approx(m["linear_accuracy"])
    again = run(tmp_path / "again", pictures, task="embed", model=str(folder))
    lines = list(csv.DictReader((again.folder / "classified.csv").open()))
    assert len(lines) == 90 and {r["class"] for r in lines} <= set("0123") and again.metrics["classified"] == 90
    assert np.mean([r["class"] == str(c) for r, c in zip(lines, stripes()[1])]) > 0.8


def test_a_stopped_comparison_goes_on_to_the_same_end(pictures, tmp_path):
    stopped_and_resumed(run, tmp_path, pictures, **QUICK, compare="ce", balanced="yes")


def test_each_network_is_trained_as_if_it_were_alone():
    make = lambda: backbone("conv:4x2", (1, 8, 8), generator=torch.Generator().manual_seed(0))
    g = lambda: torch.Generator().manual_seed(1)
    views = [torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    y = torch.tensor([0, 1, 2, 0, -1, 1])
    alone = SupConModel(make(), ProjectionHead(8, generator=g()))
    both = Beside(SupConModel(make(), ProjectionHead(8, generator=g())), 3, g())
    first, second = alone.loss(views, y), both.loss(views, y)
    torch.testing.assert_close(second["loss"], first)
    first.backward(), second["loss"].backward()
    for p, q in zip(alone.parameters(), both.supervised.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    known = torch.cat([v for v in views])[torch.cat([y, y]) >= 0]
    assert all(p.grad is not None for p in both.classify.parameters()) and len(known) == 10
    logits = both.classify(torch.cat(views))
    expected = torch.nn.functional.cross_entropy(logits, y.repeat(2), ignore_index=-1)
    torch.testing.assert_close(second["cross_entropy"], expected)


class Notes(list):
    """A run that only keeps its notes."""

    folder, device, resume = Path(), "cpu", False
    note = list.append

    def log(self, step: int, total: int, **scalars: float) -> None: ...
    def image(self, name, pixels, step=None) -> None: ...
    def show(self, file: str) -> None: ...


def plan(labels, batch=16, **options):
    """The batches of a job with these labels of the pictures it trains on, and what it noted."""
    notes, job = Notes(), make_job(find()["supcon"], None, **options)
    made = _batches(job, notes, torch.as_tensor(labels), batch)
    return None if made is None else made(torch.Generator().manual_seed(0)), " ".join(notes)


def test_many_classes_make_balanced_batches_and_few_do_not():
    many, few = np.arange(120) % 15, np.arange(120) % 4
    made, notes = plan(many)
    assert made.classes == made.each == 4
    assert "4 classes with 4 pictures each" in notes and "1.1 of a class on average" in notes
    made, notes = plan(many, balanced="no")
    assert made is None and "many have no positive but their own views" in notes
    assert plan(many, batch=6)[0] is None  # no room for two classes with four each
    assert plan(few) == (None, "") and plan(few, balanced="yes")[0].each == 4


def test_pictures_without_a_label_take_part_or_are_left_out(tmp_path):
    partly = np.where(np.arange(80) < 60, np.arange(80) % 4, -1)
    assert plan(partly) == (None, "")
    made, notes = plan(partly, unlabelled="ignore")
    assert "20 pictures without a label are in no batch" in notes
    assert max(int(i) for chosen in made for i in chosen) < 60
    with pytest.raises(InputError, match="leave --balanced at auto"):
        plan(partly, unlabelled="ignore", balanced="no")
    images, labels = stripes()
    np.savez(tmp_path / "partly.npz", images=images, labels=np.where(np.arange(90) < 60, labels, np.nan))
    done = run(tmp_path / "part", tmp_path / "partly.npz", **QUICK)
    assert done.metrics["steps"] == 2 * (78 // 16) and done.metrics["predicted"] == 30


def test_an_encoder_without_a_classifier_only_embeds(tmp_path):
    notes, job = Notes(), make_job(find()["supcon"], None, task="embed", model=str(tmp_path))
    assert _classify_others(job, notes) == {} and "no classifier in" in notes[0]


def test_the_confused_are_shown_between_the_right():
    images, labels = (torch.from_numpy(x) for x in stripes(24))
    none = np.zeros(24, bool)
    p = Pictures(images, labels, tuple("abcd"), tuple(map(str, range(24))), none, none, (), None)
    said = labels.clone()
    assert confused_pairs(p, torch.arange(24), said) is None
    said[0], said[4], said[1] = 1, 1, 0
    assert len(confused_pairs(p, torch.arange(24), said)) > 1000


@pytest.mark.parametrize(("options", "words"), [
    ({"compare": "ce", "task": "embed", "model": "x"}, "--compare ce is for training"),
    ({"n_views": 1}, "--n-views must be at least 2"),
    ({"labels": "none.csv"}, "none.csv"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_without_classes_it_says_who_learns_without(tmp_path):
    np.save(tmp_path / "plain.npy", stripes()[0])
    with pytest.raises(InputError, match="precis run ntxent"):
        run(tmp_path / "out", tmp_path / "plain.npy", **QUICK)
    np.savez(tmp_path / "lone.npz", images=stripes(40)[0], labels=np.where(np.arange(40) < 38, 0, np.arange(40)))
    with pytest.raises(InputError, match="two classes with two pictures"):
        run(tmp_path / "out", tmp_path / "lone.npz", **QUICK)
    assert not (tmp_path / "out").exists()


def test_the_sample_has_classes(tmp_path):
    job = make_job(find()["supcon"], None)
    assert len(json.dumps(np.unique(np.load(job.sample(tmp_path))["labels"]).tolist())) == 30 and job.views == ()
