"""The job on small folders: what it leaves, how it starts from others' weights, and inputs that make no sense."""

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.vision.test_mobilenet_weights import TorchvisionLayout

from precis.data.images import write_image
from precis.errors import InputError, RunFailed, Stopped
from precis.papers.catalogue import find
from precis.papers.mobilenet import exporting, running
from precis.papers.mobilenet.reading import natural_size
from precis.papers.mobilenet.running import FORMATS
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job
from precis.train.checkpoint import load_model
from precis.vision.mobilenet import MobileNetV2

QUICK = {"epochs": 1, "width": 0.1, "batch": 16, "export": "none"}


def run(out: Path, given: Any, resume: bool = False, listen: Any = None, **options: Any) -> Finished:
    paper = find()["mobilenet"]
    return run_job(paper, make_job(paper, str(given), device="cpu", **QUICK | options), out=out, resume=resume,
                   listen=listen)  # fmt: skip


@pytest.fixture(scope="module")
def shades(tmp_path_factory) -> Path:
    """Two classes of small pictures that brightness tells apart; one file is broken."""
    folder = tmp_path_factory.mktemp("pictures") / "shades"
    rng = np.random.default_rng(0)
    for kind, low in (("dark", 0), ("light", 140)):
        (folder / kind).mkdir(parents=True)
        for i in range(24):
            write_image(folder / kind / f"{i}.png", (rng.integers(0, 110, (3, 32, 32)) + low).astype(np.uint8))
    (folder / "dark" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def trained(shades, tmp_path_factory) -> Finished:
    formats = "pt2,onnx" if find_spec("onnxruntime") and find_spec("onnxscript") else "pt2"
    return run(tmp_path_factory.mktemp("runs") / "out", shades, epochs=6, export=formats)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Pictures are drawn by the run that all look at (`trained`) only."""
    monkeypatch.setattr(running, "draw_predictions", lambda *_: b"")
    monkeypatch.setattr(running, "draw_confusion", lambda *_: b"")


def test_it_learns_and_leaves_what_one_needs(trained):
    assert trained.metrics["accuracy"] >= 0.7 and trained.metrics["validation_pictures"] == 10
    assert trained.metrics["accuracy_low"] <= trained.metrics["accuracy"] <= trained.metrics["accuracy_high"]
    folder = trained.folder
    files = set(trained.result["files"])
    assert {"model.safetensors", "config.json", "model.pt2", "labels.json", "predictions.csv", "skipped.csv",
            "confusion.png", "report.md"} <= files and trained.result["files"][0] == "predictions.png"  # fmt: skip
    assert not (folder / ".checkpoint").exists() and (folder / "predictions.png").stat().st_size > 5000
    words = json.loads((folder / "labels.json").read_text())
    assert words["classes"] == ["dark", "light"] and words["size"] == 32
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    right = sum(r["label"] == r["predicted"] for r in rows)
    assert len(rows) == 10 and right / 10 == trained.metrics["accuracy"]
    assert {r["set"] for r in rows} == {"validation"} and all(0.5 <= float(r["probability"]) <= 1 for r in rows)
    assert trained.metrics["milliseconds_90th_percentile"] >= trained.metrics["milliseconds_a_picture"] > 0
    assert trained.metrics["pt2_milliseconds"] > 0
    notes = " ".join(trained.result["notes"])
    assert "1 picture could not be read" in notes and "model.pt2 was loaded back and agrees" in notes


def test_the_program_and_the_weights_say_the_same(trained):
    net = load_model(trained.folder)
    program = torch.export.load(str(trained.folder / "model.pt2")).module()
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(program(x), net(x), atol=1e-4)
    assert isinstance(net, MobileNetV2) and net.stem.conv.stride == (1, 1)  # small pictures: the stem keeps them


def test_bytes_are_told_beside_multiplications(trained):
    net, size = load_model(trained.folder), 32
    side, moved = size, 0
    wide = [net.stem.conv.out_channels * side * side]
    for block in net.blocks:
        channels = block.depthwise.conv.in_channels
        after = side // block.stride
        wide.append(channels * side * side)
        moved += channels * (side * side + after * after)
        side = after
    wide.append(net.last.conv.out_channels * side * side)
    assert trained.metrics["MiB_widest_tensor"] == 4 * max(wide) / 2**20
    assert trained.metrics["MiB_through_depthwise"] == 4 * moved / 2**20
    assert trained.metrics["MiB_alive_at_most"] >= trained.metrics["MiB_widest_tensor"]
    notes = " ".join(trained.result["notes"])
    assert "million multiply–accumulates, and depthwise filters read and write" in notes and "computed whole" in notes


def test_wide_tensors_in_parts_take_less_memory_and_say_the_same(trained, shades, tmp_path):
    done = run(tmp_path / "out", shades, epochs=6, export="pt2", expansion_chunks=4)
    assert done.metrics["accuracy"] == trained.metrics["accuracy"]
    assert done.metrics["MiB_alive_at_most"] < 0.7 * trained.metrics["MiB_alive_at_most"]
    assert done.metrics["MiB_widest_tensor"] == trained.metrics["MiB_widest_tensor"]
    parts, whole = (torch.export.load(str(r.folder / "model.pt2")) for r in (done, trained))
    convolutions = [sum("conv2d" in str(n.target) for n in p.graph.nodes) for p in (parts, whole)]
    assert convolutions[0] > 2 * convolutions[1] and "in 4 parts" in " ".join(done.result["notes"])


def test_onnx_is_written_and_agrees(trained):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    session = onnxruntime.InferenceSession(trained.folder / "model.onnx", providers=["CPUExecutionProvider"])
    x, net = torch.rand(3, 3, 32, 32), load_model(trained.folder)
    with torch.no_grad():
        assert np.allclose(session.run(None, {"pictures": x.numpy()})[0], net(x).numpy(), atol=1e-4)
    assert trained.metrics["onnx_milliseconds"] > 0


def test_an_export_that_differs_is_deleted_and_fails(shades, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "need", lambda extra: None)
    monkeypatch.setattr(exporting, "export", lambda *_, **__: b"a program")
    monkeypatch.setattr(exporting, "_loaded", lambda path: lambda x: torch.zeros(len(x), 2) + 9)
    with pytest.raises(RunFailed, match=r"model\.onnx differs from the trained net by .* was deleted"):
        run(tmp_path / "out", shades, export="onnx")
    assert not (tmp_path / "out" / "model.onnx").exists() and (tmp_path / "out" / "model.safetensors").exists()


def test_other_pictures_are_classified_by_a_net_that_goes_on_from_an_earlier_run(trained, shades, tmp_path):
    rng = np.random.default_rng(1)
    other = tmp_path / "other"
    for kind, low in (("a", 0), ("b", 70), ("c", 140)):
        (other / kind).mkdir(parents=True)
        for i in range(8):
            write_image(other / kind / f"{i}.png", (rng.integers(0, 100, (1, 32, 32)) + low).astype(np.uint8))
    done = run(tmp_path / "more", shades, weights=trained.folder, width=None, predict=other)
    rows = list(csv.DictReader((done.folder / "predictions.csv").open()))
    assert [r["set"] for r in rows].count("predict") == 24
    assert {r["label"] for r in rows if r["set"] == "predict"} == {"a", "b", "c"}
    assert "in the layout of ours, width 0.1; the classifier is theirs" in " ".join(done.result["notes"])
    with pytest.raises(InputError, match=r"weights are of width 0\.1, not --width 0\.5"):
        run(tmp_path / "wrong", shades, weights=trained.folder, width=0.5)


def test_an_earlier_runs_classifier_follows_the_names_of_the_classes(trained, shades, tmp_path):
    """The same classes under a name that sorts otherwise keep their outputs; other names get a new classifier."""
    learned = load_model(trained.folder).head.weight
    beside = tmp_path / "earlier"
    beside.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(trained.folder / name, beside)
    (beside / "labels.json").write_text(json.dumps({"classes": ["zebra", "light"]}))
    shutil.copytree(shades, tmp_path / "renamed")
    (tmp_path / "renamed" / "dark").rename(tmp_path / "renamed" / "zebra")
    same = run(tmp_path / "same", tmp_path / "renamed", weights=beside, width=None, lr=1e-6)
    assert (load_model(same.folder).head.weight - learned[[1, 0]]).abs().max() < 1e-3
    assert any("the classifier is theirs, of the same classes" in note for note in same.result["notes"])
    new = run(tmp_path / "new", shades, weights=beside, width=None, lr=1e-6)
    assert (load_model(new.folder).head.weight - learned).abs().max() > 1e-2
    assert any("new, for 2 classes: theirs is of zebra, light" in note for note in new.result["notes"])


def test_other_labelled_pictures_are_scored(trained, shades, tmp_path):
    done = run(tmp_path / "out", shades, weights=trained.folder, width=None, predict=shades, lr=1e-6)
    rows = [r for r in csv.DictReader((done.folder / "predictions.csv").open()) if r["set"] == "predict"]
    right = sum(r["label"] == r["predicted"] for r in rows) / len(rows)
    assert len(rows) == 48 and done.metrics["accuracy_predict"] == pytest.approx(right)
    assert done.metrics["accuracy_predict_low"] < right


def test_published_weights_are_taken_up(shades, tmp_path):
    peer = TorchvisionLayout(1000, 0.1)
    torch.save(peer.state_dict(), tmp_path / "mobilenet_v2.pth")
    done = run(tmp_path / "out", shades, weights=tmp_path / "mobilenet_v2.pth", width=None, lr=1e-6)
    net = load_model(done.folder)
    assert torch.allclose(net.stem.conv.weight, peer.features[0][0].weight, atol=1e-3)
    assert net.input.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert "layout of torchvision, width 0.1; the classifier is new, for 2 classes" in " ".join(done.result["notes"])
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no weights of a MobileNetV2"):
        run(tmp_path / "bad", shades, weights=tmp_path / "other.safetensors", width=None)


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(shades, tmp_path):
    whole = run(tmp_path / "whole", shades, epochs=2)

    def stop(event):
        if event["event"] == "log" and event["step"] >= 2:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(tmp_path / "part", shades, listen=stop, epochs=2)
    resumed = run(tmp_path / "part", shades, resume=True, epochs=2)
    a, b = (load_model(done.folder).state_dict() for done in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_pictures_of_all_kinds_are_read_and_small_ones_enlarged(tmp_path):
    rng = np.random.default_rng(2)
    folder = tmp_path / "kinds"
    modes = {"a": ("RGBA", "P", "CMYK"), "b": ("L", "I;16", "RGB")}
    for kind, found in modes.items():
        (folder / kind).mkdir(parents=True)
        for mode in found:
            if mode == "I;16":
                picture = Image.fromarray(rng.integers(0, 65535, (20, 24)).astype(np.uint16))
            else:
                picture = Image.fromarray(rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)).convert(mode)
            picture.save(folder / kind / f"{mode.replace(';', '')}.{'tiff' if mode == 'CMYK' else 'png'}")
    assert natural_size(folder) == 20
    done = run(tmp_path / "out", folder, batch=4)
    notes = [n for n in done.result["notes"] if "enlarged" in n]
    assert notes == ["pictures of 20 pixels were enlarged to 32: MobileNetV2 halves a picture five times"]
    assert done.metrics["validation_pictures"] == 2


@pytest.mark.parametrize(("options", "words"), [
    ({"width": 0.0}, "--width must be at least"), ({"width": -1.0}, "--width must be at least"),
    ({"size": 16}, "--size must be at least 32"), ({"export": "tflite"}, "--export: pt2 and onnx are known"),
    ({"export": ""}, "--export"), ({"val": 0.0}, "--val must be at least"),
    ({"predict": Path("nowhere")}, "no such file"),
    ({"weights": Path("nowhere")}, "there is no such file"),
])  # fmt: skip
def test_options_that_make_no_sense_are_told_and_leave_no_folder(shades, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", shades, **options)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_learned_from_are_told(shades, tmp_path, monkeypatch):
    picture = np.zeros((3, 32, 32), np.uint8)

    def folder(name: str, **counts: int) -> Path:
        for kind, n in counts.items():
            (tmp_path / name / kind).mkdir(parents=True)
            for i in range(n):
                write_image(tmp_path / name / kind / f"{i}.png", picture)
        return tmp_path / name

    for given, words in (
        (folder("one", a=5), "at least two classes"), (folder("empty", a=5, b=5, c=0), "c: the class folder is empty"),
        (folder("single", a=5, b=5, c=1), "the class c has 1 readable picture; at least two"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", given)
        assert not (tmp_path / "out").exists()

    def missing(extra: str) -> None:
        raise InputError(f"pip install 'precis-papers[{extra}]'")

    monkeypatch.setattr(running, "need", missing)
    monkeypatch.setattr(running, "fit_classifier", lambda *_, **__: pytest.fail("it was trained before"))
    with pytest.raises(InputError, match=r"precis-papers\[onnx\]"):
        run(tmp_path / "out", shades, export="pt2,onnx")
    assert FORMATS == ("pt2", "onnx")


def test_the_sample_is_a_folder_of_tiles(tmp_path):
    from precis.papers.mobilenet.samples import write_tiles

    folder = write_tiles(tmp_path / "tiles")
    counts = {f.name: len(list(f.glob("*.png"))) for f in folder.iterdir()}
    assert len(counts) == 8 and min(counts.values()) >= 24 and max(counts.values()) <= 60 and "cat" in counts
    assert Image.open(folder / "cat" / "00.png").size == (32, 32)
    card = Image.open(find()["mobilenet"].assets / "card.webp")
    assert card.size == (480, 300)
