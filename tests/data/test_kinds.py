import io
import json
import subprocess
import sys
import tarfile
import wave
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from precis.data import kinds_of
from precis.errors import InputError


def png(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("L", (4, 4), value).save(path, "PNG")
    return path


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.png: there is no such file"):
        kinds_of(tmp_path / "nothing.png")


def test_pictures(tmp_path):
    assert kinds_of(png(tmp_path / "a.png")) == {"image"}
    assert kinds_of(png(tmp_path / "named_wrongly.txt")) == {"image"}  # by content
    frames = [Pillow.new("RGB", (4, 4), (i * 80, 0, 0)) for i in range(3)]
    for name in ("a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert kinds_of(tmp_path / name) == {"image", "frames"}
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(30))
    assert kinds_of(tmp_path / "clip.mp4") == {"frames"}


def test_folders(tmp_path):
    for i in range(3):
        png(tmp_path / "flat" / f"{i}.png")
        png(tmp_path / "nested" / "ab"[i % 2] / f"{i}.png")
    assert kinds_of(tmp_path / "flat") == {"images", "frames"}
    assert kinds_of(tmp_path / "nested") == {"images"}
    (tmp_path / "empty").mkdir()
    assert kinds_of(tmp_path / "empty") == set()
    scene = tmp_path / "scene"
    png(scene / "images" / "0.png")
    (scene / "transforms_train.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": []}))
    assert "scene" in kinds_of(scene) and kinds_of(scene / "transforms_train.json") == {"scene"}


def test_archives(tmp_path):
    picture = png(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(picture, "cats/a.png")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(picture, "cats/a.png")
    assert kinds_of(tmp_path / "a.zip") == {"images"} == kinds_of(tmp_path / "a.tar.gz")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4" + bytes(50))
    assert kinds_of(tmp_path / "broken.zip") == set()


def test_arrays_by_shape_and_keys(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return kinds_of(tmp_path / "x.npz")

    assert npz(images=np.zeros((3, 8, 8)), labels=np.zeros(3)) == {"images"}
    assert npz(obs=np.zeros((9, 2)), action=np.zeros((9, 1))) == {"transitions"}
    assert npz(images=np.zeros((3, 8, 8, 3)), poses=np.zeros((3, 4, 4)), focal=1.0) == {"images", "scene"}
    assert npz(poses=np.zeros((9, 72)), trans=np.zeros((9, 3))) == {"poses"}
    assert npz(a=np.zeros(5), b=np.zeros((5, 2))) == {"table"}
    for shape, kinds in {(50, 6): {"points", "table"}, (50, 2): {"table"}, (5, 8, 8): {"images"}}.items():
        np.save(tmp_path / "x.npy", np.zeros(shape))
        assert kinds_of(tmp_path / "x.npy") == kinds


def test_parquet(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": None}], "label": [1]}), tmp_path / "i.parquet")
    pq.write_table(pa.table({"x": [1.0], "smiles": ["CC"]}), tmp_path / "t.parquet")
    assert kinds_of(tmp_path / "i.parquet") == {"images"}
    assert kinds_of(tmp_path / "t.parquet") == {"table", "molecules"}
    pq.write_table(pa.table({"img": [b"x"], "fine_label": [1]}), tmp_path / "i.parquet")
    assert kinds_of(tmp_path / "i.parquet") == {"images"}


@pytest.mark.parametrize(
    ("name", "text", "kinds"),
    [
        ("a.csv", "smiles,y\nCCO,1\n", {"table", "molecules"}),
        ("a.csv", "x,y\n1,2\n", {"table"}),
        ("a.csv", "file,label\na.png,cat\n", {"table", "images"}),
        ("a.csv", "text,label\nfine film,1\n", {"table", "text"}),
        ("a.tsv", "x\ty\n1\t2\n", {"table"}),
        ("data.dat", "x;y\n1;2\n3;4\n", {"table"}),
        ("a.cnf", "c hello\np cnf 2 1\n1 -2 0\n", {"cnf"}),
        ("formula", "p cnf 2 1\n1 -2 0\n", {"cnf"}),
        ("a.txt", "To be, or not to be, that is\nthe question:\nWhether 'tis nobler\n", {"text"}),
        ("a.xyz", "0 0 1 0 0 1\n1 0 0 1 0 0\n", {"points"}),
        ("a.ply", "ply\nformat ascii 1.0\nend_header\n", {"points"}),
        ("a.smi", "CCO ethanol\nCC ethane\n", {"molecules"}),
        ("a.py", "def build():\n    return None\n", {"program"}),
        ("a.bvh", "HIERARCHY\nROOT Hips\n", {"poses"}),
        ("k.json", '{"annotations": [{"keypoints": [1, 2, 2]}]}', {"poses"}),
        ("k.json", '{"a": 1}', {"text"}),
        ("empty.csv", "", set()),
        ("blank.txt", "  \n\n", set()),
    ],
)
def test_texts(tmp_path, name, text, kinds):
    (tmp_path / name).write_text(text)
    assert kinds_of(tmp_path / name) == kinds


def test_audio_programs_and_unknown(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(100))
    assert kinds_of(tmp_path / "a.wav") == {"audio"}
    for member, kinds in {"m/constants.pkl": {"program"}, "m/data.pkl": set(), "m/archive_format": {"program"}}.items():
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr(member, b"x")
        assert kinds_of(tmp_path / "m.pt") == kinds
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).bytes(4000))
    assert kinds_of(tmp_path / "noise.bin") == set()
    (tmp_path / "d.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    assert kinds_of(tmp_path / "d.hdf5") == {"transitions"}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([
    b"", b"PK\3\4", b"\x1f\x8b\x08", b"\x93NUMPY\1\0", b"PAR1", b"ply\n",
    b"RIFF\0\0\0\0WAVE", b"{", b"p cnf 1 1\n", b"GIF89a",
]))  # fmt: skip
def test_random_bytes_are_of_known_kinds_or_none(tmp_path_factory, tail, lead):
    for suffix in ("", ".csv", ".json", ".py"):
        path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
        path.write_bytes(lead + tail)
        known = "image images frames audio points scene table text molecules cnf transitions poses program".split()
        assert kinds_of(path) <= set(known)


def test_text_cut_in_the_middle_of_a_letter(tmp_path):
    (tmp_path / "long.txt").write_text("žluťoučký kůň\n" * 10_000, "utf-8")
    assert kinds_of(tmp_path / "long.txt") == {"text"}


def test_gzip_of_something_else(tmp_path):
    import gzip

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"hello"))
    assert kinds_of(tmp_path / "a.gz") == set()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO(b""))
    (tmp_path / "b.tar").write_bytes(stream.getvalue())
    assert kinds_of(tmp_path / "b.tar") == set()


def test_it_is_quick_to_import(tmp_path):
    code = f"import sys; from precis.data import kinds_of; kinds_of({str(png(tmp_path / 'a.png'))!r}); " \
           "print([m for m in ('torch', 'pyarrow', 'scipy', 'tifffile') if m in sys.modules])"  # fmt: skip
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "[]", done.stderr
