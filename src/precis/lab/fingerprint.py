"""What a trial's key is made of: settings, the content of the data, and the source that computes.

`source_fingerprint` follows the import statements from a paper's `claims.py` through precis and the paper's own
package without importing anything, and hashes the syntax trees it meets, without docstrings and comments: words and
layout change nothing, code does.  The trees are read by `lab.syntax`.
"""

import hashlib
import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.lab.claim import Claim
from precis.lab.reach import source_digests

_ALLOWED = (
    "arrays, tensors, strings, bytes, numbers, None, paths, and dataclasses, named tuples, tuples, lists, dicts and "
    "sets of these"
)


def canonical(value: Any) -> str:
    """JSON with sorted keys and floats by repr, of dataclasses, mappings, sequences, sets, enums, paths, scalars."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str) and not isinstance(value, Enum):
        return value
    if isinstance(value, Enum):
        return _plain(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        plain = {key if isinstance(key, str) else canonical(key): _plain(item) for key, item in value.items()}
        if len(plain) != len(value):
            raise TypeError(f"keys of {value!r} are the same once written as text")
        return plain
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=canonical)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if _is_a(value, "numpy", "generic"):
        return _plain(value.item())
    raise TypeError(f"settings hold a {_type(value)}: only JSON values can be part of a trial's key")


def trial_key(
    *, paper: str, runs: str, arm: str, seed: int, settings: Any, tuned: Any, device: Any, data: str, source: str
) -> str:
    """SHA-256 of what decides a trial's outcome; of the device the kind alone ("cuda:1" → "cuda")."""
    parts = {
        "paper": paper, "runs": runs, "arm": arm, "seed": seed, "settings": settings, "tuned": tuned,
        "device": str(device).partition(":")[0], "data": data, "source": source,
    }  # fmt: skip
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def source_fingerprint(claim_class: type[Claim]) -> str:
    """SHA-256 over the code that this claim's `load`, `trial` and `batch` can reach.

    Of the claim classes there count the methods and helper attributes of this one and of those it inherits from, but
    not what judges or describes; of precis.lab there counts `lab.trial`.
    """
    return hashlib.sha256(canonical(source_digests(claim_class)).encode()).hexdigest()


def data_fingerprint(value: Any) -> str:
    """SHA-256 of the content of what `load` returned; where it lies in memory, or on which device, does not count.

    A path stands for its bytes, a folder for the names and bytes under it.  TypeError names what cannot be hashed.
    """
    return _content(value, "data").hex()


def _content(value: Any, where: str) -> bytes:
    """One digest a value, made of its kind and its parts' digests, so that no two values run into each other."""
    if value is None or isinstance(value, bool):
        return _of(repr(value))
    if isinstance(value, Enum):
        return _of("enum", type(value).__qualname__.encode(), value.name.encode())
    if _is_a(value, "numpy", "generic") or _is_a(value, "numpy", "ndarray"):
        return _array(value, where)
    if isinstance(value, int):
        return _of("int", str(int(value)).encode())
    if isinstance(value, float):
        return _of("float", b"nan" if math.isnan(value) else float(value).hex().encode())
    if isinstance(value, complex):
        return _of("complex", _content(value.real, where), _content(value.imag, where))
    if isinstance(value, str):
        return _of("str", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes | bytearray):
        return _of("bytes", value)
    if isinstance(value, Path):
        return _path(value)
    if _is_a(value, "torch", "Tensor"):
        return _tensor(value, where)
    return _container(value, where)


def _container(value: Any, where: str) -> bytes:
    if is_dataclass(value) and not isinstance(value, type):
        named = [(f.name, getattr(value, f.name)) for f in fields(value)]
        return _of(type(value).__qualname__, *_named(named, where))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _of(type(value).__qualname__, *_named(zip(value._fields, value), where))
    if isinstance(value, list | tuple | deque):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return _of(kind, *(_content(item, f"{where}[{i}]") for i, item in enumerate(value)))
    if isinstance(value, range):
        return _of("range", *(_content(n, where) for n in (value.start, value.stop, value.step)))
    if isinstance(value, Mapping):
        pairs = [_content(key, f"a key of {where}") + _content(v, f"{where}[{key!r}]") for key, v in value.items()]
        return _of("dict", *sorted(pairs))
    if isinstance(value, set | frozenset):
        return _of("set", *sorted(_content(item, f"an item of {where}") for item in value))
    raise TypeError(f"{where} is a {_type(value)}, whose content cannot be fingerprinted; load may return {_ALLOWED}")


def _named(pairs: Any, where: str) -> Iterator[bytes]:
    for name, value in pairs:
        yield _of(name, _content(value, f"{where}.{name}"))


def _array(value: Any, where: str) -> bytes:
    import numpy as np

    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array: return its data and its mask as two arrays")
    array = np.asarray(value)
    if array.dtype.hasobject:
        return _of("array of objects", repr(array.shape).encode(), _content(array.ravel().tolist(), where))
    if array.dtype.names:  # field by field: the bytes between fields are anybody's
        named = [(name, array[name]) for name in array.dtype.names]
        return _of("structured array", repr(array.shape).encode(), *_named(named, where))
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return _of("array", array.dtype.str.encode(), repr(array.shape).encode(), _bytes_of(array))


def _tensor(value: Any, where: str) -> bytes:
    import torch

    tensor = value.detach()
    if tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        raise TypeError(f"{where} is a quantised, nested or meta tensor: return a dense one")
    kind = f"tensor {tensor.dtype} {tuple(tensor.shape)}"
    if tensor.layout != torch.strided:
        parts: Any = {
            torch.sparse_coo: lambda t: (t.coalesce().indices(), t.coalesce().values()),
            torch.sparse_csr: lambda t: (t.crow_indices(), t.col_indices(), t.values()),
            torch.sparse_csc: lambda t: (t.ccol_indices(), t.row_indices(), t.values()),
            torch.sparse_bsr: lambda t: (t.crow_indices(), t.col_indices(), t.values()),
            torch.sparse_bsc: lambda t: (t.ccol_indices(), t.row_indices(), t.values()),
        }[tensor.layout]
        return _of(f"{tensor.layout} {kind}", *(_tensor(part, where) for part in parts(tensor)))
    dense = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return _of(kind, _bytes_of(dense.view(torch.uint8).numpy()) if dense.numel() else b"")


def _bytes_of(array: Any) -> Any:
    """A contiguous array's bytes, not copied."""
    import numpy as np

    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else b""


def _path(path: Path) -> bytes:
    if path.is_file():
        return _of("file", _file(path))
    if not path.is_dir():
        raise InputError("there is no such file or folder", file=path)
    parts = []
    for file in sorted(files_under(path, set()), key=lambda f: f.relative_to(path).as_posix()):
        parts.append(_of(file.relative_to(path).as_posix(), _file(file)))
    return _of("folder", *parts)


def files_under(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Files, also behind links to folders, but no folder within itself."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from files_under(entry, seen | {real})
        elif entry.is_file():
            yield entry


def _file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def _of(kind: str, *parts: Any) -> bytes:
    digest = hashlib.sha256()
    for part in (kind.encode(), *parts):
        digest.update(memoryview(part).nbytes.to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _is_a(value: Any, module: str, name: str) -> bool:
    """isinstance without importing the module: what it made exists only if it is there."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
