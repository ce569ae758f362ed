"""Convert a user's net: its batch norms become group norms, its weights are written."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from precis.data.program import load_program
from precis.errors import InputError
from precis.nn.norm import BatchNorm, fold_batchnorm
from precis.papers.job import Work
from precis.papers.work import writing
from precis.vision.group_norm import Replacement, check_groups, convert_norms

from .measured import Pictures, answers, compare, read
from .sweep import SLOWER, numbers, tell_slower

ENOUGH = 8  # values of a group, of which a variance can be taken


def run_convert(job: Any, work: Work) -> dict[str, float | None]:
    name = str(job.convert)
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise InputError(f"--convert {name}: the name of a file of the run, such as net.safetensors, is wanted")
    _refuse_files(job.input)
    program = load_program(job.input, job.weights)
    if program.kind != "eager":
        raise InputError("a scripted model has no modules to replace; name the function that builds it: file.py:build")
    model, norms = program.module, [m for m in program.module.modules() if isinstance(m, BatchNorm)]
    if not norms:
        raise InputError(f"the net of {job.input} has no batch norm to convert")
    _check_groups(job, norms)
    work.note(program.note)
    if job.calibrate is None and job.epochs is not None:
        raise InputError("--epochs with --convert fine-tunes on the pictures of --calibrate: name them")
    data = None if job.calibrate is None else read(job, work, program.preprocess, partial(answers, model))
    sizes = _sizes(job, data)
    before, old = (None, None) if data is None else (answers(model, data.held), copy.deepcopy(model))
    foldable = _foldable(model, len(norms))
    bare = any(not norm.affine for norm in norms)
    seen = {} if data is None else _positions(model, data.sample[:2])
    grouping = {"groups": job.groups} if job.groups else {"channels_per_group": job.channels_per_group or ENOUGH}
    model, replaced = convert_norms(model, **grouping, calibrate=None if data is None else data.sample)
    _save(model, work.folder / name)
    table = [{"name": r.name, "channels": r.channels, "groups": r.groups} for r in replaced]
    with writing(work.folder / "conversion.json") as beside:
        beside.write_text(json.dumps({"input": str(job.input), "weights": name, "layers": table}, indent=1))
    work.show("conversion.json")
    into = recipe(grouping, program.preprocess is not None, data, bare)
    work.note(f"Load it into {into} of precis.vision.group_norm.")
    _tell_small(work, replaced, seen)
    work.note(f"{foldable} of the {len(norms)} batch norms could be folded into the layer before them at inference, "
              "for nothing; group norms cannot.")  # fmt: skip
    counts = {"layers": len(replaced), "foldable": foldable, "parameters": sum(p.numel() for p in model.parameters())}
    metrics: dict[str, float | None] = {key: float(value) for key, value in counts.items()}
    if data is None:
        work.note("Without --calibrate the affine parts are only copied: fine-tune before use.")
        return metrics
    assert before is not None and old is not None
    after = answers(model, data.held)
    metrics["same_answer_held_out"] = float((before.argmax(1) == after.argmax(1)).float().mean())
    metrics["relative_change_held_out"] = float((after - before).norm() / before.norm())
    metrics[SLOWER] = tell_slower(work, model, fold_batchnorm(old), data.held[:32])
    if data.y is not None:
        stem = name.removesuffix(".safetensors")
        save = lambda net, size: _save(net, work.folder / f"{stem}-batch{size}.safetensors")
        metrics = compare(job, work, old, model, data, sizes, save) | metrics
    return metrics


def _check_groups(job: Any, norms: list[Any]) -> None:
    if job.groups is None:
        return
    for norm in norms:
        try:
            check_groups(norm.num_features, job.groups)
        except ValueError as error:
            raise InputError(f"--groups {job.groups}: {error}; without it each layer gets its own") from None


def _sizes(job: Any, data: Pictures | None) -> list[int]:
    """Batch sizes to fine-tune at; none without --epochs."""
    if job.epochs is None or data is None:
        return []
    if data.y is None:
        raise InputError("--epochs with --convert fine-tunes on classes that the net's outputs are for; these pictures "
                         "have none such", file=job.calibrate)  # fmt: skip
    sizes = numbers("--batch-sizes", job.batch_sizes)
    if sizes[0] < 2:
        raise InputError("--batch-sizes: batch norm cannot be tuned one picture at a time; 2 is the least")
    if sizes[-1] > len(data.x):
        raise InputError(f"--batch-sizes: {len(data.x)} pictures to tune on are fewer than a batch of {sizes[-1]}")
    return sizes


def recipe(grouping: dict[str, int], pair: bool, data: Pictures | None, bare: bool) -> str:
    """The expression that makes a net which the written weights fit.

    A norm without γ and β is given them by calibration only, so a net with such ones has to go through it as well.
    """
    words = ", ".join(f"{key}={value}" for key, value in grouping.items())
    if data is not None and bare:
        words += f", calibrate=torch.rand({', '.join(map(str, (2, *data.x.shape[1:])))})"
    return f"convert_norms(build(){'[0]' if pair else ''}, {words})[0]"


@torch.no_grad()
def _positions(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Positions of the map that each batch norm is given, by its name."""
    found: dict[str, int] = {}
    hooks = [
        norm.register_forward_pre_hook(
            lambda _, given, name=name: found.__setitem__(name, given[0][0, 0].numel())
        )
        for name, norm in model.named_modules(remove_duplicate=False) if isinstance(norm, BatchNorm)
    ]  # fmt: skip
    try:
        model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _tell_small(work: Work, replaced: list[Replacement], positions: dict[str, int]) -> None:
    """A note where groups have fewer than eight values; without pictures maps are taken to be of one position."""
    values = {r.name: r.channels // r.groups * positions.get(r.name, 1) for r in replaced}
    small = [name for name, n in values.items() if n < ENOUGH]
    if small:
        where = "" if positions else " if its map has one position (--calibrate tells)"
        work.note(f"{len(small)} of {len(replaced)} layers have groups of fewer than {ENOUGH} values, such as "
                  f"{small[0]} with {values[small[0]]}{where}: too few for a variance; --channels-per-group {ENOUGH} "
                  "gives more.")  # fmt: skip


def _refuse_files(given: str) -> None:
    if given.endswith(".pt2") and Path(given).is_file():
        raise InputError(
            "an exported program has no Python modules left whose layers could be replaced: name the function that "
            "builds the net, file.py:build, and its --weights", file=given,
        )  # fmt: skip


def _foldable(model: nn.Module, total: int) -> int:
    left = sum(isinstance(m, BatchNorm) for m in fold_batchnorm(model).modules())
    return total - left


def _save(model: nn.Module, path: Path) -> None:
    """The state dict as plain safetensors; a tensor with several names is written under each."""
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    with writing(path) as beside:
        save_file(state, beside)
