import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.papers.runs import run_paper, stopped_and_resumed

from precis.data.animation import write_animation
from precis.data.images import write_image
from precis.data.toy_clips import clips
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.invariance.clip_pictures import partners
from precis.papers.invariance.regions import _within
from precis.papers.opening import make_job

QUICK = {"epochs": 2.0, "model": "conv:4x2", "batch": 16, "size": 16}


run = partial(run_paper, "invariance")


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return clips(8, 9, 1, size=16).frames


@pytest.fixture
def folder(films, tmp_path) -> Path:
    """Eight clips of nine frames, in two classes."""
    for i, film in enumerate(films):
        write_animation(tmp_path / "clips" / "ab"[i % 2] / f"{i}", film)
    return tmp_path / "clips"


@pytest.fixture
def measured(tmp_path) -> Path:
    """Bright and dark pictures, of three bases each, in three transforms."""
    rng = np.random.default_rng(0)
    for target, level in (("bright", 180), ("dark", 40)):
        for base in range(3):
            for i in range(3):
                pixels = rng.integers(0, 40, (3, 8, 8)) + level
                (tmp_path / "set" / target / str(base)).mkdir(parents=True, exist_ok=True)
                write_image(tmp_path / "set" / target / str(base) / f"{i}.png", pixels.astype(np.uint8))
    return tmp_path / "set"


def test_clips_are_learned_from_and_neighbours_are_of_other_clips(folder, tmp_path):
    done = run(tmp_path / "out", folder, **QUICK, gap="3", k=5, val_fraction=0.5)
    assert done.metrics["pictures"] == 72 and 0 <= done.metrics["knn_accuracy"] <= 1
    assert "72 frames of 8 uncut clips, partners 3 frames apart" in " ".join(done.result["notes"])
    rows = list(csv.DictReader((done.folder / "neighbours.csv").open()))
    of = lambda name: name.rsplit("/", 1)[0]
    assert len(rows) == 72 * 5 and all(of(r["name"]) != of(r["neighbour"]) for r in rows)
    arrays = np.load(done.folder / "embeddings.npz")
    held = {of(n) for n, s in zip(arrays["names"], arrays["split"]) if s == "val"}
    assert held and not held & {of(n) for n, s in zip(arrays["names"], arrays["split"]) if s == "train"}
    assert {"gallery.png", "map.png", "model.safetensors", "config.json"} <= set(done.result["files"])


def test_a_stopped_run_goes_on_to_the_same_end(folder, tmp_path):
    stopped_and_resumed(run, tmp_path, folder, **QUICK)


def test_every_frame_has_a_partner_in_its_run():
    found = partners([7, 4], 3)
    assert found.tolist() == [3, 4, 5, 6, 1, 2, 3, 10, 10, 7, 7]
    assert partners([5], 3).tolist() == [3, 4, 0, 0, 1]


def test_squares_are_moved_into_the_frame():
    given = torch.tensor([[-4.0, 2, 6, 12], [10, 10, 20, 20], [26, 15, 36, 25], [-10, -10, 40, 40]])
    wanted = [[0, 2, 10, 12], [10, 10, 20, 20], [20, 10, 30, 20], [5, 0, 25, 20]]
    assert _within(given, 30, 20).tolist() == wanted


def test_regions_from_a_table_from_mot_and_found(films, tmp_path):
    write_animation(tmp_path / "clips" / "one", films[0])
    write_animation(tmp_path / "clips" / "two", films[1])
    lines = [f"{clip},{t},{j},{2 + j},{2},{12 + j},{12}" for clip in ("one", "two") for t in range(9) for j in range(2)]
    (tmp_path / "boxes.csv").write_text("clip,frame,track,x0,y0,x1,y1\n" + "\n".join(lines))
    done = run(tmp_path / "out", tmp_path / "clips", **QUICK, gap="2", boxes=str(tmp_path / "boxes.csv"))
    assert done.metrics["pictures"] == 36 and "36 regions of 2 uncut clips" in " ".join(done.result["notes"])
    big = films.repeat(3, 3).repeat(3, 4)
    for i in range(4):
        write_animation(tmp_path / "big" / str(i), big[i])
    found = run(tmp_path / "auto", tmp_path / "big", **QUICK, gap="2", boxes="auto")
    assert found.metrics["pictures"] >= 32 and "regions of" in " ".join(found.result["notes"])
    for text, words in (("one,99,0,0,0,5,5", "has frames 0 to 8"), ("gone,0,0,0,0,5,5", "no clip 'gone'"),
                        ("one,0,0,5,0,5,5", "x0 < x1")):  # fmt: skip
        (tmp_path / "boxes.csv").write_text("clip,frame,track,x0,y0,x1,y1\n" + text)
        with pytest.raises(InputError, match=words):
            run(tmp_path / "no", tmp_path / "clips", **QUICK, gap="2", boxes=str(tmp_path / "boxes.csv"))
    (tmp_path / "mot.txt").write_text("1,1,2,2,10,10\n")
    with pytest.raises(InputError, match="a MOT file is for one clip"):
        run(tmp_path / "no", tmp_path / "clips", **QUICK, gap="2", boxes=str(tmp_path / "mot.txt"))
    assert not (tmp_path / "no").exists()


