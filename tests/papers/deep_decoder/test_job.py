"""The job: each task on a small picture, codes in another process, and inputs that make no sense."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.papers.deep_decoder.job_runs import run, saved, smooth

from precis.data.images import as_float, read_image
from precis.errors import InputError, Stopped
from precis.papers.catalogue import find
from precis.papers.deep_decoder.pictures import sheet
from precis.papers.opening import make_job


def pixels(path: Path) -> np.ndarray:
    return read_image(path).pixels


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(((as_float(a) - as_float(b)) ** 2).mean()))


def test_a_code_and_its_picture_in_a_fresh_process(tmp_path: Path) -> None:
    picture = smooth(40, 56)
    done = run(tmp_path / "c", saved(tmp_path, picture), ratio=0.25, bits=12, steps=150)
    code = tmp_path / "c" / "code.pdd"
    made = pixels(tmp_path / "c" / "decoded.png")
    assert done.metrics["bytes"] == code.stat().st_size < picture.size
    assert done.metrics["psnr"] == pytest.approx(psnr(made, picture), abs=1e-3) and done.metrics["psnr"] > 22
    assert abs(done.metrics["psnr"] - done.metrics["psnr_unrounded"]) < 0.3
    assert done.metrics["bytes_jpeg"] <= max(done.metrics["bytes"], 700) and done.metrics["psnr_jpeg"] > 10
    assert {"overview.png", "error.png", "loss.png", "model.safetensors", "config.json"} <= set(done.result["files"])
    assert len({(tmp_path / "c" / name).stat().st_mode for name in ("model.safetensors", "report.md")}) == 1
    command = [sys.executable, "-m", "precis", "run", "deep_decoder", str(code), "--out", str(tmp_path / "d"), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert found["settings"]["task"] == "decompress" or found["task"] == "decompress"
    assert np.array_equal(pixels(tmp_path / "d" / "decoded.png"), made)


def test_a_run_that_was_cut_off_after_its_training_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise Stopped("killed")

    picture = saved(tmp_path, smooth(24, 24))
    with monkeypatch.context() as patch:
        patch.setattr("precis.papers.running._result", cut_off)
        with pytest.raises(Stopped):
            run(tmp_path / "c", picture, ratio=0.25, steps=20)
    steps: list[int] = []
    listen = lambda event: steps.append(event["step"]) if event["event"] == "log" else None
    run(tmp_path / "c", picture, ratio=0.25, steps=20, resume=True, listen=listen)
    assert set(steps) <= {20} and not (tmp_path / "c" / ".checkpoint").exists()


def test_bytes_are_a_promise(tmp_path: Path) -> None:
    done = run(tmp_path / "c", saved(tmp_path, smooth(40, 40)[:1]), bytes=900, bits=8, steps=10)
    assert 700 < done.metrics["bytes"] <= 900
    assert pixels(tmp_path / "c" / "decoded.png").shape == (1, 40, 40)


def test_denoise_keeps_noise_out(tmp_path: Path) -> None:
    clean = smooth(48, 48)
    noise = 25 * np.random.default_rng(0).standard_normal(clean.shape)
    noisy = saved(tmp_path, np.clip(clean + noise, 0, 255).astype(np.uint8), "noisy.png")
    reference = saved(tmp_path, clean, "clean.png")
    done = run(tmp_path / "d", noisy, sigma="auto", reference=reference, steps=250)
    assert 18 < done.metrics["sigma_estimated"] < 32
    assert done.metrics["psnr"] > done.metrics["psnr_noisy"] + 5
    assert done.metrics["psnr"] == pytest.approx(psnr(pixels(tmp_path / "d" / "restored.png"), clean), abs=0.1)
    assert done.metrics["psnr_non_local_means"] > done.metrics["psnr_noisy"]
    assert "psnr.png" in done.result["files"]


def test_superres_is_consistent_with_what_was_given(tmp_path: Path) -> None:
    large = smooth(64, 64)
    small = Image.fromarray(np.moveaxis(large, 0, -1)).resize((16, 16), Image.Resampling.LANCZOS)
    small.save(tmp_path / "small.png")
    reference = saved(tmp_path, large, "large.png")
    done = run(tmp_path / "s", tmp_path / "small.png", factor=4, reference=reference, steps=250)
    made = pixels(tmp_path / "s" / "restored.png")
    assert made.shape == (3, 64, 64) and done.metrics["psnr"] > 25
    again = Image.fromarray(np.moveaxis(made, 0, -1)).resize((16, 16), Image.Resampling.LANCZOS)
    assert psnr(np.moveaxis(np.asarray(again), -1, 0), pixels(tmp_path / "small.png")) > 28


@pytest.mark.parametrize("by", ["mask", "inverted", "alpha"])
def test_inpaint(tmp_path: Path, by: str) -> None:
    clean = smooth(40, 48)
    known = np.random.default_rng(1).random((1, 40, 48)) < 0.5
    damaged = np.where(known, clean, 0).astype(np.uint8)
    options: dict = {}
    if by == "alpha":
        Image.fromarray(np.moveaxis(np.concatenate([damaged, 255 * known.astype(np.uint8)]), 0, -1)).save(
            tmp_path / "p.png"
        )
        options["task"] = "inpaint"
    else:
        saved(tmp_path, damaged, "p.png")
        mask = 1.0 * (known if by == "mask" else ~known)
        options = {"mask": saved(tmp_path, mask, "mask.png"), "invert_mask": by == "inverted"}
    done = run(tmp_path / "i", tmp_path / "p.png", reference=saved(tmp_path, clean, "clean.png"), steps=200, **options)
    made = pixels(tmp_path / "i" / "restored.png")
    assert np.array_equal(made[:, known[0]], clean[:, known[0]])
    assert done.metrics["psnr"] > 24 and done.metrics["share_known"] == pytest.approx(known.mean())


def test_unknown_pixels_do_not_bleed_into_a_reduced_picture(tmp_path: Path) -> None:
    clean = np.full((3, 64, 64), 200, np.uint8)
    known = np.random.default_rng(1).random((64, 64)) < 0.7
    picture = saved(tmp_path, (clean * known).astype(np.uint8))
    mask = saved(tmp_path, 1.0 * known, "mask.png")
    run(tmp_path / "i", picture, mask=mask, size=32, steps=3)
    made = pixels(tmp_path / "i" / "restored.png")
    assert made.shape == (3, 32, 32) and (abs(made.astype(int) - 200) <= 2).mean() > 0.6


def test_pictures_keep_their_size_in_tiles_that_fade(tmp_path: Path) -> None:
    """None of the three reduces a picture unless --size asks; enlarged means `factor` times larger than INPUT."""
    clean = smooth(30, 300)
    mask = saved(tmp_path, 1.0 * (np.random.default_rng(0).random((1, 30, 300)) < 0.5), "mask.png")
    given = saved(tmp_path, clean)
    cases = {"denoise": ({"sigma": "20"}, 1, 2), "superres": ({"factor": 4}, 4, 6), "inpaint": ({"mask": mask}, 1, 2)}
    for task, (options, factor, tiles) in cases.items():
        done = run(tmp_path / task, given, steps=2, width=8, **options)
        assert pixels(tmp_path / task / "restored.png").shape == (3, 30 * factor, 300 * factor)
        assert done.metrics["tiles"] == tiles
        notes = " ".join(done.result["notes"])
        assert f"{tiles} tiles of 256 pixels" in notes and "about a minute" in notes and "reduced" not in notes
    assert run(tmp_path / "whole", given, sigma="20", steps=2, width=8, tile=0).metrics["tiles"] == 1
    small = run(tmp_path / "small", given, sigma="20", steps=2, width=8, size=100)
    assert pixels(small.folder / "restored.png").shape == (3, 10, 100)
    assert any("reduced to 100×10" in note for note in small.result["notes"])


def test_tiles_are_seen_against_their_part_of_the_reference(tmp_path: Path) -> None:
    clean = smooth(64, 96)
    given = saved(tmp_path, clean)
    done = run(tmp_path / "t", given, sigma="20", steps=150, width=24, tile=64, reference=given)
    assert done.metrics["tiles"] == 2 and done.metrics["psnr"] > 25
    made = as_float(pixels(tmp_path / "t" / "restored.png"))
    assert np.abs(np.diff(made, axis=-1) - np.diff(as_float(clean), axis=-1)).max() < 0.1  # no seam


def test_a_stopped_run_goes_on_at_its_tile(tmp_path: Path) -> None:
    from precis.papers.running import run_job

    paper, picture = find()["deep_decoder"], saved(tmp_path, smooth(64, 96))
    job = lambda: make_job(paper, picture, device="cpu", sigma="20", steps=3, width=8, tile=64)
    calls = iter(range(100))
    with pytest.raises(Stopped):
        run_job(paper, job(), out=tmp_path / "r", stopping=lambda: next(calls) > 3)
    assert (tmp_path / "r" / ".checkpoint" / "0.safetensors").exists()
    run_job(paper, job(), out=tmp_path / "r", resume=True)
    run_job(paper, job(), out=tmp_path / "w")
    assert (tmp_path / "r" / "restored.png").read_bytes() == (tmp_path / "w" / "restored.png").read_bytes()


def test_a_hole_larger_than_the_tiles_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    known = np.ones((1, 32, 260))
    known[..., 60:200] = 0
    mask = saved(tmp_path, known, "mask.png")
    with pytest.raises(InputError, match="--tile 0 fits it whole"):
        run(tmp_path / "out", saved(tmp_path, smooth(32, 260)), mask=mask, tile=64)
    assert not (tmp_path / "out").exists()


def test_pictures_side_by_side_are_of_one_size_with_captions_of_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[tuple[list[np.ndarray], list[str]]] = []
    for module in ("tasks_code", "tasks_restore"):
        module = f"precis.papers.deep_decoder.{module}"
        monkeypatch.setattr(f"{module}.sheet", lambda tiles, labels: seen.append((tiles, labels)) or b"")
    given = saved(tmp_path, smooth(24, 32))
    run(tmp_path / "s", given, factor=4, steps=1, width=8, reference=saved(tmp_path, smooth(96, 128), "large.png"))
    assert {tile.shape for tile in seen[-1][0]} == {(3, 96, 128)} and len(seen[-1][0]) == 4
    run(tmp_path / "c", given, steps=1, width=8)
    assert len(seen[-1][0]) == 5
    monkeypatch.undo()
    for (tiles, _), width in ((seen[0], 128), (seen[1], 32)):
        labels = ["Deep Decoder, 28.5 dB, 123,456 bytes"] * len(tiles)
        made = Image.open(io.BytesIO(sheet(tiles, labels)))
        factor = -(-310 // width)
        line = 24  # one
        assert made.size == (10 + len(tiles) * (width * factor + 10), 10 + tiles[0].shape[1] * factor + line + 10)


@pytest.mark.parametrize("task", ["compress", "decompress", "denoise", "superres", "inpaint"])
def test_samples(tmp_path: Path, task: str) -> None:
    small = {} if task == "decompress" else {"size": 64, "steps": 3}
    done = run(tmp_path / task, task=task, **small)
    assert done.result["files"][0] == ("decoded.png" if task == "decompress" else "overview.png")
    assert any("built-in sample" in note for note in done.result["notes"])


def test_interrupted_runs_go_on(tmp_path: Path) -> None:
    from precis.errors import Stopped
    from precis.papers.running import run_job

    paper, picture = find()["deep_decoder"], saved(tmp_path, smooth())
    job = lambda: make_job(paper, picture, device="cpu", steps=30)
    calls = iter([False, False, *([True] * 100)])
    with pytest.raises(Stopped):
        run_job(paper, job(), out=tmp_path / "r", stopping=lambda: next(calls))
    assert (tmp_path / "r" / ".checkpoint").exists() and not (tmp_path / "r" / "result.json").exists()
    run_job(paper, job(), out=tmp_path / "r", resume=True)
    whole = run(tmp_path / "w", picture, steps=30)
    assert (tmp_path / "r" / "code.pdd").read_bytes() == (tmp_path / "w" / "code.pdd").read_bytes()
    assert not (tmp_path / "r" / ".checkpoint").exists() and whole.metrics["psnr"] is not None


def test_large_pictures_are_reduced_and_alpha_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.concatenate([smooth(60, 90), np.full((1, 60, 90), 128, np.uint8)])
    Image.fromarray(np.moveaxis(rgba, 0, -1)).save(tmp_path / "p.png")
    done = run(tmp_path / "c", tmp_path / "p.png", size=45, steps=5, width=6)
    assert pixels(tmp_path / "c" / "decoded.png").shape == (3, 30, 45)
    assert any("reduced to 45×30" in note for note in done.result["notes"])
    assert any("laid on white" in note for note in done.result["notes"])


def test_files_that_are_no_code(tmp_path: Path) -> None:
    run(tmp_path / "c", saved(tmp_path, smooth()), width=5, steps=3)
    data = (tmp_path / "c" / "code.pdd").read_bytes()
    cases = {
        "damaged": (data[:-1] + bytes([data[-1] ^ 1]), "checksum is wrong"),
        "cut": (data[: len(data) // 2], "checksum is wrong"),
        "short": (data[:9], "cut short"), "empty": (b"", "magic number"),
        "new": (data[:4] + b"\x07" + data[5:], "version 7; this reads version 1"),
        "other": (b"PK\x03\x04" + data[4:], "magic number"),
    }  # fmt: skip
    for name, (content, words) in cases.items():
        (tmp_path / f"{name}.pdd").write_bytes(content)
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", tmp_path / f"{name}.pdd")
    command = [sys.executable, "-m", "precis", "run", "deep_decoder", str(tmp_path / "cut.pdd"), "--out", "out"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2 and len(found.stderr.strip().splitlines()) == 1 and "Traceback" not in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"ratio": 1e-4}, "the least is"),
    ({"bytes": 50}, "is the least"),
    ({"ratio": 0.1, "width": 8}, "give one of them"),
    ({"rates": "0.1,0.2", "width": 8}, "--rates and --width each say"),
    ({"rates": "0.0001,0.2"}, "--rates: ratio 0.0001 .* the least is"),
    ({"rates": "0.1"}, "--rates must be auto, or two to 12 ratios"),
    ({"rates": "0.1,eleven"}, "got '0.1,eleven'"),
    ({"rates": "0.1,nan"}, "--rates must be"),
    ({"sigma": "9", "rates": "auto"}, "--rates belongs to --task compress, not to denoise"),
    ({"factor": 4, "bits": 8}, "--bits belongs to --task compress, not to superres"),
    ({"task": "compress", "sigma": "25"}, "--sigma belongs to --task denoise"),
    ({"sigma": "0"}, "--sigma must be"),
    ({"sigma": "much"}, "--sigma must be"),
    ({"task": "inpaint"}, "needs --mask"),
    ({"ratio": 0.1, "tile": 64}, "--tile belongs to --task denoise or superres or inpaint"),
    ({"sigma": "9", "tile": 20}, "--tile must be at least 64"),
    ({"task": "decompress", "steps": 1}, "--steps belongs to"),
    ({"task": "decompress", "steps": None}, "magic number"),
    ({"sigma": "auto", "reference": Path("none.png")}, "no such file"),
])  # fmt: skip
def test_options_that_make_no_sense(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", saved(tmp_path, smooth()), **options)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_no_picture(tmp_path: Path) -> None:
    picture = saved(tmp_path, smooth())
    (tmp_path / "words.txt").write_text("no picture\n")
    with pytest.raises(InputError, match="works on a picture"):
        run(tmp_path / "out", tmp_path / "words.txt")
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "out", tmp_path / "none.png")
    with pytest.raises(InputError, match="not a folder"):
        run(tmp_path / "out", tmp_path)
    run(tmp_path / "c", picture, width=5, steps=3)
    with pytest.raises(InputError, match="decompress brings its picture back"):
        run(tmp_path / "out", tmp_path / "c" / "code.pdd", task="denoise")
    with pytest.raises(InputError, match="8×8"):
        run(tmp_path / "out", saved(tmp_path, smooth(4, 30), "thin.png"))
    for value, words in ((0, "nothing is known"), (255, "nothing is unknown")):
        mask = saved(tmp_path, np.full((24, 32), value, np.uint8), "mask.png")
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", picture, mask=mask)
    with pytest.raises(InputError, match="the reference is 32×24"):
        run(tmp_path / "out", picture, factor=2, reference=picture)
    with pytest.raises(InputError, match="the mask is 30×24"):
        run(tmp_path / "out", picture, mask=saved(tmp_path, smooth(24, 30), "m.png"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("steps", 0), ("width", 3), ("ratio", 0.0), ("bytes", 0), ("size", 4)])
def test_numbers_out_of_range(option: str, value: float) -> None:
    with pytest.raises(InputError, match="--" + option):
        make_job(find()["deep_decoder"], **{option: value})
