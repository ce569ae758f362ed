"""Labelled data from every kind of INPUT, split without overlap; what is wrong in it is told."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from precis.data.images import write_image
from precis.errors import InputError
from precis.papers.labelled import read_labelled


class Notes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.device, self.resume, self.notes = folder, "cpu", False, []

    def log(self, step, total, **scalars):
        pass

    def image(self, name, pixels, step=None):
        pass

    def curve(self, name, steps, values):
        pass

    def table(self, name, rows):
        pass

    def note(self, text):
        self.notes.append(text)

    def show(self, file):
        pass


def read(given, work=None, **options):
    defaults = {"size": None, "label_column": None, "labels": "auto", "background": "white", "keep_going": False,
                "val": 0.1, "test_share": 0.2, "rows": None, "seed": 0, "standardise": True}  # fmt: skip
    return read_labelled(SimpleNamespace(input=str(given), **defaults | options), work or Notes(Path(".")))


def table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_of(part) -> set[tuple]:
    return {tuple(x.flatten().tolist()) for x in part.x}


def test_a_table_is_standardised_by_its_training_part(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["a,b,kind"] + [f"{5 + 2 * v:.5f},3,{'uv'[i % 2]}" for i, v in enumerate(rng.normal(size=100))]
    data = read(table(tmp_path / "t.csv", lines), label_column="kind")
    assert [len(p.y) for p in (data.train, data.val, data.test)] == [72, 8, 20]
    assert data.classes == ("u", "v") and data.columns == ("a", "b") and data.shape == (2,)
    assert data.train.x.dtype == torch.float32 and float(data.train.x[:, 0].mean()) == pytest.approx(0, abs=1e-6)
    assert float(data.train.x[:, 0].std()) == pytest.approx(1, abs=1e-5) and bool((data.train.x[:, 1] == 0).all())
    raw = read(tmp_path / "t.csv", label_column="kind", standardise=False)
    assert float(raw.train.x[:, 0].mean()) == pytest.approx(5, abs=1)
    parts = [rows_of(p) for p in (raw.train, raw.val, raw.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and sum(map(len, parts)) == 100
    other = read(tmp_path / "t.csv", label_column="kind", standardise=False, seed=1)
    assert rows_of(other.test) != parts[2]


def test_npz_of_numbers_and_of_pictures(tmp_path):
    y = np.arange(60) % 3
    np.savez(tmp_path / "numbers.npz", x=np.arange(240.0).reshape(60, 4), y=y)
    data = read(tmp_path / "numbers.npz")
    assert data.shape == (4,) and len(data.classes) == 3
    np.savez(tmp_path / "pictures.npz", x=np.zeros((60, 12, 12), np.uint8), y=y)
    data = read(tmp_path / "pictures.npz")
    assert data.shape == (1, 12, 12) and data.train.x.dtype == torch.uint8
    assert read(tmp_path / "pictures.npz", size=8).shape == (1, 8, 8)


def test_a_folder_of_classes_and_a_picture_that_cannot_be_read(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(15):
            write_image(tmp_path / "set" / kind / f"{i}.png", rng.integers(0, 256, (3, 9, 9)).astype(np.uint8))
    (tmp_path / "set" / "cat" / "broken.png").write_bytes(b"no picture")
    work = Notes(tmp_path)
    data = read(tmp_path / "set", work, size=16)
    assert data.shape == (3, 16, 16) and data.classes == ("cat", "dog") and (tmp_path / "skipped.csv").exists()
    assert any("skipped.csv" in note for note in work.notes) and any("6 test examples" in note for note in work.notes)


def test_train_and_test_files_stay_apart_and_groups_whole(tmp_path):
    (tmp_path / "both").mkdir()
    for name, n, low in (("train", 50, 0), ("test", 30, 100)):
        pictures = []
        for i in range(n):
            write_image(tmp_path / "p.png", np.full((1, 8, 8), low + i, np.uint8))
            pictures.append({"bytes": (tmp_path / "p.png").read_bytes(), "path": f"{i}.png"})
        pq.write_table(pa.table({"image": pictures, "label": [i % 2 for i in range(n)]}),
                       tmp_path / "both" / f"{name}.parquet")  # fmt: skip
    data = read(tmp_path / "both", rows=30)
    assert len(data.test.y) == 30 and int(data.test.x.min()) == 100 and int(data.train.x.max()) < 100
    assert len(data.train.y) == 30 and len(data.val.y) == 5
    group = np.repeat(np.arange(20, dtype=np.uint8), 5)
    images = group[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "grouped.npz", images=images, labels=np.arange(100) % 2, group=group.astype(int))
    data = read(tmp_path / "grouped.npz")
    who = [set(part.x[:, 0, 0, 0].tolist()) for part in (data.train, data.val, data.test)]
    assert not who[0] & who[1] and not who[0] & who[2] and not who[1] & who[2] and len(set.union(*who)) == 20


def test_what_is_wrong_is_told(tmp_path):
    good = ["a,kind"] + [f"{i},{i % 2}" for i in range(30)]
    cases = [
        (["a,b"] + ["1,2"] * 30, {}, "which column holds the classes"),
        (["a,label"] + ["1,0.5"] * 30, {}, "holds decimals"),
        (["a,label"] + ["1,0", "1,1"] * 14 + ["1,"], {}, "row 29: column 'label': the class is empty"),
        ([*good[:5], ",1", *good[6:]], {"label_column": "kind"}, "row 5: column 'a'"),
        ([*good[:5], "inf,1", *good[6:]], {"label_column": "kind"}, "row 5: column 'a'.*not finite"),
        ([*good[:5], "five,1", *good[6:]], {"label_column": "kind"}, "row 5: column 'a'.*not a number"),
        (["word,kind"] + ["x,1", "y,0"] * 15, {"label_column": "kind"}, "no column of numbers"),
        (good[:10], {"label_column": "kind"}, "9 labelled examples are too few"),
        (["a,kind"] + [f"{i},1" for i in range(30)], {"label_column": "kind"}, "at least two classes"),
        (["a,kind"] + [f"{i},{i}" for i in range(30)], {"label_column": "kind"}, "30 classes for 30 examples"),
        (good, {"label_column": "kin"}, "did you mean 'kind'"),
    ]  # fmt: skip
    for lines, options, words in cases:
        with pytest.raises(InputError, match=words):
            read(table(tmp_path / "t.csv", lines), **options)
    np.save(tmp_path / "bare.npy", np.zeros((40, 1, 8, 8), np.uint8))
    with pytest.raises(InputError, match="there are no classes"):
        read(tmp_path / "bare.npy")
    with pytest.raises(InputError, match=r"no set of that name \(mnist"):
        read("nowhere")
    with pytest.raises(InputError, match="mnist is not on this machine"):
        read("mnist")
    (tmp_path / "text.txt").write_text("words only\n")
    with pytest.raises(InputError, match="pictures with classes or a table are wanted; this looks like text"):
        read(tmp_path / "text.txt")
    (tmp_path / "noise.png").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="or a table are wanted; this is of no kind that precis reads"):
        read(tmp_path / "noise.png")
