"""What the job draws and says beyond its scores: asked predictions, memory of neighbours, few test classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from precis.data.images import write_image
from precis.fields.neural_process_context import knn_predict
from precis.nn.coordinates import coordinate_grid
from precis.papers.catalogue import find
from precis.papers.neural_process import charts, tasks_complete
from precis.papers.neural_process.reading import Function, Functions
from precis.papers.neural_process.strokes import characters
from precis.papers.neural_process.tasks_functions import Scale, asked_of, build
from precis.papers.opening import make_job
from precis.papers.running import run_job


def functions(n: int = 5) -> Functions:
    x = np.linspace(0, 1, 6)[:, None]
    items = [Function(f"f{i}", x, i + x, np.zeros((0, 1))) for i in range(n)]
    items[1].ask = np.array([[-0.5], [2.0]])
    items.append(Function("unseen", np.zeros((0, 1)), np.zeros((0, 1)), np.array([[0.5]])))
    return Functions(items, ["x"], ["y"])


def test_the_figure_has_the_functions_and_the_range_that_were_asked_for():
    found = functions()
    scale, net = Scale.of(found.items[:5]), build(1, 1, 8).eval()
    pooled = SimpleNamespace(predict=lambda x, y, at: (np.zeros((len(at), 1)), np.ones((len(at), 1))))
    asked = asked_of(SimpleNamespace(grid=None), found)
    assert [f.name for f, _ in asked] == ["f1", "unseen"]
    figure = charts.asked_chart(net, scale, asked, found, pooled).figure
    first, second = [axes for axes in figure.axes if axes.get_visible()]
    lines = {line.get_label(): line.get_xdata() for line in first.lines}
    ours = lines["neural process, with 50 % and 90 %"]
    assert ours.min() == -0.5 and ours.max() == 2.0 and set(lines["asked for"]) == {-0.5, 2.0}
    assert len(lines["given"]) == 6 and "GP, shared kernel" in lines
    assert "GP, shared kernel" not in {line.get_label() for line in second.lines}  # nothing is given
    gridded = asked_of(SimpleNamespace(grid=7), found)
    assert len(gridded) == 6 and gridded[0][1].ravel() == pytest.approx(np.linspace(-0.5, 2.0, 7))


def test_predictions_of_the_job_are_drawn_whatever_the_split(tmp_path):
    rows = [f"f{i},{x},{i * 0.1 + x}" for i in range(8) for x in (0, 0.2, 0.5, 0.8, 1)] + ["f3,1.5,", "f6,-1,"]
    given = tmp_path / "t.csv"
    given.write_text("id,x,y\n" + "\n".join(rows) + "\n")
    paper = find()["neural_process"]
    done = run_job(paper, make_job(paper, given, steps=2, width=8, device="cpu"), out=tmp_path / "out")
    assert done.result["files"][:2] == ["predictions.png", "held_out.png"]
    assert done.result["curve"]["loss"]["steps"] == [1, 2]


def test_nearest_pixels_part_by_part_are_those_of_one_table(monkeypatch):
    g = torch.Generator().manual_seed(0)
    grid, rows = coordinate_grid((8, 8)), torch.rand(3, 64, generator=g).argsort(-1)[:, :10]
    shown = torch.rand(3, 10, 2, generator=g)
    whole = knn_predict(grid[rows], shown, grid.expand(3, -1, -1), 3)
    sizes = []
    real = tasks_complete.knn_predict
    monkeypatch.setattr(tasks_complete, "knn_predict", lambda *a: sizes.append(a[2].shape[-2]) or real(*a))
    monkeypatch.setattr(tasks_complete, "AT_ONCE", 300)
    torch.testing.assert_close(tasks_complete.neighbours(grid, rows, shown), whole)
    assert max(sizes) * rows.numel() <= 300 and sum(sizes) == 64
    net = build(2, 1, 128)
    assert tasks_complete.pictures_at_once(net, 8) == 1
    monkeypatch.undo()
    assert [tasks_complete.pictures_at_once(net, n) for n in (32, 256)] == [64, 4]


@pytest.mark.parametrize("few", [True, False])
def test_few_test_classes_are_told(tmp_path, monkeypatch, few):
    if not few:
        monkeypatch.setattr("precis.papers.neural_process.tasks_few_shot.FEW", 3)
    images, labels = characters(10, 3, 14, seed=1)
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        folder = tmp_path / "set" / f"c{label}"
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{i}.png", (255 * (1 - image.numpy())).astype(np.uint8))
    paper = find()["neural_process"]
    job = make_job(paper, tmp_path / "set", ways=3, size=14, width=4, steps=2, device="cpu")
    done = run_job(paper, job, out=tmp_path / "out")
    assert ("same 3 held-out classes" in " ".join(done.result["notes"])) == few
