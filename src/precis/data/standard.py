"""Standard data sets by name: `$PRECIS_DATA` first, then the download cache, else fetched and checked.

SHA-256 sums and sizes are those that TensorFlow Datasets publishes (`url_checksums/*.txt`); the files are the authors'
own: MNIST (LeCun, Cortes, Burges; two mirrors), Fashion-MNIST (Zalando), the binary versions of CIFAR-10 and CIFAR-100
(Krizhevsky), STL-10 (Coates, Lee, Ng).  `$PRECIS_MIRROR` names another base: files are then asked for as
`$PRECIS_MIRROR/<set>/<file>`, under the same sums.  A set is in the cache whole or not at all.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from precis.data import binary
from precis.data.embedded import Labelled
from precis.errors import InputError, RunFailed


@dataclass(frozen=True)
class _Set:
    what: str
    bases: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)  # name to fetch → SHA-256
    megabytes: int = 0
    members: tuple[str, ...] = ()  # what to take out of the one archive
    local: tuple[str, ...] = ()  # for sets that are never fetched: what must lie in the folder
    folder: str = ""  # below $PRECIS_DATA, if it is not the name


_IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz")  # fmt: skip
_MNIST = (
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
_FASHION = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
_SETS = {
    "mnist": _Set(
        "handwritten digits, 28×28 grey, 60,000 + 10,000",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        dict(zip(_IDX, _MNIST)), 12,
    ),
    "fashion_mnist": _Set(
        "clothes, 28×28 grey, 60,000 + 10,000",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        dict(zip(_IDX, _FASHION)), 31,
    ),
    "cifar10": _Set(
        "10 kinds of objects, 32×32 RGB, 50,000 + 10,000",
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}, 170,
        (*(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)), "cifar-10-batches-bin/test_batch.bin"),
    ),
    "cifar100": _Set(
        "100 kinds of objects, 32×32 RGB, 50,000 + 10,000",
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"}, 169,
        ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin", "cifar-100-binary/fine_label_names.txt"),
    ),
    "stl10": _Set(
        "10 kinds of objects, 96×96 RGB, 5,000 + 8,000 and 100,000 unlabelled",
        ("http://ai.stanford.edu/~acoates/stl10/",),
        {"stl10_binary.tar.gz": "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866"}, 2640,
        tuple(f"stl10_binary/{n}" for n in
              ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin", "class_names.txt")),
    ),
    "lego": _Set("the Blender lego scene (NeRF)", local=("transforms_train.json", "transforms_test.json"),
                 folder="scenes/lego"),
    "moleculenet": _Set("MoleculeNet tables: bbbp, clintox, esol, freesolv, sider, tox21, qm7",
                        local=("bbbp.csv", "esol.csv", "freesolv.csv", "tox21.csv"), folder="molecules"),
    "rt_polarity": _Set("sentences of film reviews, positive or negative",
                        local=("rt_polarity_train.csv", "rt_polarity_test.csv"), folder="text"),
    "tinyshakespeare": _Set("1.1 MB of Shakespeare", local=("tinyshakespeare.txt",), folder="text"),
}  # fmt: skip


class Entry(NamedTuple):
    """A set: `name`, `what` it is, the folder where it was `found` or None, `megabytes` to fetch (0: never fetched)."""

    name: str
    what: str
    found: Path | None
    megabytes: int


def names() -> tuple[str, ...]:
    """The sets that are known."""
    return tuple(_SETS)


def catalogue() -> list[Entry]:
    """All sets, and where they are on this machine."""
    return [Entry(name, made.what, locate(name), made.megabytes) for name, made in _SETS.items()]


def cache() -> Path:
    """Where fetched sets are kept: `data` under `$PRECIS_HOME`, else the platform's cache folder."""
    home = os.environ.get("PRECIS_HOME")
    if home:
        return Path(home) / "data"
    import platformdirs

    return Path(platformdirs.user_cache_dir("precis")) / "data"


def locate(name: str) -> Path | None:
    """The folder that holds the set, in `$PRECIS_DATA` or the cache; None if it is in neither."""
    known, roots = _known(name), []
    given = os.environ.get("PRECIS_DATA")
    if given:
        roots += [Path(given) / name, *([Path(given) / known.folder] if known.folder else [])]
    roots.append(cache() / name)
    return next((root for root in roots if _holds(root, name)), None)


def get(name: str) -> Path:
    """`locate`, or fetch the set into the cache.

    InputError for an unknown name or a set that is never fetched; RunFailed if fetching fails or what came is not what
    was published (nothing of it is kept).
    """
    known, found = _known(name), locate(name)
    if found is not None:
        return found
    if not known.files:
        raise InputError(f"{name} is not on this machine and is never fetched: put {', '.join(known.local)} into "
                         f"$PRECIS_DATA/{known.folder}")  # fmt: skip
    _fetch(name, known)
    return cache() / name


