"""SIREN's claims about its prior: through `check` at smoke size, and the parts whose answers are known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from precis.errors import InputError
from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.lab.recorder import TrialRecord
from precis.nn.coordinates import coordinate_grid
from precis.papers.siren import claims_prior, completion
from precis.papers.siren.completion import Completion, PCAGaussian

SOURCE = PaperSource("siren", Path(completion.__file__).parent, "precis.papers.siren")
SMALL = Completion("digits", 8, (4, 12, 32), (2, 40), 64, 3, 8, held=20, samples=20)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    claims = claims_of(SOURCE)
    named = [(SOURCE, claims[name]) for name in ("prior", "prior_samples", "prior_continuous")]
    return check(named, profile="smoke", device="cpu", workers=1, home=tmp_path_factory.mktemp("home"))


def test_the_claims_run_and_share_their_networks(smoke: list[dict[str, Any]]) -> None:
    prior, samples, continuous = smoke
    assert not any(entry["failures"] for entry in smoke)
    for entry in smoke:
        assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]
    shared = set(prior["keys"]) & set(samples["keys"])
    assert len(shared) == 2 * prior["n"]  # siren and gaussian, once for both
    assert len(set(prior["keys"]) & set(continuous["keys"])) == prior["n"]  # siren
    assert set(samples["metrics"]["permuted_codes"]["0"]) >= {"psnr_fine", "distance"}
    assert "psnr_fine" in continuous["metrics"]["permuted_grid"]["0"]


def test_both_arms_have_as_many_weights_within_two_per_cent() -> None:
    for settings in (claims_prior.QUICK, claims_prior.FULL):
        counts = [
            sum(p.numel() for p in completion.build(kind, 1, settings, seeded()).parameters())
            for kind in ("siren", "cnp")
        ]  # fmt: skip
        assert abs(counts[0] - counts[1]) <= 0.02 * counts[0]


def test_both_arms_see_the_same_pictures_and_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {"siren": [], "cnp": []}
    pictures = torch.rand(40, 64, 1, generator=seeded()) * 2 - 1
    for kind in ("siren", "cnp"):
        net = completion.build(kind, 1, SMALL, seeded())
        real = net.loss

        def loss(x: Any, shown: Any, *rest: Any, real: Any = real, kind: str = kind) -> Any:
            seen[kind] += [x, shown]
            return real(x, shown, *rest)

        monkeypatch.setattr(net, "loss", loss)
        record = TrialRecord(tmp_path / kind, 3, tuned={"lr": 1e-3})
        completion._fit(net, False, pictures, SMALL, record)
    assert len(seen["siren"]) == 2 * SMALL.steps
    assert all(torch.equal(a, b) for a, b in zip(seen["siren"], seen["cnp"], strict=True))


def test_tuning_scores_pictures_that_no_verdict_reads_or_trains_on() -> None:
    data = completion.load_pictures(SMALL, None)
    train, tuned = data.split(10_000, 1000, seeded(), "cpu")
    again, scored = data.split(0, 1000, seeded(), "cpu")
    test = {row.numpy().tobytes() for row in data.rows(data.test, "cpu")}
    assert torch.equal(train, again)
    assert {row.numpy().tobytes() for row in scored} <= test
    assert len(train) + len(tuned) == len(data.train)
    assert -1 <= float(train.min()) and float(train.max()) <= 1


def test_permuting_moves_values_within_a_picture_only() -> None:
    y = torch.rand(5, 12, 1, generator=seeded())
    moved = completion.permute(y, seeded(1))
    assert not torch.equal(moved, y)
    assert torch.equal(moved.sort(1).values, y.sort(1).values)


def test_gaussian_completion_is_the_conditional_mean() -> None:
    pictures = torch.randn(300, 6, 1, generator=seeded()) + torch.randn(300, 1, 1, generator=seeded(1))
    found = PCAGaussian.fit(pictures, 2)
    a, n = found.factor[:, 0], 6
    covariance = a @ a.T + found.variance * torch.eye(n, dtype=torch.float64)
    where = torch.tensor([[4, 1, 3]])
    y = torch.tensor([[[0.3], [-1.0], [0.7]]])
    gain = a @ a[where[0]].T @ torch.linalg.inv(covariance[where[0]][:, where[0]])
    mean = found.mean[:, 0]
    expected = mean + gain @ (y[0, :, 0].double() - mean[where[0]])
    torch.testing.assert_close(found.complete(where, y)[0, :, 0].double(), expected, atol=1e-6, rtol=1e-6)


def test_nearest_fills_with_what_lies_beside() -> None:
    where = torch.tensor([[0, 7, 56, 63]])  # the corners
    y = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    filled = completion.nearest(where, y, 8, neighbours=1).view(8, 8)
    assert torch.equal(filled[:4, :4], torch.ones(4, 4)) and torch.equal(filled[4:, 4:], torch.full((4, 4), 4.0))


def test_cosine_series_on_a_finer_grid_is_the_function_itself() -> None:
    def wave(size: int) -> torch.Tensor:
        x = coordinate_grid((size, size), dtype=torch.float64)
        u = (x + 1) / 2 * math.pi
        return ((2 * u[:, :1]).cos() * (3 * u[:, 1:]).cos())[None]

    torch.testing.assert_close(claims_prior.cosine_interpolated(wave(8)), wave(24), atol=1e-12, rtol=0)


def test_box_psnr_of_a_constant_and_of_noise() -> None:
    flat = torch.full((2, 16, 1), 0.25)
    assert claims_prior._box_psnr(flat, torch.full((2, 144, 1), 0.25)) == claims_prior.CAP
    noise = torch.randn(50, 144, 1, generator=seeded())
    expected = -10 * math.log10(1 / 9 / 4)  # nine values averaged, halved for the range
    assert claims_prior._box_psnr(torch.zeros(50, 16, 1), noise) == pytest.approx(expected, abs=0.5)


def test_too_few_pictures_are_refused_with_their_number(tmp_path: Path) -> None:
    for i in range(5):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="5 pictures are too few"):
        completion.load_pictures(SMALL, tmp_path)
    with pytest.raises(InputError, match="--data"):
        completion.load_pictures(claims_prior.PAPER, None)
