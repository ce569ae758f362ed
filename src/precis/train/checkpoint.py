"""Models and training states on disk, as safetensors and JSON.  Nothing is ever pickled or unpickled.

A model is a pair of files: `model.safetensors`, its state dict, and `config.json`, which says how to build it:

    {"component": "precis.fields.siren:Siren", "arguments": {"in_dim": 2, …}, "versions": {…}}

A training state is one safetensors file: any nest of dicts, lists and tuples of tensors, numbers and strings; the nest
is kept as JSON in the file's metadata.
"""

import importlib
import json
import os
import sys
import typing
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from precis.errors import InputError, RunFailed


def save_model(
    folder: str | Path,
    module: nn.Module,
    config: Mapping[str, Any],
    *,
    name: str = "model",
    component: str | None = None,
) -> None:
    """Write `module` into `folder`; `config` holds the arguments that build it again.

    `component` ("package.module:name") is the module's class, or a function that returns an `nn.Module` and says so in
    its annotation.  With another `name` than "model" the files are NAME.safetensors and NAME.json.
    """
    folder = Path(folder)
    component = component or f"{type(module).__module__}:{type(module).__qualname__}"
    described = {"component": component, "arguments": dict(config), "versions": _versions()}
    try:
        text = json.dumps(described, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of {component} must be JSON values: {error}") from None
    _resolve(component, "component")
    state = module.state_dict()
    tensors = {key: state[key].detach().cpu().contiguous().clone() for key in _owners(state)}
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / f"{name}.safetensors", tensors, {"format": "pt"})
    _write(folder / _config_name(name), lambda path: path.write_text(text))


def load_model(folder: str | Path, *, name: str = "model", device: str | torch.device = "cpu") -> nn.Module:
    """Build the model that `save_model` wrote, in evaluation mode.

    Raises InputError where a file is missing or damaged, names a component outside precis and the packages registered
    as papers, or does not fit it.
    """
    config_path, path = Path(folder) / _config_name(name), Path(folder) / f"{name}.safetensors"
    try:
        config = json.loads(config_path.read_text())
        component, arguments = config["component"], dict(config["arguments"])
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); a model is a folder with it and {path.name}"
        raise InputError(problem, file=config_path) from None
    except (ValueError, KeyError, TypeError):
        problem = 'does not describe a model: {"component": "package.module:name", "arguments": {…}}'
        raise InputError(problem, file=config_path) from None
    build = _resolve(component, config_path)
    tensors, _ = _read_tensors(path)
    try:
        with torch.random.fork_rng(devices=[]):  # the weights that building draws are replaced
            module = build(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{component} cannot be built from these arguments: {error}", file=config_path) from None
    _fill(module, tensors, path)
    return module.to(device).eval()


def save_state(path: str | Path, state: Any) -> None:
    """Write a nest of dicts, lists, tuples, tensors, numbers, strings and None, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, tensors)
    _write_tensors(Path(path), tensors, {"state": json.dumps(tree)})


def load_state(path: str | Path) -> Any:
    """What `save_state` wrote, tensors on the CPU.  Raises InputError for a missing, damaged or foreign file."""
    tensors, metadata = _read_tensors(Path(path))
    try:
        return _unpack(json.loads(metadata["state"]), tensors)
    except (KeyError, ValueError, TypeError):
        raise InputError("is not a training state of precis", file=path) from None


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    state = module.state_dict()
    expected = set(_owners(state))
    missing = sorted(expected - set(tensors))
    unknown = sorted(set(tensors) - set(state))
    for what, keys in (("lacks", missing), ("holds unknown", unknown)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise InputError(f"does not fit the model: {what} {', '.join(keys[:3])}{more}", file=path)
    holders = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for key, tensor in tensors.items():
        if tensor.shape != state[key].shape:
            shapes = f"{key} is {tuple(tensor.shape)}, expected {tuple(state[key].shape)}"
            raise InputError(f"does not fit the model: {shapes}", file=path)
        holders[key].data = tensor.clone()


def _owners(state: Mapping[str, Tensor]) -> list[str]:
    """The names of a state dict without those that share another's tensor (tied weights)."""
    seen: dict[Any, str] = {}
    for key, tensor in state.items():
        seen.setdefault(_place(tensor, key), key)
    return list(seen.values())


def _place(tensor: Tensor, key: str) -> Any:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else key


def _config_name(name: str) -> str:
    return "config.json" if name == "model" else f"{name}.json"


def _versions() -> dict[str, str]:
    try:
        own = version("precis-papers")
    except PackageNotFoundError:  # run from its sources
        own = "0"
    return {"precis": own, "torch": torch.__version__, "python": sys.version.split()[0]}


def _resolve(component: Any, where: str | Path) -> Any:
    """The class or function that "package.module:name" names, if it is one of ours to call."""
    module_name, _, attribute = str(component).partition(":")
    if not attribute.isidentifier() or not _ours(module_name):
        raise InputError(
            f"component {component!r} must be package.module:name inside precis or a package registered as a paper",
            file=where,
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError):
        raise InputError(f"component {component!r} does not exist in this installation", file=where) from None
    builds = isinstance(found, type) and issubclass(found, nn.Module)
    if not builds and callable(found) and not isinstance(found, type):
        returned = typing.get_type_hints(found).get("return")
        builds = isinstance(returned, type) and issubclass(returned, nn.Module)
    if not builds or not _ours(str(getattr(found, "__module__", ""))):
        raise InputError(f"component {component!r} is no module of precis and builds none", file=where)
    return found


def _ours(module: str) -> bool:
    if module.split(".")[0].startswith("precis_paper_"):
        return module.split(".")[0] in sys.modules  # a folder of the user's, opened already
    registered = (entry.value.split(":")[0] for entry in entry_points(group="precis.papers"))
    return any(module == package or module.startswith(package + ".") for package in ("precis", *registered))


def _write(path: Path, write: Any) -> None:
    """Write beside `path` and rename, so that the file is whole or absent.  RunFailed if the disk does not take it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"cannot write {path}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    _write(path, lambda beside: save_file(tensors, beside, metadata=metadata))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"is not a whole safetensors file ({error})", file=path) from None


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__ if type(value) in (list, tuple) else "list": [_pack(v, tensors) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a training state cannot hold a {type(value).__name__}")


def _unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in value}
    return {"list": list, "tuple": tuple}[kind](_unpack(v, tensors) for v in value)
