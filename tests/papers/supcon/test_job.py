import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import run_paper, saved, stopped_and_resumed

from precis.errors import InputError, Stopped
from precis.nn.backbones import backbone
from precis.papers.catalogue import find
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.contrastive_pictures import Pictures
from precis.papers.opening import make_job
from precis.papers.supcon.batches import batches_of
from precis.papers.supcon.beside import CrossEntropy, linear_steps
from precis.papers.supcon.classifying import _classify_others
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


def test_a_comparison_that_stops_in_its_second_training_goes_on(pictures, tmp_path):
    def stop(event):
        if event["event"] == "log" and "ce_loss" in event["scalars"]:
            raise Stopped("enough")

    options = QUICK | {"compare": "ce"}
    whole = run(tmp_path / "whole", pictures, **options)
    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, listen=stop, **options)
    assert (tmp_path / "part" / ".trainingce").is_dir()
    assert run(tmp_path / "part", pictures, resume=True, **options).metrics == whole.metrics


def test_cross_entropy_has_the_linear_stages_presentations_more(pictures, tmp_path):
    assert [linear_steps(n, 2, 16) for n in (32, 33, 720)] == [1, 2, 23] and linear_steps(720, 4, 128) == 2
    done = run(tmp_path / "out", pictures, **QUICK, compare="ce")
    m, notes = done.metrics, " ".join(done.result["notes"])
    assert m["steps"] == 8 and m["ce_steps"] == 8 + 3  # 72 labelled pictures, 2 × 16 a step
    assert 0 <= m["ce_linear_low"] <= m["ce_linear_accuracy"] <= 1
    assert "3 steps more" in notes and "ce_accuracy is of its own last layer" in notes
    alone = run(tmp_path / "alone", pictures, **QUICK)
    assert alone.metrics["linear_accuracy"] == m["linear_accuracy"] and "ce_steps" not in alone.metrics


def test_cross_entropy_starts_from_the_same_encoder_and_leaves_out_what_has_no_label():
    encoder = backbone("conv:4x2", (1, 8, 8), generator=torch.Generator().manual_seed(0))
    views = [torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    y = torch.tensor([0, 1, 2, 0, -1, 1])
    model = CrossEntropy(encoder, 3, torch.Generator().manual_seed(1))
    for p, q in zip(encoder.parameters(), model.encoder.parameters(), strict=True):
        assert torch.equal(p, q) and p is not q
    loss = model.loss(views, y)
    expected = torch.nn.functional.cross_entropy(model(torch.cat(views)), y.repeat(2), ignore_index=-1)
    torch.testing.assert_close(loss, expected)


class Notes(list):
    """A run that only keeps its notes."""

    folder, device, resume = Path(), "cpu", False
    note = list.append

    def log(self, step: int, total: int, **scalars: float) -> None: ...
    def image(self, name, pixels, step=None) -> None: ...
    def show(self, file: str) -> None: ...
    def curve(self, name, steps, values) -> None: ...
    def table(self, name, rows) -> None: ...


def plan(labels, batch=16, **options):
    """The batches of a job with these labels of the pictures it trains on, and what it noted."""
    notes, job = Notes(), make_job(find()["supcon"], None, **options)
    made = batches_of(job, notes, torch.as_tensor(labels), batch)
    return None if made is None else made(torch.Generator().manual_seed(0)), " ".join(notes)


def test_many_classes_make_balanced_batches_and_few_do_not():
    many, few = np.arange(120) % 15, np.arange(120) % 4
    made, notes = plan(many)
    assert made.classes == made.each == 4
    assert "4 classes with 4 pictures each" in notes and "1.06 of a class on average" in notes
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


def test_balanced_batches_have_their_share_of_pictures_without_a_label():
    labels = np.where(np.arange(150) % 3 == 0, -1, np.arange(150) % 7)
    made, notes = plan(labels, batch=20)  # 20 · 2/3 / 7
    assert "and 7 without a label (a random batch of 20 has 1.9 of a class" in notes and "in no batch" not in notes
    seen = []
    for _ in range(3):
        for chosen in made:
            y = labels[chosen.numpy()]
            assert len(chosen) == 12 + 7 and (y < 0).sum() == 7 and len(set(chosen[12:].tolist())) == 7
            assert all((y[:12] == c).sum() == 4 for c in set(y[:12].tolist())) and len(set(y[:12].tolist())) == 3
            seen += chosen[12:].tolist()
    assert set(seen) == set(np.flatnonzero(labels < 0).tolist())
    again = plan(labels, batch=20)[0]
    state, first = again.state_dict(), [c.tolist() for c in again]
    other = plan(labels, batch=20)[0]
    other.load_state_dict(state)
    assert [c.tolist() for c in other] == first
    assert plan(labels, batch=8)[0] is None  # no room for both
    made, notes = plan(labels, batch=8, balanced="yes")
    assert "50 pictures without a label are in no batch (--batch 8 has room" in notes
    assert "has 1.99 pictures of a class" in plan(np.arange(1194) % 600 - 0, batch=1194, balanced="no")[1]


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
