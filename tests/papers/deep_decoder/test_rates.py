"""Codes of several sizes of one picture: what is fitted, what is written, what it is held against."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.papers.deep_decoder.job_runs import run, saved, smooth

from precis.data.images import as_float, read_image
from precis.errors import Stopped
from precis.papers.catalogue import find
from precis.papers.deep_decoder.codecs import FORMS, at_bytes, decoded, ladder, shortest_or_fitting
from precis.papers.opening import make_job
from precis.papers.running import run_job

RATES = "0.1,0.3"


def table(folder: Path) -> list[dict[str, float]]:
    with (folder / "rate.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_table_says_what_the_files_are(tmp_path: Path) -> None:
    picture = smooth(24, 40)
    done = run(tmp_path / "r", saved(tmp_path, picture), rates=RATES)
    rows = table(done.folder)
    assert done.result["files"][:2] == ["rate.png", "overview.png"] and done.metrics["codes"] == len(rows) == 2
    assert rows[0]["bytes"] < rows[1]["bytes"] and rows[0]["width"] < rows[1]["width"]
    for row in rows:
        width = int(row["width"])
        code, shown = done.folder / f"code_k{width}.pdd", read_image(done.folder / f"decoded_k{width}.png").pixels
        assert code.stat().st_size == row["bytes"] == done.metrics[f"k{width}_bytes"]
        error = as_float(shown) - as_float(picture)
        assert row["psnr"] == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-3)
        again = run(tmp_path / f"d{width}", code)
        assert np.array_equal(read_image(again.folder / "decoded.png").pixels, shown)
        for name in FORMS:
            file, made = at_bytes(picture, int(row["bytes"]), name) or (b"", None)
            assert len(file) == row.get(f"bytes_{name}", 0)
    assert not (done.folder / "decoded.png").exists() and not (done.folder / ".checkpoint").exists()
    assert any("2 decoders of" in note and "minute" in note for note in done.result["notes"])


def test_each_is_the_code_that_its_ratio_alone_gives(tmp_path: Path) -> None:
    given = saved(tmp_path, smooth(24, 40))
    done = run(tmp_path / "r", given, rates="0.3,0.1")
    widths = [int(row["width"]) for row in table(done.folder)]
    for width, ratio in zip(widths, (0.1, 0.3), strict=True):
        alone = run(tmp_path / f"{width}", given, ratio=ratio)
        assert alone.metrics["width"] == width
        assert (alone.folder / "code.pdd").read_bytes() == (done.folder / f"code_k{width}.pdd").read_bytes()


def test_a_stopped_run_goes_on_at_its_code(tmp_path: Path) -> None:
    paper, given = find()["deep_decoder"], saved(tmp_path, smooth(24, 40))
    job = lambda: make_job(paper, given, device="cpu", rates=RATES, steps=6)
    fitted = lambda: list((tmp_path / "r" / ".checkpoint").glob("k*.safetensors"))
    with pytest.raises(Stopped):
        run_job(paper, job(), out=tmp_path / "r", stopping=lambda: bool(fitted()))
    assert len(fitted()) == 1 and not (tmp_path / "r" / "rate.csv").exists()
    run_job(paper, job(), out=tmp_path / "r", resume=True)
    whole = run(tmp_path / "w", given, rates=RATES, steps=6)
    for code in whole.folder.glob("*.pdd"):
        assert (tmp_path / "r" / code.name).read_bytes() == code.read_bytes()
    assert (tmp_path / "r" / "rate.csv").read_bytes() == (whole.folder / "rate.csv").read_bytes()


def test_ratios_of_one_width_are_fitted_once(tmp_path: Path) -> None:
    done = run(tmp_path / "r", saved(tmp_path, smooth()), rates="0.1,0.1001,0.2", steps=3)
    assert len(table(done.folder)) == 2
    assert any("each was fitted once" in note for note in done.result["notes"])


def test_a_grey_picture_has_a_curve_as_well(tmp_path: Path) -> None:
    """WebP knows colour only: its grey is one channel again, and good where there are bytes enough."""
    picture = smooth(32, 32)[:1]
    done = run(tmp_path / "r", saved(tmp_path, picture), rates="0.2,0.4", steps=3)
    assert all(row["psnr_jpeg"] > 20 for row in table(done.folder))
    if found := at_bytes(picture, 5000, "webp"):
        assert found[1].shape == (1, 1, 32, 32)
        assert np.abs(found[1][0].numpy() - as_float(picture)).max() < 0.06


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_the_best_file_that_fits(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    files = ladder(noise, name)
    if files is None:
        pytest.skip(f"this build of Pillow writes no {FORMS[name]}")
    sizes = sorted(map(len, files))
    for most in (sizes[len(sizes) // 2], sizes[-1]):
        assert len(shortest_or_fitting(files, most)) == most
    assert len(shortest_or_fitting(files, 10)) == sizes[0] > 10
    assert decoded(files[-1], 3).shape == (1, 3, 32, 32)