def test_animated_files_their_rate_cuts_and_short_clips(films, tmp_path):
    (tmp_path / "clips").mkdir()
    for i in range(4):
        write_animation(tmp_path / "clips" / f"{i}.gif", films[i], fps=10)
    write_animation(tmp_path / "clips" / "short.gif", films[4][:2], fps=10)
    done = run(tmp_path / "out", tmp_path / "clips", **QUICK, gap="0.4s")
    assert done.metrics["pictures"] == 36 and "partners 4 frames apart" in " ".join(done.result["notes"])
    assert "short,shorter than 5 frames" in (done.folder / "skipped.csv").read_text()
    joined = np.concatenate([films[0], 255 - films[1] // 4, films[2], 255 - films[3] // 4])
    write_animation(tmp_path / "film.webp", joined, fps=10)
    cut = run(tmp_path / "cut", tmp_path / "film.webp", **QUICK, gap="3", cuts=0.6)
    assert "of 4 uncut clips" in " ".join(cut.result["notes"])
    with pytest.raises(InputError, match="two clips or more are wanted"):
        run(tmp_path / "no", tmp_path / "film.webp", **QUICK, gap="3", cuts=1.0)
    with pytest.raises(InputError, match="4 uncut pieces of at most 9 frames, and 21 are wanted.*--gap.*--cuts"):
        run(tmp_path / "no", tmp_path / "film.webp", **QUICK, gap="20", cuts=0.6)


def test_encoders_are_measured(folder, measured, tmp_path):
    first = run(tmp_path / "first", folder, **QUICK)
    (tmp_path / "net.py").write_text(
        "import torch\nclass Mean(torch.nn.Module):\n    def forward(self, x):\n"
        "        m = x.mean((2, 3))\n        return torch.cat([m, 1 - m], 1)\n"
    )
    spec = f"{tmp_path / 'net.py'}:Mean"
    done = run(tmp_path / "out", measured, measure=(spec, str(first.folder)), units=1)
    assert done.result["files"][0] == "invariance.png" and done.metrics["score"] == 100 > 80 > done.metrics["shuffled"]
    rows = list(csv.DictReader((done.folder / "invariance.csv").open()))
    assert {r["encoder"] for r in rows} == {"Mean", "first"} and len(rows) == 6
    assert all((done.folder / f).stat().st_size > 2000 for f in ("invariance.png", "units.png"))
    listed = [f"{p.relative_to(tmp_path).as_posix()},{p.parts[-3]},{p.parts[-2]},{'ab'[i % 2]}"
              for i, p in enumerate(sorted(measured.rglob("*.png")))]  # fmt: skip
    (tmp_path / "set.csv").write_text("file,target,base,transform\n" + "\n".join(listed))
    table = run(tmp_path / "table", tmp_path / "set.csv", measure=(spec,), units=1)
    assert {"a", "b"} <= set(table.metrics) and table.metrics["untrained"] is not None
    one = ["file,target,base", *(",".join(line.split(",")[:2] + ["0"]) for line in listed)]
    (tmp_path / "set.csv").write_text("\n".join(one))  # a base each: exchanging them changes names alone
    small = run(tmp_path / "small", tmp_path / "set.csv", measure=(spec,), units=1, select="same")
    assert small.metrics["shuffled"] is None and "no other way to give" in " ".join(small.result["notes"])
    assert "9 other ways" in " ".join(done.result["notes"])


def test_the_set_to_measure_on_may_come_last(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    one, other, last = (str(tmp_path / name) for name in ("run", "set", "set.csv"))
    paper = find()["invariance"]
    both = (one, "my.py:build")
    for measure, kept, given in (((one, other), (one,), other), ((*both, last), both, last),
                                 ((one, one), (one, one), None), ((other,), (other,), None)):  # fmt: skip
        job = make_job(paper, None, measure=measure)
        assert (job.measure, job.input) == (kept, given)


def test_rendered_objects_need_no_input(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("precis.papers.invariance.measuring.SYNTHETIC", (2, 2))
    first = run(tmp_path / "first", folder, **QUICK | {"epochs": 0.3})
    done = run(tmp_path / "out", measure=(str(first.folder),), synthetic=True, units=2)
    assert {"occlusion", "viewpoint", "instance", "light_dir", "light_colour", "deformation"} <= set(done.metrics)
    assert done.metrics["untrained"] is not None


@pytest.mark.parametrize(("options", "words"), [
    ({"gap": "x"}, "--gap is a number of frames"),
    ({"gap": "0.5s"}, "needs a frame rate"),
    ({"gap": "20"}, "no clip is long enough for a gap of 20"),
    ({"boxes": "none.csv"}, "there is no such file"),
    ({"synthetic": True}, "--synthetic takes the place of INPUT"),
    ({"measure": ("none.py:f",), "gap": "3"}, "not for --measure"),
    ({"measure": ("none.py:f",)}, "none.py"),
    ({"measure": ("a.py:f", "a.py:f")}, "names an encoder twice"),
    ({"labels": "none.csv"}, "none.csv"),
    ({"group": "patient"}, "kept together already"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_and_leaves_no_folder(folder, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", folder, **QUICK | options)
    assert not (tmp_path / "out").exists()


def test_an_array_is_no_clip(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 8, 8), np.uint8))
    with pytest.raises(InputError, match="sets of pictures are for --measure"):
        run(tmp_path / "out", tmp_path / "x.npz", **QUICK)


def test_sets_that_cannot_be_measured(measured, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Flatten()), tmp_path / "flat.pt")
    net = (str(tmp_path / "flat.pt"),)
    with pytest.raises(InputError, match="folders target/base/"):
        run(tmp_path / "out", measured / "dark", measure=net)
    (tmp_path / "one").mkdir()
    (measured / "dark").rename(tmp_path / "one" / "dark")
    with pytest.raises(InputError, match="two targets or more are wanted, and there is dark alone"):
        run(tmp_path / "out", tmp_path / "one", measure=net)
    (tmp_path / "one" / "few" / "0").mkdir(parents=True)
    write_image(tmp_path / "one" / "few" / "0" / "0.png", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"4 pictures of every target are wanted; fewer have few \(1\)"):
        run(tmp_path / "out", tmp_path / "one", measure=net)
    assert not (tmp_path / "out").exists()
