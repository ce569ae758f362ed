"""The user's own models and functions, named on the command line.  Nothing is ever unpickled as code.

    pkg.mod:build, file.py:build     a function of the user's: naming it is consent to run it (`Program.note` says so)
    model.pt                         a TorchScript archive, told by its content
    model.pt2                        a program saved by torch.export

Weights for a function's model are safetensors, or a state dict that torch's reader of bare tensors takes
(`weights_only=True`: it builds tensors and containers of them, and calls nothing that the file names).  A file that
pickles a whole module is refused, with the lines that turn it into what can be read.
"""

import hashlib
import importlib
import importlib.util
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from precis.errors import InputError

from .pickled import module_class

PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
WRAPPERS = ("state_dict", "model_state_dict", "model")
WEIGHTS = "model.safetensors"  # what jobs call the weights that they write


@dataclass
class Program:
    """A model that can be called, whatever it was loaded from.

    `batch`: the fixed first size of an exported program's input, else None.  `preprocess`: what the user's function
    gave beside the model, else None.  `note`: a sentence for the report.
    """

    kind: Literal["eager", "script", "export"]
    module: nn.Module
    batch: int | None = None
    preprocess: Callable[..., Any] | None = None
    note: str = ""

    def __call__(self, x: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "b *out"]:
        """The module's output, in pieces of `batch` (the last one filled up, and cut again) where that is fixed.

        Gradients flow.  A scripted module runs unoptimised, since its optimised graph hides its parts.
        """
        with torch.jit.optimized_execution(False) if self.kind == "script" else nullcontext():
            if self.batch is None:
                return tensor_of(self.module(x))
            outputs = []
            for part in x.split(self.batch):
                missing = self.batch - len(part)
                whole = part if not missing else torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
                outputs.append(tensor_of(self.module(whole))[: len(part)])
            return torch.cat(outputs)

    def to(self, device: str | torch.device) -> "Program":
        """Moved in place; returns itself."""
        if self.kind != "export":
            self.module.to(device)
        elif torch.device(device).type != "cpu":
            raise InputError("an exported program stays on the device it was exported for; use --device cpu")
        return self


def load_program(
    spec: str, weights: str | Path | None = None, *, builtin: Callable[[str], nn.Module | None] | None = None
) -> Program:  # fmt: skip
    """The model that `spec` names, in evaluation mode.

    builtin(spec) -> module or None is asked first: the caller's own names.  A function is called without arguments and
    returns a module, or a module and its preprocessing; `weights` go into that module, every key and shape fitting.

    InputError for whatever cannot be found, read, imported, built or filled.
    """
    known = builtin(spec) if builtin is not None else None
    if known is not None:
        return Program("eager", _filled(known, weights).eval())
    path = Path(spec)
    if path.is_file():
        program = _from_file(path)
        if weights is not None:
            raise InputError(f"{path.name} holds its own weights; weights go with a function, file.py:build")
        return program
    build = load_callable(spec)
    made, preprocess = _called(build, spec), None
    if isinstance(made, tuple) and len(made) == 2 and callable(made[1]):
        made, preprocess = made
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec} must return a torch.nn.Module (or one and its preprocessing), got {_kind_of(made)}")
    if any(isinstance(p, UninitializedTensorMixin) for p in (*made.parameters(), *made.buffers())):
        raise InputError(f"{spec} returns lazy layers without shapes yet: call the net once on an example inside it")
    kind: Literal["eager", "script"] = "script" if isinstance(made, torch.jit.ScriptModule) else "eager"
    return Program(kind, _filled(made, weights).eval(), None, preprocess, f"{spec} ran: it is code of your own")


def load_callable(spec: str) -> Callable[..., Any]:
    """The function (or class) that `pkg.mod:name` or `file.py:name` names; its module's code is run.

    Modules are also looked for in the current folder, and beside the file.
    """
    where, _, name = spec.rpartition(":")
    if not where or not name or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{spec!r} names no function: write pkg.module:build or file.py:build, or the path of a file")
    module = _from_source(Path(where)) if where.endswith(".py") else _imported(where, spec)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            there = sorted(n for n, value in vars(module).items() if callable(value) and not n.startswith("_"))
            more = f"; it has {', '.join(there[:6])}" if there else ""
            raise InputError(f"{where} has no {name!r}{more}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{spec} is {_kind_of(found)}, not a function")
    return found  # type: ignore[no-any-return]


def tensor_of(output: Any) -> Tensor:
    """The tensor in what a model returned: itself, `.logits`, a dict's "logits", or a tuple's first item."""
    for candidate in (output, getattr(output, "logits", None)):
        if isinstance(candidate, Tensor):
            return candidate
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]  # type: ignore[no-any-return]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    wanted = "a tensor, .logits, or a tuple that begins with one is wanted"
    raise InputError(f"the model returned {_kind_of(output)}; {wanted}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a file that torch's reader of bare tensors takes."""
    path = Path(path)
    if path.is_dir():
        inside = path / WEIGHTS
        raise InputError(f"is a folder; its weights are {inside}" if inside.is_file() else
                         "is a folder: the file of weights is wanted", file=path)  # fmt: skip
    if not path.is_file():
        raise InputError("there is no such file", file=path)
    if path.suffix.lower() == ".onnx" or _archive(path) == "export":
        beside = path.with_name(WEIGHTS)
        there = f"give {beside}, which lies beside it" if beside.is_file() else f"give those it was made of ({WEIGHTS})"
        raise InputError(f"is an exported program, without weights that could be taken out; {there}", file=path)
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":  # the length of a safetensors header, then its JSON
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"is not a whole safetensors file ({error})", file=path) from None
    refuse_module(path)
    try:
        with warnings.catch_warnings():  # torch warns of a pickle that it then refuses
            warnings.simplefilter("ignore", UserWarning)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file, or one that names code, raises all manner of errors
        raise InputError(
            "is neither safetensors nor a plain state dict of tensors. In the program that made it, save the weights "
            'alone: torch.save(model.state_dict(), "weights.pt")', file=path,
        ) from error  # fmt: skip
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError("holds no state dict: a dict from names to tensors is wanted", file=path)
    return {str(name): value for name, value in found.items()}


