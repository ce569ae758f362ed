"""The three ways in which a command ends early, and the question whether an extra is installed.

InputError → exit code 2, RunFailed → 1, Stopped → 130.  Anything else that is raised is a bug.
"""

from importlib.util import find_spec
from pathlib import Path

EXTRAS: dict[str, tuple[str, ...]] = {
    "graphs": ("torch_geometric", "rdkit"),
    "sat": ("pysat",),
    "rl": ("gymnasium", "mujoco", "minari", "h5py", "minigrid"),
    "atari": ("ale_py",),
    "diplomacy": ("diplomacy",),
    "text": ("tokenizers",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "cluster": ("ray",),
}
_PIP = {"pysat": "python-sat", "ale_py": "ale-py"}  # where pip's name is another than that of the import


class InputError(Exception):
    """What the user gave is wrong: says what, where (file, line or row), and what would be right.

    `str(error)` is one line; `file`, `line` (counted from 1) and `row` (counted from 1, without the header) are
    kept apart for the site.
    """

    def __init__(
        self, message: str, *, file: str | Path | None = None, line: int | None = None, row: int | None = None
    ) -> None:
        self.message, self.file, self.line, self.row = message, file, line, row
        where = "" if file is None else str(file)
        if line is not None:
            where += f":{line}" if where else f"line {line}"
        if row is not None:
            where += f", row {row}" if where else f"row {row}"
        super().__init__(" ".join(f"{where}: {message}".split() if where else message.split()))

    def __reduce__(self) -> tuple[object, ...]:
        return _input_error, (self.message, self.file, self.line, self.row)


def _input_error(message: str, file: str | Path | None, line: int | None, row: int | None) -> InputError:
    return InputError(message, file=file, line=line, row=row)


class RunFailed(Exception):
    """The work could not be completed (diverged, out of memory, disk full); what was finished is kept."""


class Stopped(Exception):
    """The user asked to stop; raised out of `Work.log` so that a loop can leave a checkpoint."""


def need(extra: str) -> None:
    """Raise InputError with the install line if a module of that extra is missing."""
    names = [_PIP.get(module, module) for module in missing(extra)]
    if names:
        are = "is" if len(names) == 1 else "are"
        raise InputError(f"this needs {', '.join(names)}, which {are} not installed: {install_line(extra)}")


def missing(extra: str) -> list[str]:
    """The modules of that extra which are not installed."""
    return [module for module in EXTRAS[extra] if find_spec(module) is None]


def install_line(extra: str) -> str:
    """What installs them: their own names, since the extras of precis are at hand in a clone of it alone."""
    return " ".join(["pip install", *(_PIP.get(module, module) for module in missing(extra))])
