import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.papers import runs
from tests.papers.runs import run_paper, saved

from precis.data.images import write_image
from precis.errors import InputError, Stopped
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.running import Finished

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16}


run = partial(run_paper, "debiased")


def halves(n=90, seed=0):
    """Pictures of two kinds, a third of them bright at the top and the others at the bottom."""
    return runs.halves(n, seed, (np.arange(n) % 3 > 0).astype(int))


@pytest.fixture
def pictures(tmp_path) -> Path:
    return saved(tmp_path / "halves.npz", *halves())


def notes(done: Finished) -> str:
    return " ".join(done.result["notes"])


def test_the_prior_comes_from_the_classes_and_the_closest_negatives_are_told(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 4.0}, k=5)
    assert set(done.metrics) <= set(NUMBERS) and "| what it is |" in (done.folder / "report.md").read_text()
    m, folder = done.metrics, done.folder
    assert m["tau_plus"] == pytest.approx(5 / 9, abs=0.01) and "of 72 labelled" not in notes(done)
    assert "two of the 72 labelled training pictures" in notes(done) and "is large" in notes(done)
    assert m["knn_accuracy"] > 0.9 and 0 <= m["at_floor"] <= 1 and m["class_prior"] == m["tau_plus"]
    rows = list(csv.DictReader((folder / "false_negatives.csv").open()))
    arrays = np.load(folder / "embeddings.npz")
    trained = arrays["split"] == "train"
    assert len(rows) == 5 * 72 and {r["name"] for r in rows} == set(arrays["names"][trained])
    assert all(r["name"] != r["negative"] and r["negative"] in arrays["names"][trained] for r in rows)
    z, names = arrays["z"][trained], arrays["names"][trained].tolist()
    cosine = z[names.index(rows[0]["name"])] @ z.T
    cosine[names.index(rows[0]["name"])] = -2
    assert names[int(cosine.argmax())] == rows[0]["negative"]
    assert float(rows[0]["cosine"]) == pytest.approx(float(cosine.max()), abs=1e-4)
    same = sum(r["same_class"] == "yes" for r in rows) / len(rows)
    assert m["closest_same_class"] == pytest.approx(same) and same > 0.9
    assert (folder / "false_negatives.png").stat().st_size > 2000 and not (folder / "sweep.csv").exists()


def test_without_classes_it_is_a_guess_and_a_sweep_is_refused(tmp_path):
    np.save(tmp_path / "plain.npy", halves(40)[0])
    done = run(tmp_path / "out", tmp_path / "plain.npy", **QUICK, positives=2)
    assert done.metrics["tau_plus"] == 0.1 and "τ⁺ is 0.1, a guess" in notes(done)
    assert "closest_same_class" not in done.metrics
    rows = list(csv.DictReader((done.folder / "false_negatives.csv").open()))
    assert len(rows) == 200 and {r["same_class"] for r in rows} == {""}
    with pytest.raises(InputError, match="--tau-plus labels: there are no classes"):
        run(tmp_path / "no", tmp_path / "plain.npy", **QUICK, tau_plus="labels")
    with pytest.raises(InputError, match="--sweep-tau compares values by how well neighbours"):
        run(tmp_path / "no", tmp_path / "plain.npy", **QUICK, sweep_tau="0,0.1")
    assert not (tmp_path / "no").exists()


def test_a_sweep_takes_the_best_and_an_interrupted_run_keeps_its_choice(pictures, tmp_path):
    options = QUICK | {"epochs": 5.0, "sweep_tau": "0.3, 0,0.3"}
    whole = run(tmp_path / "whole", pictures, **options)
    rows = list(csv.DictReader((whole.folder / "sweep.csv").open()))
    assert [float(r["tau_plus"]) for r in rows] == [0, 0.3]
    best = max(rows, key=lambda r: (float(r["knn_accuracy"]), -float(r["tau_plus"])))
    assert whole.metrics["tau_plus"] == float(best["tau_plus"]) and "a little too good" in notes(whole)
    plain = run(tmp_path / "plain", pictures, **QUICK | {"epochs": 5.0}, tau_plus=best["tau_plus"])
    a, b = (np.load(d.folder / "embeddings.npz")["h"] for d in (whole, plain))
    assert np.array_equal(a, b)  # the short trainings leave nothing behind

    def stop(event):
        if event["event"] == "log" and "loss" in event["scalars"]:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, listen=stop, **options)
    names = []
    resumed = run(tmp_path / "part", pictures, resume=True, listen=lambda e: names.extend(e.get("scalars", ())),
                  **options)  # fmt: skip
    assert np.array_equal(np.load(resumed.folder / "embeddings.npz")["h"], a)
    assert "loss" in names and "sweep_loss" not in names and resumed.metrics == whole.metrics


def test_a_prior_that_is_too_large_is_told(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 6.0}, tau_plus="0.9", temperature=0.05, lr=0.01)
    assert done.metrics["at_floor"] > 0.5 and "of the anchors are at the floor" in notes(done)


def test_a_trained_encoder_embeds_other_pictures(pictures, tmp_path):
    first = run(tmp_path / "first", pictures, **QUICK, tau_plus="unknown")
    assert first.metrics["tau_plus"] == 0.1
    done = run(tmp_path / "second", pictures, task="embed", model=str(first.folder))
    assert "at_floor" not in done.metrics and not (done.folder / "false_negatives.csv").exists()
    a, b = (np.load(d.folder / "embeddings.npz")["h"] for d in (first, done))
    assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("options", "words"), [
    ({"tau_plus": "1"}, "--tau-plus: a number from 0 to below 1 or auto, labels, unknown is wanted, got '1'"),
    ({"tau_plus": "some"}, "got 'some'"),
    ({"sweep_tau": "0,zero"}, "--sweep-tau: a number from 0 to below 1 is wanted, got 'zero'"),
    ({"sweep_tau": "0.1,0.1"}, "2 to 10 different values"),
    ({"sweep_tau": "0,0.1", "tau_plus": "0.1"}, "--tau-plus and --sweep-tau: name one"),
    ({"sweep_tau": "0,0.1", "task": "embed", "model": "x"}, "--task embed trains nothing"),
    ({"sweep_tau": "0,0.1", "query": Path("none.png")}, "none.png"),
    ({"positives": 0}, "--positives must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_a_lone_picture_of_a_class_counts_in_the_prior(tmp_path):
    images, labels = halves(60)
    kind = np.where(np.arange(60) == 7, 1, 0)
    kind[8:] = -1
    (tmp_path / "set").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "set" / f"{i}.png", image)
    lines = [f"{i}.png,{'' if k < 0 else 'ab'[k]}" for i, k in enumerate(kind)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(lines))
    done = run(tmp_path / "out", tmp_path / "set", **QUICK, size=8, labels=str(tmp_path / "labels.csv"))
    assert done.metrics["tau_plus"] == pytest.approx((36 + 1) / 49)  # six of seven of the first class, and the lone one