def refuse_module(path: Path) -> None:
    """InputError with the two lines to write instead, if the file pickles a whole module; nothing of it is run."""
    if path.suffix == ".py" or _archive(path) is not None or (found := module_class(path)) is None:
        return
    where, name = found
    whole = f'torch.save(torch.load("{path.name}", weights_only=False).state_dict(), "weights.pt")'
    build = f"def build(): from {where} import {name}; return {name}(...)"
    raise InputError(
        f"pickles a whole module ({where}.{name}), which only running code can read. In a program of your own, write "
        f"`{whole}`; in net.py, `{build}`; then net.py:build is the model, and weights.pt its weights", file=path,
    )  # fmt: skip


def _from_file(path: Path) -> Program:
    kind = _archive(path)
    if kind == "script":
        try:
            return Program("script", torch.jit.load(str(path), map_location="cpu").eval())
        except Exception as error:
            raise InputError(f"the TorchScript archive cannot be loaded ({_first_line(error)})", file=path) from error
    if kind == "export":
        return _exported(path)
    if path.suffix == ".py":
        raise InputError(f"name the function too, such as {path}:build", file=path)
    refuse_module(path)
    raise InputError(
        "is no TorchScript archive and no exported program. Weights alone, or a pickled module, need the code that "
        f"builds the model: name its function, and the file as weights (file.py:build, {path.name})", file=path,
    )  # fmt: skip


def _archive(path: Path) -> str | None:
    """"script" or "export", by the members of the archive."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(n == "archive_format" or n.endswith(("/archive_format", "serialized_exported_program.json")) for n in names):
        return "export"
    return "script" if any(n.endswith("/constants.pkl") for n in names) else None


def _exported(path: Path) -> Program:
    try:
        exported = torch.export.load(str(path))
    except Exception as error:
        raise InputError(f"the exported program cannot be loaded ({_first_line(error)})", file=path) from error
    inputs = [node for node in exported.graph.nodes if node.name in exported.graph_signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), Tensor):
        raise InputError(f"takes {len(inputs)} inputs; one tensor is wanted", file=path)
    first = inputs[0].meta["val"].shape[0]
    return Program("export", exported.module(), first if isinstance(first, int) else None)


def _imported(name: str, spec: str) -> Any:
    _findable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            problem = f"there is no module {missing!r} for {spec}: is it installed, or in this folder?"
            raise InputError(problem) from None
        raise InputError(f"{name} needs the module {missing!r}, which is not installed") from error
    except Exception as error:
        raise InputError(f"{name} cannot be imported: {_first_line(error)}") from error


def _from_source(path: Path) -> Any:
    if not path.is_file():
        raise InputError("there is no such file", file=path)
    path = path.resolve()
    name = f"precis_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _findable(path.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise InputError(f"cannot be imported: {_first_line(error)}", file=path, line=line) from error
    return module


def _findable(folder: Path) -> None:
    """Let modules of this folder be imported, after all others."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _called(build: Callable[[], Any], spec: str) -> Any:
    try:
        return build()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec} failed: {_first_line(error)}") from error


def _filled(module: nn.Module, weights: str | Path | None) -> nn.Module:
    """`module` with these weights; the names may carry prefixes that wrappers have put before all of them."""
    if weights is None:
        return module
    given = read_weights(weights)
    wanted = module.state_dict()
    names = _stripped(given, set(wanted))
    missing, unknown = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    for what, keys in (("lacks", missing), ("holds unknown", unknown)):
        if keys:
            raise InputError(f"does not fit the model: {what} {_first_five(keys)}", file=weights)
    other = [f"{name} is {tuple(value.shape)}, the model's {tuple(wanted[name].shape)}"
             for name, value in names.items() if value.shape != wanted[name].shape]  # fmt: skip
    if other:
        raise InputError(f"does not fit the model: {_first_five(other, '; ')}", file=weights)
    module.load_state_dict(names)
    return module


def _first_five(texts: list[str], between: str = ", ") -> str:
    return between.join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def _stripped(given: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The state dict without common prefixes, as far as that brings it closer to the wanted names."""
    best = given
    while set(best) != wanted:
        shorter = [p for p in PREFIXES if all(name.startswith(p) for name in best)]
        if not shorter:
            break
        best = {name.removeprefix(shorter[0]): value for name, value in best.items()}
    return best if len(set(best) & wanted) >= len(set(given) & wanted) else given


def _kind_of(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
