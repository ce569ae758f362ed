"""The claims through `check` at smoke size, and the parts whose answers are known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.lab.check import check
from precis.lab.claim import Table
from precis.lab.loading import PaperSource, claims_of
from precis.lab.recorder import TrialRecord
from precis.papers.neural_process import claims_curves, claims_pixels, pixels
from precis.papers.neural_process.claims_curves import Curves
from precis.papers.neural_process.claims_few_shot import shuffled
from precis.papers.neural_process.pixels import Neighbours, Pixels, Process
from precis.papers.neural_process.strokes import characters

SOURCE = PaperSource("neural_process", Path(pixels.__file__).parent, "precis.papers.neural_process")
SMALL = Pixels("digits", 8, (4, 12, 40), 3, 4, 16, 16, held=20, asked=(8, 3), gp_pictures=20)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    named = [(SOURCE, claim) for claim in claims_of(SOURCE).values()]
    home = tmp_path_factory.mktemp("home")
    entries = check(named, profile="smoke", device="cpu", workers=1, home=home)
    return {entry["id"].partition("/")[2]: entry for entry in entries}


def test_every_claim_runs_and_every_hypothesis_finds_its_values(smoke: dict[str, dict[str, Any]]) -> None:
    assert len(smoke) == 7
    for entry in smoke.values():
        assert not entry["failures"]
        assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]


def test_claims_over_one_set_of_runs_share_their_trials(smoke: dict[str, dict[str, Any]]) -> None:
    assert set(smoke["initialisation"]["keys"]) < set(smoke["gp_regression"]["keys"])


def test_the_oracle_is_calibrated_and_the_wrong_kernel_is_worse(tmp_path: Path) -> None:
    settings = Curves(1, test=400, targets=30)
    found = {arm: claims_curves.score(claims_curves.known_predictive(arm, settings, record), settings, record)
             for arm in ("oracle", "gp_wrong", "gp_overconfident", "prior")
             for record in [TrialRecord(tmp_path / arm, 10_000)]}  # fmt: skip
    assert abs(found["oracle"]["coverage_90"] - 0.9) < 0.02
    assert found["oracle"]["nll_10"] < found["gp_wrong"]["nll_10"] < found["prior"]["nll_10"]
    assert found["gp_wrong"]["nll_10"] < found["gp_overconfident"]["nll_10"]
    assert abs(found["prior"]["nll_3"] - 0.5 * (math.log(2 * math.pi) + 1)) < 0.1


def test_a_seed_of_a_stack_is_trained_as_if_alone(tmp_path: Path) -> None:
    settings = Curves(5, batch=4, width=8)
    at = torch.linspace(-2, 2, 7)[None, :, None]
    both = claims_curves.train_curves("cnp", settings, [TrialRecord(tmp_path / str(s), s) for s in (3, 4)])
    alone = claims_curves.train_curves("cnp", settings, [TrialRecord(tmp_path / "alone", 4)])
    with torch.no_grad():
        a, b = (net(at[:, :3], at[:, :3], at).mean for net in (both[1], alone[0]))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_spread_is_measured_against_the_gap() -> None:
    rows = {"cnp": [0.4, 0.5, 0.6], "prior": [1.4, 1.4, 1.4], "oracle": [-0.6, -0.6, -0.6]}
    table = Table({arm: {s: {"nll_10": v} for s, v in enumerate(values)} for arm, values in rows.items()}, (0, 1, 2))
    assert abs(claims_curves.spread_over_gap(table) - 0.05) < 1e-12


def test_all_networks_of_a_seed_see_the_same_pictures_and_start_alike() -> None:
    data = pixels.load_pictures(SMALL, None)
    train, _ = data.split(0, 20, seeded())
    made = []
    for names in (pixels.NETS, ("mixed",)):
        made.append(pixels._batch(names, train, 9, SMALL, (8, 8), {"data": seeded(1)}))
    many, one = made
    for a, b in zip(many, one, strict=True):
        assert torch.equal(a[0], b[0])  # what mixed sees does not depend on who else trains
    rows, mask, values, where, targets = many
    assert all(torch.equal(targets[0], t) for t in targets)
    assert torch.equal(rows[0], rows[4])
    assert not torch.equal(values[0], values[4])
    torch.testing.assert_close(values[0].sum(1), values[4].sum(1))  # permuted: the same values elsewhere
    assert rows[2].tolist() == [list(range(9))] * 4  # only_ordered
    assert bool(mask.all())


def test_tuning_scores_pictures_that_no_verdict_reads_or_trains_on() -> None:
    data = pixels.load_pictures(SMALL, None)
    train, tuned = data.split(10_000, 1000, seeded())
    again, scored = data.split(0, 1000, seeded())
    assert torch.equal(train, again)
    test = {row.numpy().tobytes() for row in data.rows(data.test)}
    assert {row.numpy().tobytes() for row in scored} <= test
    assert len(train) + len(tuned) == len(data.train)


def test_baselines_get_what_they_should() -> None:
    data = pixels.load_pictures(SMALL, None)
    train, held = data.split(0, 50, seeded())
    everything = torch.arange(64).expand(50, -1)
    for by_place in (False, True):
        process = Process.fit(train, SMALL, by_place, seeded())
        assert float((process.complete(everything, held) - held).abs().mean()) < 0.05
        nothing = process.complete(everything[:, :0], held)
        expected = train.mean(0) if by_place else train.mean().expand(64, 1)
        torch.testing.assert_close(nothing[0], expected)
    nearest = Neighbours(8, 1)
    torch.testing.assert_close(nearest.complete(everything, held), held)
    assert Neighbours.fit(train, 40, 8, seeded()).k <= Neighbours.fit(train, 4, 8, seeded()).k


def test_too_few_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", images=np.zeros((199, 1, 8, 8), np.uint8))
    with pytest.raises(InputError, match="199 pictures; at least 200"):
        pixels.load_pictures(SMALL, tmp_path / "few.npz")
    with pytest.raises(InputError, match="--data"):
        pixels.load_pictures(claims_pixels.ImageCompletion.profiles["paper"].settings, None)


def test_characters_are_alike_within_a_class_and_the_same_for_a_seed() -> None:
    images, labels = characters(30, 6, 14, seed=1)
    assert torch.equal(images, characters(30, 6, 14, seed=1)[0])
    assert not torch.equal(images, characters(30, 6, 14, seed=2)[0])
    assert float(images.min()) == 0 and float(images.max()) <= 1 and images.shape == (180, 1, 14, 14)
    assert bool((images.flatten(1).sum(1) > 3).all())  # none is empty
    flat = images.view(30, 6, -1)
    within = torch.cdist(flat, flat).sum() / (30 * 6 * 5)
    between = torch.cdist(flat[:, 0], flat[:, 0]).sum() / (30 * 29)
    assert within < 0.95 * between and labels.bincount().tolist() == [6] * 30


def test_shuffled_examples_keep_each_class_together() -> None:
    support = torch.arange(6.0).view(1, 3, 2).expand(50, 3, 2)
    found = shuffled(support, seeded())
    assert {tuple(x) for episode in found.tolist() for x in episode} == {(0, 1), (2, 3), (4, 5)}
    assert len({tuple(x[0] for x in episode) for episode in found.tolist()}) == 6
