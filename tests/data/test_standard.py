import gzip
import hashlib
import io
import os
import struct
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from precis.data import standard
from precis.errors import InputError, RunFailed

rng = np.random.default_rng(5)
needs_data = pytest.mark.skipif("PRECIS_DATA" not in os.environ, reason="$PRECIS_DATA is not set")


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def tar(members: dict[str, bytes], evil: bool = False) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        if evil:
            member = tarfile.TarInfo("../../evil.txt")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
            link = tarfile.TarInfo("cifar-10-batches-bin/link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return stream.getvalue()


DIGITS = {"train": (rng.integers(0, 256, (7, 28, 28)), rng.integers(0, 10, 7)),
          "t10k": (rng.integers(0, 256, (3, 28, 28)), rng.integers(0, 10, 3))}  # fmt: skip


def digit_files() -> dict[str, bytes]:
    made = {}
    for stem, (images, labels) in DIGITS.items():
        made[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
        made[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels))
    return made


def cifar_members(label_bytes: int) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    records = rng.integers(0, 10, (12, label_bytes + 3072), dtype=np.uint8)
    if label_bytes == 1:
        parts = {f"cifar-10-batches-bin/data_batch_{i}.bin": records[2 * i - 2 : 2 * i].tobytes() for i in range(1, 6)}
        parts["cifar-10-batches-bin/test_batch.bin"] = records[10:].tobytes()
    else:
        parts = {"cifar-100-binary/train.bin": records[:10].tobytes()}
        parts["cifar-100-binary/test.bin"] = records[10:].tobytes()
        names = "\n".join(f"class{i}" for i in range(100))
        parts["cifar-100-binary/fine_label_names.txt"] = names.encode() + b"\n\n"
    return parts, records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(np.int64)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A mirror on this machine that serves tmp_path/mirror; sums are those of what is put there."""
    root = tmp_path / "mirror"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("PRECIS_MIRROR", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRECIS_DATA", raising=False)

    def put(name: str, files: dict[str, bytes], trusted: bool = True) -> None:
        (root / name).mkdir(exist_ok=True)
        for file, body in files.items():
            (root / name / file).write_bytes(body)
            if trusted:
                monkeypatch.setitem(standard._SETS[name].files, file, hashlib.sha256(body).hexdigest())

    yield put
    server.shutdown()
    server.server_close()
    thread.join()


def cached(tmp_path) -> list[str]:
    folder = tmp_path / "home" / "data"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) if folder.exists() else []


def test_mnist_is_fetched_checked_and_read(served, tmp_path):
    served("mnist", digit_files())
    assert standard.locate("mnist") is None
    images, labels, classes = standard.load("mnist", "train")
    np.testing.assert_array_equal(images[:, 0], DIGITS["train"][0])
    np.testing.assert_array_equal(labels, DIGITS["train"][1])
    assert images.dtype == np.uint8 and labels.dtype == np.int64 and classes == tuple("0123456789")
    assert standard.load("mnist", "test").images.shape == (3, 1, 28, 28)
    assert standard.locate("mnist") == tmp_path / "home" / "data" / "mnist" == standard.get("mnist")
    assert len(cached(tmp_path)) == 5
    served("mnist", {"train-images-idx3-ubyte.gz": b"other"}, trusted=False)
    assert len(standard.load("mnist", "train").images) == 7  # from the cache


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_archives(served, tmp_path, name):
    members, images, labels = cifar_members(1 if name == "cifar10" else 2)
    served(name, {next(iter(standard._SETS[name].files)): tar(members, evil=True)})
    found = standard.load(name, "train")
    np.testing.assert_array_equal(found.images, images[:10])
    np.testing.assert_array_equal(found.labels, labels[:10])
    assert len(found.classes) == (10 if name == "cifar10" else 100)
    np.testing.assert_array_equal(standard.load(name, "test").images, images[10:])
    assert not list(tmp_path.rglob("evil*")) and not list((tmp_path / "home").rglob("link"))
    assert not list((tmp_path / "home").rglob("*.gz"))  # the archive is not kept


def test_stl10(served):
    images = rng.integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    stored = images.swapaxes(2, 3).copy()
    labels = np.array([1, 10], np.uint8)
    members = {f"stl10_binary/{s}_X.bin": stored[2 * i : 2 * i + 2].tobytes() for i, s in
               enumerate(("train", "test", "unlabeled"))}  # fmt: skip
    members |= {f"stl10_binary/{s}_y.bin": labels.tobytes() for s in ("train", "test")}
    members["stl10_binary/class_names.txt"] = "\n".join("abcdefghij").encode()
    served("stl10", {"stl10_binary.tar.gz": tar(members)})
    found = standard.load("stl10", "test")
    np.testing.assert_array_equal(found.images, images[2:4])
    assert found.labels.tolist() == [0, 9] and found.classes == tuple("abcdefghij")
    found = standard.load("stl10", "unlabelled")
    np.testing.assert_array_equal(found.images, images[4:])
    assert found.labels.tolist() == [-1, -1]


def test_a_wrong_file_is_refused_and_nothing_is_kept(served, tmp_path):
    files = digit_files()
    served("mnist", files)
    served("mnist", {"t10k-labels-idx1-ubyte.gz": files["t10k-labels-idx1-ubyte.gz"][:-3]}, trusted=False)
    with pytest.raises(RunFailed, match=r"t10k-labels.*SHA-256 differs.*\$PRECIS_DATA/mnist"):
        standard.get("mnist")
    assert cached(tmp_path) == [] and standard.locate("mnist") is None


def test_a_missing_file_is_told(served, tmp_path):
    files = digit_files()
    del files["train-labels-idx1-ubyte.gz"]
    served("mnist", files)
    with pytest.raises(RunFailed, match=r"mnist cannot be fetched .*train-labels.*404"):
        standard.get("mnist")
    assert cached(tmp_path) == []


def test_an_answer_that_breaks_off(tmp_path, monkeypatch):
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for _ in range(1):
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    monkeypatch.setenv("PRECIS_MIRROR", f"http://127.0.0.1:{listener.getsockname()[1]}/")
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRECIS_DATA", raising=False)
    with pytest.raises(RunFailed, match="mnist cannot be fetched"):
        standard.get("mnist")
    thread.join()
    listener.close()
    assert cached(tmp_path) == []


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECIS_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PRECIS_DATA", raising=False)
    with pytest.raises(RunFailed, match="mnist cannot be fetched"):
        standard.get("mnist")
    with pytest.raises(InputError, match="precis data get mnist"):
        standard.load("mnist", "train", download=False)


def test_an_archive_without_what_is_wanted(served, tmp_path):
    served("cifar10", {"cifar-10-binary.tar.gz": tar({"readme.txt": b"x"})})
    with pytest.raises(RunFailed, match=r"does not hold cifar-10-batches-bin/data_batch_1\.bin"):
        standard.get("cifar10")
    served("cifar10", {"cifar-10-binary.tar.gz": b"no archive"})
    with pytest.raises(RunFailed, match="cannot be unpacked"):
        standard.get("cifar10")
    assert cached(tmp_path) == []


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    for file, body in digit_files().items():
        (tmp_path / file.removesuffix(".gz")).write_bytes(gzip.decompress(body))
    assert len(standard.load("mnist", "train", root=tmp_path).images) == 7
    with pytest.raises(InputError, match="cifar10 is not in this folder"):
        standard.load("cifar10", "train", root=tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(7, 11)))
    with pytest.raises(InputError, match="row 1: label 11 is none of 10 classes"):
        standard.load("mnist", "train", root=tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(6)))
    with pytest.raises(InputError, match=r"\[6\] labels for 7"):
        standard.load("mnist", "train", root=tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((7, 28, 28)))[:-9])
    with pytest.raises(InputError, match="states 5,488 bytes of values and holds 5,479"):
        standard.load("mnist", "train", root=tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\x1f\x8bjunk")
    with pytest.raises(InputError, match="gzip file is damaged"):
        standard.load("mnist", "train", root=tmp_path)


def test_names_and_wrong_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("PRECIS_HOME", str(tmp_path))
    monkeypatch.delenv("PRECIS_DATA", raising=False)
    assert {"mnist", "cifar10", "lego", "rt_polarity"} <= set(standard.names())
    with pytest.raises(InputError, match="no data set is called 'imagenet': there are mnist"):
        standard.get("imagenet")
    with pytest.raises(InputError, match="lego is not on this machine and is never fetched: put transforms_train"):
        standard.get("lego")
    with pytest.raises(InputError, match="no split 'validation'; there are train, test"):
        standard.load("mnist", "validation")
    with pytest.raises(InputError, match="lego is no set of labelled pictures"):
        standard.load("lego", "train")
    assert all(entry.found is None for entry in standard.catalogue())
    assert all(len(sum_) == 64 for made in standard._SETS.values() for sum_ in made.files.values())


@needs_data
@pytest.mark.parametrize(("name", "shape"), [("mnist", (10_000, 1, 28, 28)), ("cifar10", (10_000, 3, 32, 32))])
def test_real_sets(name, shape):
    if standard.locate(name) is None:
        pytest.skip(f"$PRECIS_DATA holds no {name}")
    images, labels, classes = standard.load(name, "test")
    assert images.shape == shape and images.dtype == np.uint8 and len(classes) == 10
    counts = np.bincount(labels, minlength=10)
    assert counts.sum() == 10_000 and counts.min() > 800
    if name == "mnist":
        assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert images.mean() == pytest.approx(33.79, abs=0.01)


@needs_data
def test_real_folders():
    for name in ("lego", "moleculenet", "rt_polarity", "tinyshakespeare"):
        found = standard.locate(name)
        if found is not None:
            assert all((found / file).is_file() for file in standard._SETS[name].local)
