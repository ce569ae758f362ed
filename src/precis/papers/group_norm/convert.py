"""Convert a user's net: its batch norms become group norms, its weights are written."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from precis.data.imageset import ImageSet
from precis.data.program import load_program, tensor_of
from precis.errors import InputError
from precis.nn.norm import BatchNorm, fold_batchnorm
from precis.papers.job import Work
from precis.papers.work import writing
from precis.vision.group_norm import check_groups, convert_norms

PICTURES = 256


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
    if job.groups is not None:
        for norm in norms:
            try:
                check_groups(norm.num_features, job.groups)
            except ValueError as error:
                raise InputError(f"--groups {job.groups}: {error}; without it each layer gets its own") from None
    work.note(program.note)
    x = None if job.calibrate is None else _pictures(job, program)
    before, old = (None, None) if x is None else (_evaluate(model, x), copy.deepcopy(model))
    foldable = _foldable(model, len(norms))
    model, replaced = convert_norms(model, groups=job.groups or 32, calibrate=x)
    _save(model, work.folder / name)
    table = [{"name": r.name, "channels": r.channels, "groups": r.groups} for r in replaced]
    with writing(work.folder / "conversion.json") as beside:
        beside.write_text(json.dumps({"input": str(job.input), "weights": name, "layers": table}, indent=1))
    work.show("conversion.json")
    work.note(f"Load it into convert_norms(build(), groups={job.groups or 32})[0] of precis.vision.group_norm.")
    work.note(f"{foldable} of the {len(norms)} batch norms could be folded into the layer before them at inference, "
              "for nothing; group norms cannot.")  # fmt: skip
    sizes = {"layers": len(replaced), "foldable": foldable, "parameters": sum(p.numel() for p in model.parameters())}
    metrics: dict[str, float | None] = {key: float(value) for key, value in sizes.items()}
    if x is None:
        work.note("Without --calibrate the affine parts are only copied: fine-tune before use.")
        return metrics
    assert before is not None and old is not None
    after = _evaluate(model, x)
    metrics["same_answer"] = float((before.argmax(1) == after.argmax(1)).float().mean())
    metrics["relative_change"] = float((after - before).norm() / before.norm())
    metrics["gn_over_folded_bn_time"] = _slower(model, fold_batchnorm(old), x[:32])
    return metrics


def _refuse_files(given: str) -> None:
    if given.endswith(".pt2") and Path(given).is_file():
        raise InputError(
            "an exported program has no Python modules left whose layers could be replaced: name the function that "
            "builds the net, file.py:build, and its --weights", file=given,
        )  # fmt: skip


def _pictures(job: Any, program: Any) -> Tensor:
    """Up to 256 pictures as the net takes them."""
    size = job.size or 32
    found = ImageSet.open(job.calibrate, size, keep_going=job.keep_going, background=job.background)
    step = max(1, len(found) // PICTURES)
    x = torch.from_numpy(found.images[::step][:PICTURES]).float() / 255
    if len(x) < 2:
        raise InputError("at least two pictures are wanted to calibrate on", file=job.calibrate)
    return x if program.preprocess is None else program.preprocess(x)


@torch.no_grad()
def _evaluate(model: nn.Module, x: Tensor) -> Tensor:
    try:
        return tensor_of(model.eval()(x)).flatten(1).float()
    except (RuntimeError, ValueError) as error:  # torch says a shape mismatch in either way
        first = str(error).strip().splitlines()[0][:160]
        raise InputError(f"the net takes no pictures {list(x.shape[1:])} ({first}); --size N gives others") from error


def _foldable(model: nn.Module, total: int) -> int:
    left = sum(isinstance(m, BatchNorm) for m in fold_batchnorm(model).modules())
    return total - left


@torch.no_grad()
def _slower(group: nn.Module, folded: nn.Module, x: Tensor) -> float:
    from precis.lab.timing import interleaved

    timed = interleaved({"group": lambda: group(x), "batch": lambda: folded(x)}, repeats=7, warmup=1)
    return timed.medians["group"] / timed.medians["batch"]


def _save(model: nn.Module, path: Path) -> None:
    """The state dict as plain safetensors; a tensor with several names is written under each."""
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    with writing(path) as beside:
        save_file(state, beside)
