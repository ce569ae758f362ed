"""NumPy files, read without ever unpickling."""

import zipfile
from pathlib import Path

import numpy as np

from precis.data.files import existing
from precis.errors import InputError

MAX_BYTES = 16 << 30


def read_arrays(path: str | Path, what: str = "an .npz file") -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; an .npy file gives one, called "" and mapped from disk.

    InputError if a member is no plain array, is cut short, or states more than it holds (checked before it is read).
    """
    path = existing(path, what)
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic == b"\x93NUMPY":
            with path.open("rb") as file:
                _check(file, path.stat().st_size, path, "the array")
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if not members:
                raise InputError("there is no array in it", file=path)
            for info in members:
                with archive.open(info) as file:
                    _check(file, info.file_size, path, f"array '{info.filename[:-4]}'")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except InputError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, NotImplementedError, KeyError) as error:
        raise InputError(f"this is no whole .npy or .npz file ({error}); {what} is wanted", file=path) from error


def _check(file, size: int, path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never loaded; save plain numbers or text", file=path)
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if wanted > size or wanted > MAX_BYTES:
        raise InputError(f"{name} states {wanted:,} bytes but the file holds {size:,}, or too many", file=path)
