import csv
import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from precis.data import stack
from precis.data.imageset import ImageSet
from precis.errors import InputError

rng = np.random.default_rng(1)


def picture(value: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Pillow.new(mode, size, value if mode == "L" else (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path):
    """Two classes of three pictures, the value of each in its name."""
    root = tmp_path / "set"
    for i in range(6):
        folder = root / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i * 10}.png").write_bytes(picture(i * 10))
    (root / "README.txt").write_text("not a picture")
    return root


def check_tree(found: ImageSet) -> None:
    assert found.images.shape == (6, 3, 8, 8) and found.images.dtype == np.uint8
    assert found.classes == ("cat", "dog") and found.labels.dtype == np.int64
    for name, image, label in zip(found.names, found.images, found.labels):
        assert image[0, 0, 0] == int(name.split("/")[-1].removesuffix(".png"))
        assert ("cat", "dog")[label] in name
    assert found.skipped == () and found.groups is None


def test_folder(tree):
    found = ImageSet.open(tree, 8)
    check_tree(found)
    assert found.names[:3] == ("cat/0.png", "cat/20.png", "cat/40.png") and len(found) == 6


def test_zip_and_tar_equal_the_folder(tree, tmp_path):
    want = ImageSet.open(tree, 8)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(tree.rglob("*.*")):
            archive.write(file, "wrapped/" + file.relative_to(tree).as_posix())
        archive.writestr("__MACOSX/._0.png", b"junk")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(tree, "wrapped")
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.xz"):
        found = ImageSet.open(tmp_path / name, 8)
        check_tree(found)
        order = np.argsort(found.names)
        np.testing.assert_array_equal(found.images[order], want.images[np.argsort(want.names)])


def test_labels_by_folder_need_two_folders_of_two(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/0.png", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(1))
    found = ImageSet.open(tmp_path, 8)
    assert found.labels is None and found.classes == ()
    (tmp_path / "b/1.png").write_bytes(picture(1))
    found = ImageSet.open(tmp_path, 8)
    assert dict(zip(found.names, found.labels.tolist()))["loose.png"] == -1 and set(found.labels) == {-1, 0, 1}


def test_one_grey_picture_among_coloured_and_all_grey(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(7, "L"))
    assert ImageSet.open(tmp_path, 8).images.shape == (1, 1, 8, 8)
    (tmp_path / "b.png").write_bytes(picture(9))
    images = ImageSet.open(tmp_path, 8).images
    np.testing.assert_array_equal(images[:, :, 0, 0], [[7, 7, 7], [9, 0, 0]])


def test_large_sets_become_a_private_memory_map(tree, monkeypatch):
    want = ImageSet.open(tree, 8).images
    monkeypatch.setattr(stack, "IN_MEMORY", 10)
    found = ImageSet.open(tree, 8).images
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, want)
    found[0] = 0  # private: writing is allowed and stays here


def test_central_square_and_alpha(tmp_path):
    wide = np.zeros((10, 30, 4), np.uint8)
    wide[:, 10:20] = (200, 200, 200, 255)
    wide[:, 15:20, 3] = 0
    Pillow.fromarray(wide).save(tmp_path / "a.png")
    image = ImageSet.open(tmp_path, 10, background="black").images[0]
    assert (image[:, :, :5] == 200).all() and (image[:, :, 5:] == 0).all()
    assert (ImageSet.open(tmp_path, 10).images[0][:, :, 5:] == 255).all()
    with pytest.raises(InputError, match="no colour"):
        ImageSet.open(tmp_path, 10, background="sky")


def test_large_jpegs_are_reduced_while_decoding_and_look_the_same(tmp_path):
    ramp = np.add.outer(np.arange(400), np.arange(600)).astype(np.float64) / 4
    Pillow.fromarray(np.stack([ramp] * 3, -1).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    jpeg = ImageSet.open(tmp_path, 20).images.astype(int)
    (tmp_path / "a.jpg").unlink()
    Pillow.fromarray(np.stack([ramp] * 3, -1).astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(jpeg - ImageSet.open(tmp_path, 20).images).max() <= 2


def test_no_size_keeps_the_stored_one(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1, size=(9, 5)))
    assert ImageSet.open(tmp_path, None).images.shape == (1, 3, 5, 9)
    (tmp_path / "b.png").write_bytes(picture(1, size=(4, 4)))
    with pytest.raises(InputError, match=r"b\.png: it is 4×4 and others 9×5 pixels; name a --size"):
        ImageSet.open(tmp_path, None)


def test_unreadable_pictures_are_listed_and_few_are_tolerated(tmp_path):
    for i in range(39):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "5.png").write_bytes(b"broken")
    found = ImageSet.open(tmp_path, 8)
    assert len(found) == 38 and [name for name, _ in found.skipped] == ["5.png"] and "no picture" in found.skipped[0][1]
    path = found.write_skipped(tmp_path)
    with path.open() as file:
        assert list(csv.reader(file))[1][0] == "5.png"
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 39 pictures cannot be read, more than 5 %.*--keep-going"):
        ImageSet.open(tmp_path, 8)
    found = ImageSet.open(tmp_path, 8, keep_going=True)
    assert len(found) == 37 and [name for name, _ in found.skipped] == ["5.png", "7.png"]


def test_nothing_readable(tmp_path):
    with pytest.raises(InputError, match=r"no readable picture in it; looked for \.png"):
        ImageSet.open(tmp_path, 8)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="no readable picture"):
        ImageSet.open(tmp_path, 8, keep_going=True)
    with pytest.raises(InputError, match="no such file"):
        ImageSet.open(tmp_path / "none", 8)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no set of pictures"):
        ImageSet.open(tmp_path / "notes.txt", 8)


