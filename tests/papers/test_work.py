import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from precis.errors import InputError, Stopped
from precis.papers.work import RunFolder, finite, open_folder, read_events, save, save_table, to_picture, writing

BEGUN = {"paper": "toy", "input": None, "seed": 0, "device": "cpu", "settings": {"steps": 3}}
RESULT = {"paper": "toy", "metrics": {"psnr": 1.0}, "settings": {}}


def start(folder: Path, **more) -> RunFolder:
    folder.mkdir(exist_ok=True)
    return RunFolder(folder, "cpu", BEGUN, **more)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "table.csv"
    with writing(file) as beside:
        beside.write_text("new")
        assert not file.exists() and beside.suffix == ".csv" and beside.parent == file.parent
    assert file.read_text() == "new"
    with pytest.raises(ZeroDivisionError), writing(file) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "new" and [p.name for p in file.parent.iterdir()] == ["table.csv"]


def test_contents_and_tables(tmp_path):
    save(tmp_path / "deep" / "a.bin", b"\0\1")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"\0\1"
    save_table(tmp_path / "t.csv", ("name", "value"), ([name, i] for i, name in enumerate(("a, b", "ü"))))
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == 'name,value\n"a, b",0\nü,1\n'

    def broken():
        yield ["a", 1]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_table(tmp_path / "t.csv", ("name", "value"), broken())
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").endswith("ü,1\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "t.csv"]


def test_a_folder_is_written_whole_too(tmp_path):
    with writing(tmp_path / "model") as beside:
        beside.mkdir()
        (beside / "weights").write_text("w")
    assert (tmp_path / "model" / "weights").read_text() == "w"


@pytest.mark.parametrize(
    ("pixels", "mode", "first"),
    [
        (np.full((2, 3), 0.5), "L", 128),
        (np.ones((1, 2, 3), np.float32), "L", 255),
        (torch.zeros(3, 2, 3, dtype=torch.bfloat16), "RGB", (0, 0, 0)),
        (torch.tensor([[2.0, -1.0]], requires_grad=True), "L", 255),
        (np.full((4, 2, 3), 7, np.uint8), "RGBA", (7, 7, 7, 7)),
        (np.array([[True, False]]), "L", 255),
    ],
)
def test_pictures(pixels, mode, first):
    picture, odd = to_picture(pixels)
    assert picture.mode == mode and picture.getpixel((0, 0)) == first and odd == 0


def test_pictures_that_are_none():
    for shape in [(2,), (2, 4, 4), (3, 0, 4), (1, 3, 4, 4)]:
        with pytest.raises(ValueError, match="a picture is"):
            to_picture(np.zeros(shape))


def test_values_that_are_not_finite_are_told(tmp_path):
    work = start(tmp_path / "run")
    work.image("odd", np.array([[np.nan, 1.0], [np.inf, 0.0]]))
    result = work.finish(RESULT | {"metrics": {"psnr": float("inf"), "loss": float("nan"), "none": None}})
    assert result["metrics"] == {"psnr": None, "loss": None, "none": None}
    assert [note.split()[0] for note in result["notes"]] == ["odd.png:", "psnr", "loss"]
    assert Image.open(tmp_path / "run" / "odd.png").getpixel((0, 0)) == 0
    json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail)


def test_a_later_table_of_the_same_name_replaces_the_first(tmp_path):
    work = RunFolder(tmp_path, "cpu", {})
    work.table("layers", [{"layer": "a", "density": 1.0}])
    work.table("layers", [{"layer": "a", "density": float("nan")}])
    assert work.finish({"metrics": {}})["tables"] == {"layers": [{"layer": "a", "density": None}]}
    (tmp_path / "other").mkdir()
    assert "tables" not in RunFolder(tmp_path / "other", "cpu", {}).finish({"metrics": {}})


def test_finite():
    assert finite({"a": (1, float("nan"), Path("x")), 2: np.float32(0.5), "b": True}) == {
        "a": [1, None, "x"], "2": 0.5, "b": True
    }


def test_what_to_look_at_first_comes_first(tmp_path):
    work = start(tmp_path / "run")
    for name in ("b.csv", "a.txt"):
        (work.folder / name).write_text("x")
    work.image("late", np.zeros((2, 2)))
    work.image("deep/er", np.zeros((2, 2)))
    work.show("a.txt")
    work.show("never.png")
    result = work.finish(RESULT)
    assert result["files"] == ["a.txt", "late.png", "deep/er.png", "b.csv"]
    assert any("never.png" in note for note in result["notes"])
    assert not (work.folder / "run.json").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "result.json"])
def test_names_that_are_not_for_files_of_a_run(tmp_path, name):
    with pytest.raises(ValueError, match="no name"):
        start(tmp_path / "run").show(name)


