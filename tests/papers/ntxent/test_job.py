import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import halves, run_paper, saved, stopped_and_resumed

from precis.cli.run import parse
from precis.data.images import write_image
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.contrastive_pictures import _hold_out, _natural_size
from precis.papers.contrastive_run import queue_size
from precis.papers.opening import make_job
from precis.train.checkpoint import load_model
from precis.train.probe import embed

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16}


run = partial(run_paper, "ntxent")


@pytest.fixture
def pictures(tmp_path) -> Path:
    return saved(tmp_path / "halves.npz", *halves())


def test_pictures_with_classes_are_embedded_and_judged(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 4.0}, k=5)
    assert set(done.metrics) <= set(NUMBERS) and "| what it is |" in (done.folder / "report.md").read_text()
    m, folder = done.metrics, done.folder
    assert m["knn_accuracy"] > 0.9 and m["linear_accuracy"] > 0.9 and m["knn_low"] <= m["knn_accuracy"] <= m["knn_high"]
    assert m["steps"] == 4 * (72 // 16) and 0 < m["alignment"] < 2 and m["uniformity"] < 0 and m["effective_rank"] > 1
    assert done.result["files"][0] == "gallery.png" and done.result["repeatable"]
    assert all((folder / f).stat().st_size > 2000 for f in ("gallery.png", "map.png", "map_pictures.png", "loss.png"))
    arrays = np.load(folder / "embeddings.npz")
    assert arrays["h"].shape == (90, 8) and arrays["z"].shape == (90, 128) and (arrays["split"] == "val").sum() == 18
    assert np.allclose(np.linalg.norm(arrays["z"], axis=1), 1, atol=1e-5)
    rows = list(csv.DictReader((folder / "neighbours.csv").open()))
    assert len(rows) == 90 * 5 and all(r["name"] != r["neighbour"] for r in rows)
    assert [r["rank"] for r in rows[:5]] == list("12345")
    assert float(rows[0]["cosine"]) >= float(rows[4]["cosine"])
    encoder = load_model(folder)
    images = torch.from_numpy(halves()[0])
    assert np.allclose(embed(encoder, images).numpy(), arrays["h"], atol=1e-5)
    told = done.result["curve"]["loss"]
    assert told["steps"][-1] == m["steps"] and told["values"][-1] == m["loss"] and len(told["steps"]) <= 200
    assert not (folder / ".training").exists() and "preset glyph" in " ".join(done.result["notes"])
    assert sum(map(int, (folder / "confusion.csv").read_text().split()[1].split(",")[1:])) > 0


def test_a_stopped_run_goes_on_to_the_same_end(pictures, tmp_path):
    stopped_and_resumed(run, tmp_path, pictures, **QUICK, method="moco")


def test_a_queue_holds_at_most_half_of_the_pictures():
    assert [queue_size(n, 16) for n in (40, 300, 600, 100_000)] == [20, 128, 288, 4096]
    assert queue_size(600, 16, 300) == 300 and queue_size(2, 2) == 1
    with pytest.raises(InputError, match="--queue 301 is more than half of the 600 pictures"):
        queue_size(600, 16, 301)


def test_the_task_moco_is_the_method(pictures):
    job = make_job(find()["ntxent"], pictures, task="moco")
    assert (job.task, job.method) == ("train", "moco")


def test_copies_and_held_out_pictures_do_not_count_as_enough(tmp_path):
    images, _ = halves(2)
    (tmp_path / "same").mkdir()
    for i in range(40):
        write_image(tmp_path / "same" / f"{i:02d}.png", images[i % 2].repeat(3, 1).repeat(3, 2))
    with pytest.raises(InputError, match="would see 2 different pictures.* of 40 found 38 are copies of others"):
        run(tmp_path / "out", tmp_path / "same", **QUICK)
    assert not (tmp_path / "out").exists()


def test_without_labels_all_pictures_are_trained_on_and_queries_are_answered(tmp_path):
    images, _ = halves(40)
    (tmp_path / "set").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "set" / f"{i}.png", image.repeat(3, 1).repeat(3, 2))
    write_image(tmp_path / "asked.png", halves(1, seed=5)[0][0].repeat(3, 1).repeat(3, 2))
    done = run(tmp_path / "out", tmp_path / "set", **QUICK, query=tmp_path / "asked.png")
    assert "knn_accuracy" not in done.metrics and done.metrics["pictures"] == 40
    assert set(np.load(done.folder / "embeddings.npz")["split"]) == {"train"}
    assert (done.folder / "query_asked.png").exists() and "nearest to asked: " in " ".join(done.result["notes"])
    assert json.loads((done.folder / "config.json").read_text())["arguments"]["in_shape"] == [1, 32, 32]


