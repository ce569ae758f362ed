import csv
import zipfile

import numpy as np
import pytest
from tests.papers.runs import Heard, halves

from precis.data.images import write_image
from precis.data.imageset import ImageSet
from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.picture_sets import open_pictures, tell_skipped
from precis.papers.running import check_input


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, of which labels.csv names nine: three without a label."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for i, image in enumerate(halves(12)[0]):
        write_image(tmp_path / "set" / ("deep" if i > 9 else ".") / f"{i}.png", image)
    table(tmp_path, "file,label,group", *(f"{i}.png,{'ab'[i % 2] if i < 6 else ''},g{i // 2}" for i in range(9)))
    return tmp_path / "set"


def table(at, *lines):
    (at / "labels.csv").write_text("\n".join(lines) + "\n")
    return at / "labels.csv"


def test_pictures_without_a_row_have_no_label_and_stand_alone(folder, tmp_path):
    found = open_pictures(folder, 8, tmp_path / "labels.csv", rest="unlabelled")
    label = dict(zip(found.names, found.labels.tolist()))
    assert len(found) == 12 and found.classes == ("a", "b") and found.skipped == ()
    assert [label[f"{i}.png"] for i in range(10)] == [0, 1, 0, 1, 0, 1, -1, -1, -1, -1]
    assert label["deep/10.png"] == label["deep/11.png"] == -1
    groups = dict(zip(found.names, found.groups.tolist()))
    assert groups["0.png"] == groups["1.png"] != groups["2.png"] and len(set(groups.values())) == 5 + 3
    bare = ImageSet.open(folder, 8)
    assert bare.names == found.names and np.array_equal(bare.images, found.images)


def test_an_archive_is_read_alike(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"set/{path.relative_to(folder)}")
    one = open_pictures(folder, 8, tmp_path / "labels.csv", rest="unlabelled")
    two = open_pictures(tmp_path / "set.zip", 8, tmp_path / "labels.csv", rest="unlabelled")
    assert {f"set/{n}": y for n, y in zip(one.names, one.labels)} == dict(zip(two.names, two.labels))


def test_where_they_are_left_out_they_are_listed_and_told(folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no picture")
    lines = (tmp_path / "labels.csv").read_text().split()
    found = open_pictures(folder, 8, table(tmp_path, *lines, "bad.png,a,g9"), keep_going=True)
    assert len(found) == 9 and len(found.skipped) == 4
    work = Heard(tmp_path)
    tell_skipped(found, work)
    assert work.notes == ["1 picture could not be read, 3 pictures have no row in --labels: see skipped.csv"]
    rows = {r["name"]: r["reason"] for r in csv.DictReader((tmp_path / "skipped.csv").open())}
    assert rows["9.png"] == rows["deep/11.png"] == "no row in labels.csv" and "no picture" in rows["bad.png"]


@pytest.mark.parametrize("rest", ["unlabelled", "left out"])
@pytest.mark.parametrize(("lines", "words"), [
    (("file,klass", "0.png,a"), "columns file, label and, if there are any, group are wanted; there are file, klass"),
    (("name,label", "0.png,a"), "there are name, label"),
    (("file,label", "0.png,a", "none.png,b"), "1 of 2 files are not there: none.png"),
    (("file,label", "0.png,a", "0.png,b"), "listed twice"),
])  # fmt: skip
def test_a_table_that_will_not_do_is_told(folder, tmp_path, lines, words, rest):
    with pytest.raises(InputError, match=words):
        open_pictures(folder, 8, table(tmp_path, *lines), rest=rest)


def test_labels_that_are_none(folder, tmp_path):
    with pytest.raises(InputError, match="decimals"):
        open_pictures(folder, 8, table(tmp_path, "file,label", "0.png,0.5", "1.png,1.5"), rest="unlabelled")
    (folder / "note.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"not among the pictures of set: note\.txt"):
        open_pictures(folder, 8, table(tmp_path, "file,label", "0.png,a", "note.txt,b"), rest="unlabelled")
    with pytest.raises(InputError, match="brings its own labels"):
        open_pictures(tmp_path / "labels.csv", 8, tmp_path / "labels.csv", rest="unlabelled")


@pytest.mark.parametrize("names", [(), ("a.txt",)])
def test_a_folder_without_pictures_is_named_with_the_endings(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("words")
    with pytest.raises(InputError) as caught:
        check_input(str(tmp_path), ("images",))
    assert str(tmp_path) in str(caught.value) and ".png, .jpg, .jpeg, .webp" in str(caught.value)


COLOURED = """ntxent supcon invariance group_norm mobilenet revnet rewinding variational_dropout deep_decoder
    neural_process siren nerf nerfies"""


@pytest.mark.parametrize("paper", COLOURED.split())
def test_a_colour_that_is_none_is_refused_at_once(paper):
    with pytest.raises(InputError, match="--background: 'nocolour' is no colour"):
        make_job(find()[paper], None, background="nocolour")
    assert make_job(find()[paper], None, background="#102030").background == "#102030"