def test_files_without_suffix_are_known_by_their_bytes(tmp_path):
    (tmp_path / "a0b1c2").write_bytes(picture(3))
    (tmp_path / "notes").write_text("hello")
    assert ImageSet.open(tmp_path, 8).names == ("a0b1c2",)


@pytest.mark.parametrize("bad", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png"])
def test_members_that_point_outside_are_refused(tmp_path, bad):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(bad), picture(1))
    with pytest.raises(InputError, match="outside of the archive"):
        ImageSet.open(tmp_path / "a.zip", 8)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo(bad)
        member.size = len(picture(1))
        archive.addfile(member, io.BytesIO(picture(1)))
    with pytest.raises(InputError, match="outside of the archive"):
        ImageSet.open(tmp_path / "a.tar", 8)


def test_links_in_archives_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(InputError, match=r"a\.png is a link"):
            ImageSet.open(tmp_path / name, 8)


def test_archive_bombs_and_broken_archives(tmp_path, monkeypatch):
    from precis.data import sources

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(1 << 20))
        archive.writestr("ok.png", picture(1))
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 1 << 16)
    found = ImageSet.open(tmp_path / "a.zip", 8, keep_going=True)
    assert found.names == ("ok.png",) and "larger than" in found.skipped[0][1]
    monkeypatch.setattr(sources, "MAX_MEMBERS", 1)
    with pytest.raises(InputError, match="more than 1 members"):
        ImageSet.open(tmp_path / "a.zip", 8)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"cut\.zip: this is no whole zip"):
        ImageSet.open(tmp_path / "cut.zip", 8)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for i in range(20):
            member = tarfile.TarInfo(f"{i}.png")
            member.size = 4096
            archive.addfile(member, io.BytesIO(rng.bytes(4096)))
    monkeypatch.undo()
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.tar\.gz: this is no whole tar"):
        ImageSet.open(tmp_path / "cut.tar.gz", 8, keep_going=True)


def test_csv_lists_pictures_labels_groups_and_attributes(tree):
    table = tree.parent / "list.csv"
    table.write_text("Path,label,group,age\nset/cat/0.png,big,p1,3.5\nset/dog/10.png,,p1,\nset/cat/20.png,small,p2,4\n")
    found = ImageSet.open(table, 8)
    assert found.names == ("set/cat/0.png", "set/dog/10.png", "set/cat/20.png")
    assert found.classes == ("big", "small") and found.labels.tolist() == [0, -1, 1]
    assert found.groups.tolist() == ["p1", "p1", "p2"]
    np.testing.assert_array_equal(found.columns["age"], [3.5, np.nan, 4])
    assert list(found.columns) == ["age"]
    assert ImageSet.open(table, 8, group="age").groups.tolist() == ["3.5", "nan", "4.0"]
    with pytest.raises(InputError, match="no column 'grop'; did you mean 'group'"):
        ImageSet.open(table, 8, group="grop")


