"""Deep Decoder's claims: each runs through `check`, and what its parts rest on."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from precis.fields.deep_decoder import DeepDecoder, parameter_count
from precis.fields.restoration import estimate_noise
from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.lab.plan import arms_at
from precis.lab.recorder import TrialRecord
from precis.nn.image import psnr
from precis.papers.deep_decoder import claims_noise, claims_pictures
from precis.papers.deep_image_prior.claims import Denoise as DipDenoise
from precis.papers.frontmatter import read_front_matter
from precis.train.checkpoint import load_state

FOLDER = Path(claims_noise.__file__).parent
SOURCE = PaperSource("deep_decoder", FOLDER, "precis.papers.deep_decoder")
NAMES = tuple(claims_of(SOURCE))


def claim(name: str) -> Any:
    return claims_of(SOURCE)[name]


def record(folder: Path, seed: int = 0) -> TrialRecord:
    return TrialRecord(folder / f"{seed}", seed, tuned={})


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    home = tmp_path_factory.mktemp("home")
    entries = check([(SOURCE, claim(name)) for name in NAMES], profile="smoke", device="cpu", workers=1, home=home)
    return dict(zip(NAMES, entries, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_runs_through_check(smoke: dict[str, dict[str, Any]], name: str) -> None:
    entry = smoke[name]
    assert entry["ran"] and entry["verdict"] is None and entry["failures"] == []
    assert set(entry["metrics"]) == set(arms_at(claim(name), "smoke"))
    for of_arm in entry["metrics"].values():
        assert len(of_arm) == entry["n"]
        assert all(math.isfinite(value) for metrics in of_arm.values() for value in metrics.values())
    assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]


def test_claims_share_their_runs(smoke: dict[str, dict[str, Any]]) -> None:
    keys = {name: set(smoke[name]["keys"]) for name in NAMES}
    assert len(keys["compression"] & keys["compression_strong"]) == 2 * 4       # the decoders, whole and broken
    assert len(keys["denoise"] & keys["no_early_stopping"]) == 2                # the decoder


def test_statements_are_the_summarys_and_in_its_order() -> None:
    summary = read_front_matter(FOLDER / "summary.md").claims
    found = claims_of(SOURCE)
    assert {name: one.statement for name, one in found.items()} == summary
    assert list(found) == list(summary)


def test_broken_arms() -> None:
    broken = {name: claim(name).sabotaged for name in NAMES}
    assert broken.pop("upsampling") == {}
    for name, sabotaged in broken.items():
        assert sabotaged and set(sabotaged.values()) <= set(claim(name).arms)
    settings = claim("no_early_stopping").profiles["quick"].settings
    values = 3 * settings.size**2
    assert parameter_count(settings.width, settings.layers) < 0.13 * values < values
    assert parameter_count(settings.wide, settings.layers) > values
    noise = claim("fits_little_noise").profiles["quick"].settings
    assert parameter_count(noise.wide, noise.layers) > 3 * noise.size**2


def test_as_many_numbers_in_every_arm(tmp_path: Path) -> None:
    one = claim("compression_strong")()
    settings = one.profiles["smoke"].settings
    data = one.load(settings, None)
    for ratio in claims_pictures.RATIOS:
        found = {one.trial(f"{who}_{ratio}", 0, settings, data, record(tmp_path))["numbers"]
                 for who in ("decoder", "cdf97", "dct", "no_upsampling")}  # fmt: skip
        assert len(found) == 1


def test_widths_of_the_quick_profile() -> None:
    settings = claim("compression").profiles["quick"].settings
    widths = [claims_pictures.width_for_ratio(r, (settings.size,) * 2, settings.layers)
              for r in claims_pictures.RATIOS.values()]  # fmt: skip
    assert widths == [8, 18]


def test_shuffled_pixels_are_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def keep(net: DeepDecoder, image: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen[net.upsample, len(seen)] = image
        return image * 0.9

    monkeypatch.setattr(claims_pictures, "fit_picture", keep)
    one = claim("upsampling")()
    settings = one.profiles["smoke"].settings
    data = one.load(settings, None)
    for arm in ("none", "none_shuffled", "bilinear_shuffled"):
        one.trial(arm, 0, settings, data, record(tmp_path))
    whole, shuffled, other = seen.values()
    assert [name for name, _ in seen] == ["none", "none", "bilinear"]
    assert not torch.equal(whole, shuffled) and torch.equal(shuffled, other)
    by_pixel = lambda x: x.flatten(2)[0].T.unique(dim=0)
    assert torch.equal(by_pixel(whole), by_pixel(shuffled))


def test_the_stopped_prior_is_trained_once_and_read_twice(smoke: dict[str, dict[str, Any]]) -> None:
    metrics = smoke["denoise"]["metrics"]
    for seed in metrics["dip_blind"]:
        blind, oracle = metrics["dip_blind"][seed], metrics["dip_oracle"][seed]
        assert oracle["psnr"] == blind["psnr_oracle"] >= blind["psnr"]
        assert {**oracle, "psnr": blind["psnr"]} == blind
    for long in smoke["no_early_stopping"]["metrics"]["dip"].values():
        assert long["end_minus_best"] <= 0 and long["psnr"] >= long["psnr_variance"]


@pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
def test_the_prior_has_the_recipe_of_its_own_claim(profile: str) -> None:
    theirs, ours = DipDenoise.profiles[profile], claim("denoise").profiles[profile]
    for a, b in ((theirs.settings, ours.settings), (theirs.cuda, ours.cuda)):
        if a is not None:
            assert (a.size, a.steps, a.width, a.scales, a.ema, a.sigma_p) == (
                b.size, b.dip_steps, b.dip_width, b.scales, b.ema, 1 / 30
            )  # fmt: skip
            assert DipDenoise.sigma == b.sigma / 255


def test_the_prior_is_that_of_its_own_claim(tmp_path: Path) -> None:
    """To the bit: on the same noisy picture, with the same streams of random numbers."""
    one, theirs = claim("denoise")(), DipDenoise()
    settings = one.profiles["smoke"].settings
    truth = one.load(settings, None).crop(0, settings.size, torch.Generator().manual_seed(1))
    noisy = truth + 25 / 255 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    one.stopped(tmp_path, settings, noisy, truth, record(tmp_path))
    found = load_state(tmp_path / claims_noise.FOUND)
    options = {"target": noisy, "noise": estimate_noise(noisy)}
    expected = theirs.judged("dip", 5, theirs.profiles["smoke"].settings, truth, noisy, record(tmp_path), options)
    assert found["metrics"] == {name: expected[name] for name in found["metrics"]} and "psnr" in found["metrics"]
    assert len(found["psnr"]) == settings.dip_steps
    assert float(psnr(found["picture"].clamp(0, 1), truth)) == pytest.approx(expected["psnr"], abs=1e-6)


def test_noise_is_25_in_each_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def keep(method: Any, grid: Any, score: Any) -> tuple[torch.Tensor, float]:
        made = method(grid[0])
        seen.append(score(made))
        return made, grid[0]

    monkeypatch.setattr(claims_noise, "best_of", keep)
    monkeypatch.setattr(claims_noise, "total_variation", lambda noisy, value: noisy)
    one = claim("denoise")()
    settings = one.profiles["quick"].settings
    metrics = one.trial("tv", 10_000, settings, one.load(settings, None), record(tmp_path, 10_000))
    assert 20 < metrics["psnr_noisy"] < 20.7 and metrics["psnr"] == seen[0] == metrics["psnr_noisy"]


def test_a_users_picture(tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "mine.png"
    Image.fromarray((torch.rand(40, 50, 3).numpy() * 255).astype("uint8")).save(file)
    one = claim("compression")()
    settings = one.profiles["smoke"].settings
    assert one.trial("haar_high", 0, settings, one.load(settings, file), record(tmp_path))["psnr"] > 5
