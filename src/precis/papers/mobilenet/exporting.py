"""Programs of the trained net, each loaded back and compared with it on real pictures before it is kept."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from precis.data.program import load_program
from precis.errors import RunFailed
from precis.papers.job import Work
from precis.papers.work import writing
from precis.train.classify import to_input
from precis.vision.mobilenet_export import export

from .latency import milliseconds

CLOSE = 1e-4


def export_all(
    model: nn.Module, program: nn.Module, formats: list[str], images: Tensor, work: Work
) -> dict[str, float | None]:
    """Write model.pt2 and model.onnx of `program` as asked for, which must say what `model` says; times."""
    x = to_input(images)
    with torch.inference_mode():
        wanted = model.eval()(x)
    metrics: dict[str, float | None] = {}
    for kind in formats:
        path = work.folder / f"model.{kind}"
        made: Any = export(program, tuple(x.shape[1:]), format="onnx" if kind == "onnx" else "pt2")
        with writing(path) as beside:
            if kind == "onnx":
                beside.write_bytes(made)
            else:
                with warnings.catch_warnings():  # of groups of weights that share nothing here
                    warnings.simplefilter("ignore")
                    torch.export.save(made, str(beside))
        call = _loaded(path)
        got = torch.cat([call(part) for part in x.split(3)])  # batches of another size than it was exported with
        worst = float((got - wanted).abs().max())
        if not worst <= CLOSE or not torch.equal(got.argmax(1), wanted.argmax(1)):
            path.unlink()
            raise RunFailed(f"{path.name} differs from the trained net by {worst:.2g} on {len(x)} pictures, and was "
                            "deleted")  # fmt: skip
        one = x[:1].contiguous()
        median, late = milliseconds(partial(call, one))
        metrics |= {f"{kind}_milliseconds": median, f"{kind}_milliseconds_90th_percentile": late}
        work.note(f"{path.name} was loaded back and agrees with the trained net on {len(x)} pictures to {worst:.1g}.")
    return metrics


def _loaded(path: Path) -> Callable[[Tensor], Tensor]:
    if path.suffix == ".pt2":
        return load_program(str(path))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])