def test_labels_from_a_csv_beside_a_folder_or_an_archive(tree, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ncat/0.png,2\ndog/30.png,10\ncat/20.png,2\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(tree.rglob("*.png")):
            archive.write(file, "wrapped/" + file.relative_to(tree).as_posix())
    for source in (tree, tmp_path / "a.zip"):
        found = ImageSet.open(source, 8, labels=table)
        values = {name.rpartition("/")[2]: found.classes[label] for name, label in zip(found.names, found.labels)}
        assert values == {"0.png": "2", "30.png": "10", "20.png": "2"} and found.classes == ("2", "10")
    assert {reason for _, reason in found.skipped} == {"no row in labels.csv"} and len(found.skipped) == 3
    table.write_text("file,label\n" + "".join(f"gone{i}.png,1\n" for i in range(12)))
    for source in (tree, tmp_path / "a.zip"):
        with pytest.raises(InputError, match=r"12 of 12 files are not .*gone9\.png") as caught:
            ImageSet.open(source, 8, labels=table)
        assert "gone10" not in str(caught.value)
    table.write_text("file,label\ncat/0.png,1\ncat/0.png,2\n")
    with pytest.raises(InputError, match=r"row 2: the picture cat/0\.png is listed twice"):
        ImageSet.open(tree, 8, labels=table)
    table.write_text("name,label\ncat/0.png,1\n")
    with pytest.raises(InputError, match="no column 'file'"):
        ImageSet.open(tree, 8, labels=table)


def test_decimal_labels_are_no_classes(tree):
    table = tree.parent / "list.csv"
    table.write_text("file,label\nset/cat/0.png,0.5\nset/dog/10.png,1.25\n")
    found = ImageSet.open(table, 8)
    assert found.labels is None and found.columns["label"].tolist() == [0.5, 1.25]


def test_npz_and_npy(tmp_path):
    bytes_ = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=bytes_, labels=[3, 3, 7, 1, -1], names=list("abcde"), weight=np.arange(5.0))
    found = ImageSet.open(tmp_path / "a.npz", 8)
    np.testing.assert_array_equal(found.images, np.moveaxis(bytes_, -1, 1))
    assert found.classes == ("-1", "1", "3", "7") and found.names == tuple("abcde")
    assert found.columns["weight"].tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "b.npz", x=(bytes_[..., 0] / 255).astype(np.float32), y=[0, 1, 1, 0, 1])
    found = ImageSet.open(tmp_path / "b.npz", None)
    np.testing.assert_array_equal(found.images[:, 0], bytes_[..., 0])
    assert found.labels.tolist() == [0, 1, 1, 0, 1] and found.names[4] == "4"
    np.save(tmp_path / "c.npy", np.moveaxis(bytes_, -1, 1).astype(np.uint16) * 257)
    np.testing.assert_array_equal(ImageSet.open(tmp_path / "c.npy", None).images, np.moveaxis(bytes_, -1, 1))
    assert ImageSet.open(tmp_path / "c.npy", 4).images.shape == (5, 3, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((3, 8, 8)) + 2.0}, "picture 0 holds 2; floats must lie from 0 to 1"),
        ({"images": np.full((3, 8, 8), np.nan)}, "holds nan"),
        ({"images": np.zeros((3, 8, 8, 5))}, r"shape \[3, 8, 8, 5\]"),
        ({"images": np.zeros((3, 8, 8)), "labels": np.zeros(4)}, "'labels' has 4 entries for 3"),
        ({"images": np.zeros((3, 8, 8)), "names": np.array(["a"])}, "'names' has 1"),
        ({"pictures": np.zeros((3, 8, 8))}, "no array 'images' or 'x', only pictures"),
        ({"images": np.full((3, 8, 8), 300)}, "whole numbers up to 300"),
        ({"images": np.array([[["a"]]])}, "kind <U1"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        ImageSet.open(tmp_path / "a.npz", 8)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=np.array([{"x": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="Python objects, which are never loaded"):
            ImageSet.open(tmp_path / name, 8)


def test_arrays_that_state_more_than_they_hold(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-10])
    (tmp_path / "lie.npy").write_bytes(whole.replace(b"(4, 8, 8)", b"(4e9,8,8)"))
    (tmp_path / "big.npy").write_bytes(whole.replace(b"(4, 8, 8), }     ", b"(40000, 8, 800)} "))
    for name in ("cut.npy", "lie.npy", "big.npy"):
        with pytest.raises(InputError, match=name):
            ImageSet.open(tmp_path / name, 8)


def test_parquet_in_the_layout_of_hugging_face(tmp_path):
    rows = [{"bytes": picture(i * 20), "path": f"{i}.png"} for i in range(4)]
    table = pa.table({"image": rows, "label": [1, 0, 1, -1], "site": list("abab")})
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "a.parquet")
    found = ImageSet.open(tmp_path / "a.parquet", 8, group="site")
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [0, 20, 40, 60])
    assert found.classes == ("cat", "dog") and found.labels.tolist() == [1, 0, 1, -1]
    assert found.groups.tolist() == list("abab") and found.names[2] == "2.png"
    pq.write_table(table.set_column(1, "label", [[5, 0, 1, 0]]).replace_schema_metadata(
        {"huggingface": json.dumps(features)}), tmp_path / "b.parquet")  # fmt: skip
    with pytest.raises(InputError, match="row 1: label 5 is none of the 2 classes"):
        ImageSet.open(tmp_path / "b.parquet", 8)
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:200])
    with pytest.raises(InputError, match="no whole Parquet"):
        ImageSet.open(tmp_path / "c.parquet", 8)