def load(name: str, split: str, root: str | Path | None = None, *, download: bool = True) -> Labelled:
    """Images uint8 [N,C,H,W], labels int64 [N] (−1: unlabelled) and class names of `split`: train, test or (stl10)
    unlabelled.

    `root`: the folder that holds the set, instead of looking for it.  Known layouts: Parquet ({split}.parquet), IDX
    (.gz or not), the CIFAR and STL binaries.
    """
    known = _known(name)
    if not known.files:
        raise InputError(f"{name} is no set of labelled pictures; of those there are "
                         f"{', '.join(n for n, s in _SETS.items() if s.files)}")  # fmt: skip
    allowed = ("train", "test", "unlabelled") if name == "stl10" else ("train", "test")
    if split not in allowed:
        raise InputError(f"{name} has no split '{split}'; there are {', '.join(allowed)}")
    if root is not None and not _holds(Path(root), name):
        raise InputError(f"{name} is not in this folder, in any layout that is known", file=root)
    if root is None and not download and locate(name) is None:
        raise InputError(f"{name} is not on this machine: precis data get {name}")
    return _read(name, split, Path(root) if root is not None else get(name))


def _known(name: str) -> _Set:
    if name not in _SETS:
        raise InputError(f"no data set is called '{name}': there are {', '.join(_SETS)}")
    return _SETS[name]


def _holds(root: Path, name: str) -> bool:
    known = _SETS[name]
    if known.local:
        return all((root / file).is_file() for file in known.local)
    if all((root / f"{split}.parquet").is_file() for split in ("train", "test")):
        return True
    wanted = known.members or tuple(known.files)
    return all(_find(root, file) is not None for file in wanted)


def _find(root: Path, file: str) -> Path | None:
    """A file as published, unpacked, or without its archive's folder."""
    bare = file.removesuffix(".gz").rpartition("/")[2]
    return next((p for p in (root / file, root / file.removesuffix(".gz"), root / bare) if p.is_file()), None)


def _read(name: str, split: str, root: Path) -> Labelled:
    if (root / f"{split}.parquet").is_file():
        from precis.data.imageset import ImageSet

        read = ImageSet.open(root / f"{split}.parquet", None)
        if read.labels is None:
            raise InputError("there is no column 'label'", file=root / f"{split}.parquet")
        return Labelled(read.images, read.labels, read.classes)

    def path(file: str) -> Path:
        found = _find(root, file)
        assert found is not None, file  # _holds looked
        return found

    if name in ("mnist", "fashion_mnist"):
        images, labels = (path(file) for file in (_IDX[:2] if split == "train" else _IDX[2:]))
        classes = binary.FASHION if name == "fashion_mnist" else tuple("0123456789")
        return Labelled(*binary.read_idx_pair(images, labels, len(classes)), classes)
    if name == "cifar10":
        members = [path(m) for m in _SETS[name].members if ("test" in m) == (split == "test")]
        return Labelled(*binary.read_cifar(members, 1, 10), binary.CIFAR10)
    if name == "cifar100":
        classes = binary.read_names(path(_SETS[name].members[2]), 100)
        return Labelled(*binary.read_cifar([path(f"cifar-100-binary/{split}.bin")], 2, 100), classes)
    stem = "unlabeled" if split == "unlabelled" else split
    labels_path = None if split == "unlabelled" else path(f"stl10_binary/{stem}_y.bin")
    classes = binary.read_names(path("stl10_binary/class_names.txt"), 10)
    return Labelled(*binary.read_stl(path(f"stl10_binary/{stem}_X.bin"), labels_path), classes)


def _fetch(name: str, known: _Set) -> None:
    """Fetch into a folder beside, check, unpack, rename."""
    target = cache() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        for file, sha256 in known.files.items():
            _download(name, known, file, sha256, beside)
            if known.members:
                binary.unpack(beside / file, known.members, beside)
                (beside / file).unlink()
        if target.exists():  # another process was faster, or an older version left something incomplete
            if locate(name) == target:
                return
            shutil.rmtree(target)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _download(name: str, known: _Set, file: str, sha256: str, folder: Path) -> None:
    import pooch

    mirror = os.environ.get("PRECIS_MIRROR")
    bases = (f"{mirror.rstrip('/')}/{name}/",) if mirror else known.bases
    failures = []
    for base in bases:
        try:
            fetch = pooch.HTTPDownloader(timeout=60)
            pooch.retrieve(base + file, f"sha256:{sha256}", file, folder, downloader=fetch)
            return
        except ValueError:  # pooch's word for a wrong sum; it has removed the file
            failures.append(f"{base}{file} is not the file that was published (SHA-256 differs)")
        except OSError as error:  # what requests raises descends from it; a full disk does too
            if not type(error).__module__.startswith("requests"):
                raise RunFailed(f"{name} cannot be kept in {folder.parent}: {error}") from error
            failures.append(f"{base}{file}: {str(error)[:160]}")
    raise RunFailed(f"{name} cannot be fetched ({'; '.join(failures)}); put it into $PRECIS_DATA/{name}, or name "
                    "another base in $PRECIS_MIRROR")  # fmt: skip
