"""Every number that a run ends with has a line that says what it is, for the papers that are not contrastive ones."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import scene_files
from tests.papers.runs import halves, run_paper, saved

from precis.data.captures_nerfies import write_nerfies
from precis.data.images import write_image
from precis.data.scenes3d import capture
from precis.lab.figures import Chart
from precis.papers.catalogue import find
from precis.papers.opening import job_of, make_job
from precis.papers.prvipe.samples import three_views

Given = Callable[[Path], Any]


def _picture(folder: Path) -> Path:
    row, column = np.meshgrid(np.linspace(0, 3, 24), np.linspace(0, 4, 32), indexing="ij")
    return write_image(folder / "p.png", np.stack([0.5 + 0.4 * np.sin(row + i * column) for i in range(3)]))


def _halves(folder: Path) -> Path:
    return saved(folder / "halves.npz", *halves(160))


def _shades(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind, low in (("dark", 0), ("light", 140)):
        (folder / "shades" / kind).mkdir(parents=True)
        for i in range(12):
            pixels = (rng.integers(0, 110, (3, 32, 32)) + low).astype(np.uint8)
            write_image(folder / "shades" / kind / f"{i}.png", pixels)
    return folder / "shades"


def _lines(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    with (folder / "t.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "x", "y"])
        rows.writerows((i, x, i / 20 + x) for i in range(20) for x in rng.uniform(0, 1, 7))
    return folder / "t.csv"


RUNS: dict[str, tuple[Given, dict[str, Any]]] = {
    "siren": (_picture, {"width": 16, "steps": 5, "batch": 64}),
    "nerf": (lambda folder: scene_files.blender(folder / "b", scene_files.made(8, 16)), {"steps": 2, "orbit": 0}),
    "nerfies": (lambda folder: write_nerfies(folder / "bust", capture("moving", 10, 12, 0)),
                {"steps": 2, "rays": 32, "orbit": 2, "mesh_resolution": 8}),
    "deep_image_prior": (_picture, {"steps": 2, "sigma": "20", "reference": Path("p.png")}),
    "deep_decoder": (_picture, {"steps": 5, "ratio": 0.25}),
    "neural_process": (_lines, {"width": 8, "steps": 5, "batch": 4}),
    "group_norm": (_halves, {"batch_sizes": "8,16", "norms": "bn,gn", "repeats": 1, "epochs": 1, "width": 8}),
    "mobilenet": (_shades, {"epochs": 1, "width": 0.1, "batch": 16, "export": "none"}),
    "revnet": (_halves, {"epochs": 1, "batch": 16, "filters": (8, 8, 12)}),
    "variational_dropout": (_halves, {"epochs": 1, "model": "mlp:8", "threshold_sweep": False}),
    "rewinding": (_halves, {"epochs": 1, "model": "mlp:8", "density": 0.5, "one_shot": True, "compare": True}),
    "prvipe": (lambda folder: three_views(folder / "views.csv"), {"steps": 1, "hidden": 16, "dim": 4}),
}  # fmt: skip
WITH_LINES = sorted({*RUNS, "invariance"})


@pytest.mark.parametrize("name", RUNS)
def test_every_number_of_a_run_has_a_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chart, "png", lambda self, dpi=160: b"")
    monkeypatch.setattr("precis.papers.prvipe.embedding.POSES", 60)
    given, options = RUNS[name]
    done = run_paper(name, tmp_path / "out", given(tmp_path), **options)
    job = job_of(find()[name])()
    assert len(done.metrics) > 3 and set(job.meanings(done.metrics)) == set(done.metrics)
    report = (done.folder / "report.md").read_text()
    assert "| metric | value | what it is |" in report
    assert all(f"| {line} |" in report for line in job.meanings(done.metrics).values())


@pytest.mark.parametrize(("name", "metric", "line"), [
    ("siren", "mse_784_knn", "nearest in the pixels shown"), ("deep_decoder", "k12_psnr_webp", "of a WebP"),
    ("group_norm", "error_in_24", "instance norm"), ("group_norm", "accuracy_group_norm_tuned_at_24", "fine-tuned"),
])  # fmt: skip
def test_names_that_hold_a_size_have_lines_too(name: str, metric: str, line: str) -> None:
    assert line in make_job(find()[name], device="cpu").meanings([metric, "unknown"])[metric]


@pytest.mark.parametrize("name", WITH_LINES)
def test_lines_are_short_and_stand_in_a_table(name: str) -> None:
    numbers = job_of(find()[name]).numbers
    contrastive = job_of(find()["ntxent"]).numbers
    assert numbers
    for line in (line for metric, line in numbers.items() if contrastive.get(metric) != line):
        assert 8 <= len(line) <= 160 and not line.endswith(".") and line.isprintable() and "|" not in line, line


def test_lines_are_for_names_that_a_metric_can_have() -> None:
    built_in = [paper for paper in find() if paper.source.package]
    assert len(built_in) > 15
    for paper in built_in:
        numbers = job_of(paper).numbers
        assert numbers, paper.id
        for name in numbers:
            assert name.isidentifier() and name.removeprefix("MiB_").islower(), name
