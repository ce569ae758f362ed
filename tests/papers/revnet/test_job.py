import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import halves, run_paper, saved

from precis.data.images import write_image
from precis.errors import InputError, Stopped
from precis.lab.figures import Chart
from precis.papers.revnet import fit
from precis.papers.revnet import pictures as drawing
from precis.papers.revnet.budget import KINDS, Form, Need, build, by_depth, deepest, measure, parse_bytes, show_bytes
from precis.papers.revnet.job import RevNetJob
from precis.papers.revnet.nets import parameters
from precis.papers.revnet.pictures import draw_memory
from precis.train.checkpoint import load_model
from precis.vision.revnet import RevNet

run = partial(run_paper, "revnet")


QUICK = {"epochs": 6, "batch": 16, "filters": (8, 8, 12)}


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Ninety pictures of two kinds: bright at the top, bright at the bottom."""
    return saved(tmp_path / "halves.npz", *halves())


def test_a_classifier_is_trained_and_loads_again(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 12}, lr=0.5)
    assert done.metrics["accuracy"] > 0.85 and done.metrics["batch"] == 16 and done.metrics["units"] == 3
    assert done.metrics["reconstruction_error"] < 1e-4 and done.metrics["seconds_per_step"] > 0
    assert done.metrics["MiB_kept_for_backward"] == pytest.approx(4 * 16 * (64 + 8 * 64 + 8 * 64 + 12 * 16) / 2**20)
    assert done.metrics["MiB_kept_for_backward"] < done.metrics["MiB_of_a_step"]
    files = {"memory.png", "reconstruction.png", "answers.png", "model.safetensors", "config.json", "labels.json"}
    assert files <= set(done.result["files"]) and done.result["files"][0] == "memory.png"
    net, found = load_model(done.folder), np.load(pictures)
    right = (net(torch.from_numpy(found["images"])).argmax(1).numpy() == found["labels"]).mean()
    assert right > 0.85
    assert json.loads((done.folder / "labels.json").read_text())["classes"] == ["0", "1"]
    notes = " ".join(done.result["notes"])
    assert "kept for the backward pass" in notes and "a residual net of about as many parameters would keep" in notes
    assert not (done.folder / ".checkpoint").exists()


def test_batch_and_depth_follow_from_the_memory(pictures, tmp_path):
    done = run(tmp_path / "deep", pictures, **QUICK | {"epochs": 1}, memory="550KiB").metrics
    assert done["units"] > 3 and done["MiB_of_a_step"] <= 550 / 1024
    net, limit = RevNet((1, 1), QUICK["filters"], in_channels=1), 400 * 2**10
    need = measure(net, (1, 8, 8), "cpu")
    assert need.total(need.batch(limit)) <= limit < need.total(need.batch(limit) + 1)


def test_the_plan_is_a_table_and_nothing_is_trained(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK, plan=True, memory="2MiB")
    rows = list(csv.DictReader((done.folder / "plan.csv").open()))
    assert len(rows) == 3 * 5 * 5
    kept = {(r["net"], int(r["units"])): int(r["kept_bytes"]) for r in rows if r["batch"] == "64"}
    assert kept["revnet", 16] == kept["revnet", 1] < kept["checkpoint", 16] < kept["resnet", 16]
    each = kept["resnet", 2] - kept["resnet", 1]
    assert kept["resnet", 16] - kept["resnet", 8] == pytest.approx(8 * each, rel=0.01)
    assert done.result["files"][0] == "plan.csv" and not (done.folder / "model.safetensors").exists()
    assert done.metrics["pictures_that_fit_revnet_16_units"] > done.metrics["pictures_that_fit_resnet_16_units"]
    assert all(int(r["step_bytes"]) >= int(r["kept_bytes"]) for r in rows)


@pytest.mark.parametrize("options", [{"fully_reversible": True}, {"keep_every": 2}, {}])
def test_the_plan_is_of_the_net_that_would_be_trained(options):
    job = RevNetJob(**QUICK, **options)
    form = fit._form(job, 1, 2)
    line = by_depth(form, (8, 8), "cpu", peak=False)["revnet"]
    for units in (1, 2, 8):
        assert line[units].kept(16) == measure(fit._net(job, units, 1, 2), (1, 8, 8), "cpu", peak=False).kept(16)
    usual = Form((32, 32, 64, 112), 3, 10, form.fully_reversible)
    weights = [parameters(build(kind, 4, usual)) for kind in ("revnet", "resnet")]
    assert weights[0] == pytest.approx(weights[1], rel=0.15)


def test_the_plan_of_a_fully_reversible_net_says_so(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK, plan=True, fully_reversible=True)
    rows = list(csv.DictReader((done.folder / "plan.csv").open()))
    kept = {(r["net"], int(r["units"])): int(r["kept_bytes"]) for r in rows if r["batch"] == "64"}
    assert kept["revnet", 1] == kept["revnet", 16] == 4 * 64 * 64  # the last output, as large as the picture
    notes = " ".join(done.result["notes"])
    assert "its stages have 4 16 channels" in notes and "of --filters only the number counts" in notes
    assert "fully reversible RevNet of 1, 2, 4, 8 and 16 units a stage at 16 pictures a batch: a step takes" in notes


def test_the_plan_wants_no_classes(tmp_path):
    given = tmp_path / "bare.npz"
    np.savez(given, images=np.zeros((3, 8, 8, 3), np.uint8))
    assert "MiB_kept_revnet_16_units" in run(tmp_path / "out", given, **QUICK, plan=True).metrics


def test_the_choice_is_told_before_the_training(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "seconds_of", lambda *_: 90.0)
    done = run(tmp_path / "out", pictures, filters=(8, 8, 12), memory="1GiB", epochs=6, units=1, lr=1e-5)
    notes = done.result["notes"]
    assert notes[0].startswith("The net has 1 unit a stage and ") and "batches of 72 are 6 steps" in notes[0]
    assert notes[1:4] == [
        "With one unit a stage no block is reversible: the first of a stage changes the shape.",
        "So few steps teach little: a smaller --batch, or more --epochs, makes more of them.",
        "Training would take about 9 min, 90 s a step: fewer --units, a smaller net (--filters) or --minutes make it "
        "shorter.",
    ]
    rows = list(csv.DictReader((done.folder / "predictions.csv").open()))
    right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert len(rows) == 18 and right == pytest.approx(done.metrics["accuracy"])


def drawn(monkeypatch) -> list:
    """The figures that are drawn from now on."""
    figures: list = []
    monkeypatch.setattr(drawing, "Chart", lambda figure, alt: figures.append(figure) or Chart(figure, alt))
    return figures


def test_the_limit_stands_only_beside_whole_steps_and_ticks_are_readable(monkeypatch):
    need = {n: Need(1000 * n, 10.0 * n, 0, 30.0 * n, 500) for n in (1, 2, 4)}
    lines, form = {kind: need for kind in KINDS}, Form((8, 8), 1, 2)
    figures = drawn(monkeypatch)
    dashed = lambda panel: [line for line in panel.get_lines() if line.get_linestyle() == "--"]
    draw_memory(lines, form, 64, limit=2**14, steps=True)
    kept, step = figures[-1].axes
    assert not dashed(kept) and len(dashed(step)) == 1
    assert sorted(step.get_lines()[0].get_ydata()) == [need[n].total(64) for n in (1, 2, 4)]
    draw_memory(lines, form, 64, (3, need[2]), limit=2**14)
    (both,) = figures[-1].axes
    stars = [float(line.get_ydata()[0]) for line in both.get_lines() if line.get_marker() == "*"]
    assert stars == [need[2].kept(64), need[2].total(64)] and len(dashed(both)) == 1
    for panel in (kept, step, both):
        words = [tick.get_text() for tick in panel.get_yticklabels()]
        assert 2 <= len(words) <= 10 and all(word.endswith(("bytes", "KiB", "MiB")) for word in words)
    assert [tick.get_text() for tick in both.get_xticklabels()] == ["1", "2", "3", "4"]


def test_the_answers_shown_are_of_all_classes():
    truth = torch.arange(4).repeat_interleave(30)
    said = truth.clone()
    said[:28], said[40:43], said[-1] = 1, 3, 0
    order = fit.spread(said, truth)
    assert sorted(order) == list(range(120))
    wrong = [int(truth[i]) for i in order[:32]]
    assert (said[order[:32]] != truth[order[:32]]).all() and (said[order[32:]] == truth[order[32:]]).all()
    assert wrong[:3] == [0, 1, 3] and wrong.count(1) == 3 and [int(truth[i]) for i in order[32:36]] == [0, 1, 2, 3]


def test_the_line_of_the_plan_is_what_is_measured():
    net = lambda units: RevNet((units, units), (8, 8, 12), generator=torch.Generator().manual_seed(0))
    need = {n: measure(net(n), (3, 8, 8), "cpu") for n in (2, 4, 8)}
    for batch in (4, 32):
        line = need[2].total(batch) + 3 * (need[4].total(batch) - need[2].total(batch))
        assert need[8].total(batch) == pytest.approx(line, rel=0.05)
    limit = need[8].total(32)
    assert deepest(need, 32, limit) in (7, 8, 9)
    assert deepest({1: need[2], 2: need[4], 4: need[8]}, 32, need[2].total(32)) == 1
    assert need[2].batch(need[2].total(32)) in (31, 32)


def test_a_reversible_net_shows_what_it_rebuilds(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK | {"epochs": 1}, fully_reversible=True)
    assert (done.folder / "rebuilt.png").stat().st_size > 500
    assert done.metrics["MiB_kept_for_backward"] == pytest.approx(4 * 16 * 64 / 2**20)
    assert load_model(done.folder).fully_reversible


def test_a_stopped_training_goes_on(pictures, tmp_path):
    short = QUICK | {"epochs": 1}
    whole = run(tmp_path / "whole", pictures, **short)

    def stop(event):
        if event.get("event") == "log" and event["step"] >= 1:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(tmp_path / "part", pictures, listen=stop, **short)
    resumed = run(tmp_path / "part", pictures, resume=True, **short)
    assert resumed.metrics["accuracy"] == whole.metrics["accuracy"]
    a, b = (load_model(done.folder) for done in (whole, resumed))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_a_folder_of_pictures_with_a_broken_one(tmp_path):
    rng = np.random.default_rng(1)
    for kind, low in (("dark", 0), ("light", 150)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(20):
            pixels = (rng.integers(0, 100, (3, 20, 24)) + low).astype(np.uint8)
            write_image(tmp_path / "set" / kind / f"{i}.png", pixels)
    (tmp_path / "set" / "dark" / "broken.png").write_bytes(b"no picture")
    done = run(tmp_path / "out", tmp_path / "set", **QUICK | {"epochs": 1}, size=16, augment=True)
    assert (done.folder / "skipped.csv").read_text().count("dark/broken.png,") == 1
    for i in range(3):
        (tmp_path / "set" / "light" / f"bad{i}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="more than 5 %"):
        run(tmp_path / "other", tmp_path / "set", **QUICK, size=16)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"memory": "much"}, "--memory much: a number with KiB"),
    ({"memory": "10KiB", "batch": None}, "--memory 10KiB is too little: with 3 units a stage two pictures.*KiB"),
    ({"memory": "10KiB"}, "--memory 10KiB is too little: one unit a stage at 16 pictures a batch needs"),
    ({"memory": "10KiB", "units": 2}, "2 units a stage at 16 pictures a batch need"),
    ({"filters": (8, 9, 12)}, "must be even, got 9"),
    ({"filters": (8,)}, "--filters 8"),
    ({"filters": (8, 12, 8)}, "cannot go from 6 to 4 channels"),
    ({"batch": 80}, "--batch 80: there are 72 pictures to train on, with --val 0.2"),
    ({"fully_reversible": True, "filters": (8, 8, 8, 8, 8)}, "must divide by 16, got .8, 8.; --size"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_one_class_no_labels_or_one_picture_of_a_class(tmp_path):
    np.savez(tmp_path / "one.npz", images=np.zeros((80, 1, 8, 8), np.uint8), labels=np.zeros(80, int))
    np.save(tmp_path / "none.npy", np.zeros((80, 1, 8, 8), np.uint8))
    for name in ("one.npz", "none.npy"):
        with pytest.raises(InputError, match="at least two classes"):
            run(tmp_path / "out", tmp_path / name, **QUICK)
    np.savez(tmp_path / "few.npz", images=np.zeros((80, 1, 8, 8), np.uint8), labels=np.array([1] + [0] * 79))
    with pytest.raises(InputError, match="class '1' has one picture"):
        run(tmp_path / "out", tmp_path / "few.npz", **QUICK)
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "out", tmp_path / "nothing", **QUICK)


def test_sizes_are_read_and_told():
    assert [parse_bytes(t) for t in ("500MiB", "2 GiB", "1.5kb", "100")] == [500 * 2**20, 2**31, 1500, 100]
    assert [show_bytes(n) for n in (2**31, 1.5 * 2**20, 2048, 12)] == ["2 GiB", "1.5 MiB", "2 KiB", "12 bytes"]
    for wrong in ("", "GiB", "-3MiB", "1.2.3MB", "3 parsecs", "0"):
        with pytest.raises(InputError, match="such as 500MiB"):
            parse_bytes(wrong)
    assert Need(100, 10, 50, 20, 0).batch(50) == 0 and Need(100, 10, 50, 20, 0).batch(160) == 3
