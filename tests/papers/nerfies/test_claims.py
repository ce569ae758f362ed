"""Nerfies' claims: each runs through `check`, the arms differ in what they say, and the scores are what they say."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from precis.data.captures_nerfies import write_nerfies
from precis.data.scenes3d import capture
from precis.errors import InputError
from precis.fields.nerfies import DeformableNerf
from precis.lab.check import check
from precis.lab.claim import Recorder
from precis.lab.loading import PaperSource, claims_of
from precis.lab.trial import streams
from precis.papers.frontmatter import read_front_matter
from precis.papers.nerfies import arms, claims, places

FOLDER = Path(claims.__file__).parent
SOURCE = PaperSource("nerfies", FOLDER, "precis.papers.nerfies")
NAMES = ("deformation", "elastic", "coarse_to_fine", "background", "se3", "ghosts")
SMOKE = claims.SMOKE


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    home = tmp_path_factory.mktemp("home")
    found = claims_of(SOURCE)
    entries = check([(SOURCE, found[n]) for n in NAMES], profile="smoke", device="cpu", workers=1, home=home)
    return dict(zip(NAMES, entries, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_runs_through_check(smoke: dict[str, dict[str, Any]], name: str) -> None:
    entry, claim = smoke[name], claims_of(SOURCE)[name]
    assert entry["ran"] and entry["verdict"] is None and entry["failures"] == []
    assert set(entry["metrics"]) == {*claim.arms, *claim.sabotaged}
    for of_arm in entry["metrics"].values():
        assert len(of_arm) == entry["n"]
        assert all(math.isfinite(value) for metrics in of_arm.values() for value in metrics.values())
    assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]


def test_claims_share_their_runs(smoke: dict[str, dict[str, Any]]) -> None:
    keys = {name: set(entry["keys"]) for name, entry in smoke.items()}
    assert keys["ghosts"] < keys["deformation"]
    for name in ("elastic", "coarse_to_fine", "background"):
        assert keys[name] & keys["deformation"]  # the runs of "se3"
    assert not keys["se3"] & keys["deformation"]  # its scene turns further


def test_statements_are_the_summarys_and_in_its_order() -> None:
    summary = read_front_matter(FOLDER / "summary.md").claims
    found = claims_of(SOURCE)
    assert {name: one.statement for name, one in found.items()} == summary and list(found) == list(summary)


def built(arm: str, seed: int = 0) -> DeformableNerf:
    g = [torch.Generator().manual_seed(s) for s in (seed, seed + 1)]
    return arms.build(arm, SMOKE, places.made_scene(0, SMOKE), *g)


def test_arms_start_from_one_template() -> None:
    weights = {arm: built(arm).template.trunk[0].weight for arm in ("se3", "nerf", "nerf_code", "translation")}
    assert all(torch.equal(w, weights["se3"]) for w in weights.values())
    assert built("nerf").warp is None and built("nerf").appearance is None
    assert built("nerf_code").warp is None and built("nerf_code").appearance is not None


def test_permuted_codes_say_nothing_in_training_and_are_ones_own_after() -> None:
    broken = built("permuted").train()
    frame = torch.arange(4)
    seen = {tuple(broken.codes(frame).deformation[:, 0].tolist()) for _ in range(20)}
    own = broken.warp.codes[:, 0].tolist()
    assert len(seen) > 3 and all(sorted(s) == sorted(own) for s in seen)
    assert broken.eval().codes(frame).deformation[:, 0].tolist() == own


@pytest.mark.parametrize("arm", ["se3", "nerf"])
def test_planes_learn_fast_and_their_network_and_the_field_at_rates_of_their_own(
    monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    settings = replace(claims.FULL, frames=3, size=8, steps=1, rays=16, samples=4, test_samples=4, grid=8)
    told: dict[str, Any] = {}
    learn = arms.fit_deformable
    monkeypatch.setattr(arms, "fit_deformable", lambda model, *args, **kw: told.update(kw, model=model) or learn(
        model, *args, **kw))  # fmt: skip
    record = create_autospec(Recorder, instance=True, device="cpu", streams=streams(0))
    arms.train_and_score(arm, 0, settings, None, record)
    model = told["model"]
    rate = {id(p): group["lr"] for group in told["groups"] for p in group["params"]}
    assert rate.keys() == {id(p) for p in model.parameters()}
    assert {rate[id(p)] for p in model.template.factors()} == {2e-2}
    assert {rate[id(p)] for p in model.template.mlp.parameters()} == {arms.NET_LR}
    if arm == "se3":
        assert rate[id(model.warp.codes)] == 2e-2
        assert {rate[id(p)] for p in model.warp.parameters() if p is not model.warp.codes} == {2e-3}
    start, middle = (float(told["extra"](progress).detach()) for progress in (0.0, 0.5))
    assert middle > 0 and start == pytest.approx(2 * middle) and float(told["extra"](1.0).detach()) == 0


def test_schedules() -> None:
    at = lambda arm: [arms.schedule_of(arm, 4)(p) for p in (0.0, 0.3, 0.6, 1.0)]
    assert at("se3") == pytest.approx([0, 2, 4, 4])
    assert at("all_bands") == [4] * 4 and at("one_band") == [1] * 4


def test_psnr_is_the_mean_over_views() -> None:
    error = torch.stack([torch.full((1, 4), 0.1), torch.full((1, 4), 0.001), torch.zeros(1, 4)])
    where = torch.ones(3, 1, 4, dtype=torch.bool)
    where[2] = False
    assert arms.psnr(error, where) == pytest.approx((10 + 30) / 2)


class Known(torch.nn.Module):
    """A scene whose density is known: 1 everywhere, and 3 in the right half."""

    def density(self, x: torch.Tensor) -> torch.Tensor:
        return 1.0 + 2.0 * (x[:, 0] > 0)


def test_matter_in_free_space_by_hand() -> None:
    scene = places.made_scene(0, SMOKE)
    half = replace_occupied(scene, lambda x: np.tile(x[:, 0] > 0, (4, 1)))
    s = replace(SMOKE, grid=40)
    model = DeformableNerf(Known(), None, 0, num_codes=4)
    share, blobs = arms.free_matter(model, s, half, 0.0, "cpu")
    # free are the columns further left than two cells, as far as photographs look; they hold 1 of 1 + 3
    assert 0.1 < share < 18 / 20 / 4 + 1e-6 and blobs == 0
    nothing = replace_occupied(scene, lambda x: np.ones((4, len(x)), bool))
    assert arms.free_matter(model, s, nothing, 0.0, "cpu")[0] == 0


def replace_occupied(scene: places.Scored, occupied: Any) -> places.Scored:
    return places.Scored(scene.train, scene.test, occupied, scene.background)


def test_what_photographs_look_through() -> None:
    scene = places.made_scene(0, replace(SMOKE, size=48, frames=6))
    views = scene.train
    behind = views.c2w[:, :, 3] + 0.2 * views.c2w[:, :, 2]
    assert not arms.looked_through(views, behind.astype(np.float64)).any()
    middle = views.c2w[0, :, 3] - 0.3 * views.c2w[0, :, 2]
    assert arms.looked_through(views, middle[None].astype(np.float64)).all()  # air between camera and head
    head = np.array([[0.01, -0.05, 0.0]])
    assert not arms.looked_through(views, head).any()  # inside of the head


def test_drift_and_stretch_of_a_field_at_rest() -> None:
    model = built("se3").eval()
    with torch.no_grad():
        model.warp.head.weight.zero_()
        model.warp.head.bias.copy_(torch.tensor([0, 0, 0, 0.3, 0, 0.4]))
    assert arms.drift(model, torch.rand(10, 3), 4.0) == pytest.approx(0.5)
    scene = places.made_scene(0, SMOKE)
    depth = torch.from_numpy(scene.test.depth)
    known = depth.isfinite()
    assert arms.stretch(model, scene, known, depth, 4.0, "cpu") < 1e-6


def test_a_capture_of_ones_own(tmp_path: Path) -> None:
    """The claims take it; what stands still is not known in it, and its instants are the codes."""
    folder = write_nerfies(tmp_path / "bust", capture("moving", 10, 12, 0))
    scene = places.read_moving(folder, 12)
    assert scene.train.images.shape == (10, 12, 12, 3) and scene.train.frame.tolist() == list(range(10))
    assert scene.test.frame.tolist() == list(range(10)) and scene.occupied is None
    found = claims_of(SOURCE)
    assert {name for name, one in found.items() if one.takes} == {"deformation", "coarse_to_fine", "background", "se3"}
    entries = check([(SOURCE, found["deformation"])], profile="smoke", data=folder, kinds={"scene"}, device="cpu",
                    workers=1, home=tmp_path / "home")  # fmt: skip
    metrics = entries[0]["metrics"]["se3"]["0"]
    assert entries[0]["ran"] and not entries[0]["failures"]
    assert metrics["psnr"] == metrics["psnr_moving"] == metrics["psnr_static"] and math.isfinite(metrics["log_drift"])
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text().replace('"b_', '"c_'))
    with pytest.raises(InputError):
        places.read_moving(folder, 12)
