"""SIREN's claims about pictures, equations and bytes: each runs through `check`, and what its parts rest on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from precis.data.embedded import photo
from precis.data.kinds import kinds_of
from precis.errors import InputError
from precis.lab.check import check
from precis.lab.fingerprint import source_fingerprint
from precis.lab.loading import PaperSource, claims_of
from precis.lab.plan import arms_at
from precis.lab.recorder import TrialRecord
from precis.papers.frontmatter import read_front_matter
from precis.papers.siren import arms, claims_between, claims_equations, claims_images, container, crops

FOLDER = Path(claims_images.__file__).parent
SOURCE = PaperSource("siren", FOLDER, "precis.papers.siren")
NAMES = (
    "fits_signal_and_derivatives", "derivative_only", "true_derivatives_between_samples",
    "estimated_derivatives_between_samples", "gradient_blend", "boundary_value", "compressed", "derivative_family",
)  # fmt: skip


def claim(name: str) -> Any:
    return claims_of(SOURCE)[name]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def record(folder: Path, seed: int = 0, lr: float = 5e-4) -> TrialRecord:
    return TrialRecord(folder / f"{seed}", seed, tuned={"lr": lr})


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
    # nothing that a hypothesis reads is missing
    assert not [row["text"] for row in entry["hypotheses"] if "missing" in row["note"]]


def test_two_claims_read_one_set_of_fits(smoke: dict[str, dict[str, Any]]) -> None:
    assert set(smoke["compressed"]["keys"]) < set(smoke["fits_signal_and_derivatives"]["keys"])


def test_statements_are_the_summarys_and_in_its_order() -> None:
    summary = read_front_matter(FOLDER / "summary.md").claims
    found = claims_of(SOURCE)
    assert {name: one.statement for name, one in found.items()} == {name: summary[name] for name in found}
    assert list(found) == [name for name in summary if name in found]


def test_broken_arms() -> None:
    broken = {name: claim(name).sabotaged for name in NAMES}
    assert broken.pop("compressed") == broken.pop("derivative_family") == {}
    for name, sabotaged in broken.items():
        assert sabotaged and set(sabotaged.values()) <= set(claim(name).arms)
    net = arms.make_net("omega_one", 48, 64, seeded())
    assert {layer.scale for layer in net.layers} == {1.0}
    assert float(net.layers[1].weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / 64), rel=0.01)


def test_boundary_only_has_no_residual(tmp_path: Path) -> None:
    settings = claims_equations.Oscillation(3, points=32, width=16)
    for arm, differs in (("siren", True), ("boundary_only", False)):
        # what the residual's wavenumber is, the broken arm never sees
        found = []
        for wavenumber in (3.0, 3.0 + 2 * math.pi):     # cos k is the same at ±1
            made = record(tmp_path, lr=1e-3)
            claims_equations.solve(arm, wavenumber, settings, [made])
            found.append(torch.tensor(made.summary()["curves"]["solution"]["y"]))
        assert bool((found[0] - found[1]).abs().max() > 1e-4) == differs


def test_permuted_targets_are_the_same_numbers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def keep(who: str, rows: torch.Tensor, kind: str, truth: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen[len(seen)] = rows
        return truth

    monkeypatch.setattr(claims_images, "rebuild", keep)
    one = claim("derivative_only")()
    settings = one.profiles["smoke"].settings
    data = one.load(settings, None)
    for arm in ("siren_gradient", "permuted_gradient"):
        one.trial(arm, 0, settings, data, record(tmp_path))
    whole, permuted = seen.values()
    assert not torch.equal(whole, permuted)
    assert torch.equal(whole[:, 0, 0].sort().values, permuted[:, 0, 0].sort().values)


def test_a_row_does_not_depend_on_its_mates(tmp_path: Path) -> None:
    one, settings = claim("boundary_value")(), claims_equations.Oscillation(40, points=32)
    for arm in one.arms:
        rows = []
        for seeds in ((1,), (0, 1, 2, 3, 4)):
            records = {(arm, s): record(tmp_path, s) for s in seeds}
            rows.append({s: m["log_error"] for _, s, m in one.batch((arm,), seeds, settings, None, records)})
        assert rows[0][1] == pytest.approx(rows[1][1], abs=1e-5)


@pytest.mark.parametrize("samples", [16, 32, 48])
def test_arms_have_as_many_parameters(samples: int) -> None:
    counts = {arm: sum(p.numel() for p in arms.make_net(arm, samples, 64, seeded()).parameters())
              for arm in ("siren", "relu", "tanh", "relu_pe", "omega_one")}  # fmt: skip
    assert all(abs(count - counts["siren"]) <= 0.02 * counts["siren"] for count in counts.values())


def test_crops_are_paired_repeatable_and_never_the_pilot() -> None:
    pictures = crops.load_pictures(None, 48, 96)
    assert [min(p.shape) for p in (*pictures.scored, pictures.pilot)] == [96] * 4
    assert torch.equal(pictures.crop(1, 48, seeded(5)), pictures.crop(1, 48, seeded(5)))
    assert pictures.of(0) is pictures.of(3) and pictures.of(0) is not pictures.of(1)
    assert pictures.of(10_000) is pictures.pilot
    assert crops.PILOT not in (*crops.SCORED, *claims_images.MORE)
    camera = photo("camera").astype(np.float64)[0] / 255
    assert pictures.scored[0].mean() == pytest.approx(camera.mean(), abs=1e-3)      # an average keeps the mean


def test_area_average() -> None:
    picture = np.arange(64, dtype=np.float32).reshape(8, 8) / 64
    assert np.allclose(crops.reduce(picture, 4), picture.reshape(4, 2, 4, 2).mean((1, 3)), atol=1e-6)
    assert crops.reduce(picture, 16) is picture


def test_users_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("a", (60, 50, 3)), ("b", (120, 100))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    assert "images" in kinds_of(tmp_path)
    pictures = crops.load_pictures(tmp_path, 48, 96)
    assert [p.shape for p in pictures.scored] == [(60, 50), (115, 96)]      # the smaller one is taken as it is
    assert crops.load_pictures(tmp_path / "a.png", 48, 96).of(7).shape == (60, 50)
    assert np.array_equal(pictures.pilot, crops.load_pictures(None, 48, 96).pilot)


def test_too_small_pictures_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((200, 40), np.uint8)).save(tmp_path / "narrow.png")
    with pytest.raises(InputError, match="40×200 pixels are too few.*squares of 48"):
        crops.load_pictures(tmp_path / "narrow.png", 48, 96)
    found = [(SOURCE, claim("estimated_derivatives_between_samples"))]
    with pytest.raises(InputError, match="squares of 64"):
        check(found, profile="quick", data=tmp_path / "narrow.png", kinds={"image"}, device="cpu", home=tmp_path / "h")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError):
        crops.load_pictures(tmp_path / "broken.png", 48, 96)


def test_a_check_on_the_users_picture(tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(file)
    one = claim("derivative_only")()
    settings = one.profiles["smoke"].settings
    metrics = one.trial("siren_gradient", 0, settings, one.load(settings, file), record(tmp_path))
    assert metrics["psnr_exact"] > 50


def test_interpolant_of_a_wave_is_the_wave() -> None:
    n, k = 24, 5
    x = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
    rate = math.pi * k / 2
    image = (rate * (x + 1)).cos().expand(n, n)[None]
    gradient, laplacian = crops.interpolant_jet(image)
    assert torch.allclose(gradient[0, 1], (-rate * (rate * (x + 1)).sin()).expand(n, n), atol=1e-9)
    assert gradient[0, 0].abs().max() < 1e-9
    assert torch.allclose(laplacian, -(rate**2) * image, atol=1e-8)


def test_picture_jet_agrees_with_differences() -> None:
    net = arms.make_net("siren", 64, 16, seeded()).double()
    value, gradient, laplacian = claims_images.picture_jet(net, (512, 512))
    h = 2 / 512
    inner = (slice(None), slice(1, -1), slice(1, -1))
    rows = (value[:, 2:, 1:-1] - value[:, :-2, 1:-1]) / (2 * h)
    assert (gradient[:, 0][inner] - rows).abs().max() < 0.03 * gradient.abs().max()
    around = value[:, 2:, 1:-1] + value[:, :-2, 1:-1] + value[:, 1:-1, 2:] + value[:, 1:-1, :-2]
    assert ((around - 4 * value[inner]) / h**2 - laplacian[inner]).abs().max() < 0.03 * laplacian.abs().max()


def test_psnr_of_derivatives() -> None:
    target = torch.linspace(-3, 5, 50).view(1, 5, 10)
    assert arms.derivative_psnr(target, target) == 60
    assert arms.derivative_psnr(target + 0.8, target) == pytest.approx(20)      # a tenth of the range
    flat = torch.zeros(1, 4, 4)
    assert arms.derivative_psnr(flat, flat) == 60 and arms.derivative_psnr(flat + 1, flat) == 0


def test_bicubic_is_exact_on_a_plane_and_scored_between_samples() -> None:
    plane = torch.arange(32.0)[:, None] / 64 + torch.arange(32.0) / 100
    value = claims_between.bicubic(plane[None, ::2, ::2])
    assert torch.allclose(value[0, 4:-6, 4:-6], plane[4:-6, 4:-6], atol=1e-5)
    assert torch.allclose(value[0, ::2, ::2], plane[::2, ::2], atol=1e-5)
    moved = plane[None].clone()
    moved[:, ::2, ::2] += 1         # kept pixels, and the last row and column, are not scored
    moved[:, -1] += 1
    assert claims_between.between(moved, plane[None]) == 60


def test_true_derivatives_are_those_of_the_picture() -> None:
    one = claim("true_derivatives_between_samples")()
    made = one.samples(3, claims_between.Kept(64, 128, 1), None, seeded())
    image = made.image[0].double()
    across = (image[1:-1, 2:] - image[1:-1, :-2]) / (4 / 64)
    found = made.gradient.view(32, 32, 2)[1:-1, 1:-1, 1].double()
    assert torch.corrcoef(torch.stack([across[1:-1:2, 1:-1:2].flatten(), found.flatten()]))[0, 1] > 0.8


def test_container_round_trip() -> None:
    net, again = (arms.make_net("siren", 48, 64, seeded(s)) for s in (0, 1))
    data = container.pack(net)
    container.unpack(data, again)
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert (p - q).abs().max() <= 0.501 * (p.max() - p.min()) / 255
    assert len(data) < 1.05 * sum(p.numel() for p in net.parameters())
    for bad in (b"", b"nothing at all", data[:20], data[:4] + b"\x09" + data[5:]):
        with pytest.raises(ValueError):
            container.unpack(bad, again)
    with pytest.raises(ValueError, match="weights"):
        container.unpack(data, arms.make_net("siren", 48, 32, seeded()))


def test_a_smaller_net_is_a_smaller_file_and_a_flat_tensor_is_kept() -> None:
    net = arms.make_net("siren", 48, 16, seeded())
    with torch.no_grad():
        net.layers[0].bias.fill_(0.25)
    data = container.pack(net)
    again = arms.make_net("siren", 48, 16, seeded(1))
    container.unpack(data, again)
    assert torch.equal(again.layers[0].bias, net.layers[0].bias)


def test_pictures_at_equal_quality() -> None:
    pixels = photo("camera")[0, 200:248, 200:248]
    truth = pixels / 255.0
    sizes = [container.jpeg_of(pixels, truth, psnr) for psnr in (25.0, 35.0, 45.0)]
    assert [size for size, _ in sizes] == sorted(size for size, _ in sizes)
    assert all(found >= psnr - 0.5 for (_, found), psnr in zip(sizes, (25.0, 35.0, 45.0), strict=True))
    png, found = container.png_of(pixels, truth, 200.0)
    assert found > 100 and png > container.png_of(pixels, truth, 30.0)[0]      # lossless, where nothing less will do


def test_shifted_copies() -> None:
    assert claims_equations.shifted_copy_error(np.sin, np.cos, 3.0) < 1e-6
    assert claims_equations.shifted_copy_error(np.tanh, lambda u: 1 - np.tanh(u) ** 2, 3.0) > 0.4


def test_layer_identity_fails_for_another_omega() -> None:
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    assert claims_equations.layer_error(x, 30.0, seeded()) < 1e-10
    third = claims_equations._derivatives(lambda x: torch.tanh(3 * x), x, 3)[2]
    assert (third + 27 * torch.cos(3 * x)).abs().max() > 1


def test_a_change_of_words_moves_no_key() -> None:
    """The two claims on the fits differ in what they say alone."""
    one, other = claim("fits_signal_and_derivatives"), claim("compressed")
    assert source_fingerprint(one) == source_fingerprint(other)