def test_a_folder_of_many_queries_is_answered_for_all_and_shown_for_the_first(pictures, tmp_path):
    (tmp_path / "asked").mkdir()
    for i, image in enumerate(halves(27, seed=5)[0]):
        write_image(tmp_path / "asked" / f"{i:02d}.png", image)
    done = run(tmp_path / "out", pictures, **QUICK, query=tmp_path / "asked", k=3)
    with open(done.folder / "queries.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 27 * 3 and {row["query"] for row in rows} == {f"{i:02d}" for i in range(27)}
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    shown = {p.name for p in done.folder.glob("query_*.png")}
    assert shown == {f"query_{i:02d}.png" for i in range(24)}
    assert "27 pictures, all in queries.csv" in " ".join(done.result["notes"])


def test_a_trained_encoder_embeds_other_pictures_and_starts_another_run(pictures, tmp_path):
    first = run(tmp_path / "first", pictures, **QUICK)
    images, labels = halves(50, seed=3)
    np.savez(tmp_path / "other.npz", images=images.repeat(3, 1), labels=labels)  # in colour: taken as grey
    done = run(tmp_path / "second", tmp_path / "other.npz", task="embed", model=str(first.folder))
    assert done.metrics["knn_accuracy"] > 0.9 and "steps" not in done.metrics
    assert not (done.folder / "model.safetensors").exists()
    again = run(tmp_path / "third", pictures, **QUICK, init=first.folder)
    assert again.metrics["loss"] < first.metrics["loss"]
    np.save(tmp_path / "large.npy", np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16)).astype(np.uint8))
    with pytest.raises(InputError, match="give --size 8"):
        run(tmp_path / "no", tmp_path / "large.npy", **QUICK, init=first.folder)
    with pytest.raises(InputError, match=r"no config.json"):
        run(tmp_path / "no", pictures, task="embed", model=str(tmp_path))


def test_labels_copies_groups_and_blanks(tmp_path):
    images, labels = halves(60)
    images[1] = images[0]
    (tmp_path / "set").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "set" / f"{i}.png", image)
    (tmp_path / "set" / "bad.png").write_bytes(b"no picture")  # one in sixty
    lines = [f"{i}.png,{'' if i >= 50 else 'ab'[labels[i]]},g{i // 3}" for i in range(60)]
    (tmp_path / "set" / "labels.csv").write_text("file,label,group\n" + "\n".join([*lines, "bad.png,a,g0"]))
    done = run(tmp_path / "out", tmp_path / "set", **QUICK, size=8, labels=str(tmp_path / "set" / "labels.csv"), k=5)
    notes = " ".join(done.result["notes"])
    assert "1 picture is an exact duplicate of another" in notes
    assert (done.folder / "skipped.csv").read_text().count("bad.png,") == 1
    with pytest.raises(InputError, match="--batch 99"):
        run(tmp_path / "no", tmp_path / "set", **QUICK | {"batch": 99})
    assert not (tmp_path / "no").exists()
    guessed = list(csv.DictReader((done.folder / "predictions.csv").open()))
    assert [r["name"] for r in guessed] == [f"{i}.png" for i in range(50, 60)]
    right = sum(r["label"] == "ab"[labels[50 + i]] for i, r in enumerate(guessed))
    assert right >= 9 and all(0.4 < float(r["share"]) <= 1 for r in guessed)
    split = np.load(done.folder / "embeddings.npz")["split"]
    whole = lambda g: len(set(split[g * 3 : g * 3 + 3]) - {"duplicate"}) == 1
    assert all(whole(g) for g in range(16)) and "val" in split


def test_a_class_with_one_picture_votes_but_is_not_tested():
    labels, units = np.array([0, 0, 0, 0, 0, 1, -1]), np.arange(7)
    held, lone = _hold_out(labels, units, 0.2, 0)
    assert held.sum() == 1 and held[:5].sum() == 1 and lone == [1]
    held, lone = _hold_out(np.array([0, 0, 1, 1]), np.array([7, 7, 7, 8]), 0.5, 0)
    assert lone == [0] and held.tolist() == [False, False, False, True]


def test_the_size_follows_the_median_picture(tmp_path):
    (tmp_path / "set").mkdir()
    for i, side in enumerate((40, 70, 100)):
        write_image(tmp_path / "set" / f"{i}.png", np.zeros((1, side, side + 30), np.uint8))
    np.save(tmp_path / "small.npy", np.zeros((3, 28, 28), np.uint8))
    np.save(tmp_path / "large.npy", np.zeros((3, 3, 100, 120), np.uint8))
    assert _natural_size(tmp_path / "set") == 64
    assert _natural_size(tmp_path / "small.npy") is None and _natural_size(tmp_path / "large.npy") == 96


@pytest.mark.parametrize(("options", "words"), [
    ({"batch": 80}, "--batch 80 is more than the 72 pictures"),
    ({"minutes": 1.0}, "--epochs and --minutes: name one"),
    ({"task": "embed", "model": "auto"}, "needs --model DIR"),
    ({"task": "embed", "model": "nowhere"}, "must be the folder of a run"),
    ({"model": "vgg"}, "no network is called 'vgg'"),
    ({"momentum": 1.5}, "--momentum must lie between 0 and 1"),
    ({"queue": 64}, "--queue is the number of keys of --method moco"),
    ({"group": "patient"}, "patient"),
    ({"query": Path("none.png")}, "none.png"),
    ({"query": Path(__file__).parent}, "--query: there is no picture"),
    ({"labels": "none.csv"}, "none.csv"),
    ({"temperature": 0.0}, "--temperature must be at least"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_the_size_may_be_said_to_be_found(pictures):
    assert make_job(find()["ntxent"], pictures, size="auto").size is None
    assert parse(find()["ntxent"], ["--size", "auto", "--", "x"])[1].size is None
    assert parse(find()["ntxent"], ["--size", "96"])[1].size == 96
    with pytest.raises(InputError, match="--size must be at least 8"):
        make_job(find()["ntxent"], pictures, size=4)


def test_no_option_takes_the_place_of_the_job_s_viewers():
    assert make_job(find()["ntxent"], None, augment="supcon").views == ()


def test_too_few_pictures(tmp_path):
    np.save(tmp_path / "few.npy", halves(20)[0])
    with pytest.raises(InputError, match="needs negatives: 32 pictures or more are wanted, 20 found"):
        run(tmp_path / "out", tmp_path / "few.npy", **QUICK)
