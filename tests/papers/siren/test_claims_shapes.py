"""SIREN's claim about surfaces: through `check` at smoke size, on a user's cloud, and with bad clouds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precis.data.shapes import sphere
from precis.errors import InputError
from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.lab.recorder import TrialRecord
from precis.lab.trial import streams
from precis.papers.siren import claims_shapes
from precis.papers.siren.claims_shapes import Cloud, RecoversShape, Surface, score, surfaces

SOURCE = PaperSource("siren", Path(claims_shapes.__file__).parent, "precis.papers.siren")
SMALL = Surface(500, 5, 64, 16, 24, 2000)


def run(home: Path, data: Path | None = None) -> dict[str, Any]:
    claim = claims_of(SOURCE)["sdf"]
    (entry,) = check([(SOURCE, claim)], profile="smoke", device="cpu", workers=1, home=home, data=data, kinds={"points"})
    return entry


def cloud_file(folder: Path, rows: np.ndarray) -> Path:
    path = folder / "cloud.xyz"
    np.savetxt(path, rows)
    return path


def test_it_runs_on_built_in_shapes_and_on_a_cloud(tmp_path: Path) -> None:
    made = sphere(400, 0)
    path = cloud_file(tmp_path, np.hstack([made.points * 30 + 5, made.normals]))
    for entry in (run(tmp_path / "a"), run(tmp_path / "b", path)):
        assert entry["ran"] and not entry["failures"]
        assert all(math.isfinite(v) for arm in entry["metrics"].values() for row in arm.values() for v in row.values())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.random.default_rng(0).normal(size=(50, 6)), "too few"),
        (np.random.default_rng(0).normal(size=(200, 3)), "normals"),
        (np.hstack([np.linspace(0, 1, 200)[:, None] * [1, 2, 3], np.ones((200, 3))]), "no area"),
    ],
)
def test_bad_clouds_are_refused_in_words(tmp_path: Path, rows: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RecoversShape().load(SMALL, cloud_file(tmp_path, rows))


def test_scored_points_are_not_the_fitted_ones() -> None:
    made = sphere(1000, 0)
    data = Cloud(made.points, made.normals)
    fitted, scored = surfaces(1, SMALL, data, streams(1))
    assert len(fitted.points) == 800 and len(scored.points) == 200
    assert not {p.tobytes() for p in fitted.points} & {p.tobytes() for p in scored.points}
    torus, box = (surfaces(seed, SMALL, None, streams(seed))[0].points for seed in (0, 1))
    assert np.hypot(torus[:, 0], torus[:, 1]).max() == pytest.approx(0.85, abs=0.05)
    assert np.abs(box).max() == pytest.approx(0.6, abs=0.01)


def test_the_exact_distance_scores_well_and_no_surface_scores_as_such(tmp_path: Path) -> None:
    made = sphere(2000, 0)
    truth = Cloud(made.points, made.normals)
    record = TrialRecord(tmp_path, 0, tuned={"lr": 1e-3})
    exact = score(lambda x: x.norm(dim=-1, keepdim=True) - 0.7, truth, SMALL, record)
    assert exact["chamfer"] < 0.05 and exact["normal"] < 0.01
    nothing = score(lambda x: torch.ones(len(x), 1), truth, SMALL, record)
    assert nothing == claims_shapes.NO_SURFACE
    assert any("no surface" in note for note in record.summary()["notes"])