def test_events_are_whole_lines_in_order(tmp_path):
    heard = []
    work = start(tmp_path / "run", listen=heard.append)
    work.log(1, 2, loss=0.5, psnr=float("-inf"))
    work.image("p", np.zeros((2, 2)), step=1)
    work.note("a\n note")
    work.note("a note")
    events = list(read_events(tmp_path / "run"))
    assert [e["event"] for e in events] == ["log", "image", "note"] == [e["event"] for e in heard]
    assert events[0]["scalars"] == {"loss": 0.5, "psnr": None} and events[1]["step"] == 1
    assert events[2]["text"] == "a note"


def test_stopping_comes_out_of_log(tmp_path):
    work = start(tmp_path / "run", stopping=lambda: True)
    with pytest.raises(Stopped):
        work.log(1, 2)
    assert [e["step"] for e in read_events(tmp_path / "run")] == [1]


def test_going_on_recalls_notes_pictures_and_seconds(tmp_path):
    first = start(tmp_path / "run")
    first.note("kept")
    first.image("p", np.zeros((2, 2)))
    first.show("p.png")
    first.close()
    folder = tmp_path / "run"
    (folder / ".half.123.part.csv").write_text("cut")
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "log", "step": 5, "total": 9, "scalars": {}, "seconds": 1000.0}\n{"event": "no')
    second = start(folder, resume=True)
    assert second.seconds >= 1000
    second.note("kept")
    second.note("new")
    result = second.finish(RESULT)
    assert result["notes"] == ["kept", "new"] and result["files"] == ["p.png"] and result["seconds"] >= 1000
    assert not list(folder.glob(".half*"))
    assert [e["event"] for e in read_events(folder)][-1] == "note"  # the line that was cut off spoils no other


def _hold(folder, ready, done):
    work = RunFolder(folder, "cpu", BEGUN)
    ready.set()
    done.wait(20)
    work.close()


def test_two_runs_never_share_a_folder(tmp_path):
    (tmp_path / "run").mkdir()
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path / "run", ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(InputError, match="another run"):
            start(tmp_path / "run", resume=True)
    finally:
        done.set()
        other.join(20)


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [open_folder(BEGUN, "my photo (1)", None, False)[0].name for _ in range(3)]
    assert names == ["toy-my_photo_1_", "toy-my_photo_1_-2", "toy-my_photo_1_-3"]


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"not empty|no unfinished run"):
            open_folder(BEGUN, "x", tmp_path, resume)
    with pytest.raises(InputError, match="this is a file"):
        open_folder(BEGUN, "x", tmp_path / "mine.txt", False)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.txt"]


def test_resume_finds_the_unfinished_run_of_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no unfinished run"):
        open_folder(BEGUN, "x", None, True)
    folder, resumed, _ = open_folder(BEGUN, "x", None, False)
    work = start(folder)
    work.close()
    assert not resumed and open_folder(BEGUN, "x", None, True)[:2] == (folder, True)
    assert open_folder(BEGUN, "x", folder, True)[:2] == (folder, True)
    for name, other, words in (
        ("settings", {"steps": 4}, "steps: 3, not 4"), ("seed", 1, "seed: 0, not 1"), ("input", "/a.png", "input"),
        ("paper", "another", "paper"),
    ):
        with pytest.raises(InputError, match=words):
            open_folder(BEGUN | {name: other}, "x", folder, True)
    start(folder, resume=True).finish(RESULT)
    with pytest.raises(InputError, match="finished"):
        open_folder(BEGUN, "x", folder, True)


def test_discarding_leaves_no_folder_but_what_others_put_there(tmp_path):
    folder, _, made = open_folder(BEGUN, "x", tmp_path / "a" / "b", False)
    work = RunFolder(folder, "cpu", BEGUN, made=made)
    work.image("p", np.zeros((2, 2)))
    work.discard()
    assert list(tmp_path.glob("a*")) == []
    folder, _, made = open_folder(BEGUN, "x", tmp_path / "c", False)
    work = RunFolder(folder, "cpu", BEGUN, made=made)
    (folder / "theirs.txt").write_text("x")
    work.discard()
    assert [p.name for p in folder.iterdir()] == ["theirs.txt"]


def test_curves_are_in_the_result_and_long_ones_thinned(tmp_path):
    work = RunFolder(tmp_path, "cpu", BEGUN)
    work.curve("loss", range(1, 10_001), [float(i) for i in range(1, 10_001)])
    work.curve("psnr", [10, 20], [float("inf"), 30.0])
    with pytest.raises(ValueError, match="curve 'odd': 1 steps and 2 values"):
        work.curve("odd", [1], [1.0, 2.0])
    curve = work.finish(RESULT)["curve"]
    assert len(curve["loss"]["steps"]) == 400 and curve["loss"]["steps"] == curve["loss"]["values"]
    assert curve["loss"]["steps"][0] == 1 and curve["loss"]["steps"][-1] == 10_000
    assert curve["psnr"] == {"steps": [10, 20], "values": [None, 30.0]}
