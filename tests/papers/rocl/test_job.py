import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import halves, run_paper, saved, stopped_and_resumed

from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.papers.catalogue import find
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import budget_of
from precis.papers.opening import make_job

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16, "steps": 2, "eps": "0.1"}


run = partial(run_paper, "rocl")


@pytest.fixture
def pictures(tmp_path) -> Path:
    return saved(tmp_path / "halves.npz", *halves())


def test_a_robust_embedding_is_learned_attacked_and_shown(pictures, tmp_path):
    done = run(tmp_path / "out", pictures, **QUICK)
    assert set(done.metrics) <= set(NUMBERS) and "| what it is |" in (done.folder / "report.md").read_text()
    m, folder = done.metrics, done.folder
    assert next(iter(m)) == "robust_accuracy" and done.result["files"][0] == "robustness.png"
    for suffix in ("", "_robust_layer"):
        names = ("robust_accuracy", "robust_20_steps", "clean_accuracy")
        strong, some, clean = (m[name + suffix] for name in names)
        assert strong <= some + 0.01 and some <= clean
    assert m["clean_accuracy"] > 0.9 and m["steps"] == 2 * (72 // 16)
    rows = list(csv.DictReader((folder / "robustness.csv").open()))
    assert [float(r["radius"]) for r in rows] == pytest.approx([0, 0.025, 0.05, 0.1, 0.15, 0.2])
    assert float(rows[0]["linear layer"]) == pytest.approx(m["clean_accuracy"], abs=1e-4)
    line = [float(r["linear layer"]) for r in rows]
    assert all(b <= a + 0.1 for a, b in zip(line, line[1:])) and line[-1] < line[0]
    assert all((folder / f).stat().st_size > 2000 for f in ("robustness.png", "attacks.png", "gallery.png"))
    assert "5 attacks of 50 steps" in " ".join(done.result["notes"])


def test_an_encoder_is_attacked_without_labels(pictures, tmp_path):
    first = run(tmp_path / "first", pictures, **QUICK)
    np.save(tmp_path / "bare.npy", halves(60, seed=4)[0])
    done = run(tmp_path / "second", tmp_path / "bare.npy", attack=first.folder, eps="0.2", tested=40)
    m = done.metrics
    assert next(iter(m)) == "found_attacked" and m["pictures"] == 40 and m["eps"] == 0.2
    assert m["found_attacked"] < m["found_clean"] <= 1
    assert {"robustness.png", "attacks.png"} <= set(done.result["files"])
    rows = [line.split(",") for line in (done.folder / "robustness.csv").read_text().split()]
    assert rows[0] == ["radius", "found"] and len(rows) == 7 and float(rows[4][0]) == 0.2
    assert float(rows[1][1]) == pytest.approx(m["found_clean"], abs=1e-4)
    assert float(rows[4][1]) == pytest.approx(m["found_attacked"], abs=1e-4)
    assert not (done.folder / "model.safetensors").exists()
    again = run(tmp_path / "third", tmp_path / "bare.npy", task="attack", model=str(first.folder), eps="0.2", tested=40)
    assert again.metrics == m


def test_a_stopped_run_goes_on_to_the_same_end(pictures, tmp_path):
    stopped_and_resumed(run, tmp_path, pictures, **QUICK)


def test_without_labels_there_is_no_classifier_to_attack(tmp_path):
    np.save(tmp_path / "bare.npy", halves(40)[0])
    done = run(tmp_path / "out", tmp_path / "bare.npy", **QUICK)
    assert "robust_accuracy" not in done.metrics and not (done.folder / "robustness.png").exists()


def test_the_default_length_counts_the_attack():
    n, no = 5000, np.zeros(5000, bool)
    p = Pictures._make((torch.zeros(n, 1, 8, 8), torch.zeros(n), (), (), no, no, (), None, None))
    job, net = make_job(find()["rocl"], None), backbone("conv:96x3", (1, 8, 8))
    plain, attacked = (budget_of(job, p, net, passes).epochs for passes in (6, 24))
    assert plain == pytest.approx(4 * attacked, rel=0.3)


@pytest.mark.parametrize(("options", "words"), [
    ({"eps": "big"}, "a radius is written 8/255"),
    ({"eps": "0"}, "--eps 0 is no attack"),
    ({"steps": 0}, "--steps must be at least"),
    ({"task": "attack", "model": "auto"}, "--task attack needs --model DIR"),
    ({"attack": Path("nowhere"), "model": "auto"}, "folder of a run"),
    ({"attack": Path(__file__).parent, "model": "auto"}, "no config.json"),
    ({"attack": Path("nowhere")}, "leave out --task and --model"),
    ({"batch": 80}, "--batch 80 is more than the 72 pictures"),
    ({"temperature": 0.0}, "--temperature must be at least"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", pictures, **QUICK | options)
    assert not (tmp_path / "out").exists()
