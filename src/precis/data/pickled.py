"""Which module a pickle holds, read off its opcodes: nothing is unpickled, no code of the file runs."""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

PLAIN = ("collections", "torch", "torch._utils", "torch.storage", "torch.serialization", "builtins", "__builtin__")
MOST = 2000  # opcodes a pickle,
LENGTH = 4 << 20  # bytes, and
PICKLES = 5  # pickles a file: torch's files of before 2020 hold three short ones in front


def module_class(path: Path) -> tuple[str, str] | None:
    """Where the class of the first pickled `nn.Module` stands, and its name; None where there is none.

    Such a module is told by what its class is followed by: the name of its dict of parameters.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                if inside is None:
                    return None
                with archive.open(inside) as packed:  # whatever it would unpack to
                    return _first(io.BytesIO(packed.read(LENGTH)))
        with path.open("rb") as file:
            for _ in range(PICKLES):
                if found := _first(file):
                    return found
    except Exception:  # a damaged pickle raises all manner of errors
        return None
    return None


def _first(file: Any) -> tuple[str, str] | None:
    words, found = [""], None
    for n, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if n >= MOST:
            return None
        if argument == "_parameters" and found is not None:
            return found
        if isinstance(argument, str):
            words += argument.split(" ") if opcode.name == "GLOBAL" else [argument]
        if opcode.name in ("GLOBAL", "STACK_GLOBAL") and words[-2] not in PLAIN:
            found = words[-2], words[-1]
    return None
