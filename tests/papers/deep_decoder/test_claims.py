"""Deep Decoder's claims: each runs through `check`, and what its parts rest on."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from precis.fields.deep_decoder import DeepDecoder, parameter_count
from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of
from precis.lab.plan import arms_at
from precis.lab.recorder import TrialRecord
from precis.papers.deep_decoder import claims_noise, claims_pictures
from precis.papers.frontmatter import read_front_matter

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
    assert len(keys["denoise"] & keys["no_early_stopping"]) == 2 * 2


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


def test_the_prior_is_trained_once_and_read_twice(smoke: dict[str, dict[str, Any]]) -> None:
    metrics = smoke["denoise"]["metrics"]
    for seed in metrics["dip_blind"]:
        blind, oracle = metrics["dip_blind"][seed], metrics["dip_oracle"][seed]
        assert oracle["psnr"] >= blind["psnr"] and blind["end_minus_best"] == oracle["end_minus_best"]
        assert blind["end_minus_best"] <= 0


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
